package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"crdt-genome/store"
)

// What the shell proposes when Tab is pressed. It looks at the flags typed so
// far and at the data folder; it never asks a server, which could make the
// shell hang.

const completionLong = `Prints a script that teaches a shell to complete the commands and flags of
crdt-genome, the numbers of actors, logs, the servers that run here, and faults.`

const completionExample = `  source <(crdt-genome completion bash)                                     this shell only; needs bash-completion
  crdt-genome completion bash > ~/.local/share/bash-completion/completions/crdt-genome
  crdt-genome completion zsh > "${fpath[1]}/_crdt-genome"                   needs: autoload -U compinit; compinit
  crdt-genome completion fish > ~/.config/fish/completions/crdt-genome.fish
  crdt-genome completion powershell | Out-String | Invoke-Expression`

// maxProposed is the number of actors that are proposed: more are not read.
const maxProposed = 64

type completer = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective)

// addCompletions registers what can stand after each flag and command.
func addCompletions(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	if c, _, err := root.Find([]string{"completion"}); err == nil && c != root {
		c.Long, c.Example = completionLong, completionExample
	}
	byName := map[string]completer{
		"color":        words("auto", "always", "never"),
		"log-level":    words("trace", "debug", "info", "warn", "error"),
		"log-format":   words("auto", "console", "json"),
		"kind":         words("insert", "delete"),
		"format":       words("ndjson", "csv", "hex", "bolt"),
		"fanout":       words("auto", "all", "6"),
		"base":         words("8000", "9000", "0"),
		"actor":        completeActors,
		"author":       completeActors,
		"actors":       completeActorSet,
		"faults":       completeFaults,
		"server":       completeServers,
		"peers":        completeServers,
		"data":         folders,
		"evidence":     folders,
		"traces":       folders,
		"listen":       words("127.0.0.1:8000", "0.0.0.0:8000"),
		"join":         words("127.0.0.1:7946"),
		"mutate-min":   completeDurations,
		"mutate-max":   completeDurations,
		"cluster":      words("crdt-genome"),
		"bus":          words("nats://127.0.0.1:4222"),
		"bus-replicas": words("1", "3"),
	}
	byCommand := map[string]completer{"status": completeServers, "top": completeServers, "members": completeServers, "compare": completeLogs,
		"inspect-log": completeLogs, "stats": completeLogs, "verify": completeLogs, "at": completeLogs, "export": completeLogs}
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		if f := byCommand[cmd.Name()]; f != nil {
			cmd.ValidArgsFunction = f
		} else if cmd.ValidArgsFunction == nil && len(cmd.ValidArgs) == 0 && !cmd.HasSubCommands() {
			cmd.ValidArgsFunction = cobra.NoFileCompletions
		}
		register := func(f *pflag.Flag) {
			complete := byName[f.Name]
			switch {
			case complete != nil:
			case f.Value.Type() == "duration":
				complete = completeDurations
			case f.Value.Type() != "string" && f.Value.Type() != "stringArray":
				complete = cobra.NoFileCompletions
			default:
				return // a file, most likely
			}
			_ = cmd.RegisterFlagCompletionFunc(f.Name, complete) // once for each flag
		}
		cmd.LocalNonPersistentFlags().VisitAll(register)
		cmd.PersistentFlags().VisitAll(register)
		for _, c := range cmd.Commands() {
			visit(c)
		}
	}
	visit(root)
}

func words(all ...string) completer {
	return cobra.FixedCompletions(all, cobra.ShellCompDirectiveNoFileComp)
}

func folders(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

func completeDurations(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	if number := strings.TrimRight(typed, "msh"); number != "" && strings.Trim(number, "0123456789") == "" {
		return []string{number + "ms", number + "s", number + "m"}, cobra.ShellCompDirectiveNoFileComp
	}
	return []string{"200ms", "5s", "1m"}, cobra.ShellCompDirectiveNoFileComp
}

// dataOf is the folder whose logs a command line is about.
func dataOf(cmd *cobra.Command, args []string) string {
	if f := cmd.Flags().Lookup("data"); f != nil {
		return f.Value.String()
	}
	if len(args) > 0 && exists(args[0]) {
		return args[0]
	}
	return defaultData
}

// actorFolders returns the folders of actors below one, or that one.
func actorFolders(data string) []string {
	paths, err := store.Find(data)
	if err != nil {
		return nil
	}
	var out []string
	for _, p := range paths[:min(len(paths), maxProposed)] {
		out = append(out, filepath.Dir(p))
	}
	return out
}

// actorNumbers returns who may be meant: those below --count, or else those
// that have a log.
func actorNumbers(cmd *cobra.Command, args []string) (actors []int) {
	if f := cmd.Flags().Lookup("count"); f != nil {
		if count, err := strconv.Atoi(f.Value.String()); err == nil && count > 0 {
			for i := range min(count, maxProposed) {
				actors = append(actors, i)
			}
			return actors
		}
	}
	for _, dir := range actorFolders(dataOf(cmd, args)) {
		if n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), "actor-")); err == nil {
			actors = append(actors, n)
		}
	}
	slices.Sort(actors)
	return slices.Compact(actors)
}

func completeActors(cmd *cobra.Command, args []string, typed string) (out []string, _ cobra.ShellCompDirective) {
	done := typed[:strings.LastIndexByte(typed, ',')+1] // a list goes on
	for _, n := range actorNumbers(cmd, args) {
		out = append(out, fmt.Sprintf("%s%d", done, n))
	}
	return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

func completeActorSet(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if n := actorNumbers(cmd, args); len(n) > 1 && typed == "" {
		return []string{fmt.Sprintf("%d-%d", n[0], n[len(n)-1])}, cobra.ShellCompDirectiveNoFileComp
	}
	return completeActors(cmd, args, typed)
}

// completeServers proposes the servers that hold the logs of the data folder.
func completeServers(cmd *cobra.Command, args []string, _ string) (out []string, _ cobra.ShellCompDirective) {
	for _, dir := range actorFolders(dataOf(cmd, nil)) {
		if l, err := store.ReadLock(dir); err == nil && isURL(l.Addr) {
			out = append(out, fmt.Sprintf("%s\t%s, pid %d", l.Addr, filepath.Base(dir), l.PID))
		}
	}
	if len(out) == 0 {
		out = []string{defaultServer}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// completeLogs proposes logs and servers; what is typed as a path goes on as
// the shell's own completion of files.
func completeLogs(cmd *cobra.Command, args []string, typed string) (out []string, _ cobra.ShellCompDirective) {
	if strings.HasPrefix(typed, "http") {
		return completeServers(cmd, args, typed)
	}
	for _, dir := range actorFolders(defaultData) {
		out = append(out, "./"+dir)
	}
	if len(out) > 1 {
		out = append([]string{defaultData}, out...)
	}
	return out, cobra.ShellCompDirectiveDefault
}

// completeFaults goes on with the last step of --faults, word by word.
func completeFaults(cmd *cobra.Command, args []string, typed string) (out []string, _ cobra.ShellCompDirective) {
	start := strings.LastIndexByte(typed, ';') + 1
	start += len(typed[start:]) - len(strings.TrimLeft(typed[start:], " "))
	step := typed[start:]
	space := strings.LastIndexByte(step, ' ') + 1
	done := strings.Fields(step[:space])
	propose := func(words ...string) {
		for _, w := range words {
			out = append(out, typed[:start+space]+w)
		}
	}
	switch len(done) {
	case 0:
		propose("kill", "pause", "cut")
	case 1:
		n := actorNumbers(cmd, args)
		for i, actor := range n {
			switch {
			case done[0] != "cut":
				propose(strconv.Itoa(actor))
			case i > 0:
				propose(numbers(n[:i]) + "|" + numbers(n[i:]))
			}
		}
	case 2:
		propose("at")
	case 3:
		propose("5s", "10s", "20s")
	case 4:
		propose("for")
	case 5:
		propose("5s", "10s")
	}
	return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

func numbers(actors []int) string {
	var out []string
	for _, n := range actors {
		out = append(out, strconv.Itoa(n))
	}
	return strings.Join(out, ",")
}

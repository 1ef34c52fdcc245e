package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"crdt-genome/httpapi/trust"
)

// version is that of the program; builds of a release set it with -ldflags.
var version = "0.1.0"

// revision names the commit that the binary was built from, if Go knew it.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}

// An app is what all commands share: where they write, and the global flags.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            func(string) (string, bool)
	args           []string

	opts struct {
		json, quiet                bool
		color, logLevel, logFormat string
		timeout                    time.Duration
		trust                      trust.Files
	}
	trust *trust.Trust // what opts.trust says; nil: nothing
}

const rootLong = `crdt-genome runs actors that edit one genome together: a list of bytes that
always ends up the same on every actor, whatever is lost, repeated or restarted.

Called with --actor, --count and --base and no command, it serves one actor.
Every flag --some-flag can also be given as CRDT_GENOME_SOME_FLAG.

Exit codes: 0 fine or converged, 1 the answer is no (diverged, damaged),
2 undecided (behind, unreachable), 3 log locked, 4 log corrupt, 5 log newer,
6 disk full or not writable, 7 cannot listen, 8 server unreachable,
9 belongs to someone else, 64 usage, 70 internal.`

func newRootCmd(a *app) *cobra.Command {
	var serve serveOptions
	var showVersion bool
	root := &cobra.Command{
		Use:   "crdt-genome",
		Short: "A replicated list of genes on persistent actors",
		Long:  rootLong,
		Example: `  crdt-genome run --count 3                      three actors on this machine
  crdt-genome --actor 0 --count 3 --base 8000    one actor, the short way
  crdt-genome compare http://127.0.0.1:8000 http://127.0.0.1:8001`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return nil
		},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.applyEnv(cmd); err != nil {
				return err
			}
			if err := a.checkGlobals(); err != nil {
				return err
			}
			return a.loadTrust()
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if showVersion {
				return a.printVersion()
			}
			if !anyChanged(cmd, "actor", "actors", "count", "base", "listen", "peers", "join", "member-listen", "data") {
				return cmd.Help()
			}
			return a.serve(cmd.Context(), serve.given(a, cmd.Flags()))
		},
	}
	serve.addFlags(root.Flags())
	root.Flags().BoolVarP(&showVersion, "version", "V", false, "print the version")
	a.addGlobalFlags(root.PersistentFlags())
	root.SetFlagErrorFunc(a.flagError)
	root.SuggestionsMinimumDistance = 2

	root.AddGroup(&cobra.Group{ID: "run", Title: "Run actors"}, &cobra.Group{ID: "look", Title: "Look"}, &cobra.Group{ID: "measure", Title: "Measure"}, &cobra.Group{ID: "other", Title: "Other"})
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("run", newServeCmd(a), newRunCmd(a))
	add("look", newStatusCmd(a), newMembersCmd(a), newTopCmd(a), newCompareCmd(a), newInspectLogCmd(a))
	add("measure", newBenchCmd(a))
	add("other", newKeyCmd(a), newVersionCmd(a))
	root.SetHelpCommandGroupID("other")
	root.SetCompletionCommandGroupID("other")
	addCompletions(root)
	strictOthers(root)
	return root
}

func (a *app) addGlobalFlags(f *pflag.FlagSet) {
	f.BoolVar(&a.opts.json, "json", false, "print JSON: one object, or one per line; errors too")
	f.StringVar(&a.opts.color, "color", "auto", "auto, always or never")
	f.BoolVarP(&a.opts.quiet, "quiet", "q", false, "no banner, notes or progress")
	f.DurationVar(&a.opts.timeout, "timeout", 5*time.Second, "how long to wait for a server's answer")
	f.StringVar(&a.opts.logLevel, "log-level", "info", "trace, debug, info, warn or error")
	addTrustFlags(f, &a.opts.trust)
	f.StringVar(&a.opts.logFormat, "log-format", "auto", "auto, console or json; auto is console on a terminal")
}

func (a *app) checkGlobals() error {
	if err := oneOf("--color", a.opts.color, "auto", "always", "never"); err != nil {
		return err
	}
	if err := oneOf("--log-format", a.opts.logFormat, "auto", "console", "json"); err != nil {
		return err
	}
	if a.opts.timeout <= 0 {
		return usageError("", "--timeout %v: must be above 0", a.opts.timeout)
	}
	return oneOf("--log-level", a.opts.logLevel, "trace", "debug", "info", "warn", "error")
}

func oneOf(flag, value string, allowed ...string) error {
	for _, v := range allowed {
		if v == value {
			return nil
		}
	}
	return usageError("", "%s %s: must be %s or %s", flag, value, strings.Join(allowed[:len(allowed)-1], ", "), allowed[len(allowed)-1])
}

func anyChanged(cmd *cobra.Command, names ...string) bool {
	for _, n := range names {
		if cmd.Flags().Changed(n) {
			return true
		}
	}
	return false
}

// strictOthers makes wrong usage of cobra's own commands, help and completion,
// an error as it is for ours.
func strictOthers(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			show := c.Run
			c.Run = nil
			c.RunE = func(cmd *cobra.Command, args []string) error {
				if at, rest, err := root.Find(args); err != nil || len(rest) > 0 {
					if len(rest) == 0 {
						rest = args
					}
					return unknownCommand(cmp.Or(at, root), rest[0])
				}
				show(cmd, args)
				return nil
			}
		case "completion":
			c.Args = nil
			c.RunE = func(cmd *cobra.Command, args []string) error {
				if len(args) > 0 {
					return unknownCommand(cmd, args[0])
				}
				return cmd.Help()
			}
			for _, shell := range c.Commands() {
				shell.Args = wantArgs(0, 0, "no argument")
			}
		}
	}
}

// unknownCommand is what cobra would say, as a usage error of ours.
func unknownCommand(cmd *cobra.Command, name string) error {
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	if near := closest(name, names); near != "" {
		return usageError("", "unknown command %q; did you mean %s?", name, near)
	}
	return usageError(cmd.CommandPath()+" --help lists the commands", "unknown command %q", name)
}

// flagError names the flag that was probably meant: cobra does so for commands
// only. A mistyped command followed by its flags arrives here first.
func (a *app) flagError(cmd *cobra.Command, err error) error {
	if !cmd.HasParent() && len(a.args) > 0 && !strings.HasPrefix(a.args[0], "-") {
		return unknownCommand(cmd, a.args[0])
	}
	hint := cmd.CommandPath() + " --help lists the flags"
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				names = append(names, f.Name)
			}
		})
		if e.GetSpecifiedShortnames() != "" {
			return usageError(hint, "unknown flag -%s", e.GetSpecifiedName())
		}
		if near := closest(e.GetSpecifiedName(), names); near != "" {
			return usageError("", "unknown flag --%s; did you mean --%s?", e.GetSpecifiedName(), near)
		}
		return usageError(hint, "unknown flag --%s", e.GetSpecifiedName())
	}
	if e, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return usageError("", "--%s %s: %s", e.GetFlag().Name, e.GetValue(), notA(e.GetFlag().Value.Type(), e.Unwrap()))
	}
	return usageError(hint, "%v", err)
}

// wantArgs checks the number of arguments; most < 0: no limit.
func wantArgs(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least {
			return usageError(exampleOf(cmd), "%s needs %s", cmd.CommandPath(), what)
		}
		if most >= 0 && len(args) > most {
			return usageError(exampleOf(cmd), "%s takes %s, not %q", cmd.CommandPath(), what, args[most])
		}
		return nil
	}
}

// exampleOf returns the first example of a command, as a hint.
func exampleOf(cmd *cobra.Command) string {
	line, _, _ := strings.Cut(strings.TrimSpace(cmd.Example), "\n")
	if line == "" {
		return ""
	}
	return "for example: " + strings.TrimSpace(line)
}

// logger returns the log that goes to stderr.
func (a *app) logger() zerolog.Logger {
	zerolog.TimeFieldFormat = "2006-01-02T15:04:05.000Z07:00"
	zerolog.TimestampFunc = func() time.Time { return time.Now().UTC() }
	level, err := zerolog.ParseLevel(a.opts.logLevel)
	if err != nil {
		level = zerolog.InfoLevel // checkGlobals has refused others
	}
	zerolog.SetGlobalLevel(level) // PUT /v1/log-level changes it
	var out io.Writer = a.stderr
	if a.opts.logFormat == "console" || a.opts.logFormat == "auto" && a.isTerminal(a.stderr) {
		out = zerolog.ConsoleWriter{Out: a.stderr, NoColor: !a.colored(a.stderr), TimeFormat: "15:04:05.000", TimeLocation: time.Local}
	}
	return zerolog.New(out).With().Timestamp().Logger()
}

// defaultData is where logs are if nothing else is said.
const defaultData = "./genome-data"

// dataFlag adds --data. Its default is not a hidden folder: what a folder
// shows, a person can delete.
func dataFlag(f *pflag.FlagSet, data *string) {
	f.StringVar(data, "data", defaultData, "folder of the logs; $STATE_DIRECTORY if that is set")
}

// stateDirectory replaces the default of --data by the folder that a service
// manager has made for us.
func (a *app) stateDirectory(f *pflag.FlagSet, data *string) {
	if dir, _ := a.env("STATE_DIRECTORY"); dir != "" && !f.Changed("data") {
		*data = dir
	}
}

func (a *app) printVersion() error {
	if a.opts.json {
		return a.printJSON(versionInfo())
	}
	_, err := fmt.Fprintln(a.stdout, "crdt-genome", version)
	return err
}

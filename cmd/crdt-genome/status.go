package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"crdt-genome/genome"
	"crdt-genome/httpapi"
)

const defaultServer = "http://127.0.0.1:8000"

func newStatusCmd(a *app) *cobra.Command {
	var server string
	cmd := &cobra.Command{
		Use:   "status [SERVER]",
		Short: "One table: every actor, what it lacks, its digest",
		Long: `Asks one server how it sees itself and all others. The last line is the verdict,
and so is the exit code: 0 all equal, 1 diverged, 2 behind or unreachable.`,
		Example: `  crdt-genome status
  crdt-genome status http://127.0.0.1:8002
  crdt-genome status --server http://127.0.0.1:8002 --json`,
		Args: wantArgs(0, 1, "at most one server"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				server = args[0]
			}
			return a.status(cmd.Context(), a.serverURL(server))
		},
	}
	cmd.Flags().StringVar(&server, "server", defaultServer, "URL of any one actor")
	return cmd
}

func (a *app) status(ctx context.Context, url string) error {
	if !isURL(url) {
		return usageError("", "%s is not the URL of a server", url)
	}
	ctx, cancel := context.WithTimeout(ctx, a.opts.timeout)
	defer cancel()
	c, err := a.client(url).Cluster(ctx)
	if err != nil {
		return serverError(url, err)
	}
	exit := map[string]int{httpapi.VerdictConverged: exitOK, httpapi.StateDiverged: exitNo}
	code, ok := exit[c.Verdict]
	if !ok {
		code = exitUndecided
	}
	if a.opts.json {
		if err := a.printJSON(c); err != nil {
			return err
		}
		return exitWith(code)
	}
	t := newTable("ACTOR", "STATE", "OPS", "LACKS", "OLDEST", "GENES", "DIGEST", "RTT", "LOG", "UPTIME")
	for _, s := range c.Actors {
		t.row(statusCells(s)...)
	}
	if err := t.print(a.stdout); err != nil {
		return err
	}
	word := wordBehind
	switch code {
	case exitOK:
		word = wordConverged
	case exitNo:
		word = wordDiverged
	}
	fmt.Fprintf(a.stdout, "%s  %s\n", a.verdict(word), statusSentence(c))
	if c.Fenced != "" {
		a.note("note: actor mints nothing: %s", c.Fenced)
	}
	return exitWith(code)
}

func statusCells(s httpapi.ActorStatus) []string {
	ms := func(n int64) string { return ago(time.Duration(n) * time.Millisecond) }
	cells := []string{fmt.Sprint(uint32(s.Actor)), s.State, fmt.Sprint(s.Ops), fmt.Sprint(s.LacksOps), ms(s.OldestMS),
		fmt.Sprint(s.Genes), s.Digest, "", "", ms(s.UptimeMS)}
	if s.RTTMS > 0 {
		cells[7] = fmt.Sprintf("%.1f ms", s.RTTMS)
	}
	if s.LogBytes > 0 {
		cells[8] = size(s.LogBytes)
	}
	if s.State == httpapi.StateUnreachable {
		cells[2] += "?" // the last that was known
		cells[4], cells[5], cells[6], cells[7], cells[8], cells[9] = ms(s.SinceMS), "", "", "", "", ""
	}
	return cells
}

func statusSentence(c httpapi.ClusterReply) string {
	parts := []string{fmt.Sprintf("%d of %d equal", c.Equal, c.Of)}
	var all genome.Version
	for _, s := range c.Actors {
		all = all.Merge(s.VV)
	}
	n := newNames(all)
	for _, s := range c.Actors {
		switch {
		case s.State == httpapi.StateUnreachable:
			p := fmt.Sprintf("actor %d unreachable", s.Actor)
			if s.SinceMS > 0 {
				p += " for " + ago(time.Duration(s.SinceMS)*time.Millisecond)
			}
			if s.Error != "" {
				p += " (" + s.Error + ")"
			}
			parts = append(parts, p)
		case s.State == httpapi.StateDiverged:
			parts = append(parts, fmt.Sprintf("actor %d diverged: crdt-genome compare says more", s.Actor))
		case s.LacksOps > 0:
			parts = append(parts, fmt.Sprintf("actor %d lacks %s (%s)", s.Actor, plural(s.LacksOps, "op"), spans(n, s.VV.Lacks(all))))
		}
	}
	if len(parts) == 1 {
		return fmt.Sprintf("%s, %s, digest %s", parts[0], plural(all.Ops(), "op"), c.Actors[0].Digest)
	}
	return strings.Join(parts, "; ")
}

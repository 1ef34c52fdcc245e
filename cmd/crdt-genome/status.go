package main

import (
	"context"
	"fmt"
	"slices"
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
		return notServer(url)
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
	parts := append([]string{fmt.Sprintf("%d of %d equal", c.Equal, c.Of)}, statusParts(c)...)
	if len(parts) == 1 && len(c.Actors) > 0 {
		return fmt.Sprintf("%s, %s, digest %s", parts[0], plural(allOf(c).Ops(), "op"), printable(c.Actors[0].Digest))
	}
	return strings.Join(parts, "; ")
}

// A plight is what actors that are not equal have in common.
type plight struct {
	actors  []genome.ActorID
	state   string
	reason  string // why it is not reached
	missing string
	since   int64 // of the one that is away longest, in ms
}

// statusParts says of the actors that are not equal what they lack, exactly,
// and why they are not reached. Those of whom the same is to be said are told
// together.
func statusParts(c httpapi.ClusterReply) (parts []string) {
	all := allOf(c)
	n := newNames(all)
	var plights []*plight
	for _, s := range c.Actors {
		p := &plight{actors: []genome.ActorID{s.Actor}, state: s.State, reason: shortReason(printable(s.Error)), since: s.SinceMS}
		if ops := lacksOf(s); ops > 0 {
			p.missing = fmt.Sprintf("%s (%s)", plural(ops, "op"), spans(n, s.VV.Lacks(all)))
		}
		i := slices.IndexFunc(plights, func(q *plight) bool {
			return q.state == p.state && q.reason == p.reason && q.missing == p.missing
		})
		if i >= 0 {
			plights[i].actors = append(plights[i].actors, s.Actor)
			plights[i].since = max(plights[i].since, p.since)
			continue
		}
		plights = append(plights, p)
	}
	for _, p := range plights {
		if text := p.text(); text != "" {
			parts = append(parts, text)
		}
	}
	return parts
}

func (p *plight) text() string {
	who, verb := "actor", "lacks"
	if len(p.actors) > 1 {
		who, verb = "actors", "lack"
	}
	who += " " + actorNames(p.actors, ", ")
	switch {
	case p.state == httpapi.StateUnreachable:
		who += " unreachable"
		if p.since > 0 {
			who += " for " + ago(time.Duration(p.since)*time.Millisecond)
		}
		if p.reason != "" {
			who += " (" + p.reason + ")"
		}
		if p.missing != "" {
			who += ", as far as known lacking " + p.missing
		}
	case p.state == httpapi.StateDiverged:
		who += " diverged: crdt-genome compare says more"
	case p.missing != "":
		who += " " + verb + " " + p.missing
	default:
		return ""
	}
	return who
}

// shortReason leaves out of an error of net/http what everybody knows.
func shortReason(s string) string {
	for _, method := range []string{"Get", "Post", "Put"} {
		if rest, ok := strings.CutPrefix(s, method+` "`); ok {
			if _, reason, ok := strings.Cut(rest, `": `); ok {
				return reason
			}
		}
	}
	return s
}

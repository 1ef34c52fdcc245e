package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"crdt-genome/genome"
	"crdt-genome/httpapi"
)

type compareOptions struct {
	places   []string
	wait     time.Duration
	pause    bool
	evidence string
}

func newCompareCmd(a *app) *cobra.Command {
	var opts compareOptions
	cmd := &cobra.Command{
		Use:   "compare SERVER|LOG…",
		Short: "Are these actors or logs equal? A definite answer",
		Long: `Compares servers (URLs) and logs (a log.db, an actor's folder, a data folder) in
any mixture. The answer is the last line and the exit code: CONVERGED (0) if all
hold the same ops and the same genome, BEHIND (2) if some lack ops or do not
answer, DIVERGED (1) if two hold the same ops but not the same genome, which is
a bug or damage; evidence is then written to a folder.

What is behind is compared too: all digests are taken at the newest instant that
all have passed, so a definite answer is possible while mutation goes on.`,
		Example: `  crdt-genome compare http://127.0.0.1:8000 http://127.0.0.1:8001 http://127.0.0.1:8002
  crdt-genome compare --pause --wait 30s http://127.0.0.1:8000 http://127.0.0.1:8001
  crdt-genome compare ./genome-data`,
		Args: wantArgs(1, -1, "two or more servers or logs, or a data folder"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.places = args
			return a.compare(cmd.Context(), opts)
		},
	}
	cmd.Flags().DurationVar(&opts.wait, "wait", 0, "ask again until all are equal, for this long")
	cmd.Flags().BoolVar(&opts.pause, "pause", false, "stop the servers' mutations meanwhile, so that they can become equal")
	cmd.Flags().StringVar(&opts.evidence, "evidence", ".", "folder in which evidence of a divergence is written")
	return cmd
}

// compareEvery is the pause between two rounds of --wait.
const compareEvery = 300 * time.Millisecond

func (a *app) compare(ctx context.Context, o compareOptions) error {
	if o.wait < 0 {
		return usageError("", "--wait %v: must not be negative", o.wait)
	}
	if !o.pause {
		return a.compareUntil(ctx, o, time.Now().Add(o.wait))
	}
	_, sources, err := a.look(ctx, o.places)
	if err != nil {
		return err
	}
	resume := pauseMutation(ctx, sources)
	closeAll(sources)
	err = a.compareUntil(ctx, o, time.Now().Add(o.wait))
	if e := resume(); e != nil {
		a.note("note: %v", e)
	}
	return err
}

// compareUntil looks again until all are equal, or the deadline has passed.
func (a *app) compareUntil(ctx context.Context, o compareOptions, deadline time.Time) error {
	for {
		members, sources, err := a.look(ctx, o.places)
		if err != nil {
			return err
		}
		j := judge(members)
		if j.word == wordBehind && time.Now().Before(deadline) {
			closeAll(sources)
			select {
			case <-time.After(compareEvery):
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		err = a.concludeCompare(ctx, o, members, sources, j)
		closeAll(sources)
		return err
	}
}

// look opens all places and reads them, servers at the same time. What does
// not answer becomes a member with an error; a log that cannot be read ends
// the comparison.
func (a *app) look(ctx context.Context, places []string) ([]member, []source, error) {
	var members []member
	var sources []source
	for _, p := range places {
		found, err := a.openSources(ctx, p, false)
		if c, ok := errors.AsType[*cliError](err); ok && c.exit == exitServer {
			members, sources = append(members, member{name: p, view: view{where: p}, err: err}), append(sources, nil)
			continue
		}
		if err != nil {
			closeAll(sources)
			return nil, nil, err
		}
		for _, s := range found {
			members, sources = append(members, member{view: view{where: s.where()}}), append(sources, s)
		}
	}
	if len(members) < 2 {
		closeAll(sources)
		return nil, nil, usageError("crdt-genome compare http://127.0.0.1:8000 http://127.0.0.1:8001", "compare needs two or more servers or logs, not only %s", places[0])
	}
	var wg sync.WaitGroup
	for i, s := range sources {
		if s == nil {
			continue
		}
		wg.Go(func() {
			v, err := s.view(ctx)
			if err != nil {
				members[i].err = err
				return
			}
			members[i].view = v
			members[i].view.where = s.where()
		})
	}
	wg.Wait()
	for i, m := range members {
		if _, file := sources[i].(*fileSource); file && m.err != nil {
			closeAll(sources)
			return nil, nil, m.err
		}
	}
	nameMembers(members)
	return members, sources, nil
}

// concludeCompare adds what only a look into the past can tell, and prints.
func (a *app) concludeCompare(ctx context.Context, o compareOptions, members []member, sources []source, j judgement) error {
	sentence := j.sentence()
	if j.word == wordBehind && len(j.common) > 0 && answered(members) > 1 {
		i, k, err := divergedAt(ctx, members, sources, j.common)
		switch {
		case err != nil:
			sentence += "; whether the rest is equal could not be found out: " + err.Error()
		case i != k:
			j.word, j.pair = wordDiverged, [2]int{i, k}
		default:
			sentence += "; the rest is equal up to there"
		}
	}
	if j.word == wordDiverged {
		var err error
		if sentence, err = a.explain(ctx, o, members, sources, j); err != nil {
			sentence = fmt.Sprintf("%s and %s hold the same ops but not the same genome (evidence could not be written: %v)",
				members[j.pair[0]].name, members[j.pair[1]].name, err)
		}
	}
	if a.opts.json {
		if err := a.printJSON(compareReplyOf(members, j, sentence)); err != nil {
			return err
		}
		return exitWith(exitOfWord[j.word])
	}
	t := newTable("WHERE", "OPS", "GENES", "VECTOR HASH", "STATE DIGEST")
	for _, m := range members {
		if m.err != nil {
			t.row(m.view.where, "", "", "", "unreachable")
			continue
		}
		t.row(m.view.where, fmt.Sprint(m.view.version.Ops()), fmt.Sprint(m.view.genes),
			fmt.Sprintf("%016x", m.view.version.Hash())[:6], m.view.digest.String())
	}
	if err := t.print(a.stdout); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "%s  %s\n", a.verdict(j.word), sentence)
	return exitWith(exitOfWord[j.word])
}

func answered(members []member) (n int) {
	for _, m := range members {
		if m.err == nil {
			n++
		}
	}
	return n
}

// divergedAt compares all members at the version that all of them have
// reached. It returns two whose genomes differ there, or i == k.
func divergedAt(ctx context.Context, members []member, sources []source, common genome.Version) (i, k int, err error) {
	first := -1
	var want genome.Digest
	for i, s := range sources {
		if s == nil || members[i].err != nil {
			continue
		}
		d, err := s.digestAt(ctx, common)
		if err != nil {
			return 0, 0, err
		}
		if first < 0 {
			first, want = i, d
		}
		if d != want {
			return first, i, nil
		}
	}
	return 0, 0, nil
}

// compareReply is the JSON of compare.
type compareReply struct {
	Verdict  string           `json:"verdict"` // converged, behind, diverged
	Equal    int              `json:"equal"`
	Of       int              `json:"of"`
	Ops      uint64           `json:"ops"`
	Genes    int              `json:"genes"`
	Digest   genome.Digest    `json:"digest"`
	Text     string           `json:"text"`
	Common   genome.Version   `json:"common"` // what all that answered hold
	Replicas []compareReplica `json:"replicas"`
}

type compareReplica struct {
	Where    string         `json:"where"`
	Actor    genome.ActorID `json:"actor"`
	Ops      uint64         `json:"ops"`
	Genes    int            `json:"genes"`
	VVHash   string         `json:"vv_hash"`
	Digest   genome.Digest  `json:"digest"`
	LacksOps uint64         `json:"lacks_ops"`
	Lacks    []string       `json:"lacks,omitempty"`
	Error    string         `json:"error,omitempty"`
}

func compareReplyOf(members []member, j judgement, sentence string) compareReply {
	r := compareReply{Verdict: strings.ToLower(j.word), Equal: j.equal, Of: j.of, Ops: j.ops, Genes: j.genes, Digest: j.digest, Text: sentence, Common: j.common}
	for _, m := range members {
		if m.err != nil {
			r.Replicas = append(r.Replicas, compareReplica{Where: m.view.where, Error: classify(m.err).msg})
			continue
		}
		lacks := m.view.version.Lacks(j.all)
		c := compareReplica{Where: m.view.where, Actor: m.view.actor, Ops: m.view.version.Ops(), Genes: m.view.genes,
			VVHash: fmt.Sprintf("%016x", m.view.version.Hash()), Digest: m.view.digest, LacksOps: countOps(lacks)}
		for _, l := range lacks {
			c.Lacks = append(c.Lacks, l.String())
		}
		r.Replicas = append(r.Replicas, c)
	}
	return r
}

// A placed gene is one place of a genome: what stands there, and whose it is.
type placed struct {
	id   genome.GeneID
	gene byte
}

func placedGenes(g *genome.Genome) (out []placed) {
	for run := range g.Runs() {
		for i := range run.N {
			if run.Live {
				id := run.First
				id.Gene += uint64(i)
				out = append(out, placed{id, run.Genes[i]})
			}
		}
	}
	return out
}

// explain finds where two diverged replicas first differ, reading their logs
// again, and keeps everything that somebody who looks for the bug needs.
func (a *app) explain(ctx context.Context, o compareOptions, members []member, sources []source, j judgement) (string, error) {
	dir := filepath.Join(o.evidence, "diverged-"+time.Now().UTC().Format("20060102T150405Z"))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	var genes [2][]placed
	for n, i := range j.pair {
		g, err := replay(sources[i].records(ctx, 1, false), within(j.common))
		if err != nil {
			return "", err
		}
		genes[n] = placedGenes(g)
		if err := writeEvidence(ctx, filepath.Join(dir, fmt.Sprintf("%d-actor-%d", n, members[i].view.actor)), sources[i], g); err != nil {
			return "", err
		}
	}
	x, y := members[j.pair[0]], members[j.pair[1]]
	text := fmt.Sprintf("%s and %s hold the same %s", x.name, y.name, plural(j.common.Ops(), "op"))
	n := newNames(j.all)
	switch at, ok := firstDifference(genes[0], genes[1]); {
	case ok:
		text += fmt.Sprintf(" but differ at index %d: %s / %s. This is a bug or damage.", at, tellPlaced(n, genes[0], at), tellPlaced(n, genes[1], at))
	default:
		text += ", and their logs give the same genome, but what they show differs: the memory of one is damaged; restart both."
	}
	return text + " Evidence written to " + dir, nil
}

func firstDifference(x, y []placed) (at int, differ bool) {
	for at = range min(len(x), len(y)) {
		if x[at] != y[at] {
			return at, true
		}
	}
	return min(len(x), len(y)), len(x) != len(y)
}

func tellPlaced(n names, genes []placed, at int) string {
	if at >= len(genes) {
		return "end"
	}
	return fmt.Sprintf("%02x (gene %s)", genes[at].gene, n.gene(genes[at].id))
}

// writeEvidence keeps a log, the list that it gives, and what its server shows.
func writeEvidence(ctx context.Context, prefix string, s source, g *genome.Genome) error {
	var log, list strings.Builder
	enc := json.NewEncoder(&log)
	for rec, err := range s.records(ctx, 1, false) {
		if err != nil {
			return err
		}
		if err := enc.Encode(httpapi.NewLogRecord(rec)); err != nil {
			return err
		}
	}
	for run := range g.Runs() {
		fmt.Fprintf(&list, "%v n=%d live=%t %s\n", run.First, run.N, run.Live, hex.EncodeToString(run.Genes))
	}
	shown := g.String()
	if server, ok := s.(*serverSource); ok {
		var err error
		if shown, err = server.client.Genome(ctx); err != nil {
			return err
		}
	}
	for suffix, text := range map[string]string{".log.ndjson": log.String(), ".list.txt": list.String(), ".genome.hex": shown + "\n"} {
		if err := os.WriteFile(prefix+suffix, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

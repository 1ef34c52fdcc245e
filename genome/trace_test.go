package genome_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"crdt-genome/genome"
)

// A trace is a recorded writing session of the public editing traces
// (github.com/josephg/editing-traces).
type trace struct {
	StartContent, EndContent string
	NumAgents                int
	Txns                     []struct {
		Parents []int // concurrent traces only
		Agent   int
		Patches []patch
	}
}

// A patch is [position, deleted, inserted].
type patch struct {
	at, del int
	ins     string
}

func (p *patch) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, &[]any{&p.at, &p.del, &p.ins})
}

// readTraces reads the traces of one folder.
func readTraces(t *testing.T, folder string) map[string]*trace {
	t.Helper()
	dir := os.Getenv("CRDT_GENOME_TRACES")
	if dir == "" {
		t.Skip("CRDT_GENOME_TRACES is not set: it names a folder with sequential/ and concurrent/ of github.com/josephg/editing-traces")
	}
	paths, err := filepath.Glob(filepath.Join(dir, folder, "*.json.gz"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no traces in %s: %v", filepath.Join(dir, folder), err)
	}
	traces := map[string]*trace{}
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		tr := &trace{}
		if err := json.NewDecoder(z).Decode(tr); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		traces[strings.TrimSuffix(filepath.Base(path), ".json.gz")] = tr
	}
	return traces
}

// edit makes patches in g and returns the ops.
func edit(t *testing.T, g *genome.Genome, patches []patch) (ops []genome.Op) {
	t.Helper()
	for _, p := range patches {
		if p.del > 0 {
			out, err := g.Delete(p.at, p.del)
			if err != nil {
				t.Fatal(err)
			}
			ops = append(ops, out...)
		}
		at := p.at
		for part := range slices.Chunk([]byte(p.ins), genome.MaxRun) {
			op, err := g.Insert(at, part)
			if err != nil {
				t.Fatal(err)
			}
			ops = append(ops, op)
			at += len(part)
		}
	}
	return ops
}

func applyAll(t *testing.T, g *genome.Genome, ops []genome.Op) {
	t.Helper()
	for _, op := range ops {
		if res, err := g.Apply(op); err != nil || len(res.Applied) != 1 {
			t.Fatalf("Apply(%v): %+v, %v", op.Dot, res, err)
		}
	}
}

// sameState compares all that two genomes with the same events share.
func sameState(t *testing.T, what string, a, b *genome.Genome) {
	t.Helper()
	if !bytes.Equal(a.Bytes(), b.Bytes()) || a.Digest() != b.Digest() || !slices.Equal(a.Heads(), b.Heads()) || a.Tombstones() != b.Tombstones() {
		t.Errorf("%s: %d genes, digest %v, %v; want %d, %v, %v", what, b.Len(), b.Digest(), b.Heads(), a.Len(), a.Digest(), a.Heads())
	}
}

// TestSequentialTraces writes each trace and brings it to others in every way:
// op by op, from blocks of what Since yields, from a snapshot.
func TestSequentialTraces(t *testing.T) {
	for name, tr := range readTraces(t, "sequential") {
		t.Run(name, func(t *testing.T) {
			g := genome.New(alice)
			var ops []genome.Op
			if tr.StartContent != "" {
				ops = edit(t, g, []patch{{ins: tr.StartContent}})
			}
			for _, txn := range tr.Txns {
				ops = append(ops, edit(t, g, txn.Patches)...)
			}
			if got := string(g.Bytes()); got != tr.EndContent {
				t.Fatalf("%d genes, want the trace's %d, or they differ", len(got), len(tr.EndContent))
			}
			one := genome.New(bob)
			applyAll(t, one, ops)
			sameState(t, "op by op", g, one)

			two := genome.NewFromConfig(genome.Config{NoHistory: true})
			for ops := range slices.Chunk(slices.Collect(g.Since(nil)), genome.MaxBatchOps) {
				data, err := genome.AppendBlock(nil, genome.Block{Ops: ops})
				if err != nil {
					t.Fatal(err)
				}
				b, err := genome.DecodeBlock(data, genome.MaxBatchOps)
				if err != nil {
					t.Fatal(err)
				}
				applyAll(t, two, b.Ops)
			}
			sameState(t, "in blocks", g, two)
			sameState(t, "from a snapshot", g, load(t, g.AppendSnapshot(nil), 0))
		})
	}
}

// TestConcurrentTraces gives each agent a genome of its own, which receives the
// parents of a txn before it is made, and merges all in the end.
func TestConcurrentTraces(t *testing.T) {
	for name, tr := range readTraces(t, "concurrent") {
		t.Run(name, func(t *testing.T) {
			agents := make([]*genome.Genome, tr.NumAgents)
			has := make([][]bool, tr.NumAgents) // by txn
			for i := range agents {
				agents[i] = genome.New(genome.NewReplicaID(genome.ActorID(i), 1))
				has[i] = make([]bool, len(tr.Txns))
			}
			ops := make([][]genome.Op, len(tr.Txns))
			// fetch brings agent a all that the txns of stack come after.
			fetch := func(a int, stack []int) {
				var lacks []int
				for len(stack) > 0 {
					i := stack[len(stack)-1]
					stack = stack[:len(stack)-1]
					if !has[a][i] {
						has[a][i] = true
						lacks = append(lacks, i)
						stack = append(stack, tr.Txns[i].Parents...)
					}
				}
				slices.Sort(lacks) // parents come before their children
				for _, i := range lacks {
					applyAll(t, agents[a], ops[i])
				}
			}
			for i, txn := range tr.Txns {
				fetch(txn.Agent, slices.Clone(txn.Parents))
				ops[i] = edit(t, agents[txn.Agent], txn.Patches)
				has[txn.Agent][i] = true
			}
			all := make([]int, len(tr.Txns))
			for i := range all {
				all[i] = i
			}
			for a, g := range agents {
				fetch(a, slices.Clone(all))
				if got := string(g.Bytes()); got != tr.EndContent {
					t.Errorf("agent %d: %d genes, want the trace's %d, or they differ", a, len(got), len(tr.EndContent))
				}
				sameState(t, fmt.Sprint("agent ", a), agents[0], g)
			}
			late := genome.New(carol)
			for i := len(ops) - 1; i >= 0; i-- { // all in the wrong order, a little at a time: parking
				if i%500 != 0 {
					continue
				}
				for j := min(i+500, len(ops)) - 1; j >= i; j-- {
					for _, op := range ops[j] {
						if _, err := late.Apply(op); err != nil && code(err) != genome.CodePendingFull && code(err) != genome.CodeSeqTooFar {
							t.Fatal(err)
						}
					}
				}
			}
			for op := range agents[0].Since(late.Version()) { // and repair
				if _, err := late.Apply(op); err != nil {
					t.Fatal(err)
				}
			}
			sameState(t, "backwards and repaired", agents[0], late)
			if ops, bytes := late.Parked(); ops != 0 || bytes != 0 {
				t.Errorf("%d ops, %d bytes are still parked", ops, bytes)
			}
		})
	}
}

package genome_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"crdt-genome/genome"
	"crdt-genome/genome/bench"
)

// traceFiles returns the files of one folder of the public editing traces
// (github.com/josephg/editing-traces), by name.
func traceFiles(t *testing.T, folder string) map[string]io.Reader {
	t.Helper()
	dir := os.Getenv("CRDT_GENOME_TRACES")
	if dir == "" {
		t.Skip("CRDT_GENOME_TRACES is not set: it names a folder with sequential/ and concurrent/ of github.com/josephg/editing-traces")
	}
	paths, err := filepath.Glob(filepath.Join(dir, folder, "*.json.gz"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no traces in %s: %v", filepath.Join(dir, folder), err)
	}
	files := map[string]io.Reader{}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files[bench.TraceName(path)] = bytes.NewReader(data)
	}
	return files
}

// edit makes edits, whose text is in text, in g and returns the ops.
func edit(t *testing.T, g *genome.Genome, edits []bench.Edit, text []byte) (ops []genome.Op) {
	t.Helper()
	for _, e := range edits {
		if e.Del > 0 {
			out, err := g.Delete(int(e.Pos), int(e.Del))
			if err != nil {
				t.Fatal(err)
			}
			ops = append(ops, out...)
		}
		if e.Ins > 0 {
			op, err := g.Insert(int(e.Pos), text[e.Off:e.Off+e.Ins])
			if err != nil {
				t.Fatal(err)
			}
			ops = append(ops, op)
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
	for name, file := range traceFiles(t, "sequential") {
		t.Run(name, func(t *testing.T) {
			tr, err := bench.ReadTrace(name, file)
			if err != nil {
				t.Fatal(err)
			}
			g := genome.New(alice)
			ops := edit(t, g, tr.Edits, tr.Text)
			if got := g.Bytes(); !bytes.Equal(got, tr.End) {
				t.Fatalf("%d genes, want the trace's %d, or they differ", len(got), len(tr.End))
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

// TestConcurrentTraces gives each agent a genome of its own, which hears of what
// the others did before it goes on, and of all in the end.
func TestConcurrentTraces(t *testing.T) {
	for name, file := range traceFiles(t, "concurrent") {
		t.Run(name, func(t *testing.T) {
			tr, err := bench.ReadLive(name, file)
			if err != nil {
				t.Fatal(err)
			}
			agents := make([]*genome.Genome, tr.Agents)
			for i := range agents {
				agents[i] = genome.New(genome.NewReplicaID(genome.ActorID(i), 1))
			}
			var ops [][]genome.Op // of each step that was made, in order
			made := map[[2]uint32][]genome.Op{}
			for _, s := range tr.Steps {
				if s.Heard {
					applyAll(t, agents[s.Agent], made[[2]uint32{s.From, s.To}])
					continue
				}
				made[[2]uint32{s.From, s.To}] = edit(t, agents[s.Agent], tr.Edits[s.From:s.To], tr.Text)
				ops = append(ops, made[[2]uint32{s.From, s.To}])
			}
			for a, g := range agents {
				if got := g.Bytes(); !bytes.Equal(got, tr.End) {
					t.Errorf("agent %d: %d genes, want the trace's %d, or they differ", a, len(got), len(tr.End))
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

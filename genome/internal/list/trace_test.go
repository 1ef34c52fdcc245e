package list_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"crdt-genome/genome/bench"
	"crdt-genome/genome/internal/list"
)

var traces = []string{"automerge-paper", "rustcode", "seph-blog1", "sveltecomponent"}

// readTrace reads a public editing trace (github.com/josephg/editing-traces)
// from the folder CRDT_GENOME_TRACES.
func readTrace(t testing.TB, name string) *bench.Trace {
	t.Helper()
	dir := os.Getenv("CRDT_GENOME_TRACES")
	if dir == "" {
		t.Skip("no editing traces: set CRDT_GENOME_TRACES to a folder with sequential/ and concurrent/")
	}
	f, err := os.Open(filepath.Join(dir, "sequential", name+".json.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tr, err := bench.ReadTrace(name, f)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// A flatOp is an op without pointers: its genes are text[from:to].
type flatOp struct {
	rep      uint32
	delete   bool
	side     list.Side
	ref      list.Ref
	n        uint32
	from, to int32
}

// play makes the edits of a trace and hands each op to emit.
func play(tr *bench.Trace, l *list.List, rep uint32, emit func(flatOp)) {
	for _, e := range tr.Edits {
		if e.Del > 0 {
			l.DeleteAt(int(e.Pos), int(e.Del), func(first list.Ref, n uint32, _ bool) {
				emit(flatOp{delete: true, ref: first, n: n})
			})
		}
		if e.Ins > 0 {
			ref, side := l.InsertAt(rep, int(e.Pos), tr.Insert(e))
			emit(flatOp{rep: rep, side: side, ref: ref, from: int32(e.Off), to: int32(e.Off + e.Ins)})
		}
	}
}

func apply(l *list.List, ops []flatOp, text []byte) (refused int) {
	for i := range ops {
		o := &ops[i]
		if o.delete {
			l.Delete(o.ref, o.n)
		} else if !l.Insert(o.rep, o.ref, o.side, text[o.from:o.to]) {
			refused++
		}
	}
	return refused
}

// TestTraces replays recorded writing, then sends it to a second replica.
func TestTraces(t *testing.T) {
	for _, name := range traces {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := readTrace(t, name)
			var ops []flatOp
			l := list.New()
			play(tr, l, l.Replica(1), func(o flatOp) { ops = append(ops, o) })
			checkText(t, "local", l, tr.End)
			remote := list.New()
			remote.Replica(1)
			if refused := apply(remote, ops, tr.Text); refused != 0 {
				t.Errorf("%d of %d ops refused", refused, len(ops))
			}
			checkText(t, "remote", remote, tr.End)
		})
	}
}

func checkText(t testing.TB, what string, l *list.List, want []byte) {
	t.Helper()
	if err := l.Check(); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	if got := l.AppendTo(nil); !bytes.Equal(got, want) {
		t.Errorf("%s: %d genes, want the trace's %d, or they differ", what, len(got), len(want))
	}
}

package list_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"crdt-genome/genome/internal/list"
)

var traces = []string{"automerge-paper", "rustcode", "seph-blog1", "sveltecomponent"}

// A trace is a recorded writing session. Its patches hold no pointers, so that
// the collector has nothing to do with them in a benchmark.
type trace struct {
	patches []patch
	text    []byte // inserted, one patch after the other
	end     []byte
}

type patch struct {
	at, del, ins int32
}

// readTrace reads a public editing trace (github.com/josephg/editing-traces)
// from the folder CRDT_GENOME_TRACES.
func readTrace(t testing.TB, name string) trace {
	t.Helper()
	dir := os.Getenv("CRDT_GENOME_TRACES")
	if dir == "" {
		t.Skip("no editing traces: set CRDT_GENOME_TRACES to a folder with sequential/ and concurrent/")
	}
	path := filepath.Join(dir, "sequential", name+".json.gz")
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		StartContent, EndContent string
		Txns                     []struct{ Patches [][3]any }
	}
	if err := json.NewDecoder(z).Decode(&doc); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	var tr trace
	if doc.StartContent != "" {
		tr.add(0, 0, doc.StartContent)
	}
	for _, txn := range doc.Txns {
		for _, p := range txn.Patches {
			tr.add(int(p[0].(float64)), int(p[1].(float64)), p[2].(string))
		}
	}
	tr.end = []byte(doc.EndContent)
	return tr
}

func (tr *trace) add(at, del int, ins string) {
	tr.patches = append(tr.patches, patch{int32(at), int32(del), int32(len(ins))})
	tr.text = append(tr.text, ins...)
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

// play makes the edits of a trace and hands each op to emit, if not nil.
func (tr *trace) play(l *list.List, rep uint32, emit func(flatOp)) {
	from := int32(0)
	deleted := func(list.Ref, uint32, bool) {}
	if emit != nil {
		deleted = func(first list.Ref, n uint32, _ bool) { emit(flatOp{delete: true, ref: first, n: n}) }
	}
	for _, p := range tr.patches {
		if p.del > 0 {
			l.DeleteAt(int(p.at), int(p.del), deleted)
		}
		if p.ins > 0 {
			ref, side := l.InsertAt(rep, int(p.at), tr.text[from:from+p.ins])
			if emit != nil {
				emit(flatOp{rep: rep, side: side, ref: ref, from: from, to: from + p.ins})
			}
			from += p.ins
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
			tr.play(l, l.Replica(1), func(o flatOp) { ops = append(ops, o) })
			checkText(t, "local", l, tr.end)
			remote := list.New()
			remote.Replica(1)
			if refused := apply(remote, ops, tr.text); refused != 0 {
				t.Errorf("%d of %d ops refused", refused, len(ops))
			}
			checkText(t, "remote", remote, tr.end)
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

package genome_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"crdt-genome/genome"
)

// drawOp draws an op that passes Check, its gene number known.
func drawOp(t *rapid.T) genome.Op {
	ids := func(name string) genome.ReplicaID {
		return rapid.SampledFrom([]genome.ReplicaID{alice, bob, bob2, carol}).Draw(t, name)
	}
	op := genome.Op{Dot: dot(ids("replica"), rapid.Uint64Range(1, 100).Draw(t, "seq")), Gene: rapid.Uint64Range(0, 50).Draw(t, "gene")}
	op.Ref = gene(ids("ref"), rapid.Uint64Range(0, 60).Draw(t, "number"))
	if rapid.Bool().Draw(t, "delete") {
		op.Kind, op.Count, op.Reverse = genome.Delete, rapid.Uint64Range(1, 20).Draw(t, "count"), rapid.Bool().Draw(t, "reverse")
		return op
	}
	op.Genes = rapid.SliceOfN(rapid.Byte(), 1, 20).Draw(t, "genes")
	switch rapid.IntRange(0, 3).Draw(t, "where") {
	case 0:
		op.Ref = genome.Root
	case 1:
		op.Side = genome.Left
	case 2: // goes on where its replica was
		if op.Gene > 0 {
			op.Ref = gene(op.Dot.Replica, op.Gene-1)
		}
	}
	return op
}

// TestOpPackaging: Head, TrimHead, Join and Event are about packaging only: the
// events stay the same.
func TestOpPackaging(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		op := drawOp(t)
		all := unit(op)
		if len(all) != op.Len() || op.Last() != op.Dot.Seq+uint64(len(all))-1 {
			t.Fatalf("%+v: Len() = %d, Last() = %d, has %d events", op, op.Len(), op.Last(), len(all))
		}
		for i, want := range all {
			if got := op.Event(i); got != want {
				t.Fatalf("%+v.Event(%d) = %v, want %v", op, i, got, want)
			}
		}
		n := rapid.IntRange(1, op.Len()).Draw(t, "n")
		head := op.Head(n)
		if !slices.Equal(unit(head), all[:n]) || head.Dot != op.Dot {
			t.Fatalf("%+v.Head(%d) = %+v", op, n, head)
		}
		if n == op.Len() {
			return
		}
		tail := op.TrimHead(n)
		if !slices.Equal(unit(tail), all[n:]) || tail.Dot != dot(op.Dot.Replica, op.Dot.Seq+uint64(n)) || tail.Last() != op.Last() {
			t.Fatalf("%+v.TrimHead(%d) = %+v", op, n, tail)
		}
		// A single deleted gene has no direction, so a cut may lose it; the events
		// are the same again all the same.
		head.Genes = slices.Clone(head.Genes)
		if joined, ok := head.Join(tail); !ok || !slices.Equal(unit(joined), all) || joined.Dot != op.Dot {
			t.Fatalf("%+v.Join(%+v) = %+v, %v", head, tail, joined, ok)
		}
	})
}

// TestJoinOnlyRuns: what does not follow is not joined, and what is joined has
// the events of both.
func TestJoinOnlyRuns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawOp(t), drawOp(t)
		if rapid.Bool().Draw(t, "near") {
			b.Dot = dot(a.Dot.Replica, a.Last()+1)
			b.Gene = a.Gene + uint64(len(a.Genes))
			b.Ref.Replica = a.Ref.Replica
			switch rapid.IntRange(0, 2).Draw(t, "where") {
			case 0: // a chained insert, or the deletion of what stands behind
				b.Ref.Gene = a.Ref.Gene + uint64(a.Len())
				if b.Kind == genome.Insert && b.Gene > 0 {
					b.Ref, b.Side = gene(b.Dot.Replica, b.Gene-1), genome.Right
				}
			case 1: // backspacing
				b.Ref.Gene = max(a.Ref.Gene, b.Count) - b.Count
			case 2: // nearly
				b.Ref.Gene = a.Ref.Gene + uint64(rapid.IntRange(0, 21).Draw(t, "off"))
			}
		}
		want := append(unit(a), unit(b)...)
		a.Genes = slices.Clone(a.Genes)
		got, ok := a.Join(b)
		if !ok {
			if !slices.Equal(unit(got), unit(a)) {
				t.Fatalf("%+v.Join(%+v) fails and changes it to %+v", a, b, got)
			}
			return
		}
		if !slices.Equal(unit(got), want) || b.Dot != dot(a.Dot.Replica, a.Last()+1) {
			t.Fatalf("%+v.Join(%+v) = %+v", a, b, got)
		}
	})
	long := ins(dot(alice, 1), genome.Root, string(make([]byte, genome.MaxRun)))
	long.Gene = 0
	next := ins(dot(alice, genome.MaxRun+1), gene(alice, genome.MaxRun-1), "x")
	next.Gene = genome.MaxRun
	if _, ok := long.Join(next); ok {
		t.Error("a run longer than MaxRun is joined")
	}
}

// TestTrimWithoutGene: the rest of an insert whose number is not known names
// its parent when that is known.
func TestTrimWithoutGene(t *testing.T) {
	op := ins(dot(alice, 1), gene(bob, 7), "abc").TrimHead(1)
	if op.Gene != genome.NoGene || op.Side != genome.Right || string(op.Genes) != "bc" || op.Dot.Seq != 2 {
		t.Errorf("TrimHead(1) = %+v", op)
	}
}

// TestSinceIsACopy: appending to the genes of an op that the history gave out
// cannot change the history.
func TestSinceIsACopy(t *testing.T) {
	g := genome.New(alice)
	for i := range 20 {
		if _, err := g.Insert(i, []byte{byte('a' + i)}); err != nil {
			t.Fatal(err)
		}
	}
	for op := range g.Since(nil) {
		_ = append(op.Genes, "??????????"...)
	}
	if _, err := g.Insert(20, []byte("z")); err != nil {
		t.Fatal(err)
	}
	h := genome.New(bob)
	for op := range g.Since(nil) {
		if _, err := h.Apply(op); err != nil {
			t.Fatal(err)
		}
		break // an iterator may be left early
	}
	if h.String() != g.String() {
		t.Errorf("the history holds %q, the list %q", h.Bytes(), g.Bytes())
	}
	for range g.Since(g.Version()) {
		t.Error("Since yields something to a peer that lacks nothing")
	}
	for range genome.NewFromConfig(genome.Config{NoHistory: true}).Since(nil) {
		t.Error("Since yields something without a history")
	}
}

// TestInsertCopies: the genes given to Insert and those of the op it returns
// are not the list's memory, whatever their number.
func TestInsertCopies(t *testing.T) {
	g := genome.New(alice)
	var want []byte
	for _, n := range []int{1, 1000, 1024, 1025, 3000, 4096, 70} {
		genes := make([]byte, n)
		for i := range genes {
			genes[i] = byte(i)
		}
		want = append(want, genes...)
		op, err := g.Insert(g.Len(), genes)
		if err != nil {
			t.Fatal(err)
		}
		_ = append(op.Genes, '?')
		clear(genes)
	}
	if got := g.Bytes(); string(got) != string(want) {
		t.Error("an insert shares memory with its caller")
	}
}

func TestIndexOfUnknown(t *testing.T) {
	g := genome.New(alice)
	if _, err := g.Insert(0, []byte("abc")); err != nil {
		t.Fatal(err)
	}
	for _, id := range []genome.GeneID{genome.Root, gene(alice, 3), gene(alice, 1<<40), gene(bob, 0)} {
		if i, live, known := g.IndexOf(id); i != 0 || live || known {
			t.Errorf("IndexOf(%v) = %d, %v, %v", id, i, live, known)
		}
	}
	for range g.Runs() { // an iterator may be left early
		break
	}
}

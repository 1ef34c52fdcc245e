package list_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"crdt-genome/genome/internal/list"
)

func ExampleList() {
	alice, bob := list.New(), list.New()
	// Local numbers may differ; names order siblings.
	alice1, alice2 := alice.Replica(1), alice.Replica(2)
	bob2, bob1 := bob.Replica(2), bob.Replica(1)

	alice.InsertAt(alice1, 0, []byte("AC"))
	bob.Insert(bob1, list.Root, list.Right, []byte("AC"))

	parent, side := alice.InsertAt(alice1, 1, []byte("G")) // both between A and C
	bob.InsertAt(bob2, 1, []byte("TT"))
	bob.Insert(bob1, list.Ref{Rep: bob1, Gene: parent.Gene}, side, []byte("G"))
	alice.Insert(alice2, parent, side, []byte("TT"))

	fmt.Printf("%s %s\n", alice.AppendTo(nil), bob.AppendTo(nil))
	// Output: AGTTC AGTTC
}

// TestSecondChild wants a replica's second child on one side of a gene refused,
// wherever the walk over siblings meets the first, and nothing changed.
func TestSecondChild(t *testing.T) {
	for _, side := range []list.Side{list.Right, list.Left} {
		for others := range 4 {
			s := &site{0, list.New(), newOracle(), nil}
			base := geneID{50, 1}
			s.apply(t, op{name: 50, genes: []byte("ab")})
			for _, name := range []uint64{3, 7, 1, 9}[:others] {
				s.apply(t, op{name: name, ref: base, side: side, genes: []byte("xyz")})
			}
			s.apply(t, op{name: 5, ref: base, side: side, genes: []byte("first")})
			rep, ref := s.list.Replica(5), s.ref(base)
			if s.list.Insert(rep, ref, side, []byte("second")) {
				t.Errorf("side %d, %d other siblings: second child taken", side, others)
			}
			check(t, s)
			if g := s.list.Genes(rep); g != 5 {
				t.Errorf("Genes = %d after a refusal, want 5", g)
			}
		}
	}
}

// TestSecondChildInRun wants the next gene of a run seen as a child.
func TestSecondChildInRun(t *testing.T) {
	l := list.New()
	rep := l.Replica(1)
	l.InsertAt(rep, 0, []byte("abc"))
	if l.Insert(rep, list.Ref{Rep: rep, Gene: 0}, list.Right, []byte("x")) {
		t.Error("second right child of a gene inside a run taken")
	}
	if !l.Insert(rep, list.Ref{Rep: rep, Gene: 2}, list.Right, []byte("d")) {
		t.Error("first right child of the last gene refused")
	}
	if got := string(l.AppendTo(nil)); got != "abcd" {
		t.Errorf("text %q, want abcd", got)
	}
}

// TestManyReplicas has replicas with few genes each: rows of shared pages, next
// to one another, and the step to pages of their own.
func TestManyReplicas(t *testing.T) {
	s := &site{1, list.New(), newOracle(), nil}
	rng := rand.New(rand.NewPCG(5, 5))
	s.apply(t, op{name: 1 << 40, genes: []byte("base")})
	parents := []geneID{{1 << 40, 0}}
	for i := range 400 {
		name := uint64(rng.Uint32())
		genes := bytes.Repeat([]byte{byte(i)}, 1+rng.IntN(20))
		o := op{name: name, ref: parents[rng.IntN(len(parents))], side: list.Side(rng.IntN(2)), genes: genes}
		s.apply(t, o)
		parents = append(parents, geneID{name, s.oracle.genes[name] - 1})
		if i%3 == 0 {
			d := parents[rng.IntN(len(parents))]
			s.apply(t, op{delete: true, ref: geneID{d.name, 0}, n: d.gene + 1})
		}
		if i%10 == 0 {
			check(t, s)
		}
	}
	check(t, s)
}

// TestOneGap has many replicas insert at one gap, on either side of a gene, in
// several orders of arrival.
func TestOneGap(t *testing.T) {
	for _, side := range []list.Side{list.Right, list.Left} {
		for seed := range uint64(4) {
			rng := rand.New(rand.NewPCG(seed, 9))
			s := &site{1, list.New(), newOracle(), nil}
			s.apply(t, op{name: 1 << 40, genes: []byte("base")})
			const replicas = 150
			for _, name := range rng.Perm(replicas) {
				s.apply(t, op{name: uint64(name) + 1, ref: geneID{1 << 40, 2}, side: side, genes: []byte("run")})
				if name%2 == 0 { // siblings with subtrees on both sides
					s.apply(t, op{name: uint64(name) + 1, ref: geneID{uint64(name) + 1, 0}, side: list.Left, genes: []byte("L")})
				}
			}
			check(t, s)
			// A walk passes every sibling at most once.
			if n := s.list.Siblings(); n > replicas*(replicas+1)/2 {
				t.Errorf("side %d: %d sibling steps for %d siblings", side, n, replicas)
			}
		}
	}
}

// prepended returns the ops of two replicas that each inserted n genes at the
// start without knowing of the other.
func prepended(n int) (ours, theirs []flatOp) {
	for rep := uint32(1); rep <= 2; rep++ {
		l := list.New()
		l.Replica(1)
		l.Replica(2)
		var ops []flatOp
		for i := range n {
			ref, side := l.InsertAt(rep, 0, []byte{'x'})
			ops = append(ops, flatOp{rep: rep, side: side, ref: ref, from: int32(i % 2), to: int32(i%2 + 1)})
		}
		ours, theirs = theirs, ops
	}
	return ours, theirs
}

// TestPrependMerge wants a merge of two lists that were written backwards, far
// apart, to walk over almost no siblings: lists that scan what is concurrent
// are quadratic here.
func TestPrependMerge(t *testing.T) {
	for _, n := range []int{100, 10_000} {
		ours, theirs := prepended(n)
		l := list.New()
		l.Replica(1)
		l.Replica(2)
		apply(l, ours, []byte("xy"))
		before := l.Siblings()
		apply(l, theirs, []byte("xy"))
		if err := l.Check(); err != nil {
			t.Fatal(err)
		}
		if steps := l.Siblings() - before; steps > 2 {
			t.Errorf("merging %d prepended genes took %d sibling steps, want at most 2", n, steps)
		}
	}
}

// TestPaste inserts and deletes far more than a page at once.
func TestPaste(t *testing.T) {
	l := list.New()
	rep := l.Replica(1)
	paste := make([]byte, 100_000)
	for i := range paste {
		paste[i] = byte(i / 7)
	}
	l.InsertAt(rep, 0, paste)
	l.InsertAt(rep, 50_000, paste)
	l.DeleteAt(25_000, 150_000, func(list.Ref, uint32, bool) {})
	if err := l.Check(); err != nil {
		t.Fatal(err)
	}
	want := append(bytes.Clone(paste[:25_000]), paste[75_000:]...)
	if got := l.AppendTo([]byte("before")); string(got) != "before"+string(want) {
		t.Errorf("%d genes, want %d, or they differ", len(got), len(want)+6)
	}
}

func TestOutOfRange(t *testing.T) {
	l := list.New()
	rep := l.Replica(1)
	l.InsertAt(rep, 0, []byte("abc"))
	none := func(list.Ref, uint32, bool) {}
	for name, f := range map[string]func(){
		"insert before":  func() { l.InsertAt(rep, -1, []byte("x")) },
		"insert after":   func() { l.InsertAt(rep, 4, []byte("x")) },
		"insert nothing": func() { l.InsertAt(rep, 0, nil) },
		"delete before":  func() { l.DeleteAt(-1, 1, none) },
		"delete after":   func() { l.DeleteAt(2, 2, none) },
		"delete -1":      func() { l.DeleteAt(2, -1, none) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
				if err := l.Check(); err != nil || string(l.AppendTo(nil)) != "abc" {
					t.Errorf("the list changed: %v", err)
				}
			}()
			f()
		})
	}
}

func TestRoom(t *testing.T) {
	l := list.New()
	if !l.Room(1<<31) || l.Room(1<<32) || l.Room(-1) {
		t.Error("an empty list has room for 1<<31 genes, not for 1<<32 or -1")
	}
}

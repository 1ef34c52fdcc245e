package genome_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"crdt-genome/genome"
)

// TestChainIgnoresCuts: however runs are cut, the chain is that of the events.
func TestChainIgnoresCuts(t *testing.T) {
	_, b := history(t)
	for _, op := range b.Ops {
		whole := genome.NewChain(op.Dot.Replica).Extend(op)
		for n := 1; n < op.Len(); n++ {
			if got := genome.NewChain(op.Dot.Replica).Extend(op.Head(n)).Extend(op.TrimHead(n)); got != whole {
				t.Errorf("%v cut after %d: chain %v, want %v", op.Dot, n, got, whole)
			}
		}
	}
}

// TestChainSeesEverything: a change of any field of any event changes it, and
// no two histories of a sample share a chain.
func TestChainSeesEverything(t *testing.T) {
	base := ins(dot(alice, 1), gene(bob, 3), "ab")
	base.Gene = 0
	gone := del(dot(alice, 1), gene(bob, 3), 2)
	gone.Gene = 0
	seen := map[genome.Chain]int{}
	for i, op := range []genome.Op{
		base, gone,
		with(base, func(op *genome.Op) { op.Genes = []byte("aB") }),
		with(base, func(op *genome.Op) { op.Genes = []byte("Ab") }),
		with(base, func(op *genome.Op) { op.Genes = []byte("ba") }),
		with(base, func(op *genome.Op) { op.Genes = []byte("abb") }),
		with(base, func(op *genome.Op) { op.Side = genome.Left }),
		with(base, func(op *genome.Op) { op.Ref.Gene++ }),
		with(base, func(op *genome.Op) { op.Ref.Replica++ }),
		with(gone, func(op *genome.Op) { op.Reverse = true }),
		with(gone, func(op *genome.Op) { op.Count = 1 }),
		with(gone, func(op *genome.Op) { op.Ref.Gene++ }),
		with(gone, func(op *genome.Op) { op.Ref.Replica++ }),
		with(base, func(op *genome.Op) { op.Dot.Replica++ }),
	} {
		c := genome.NewChain(op.Dot.Replica).Extend(op)
		if j, ok := seen[c]; ok {
			t.Errorf("cases %d and %d have the same chain", i, j)
		}
		seen[c] = i
	}
}

// TestCheckHeads: a batch whose chain does not come out is a fork, named for
// that replica only, before anything is applied.
func TestCheckHeads(t *testing.T) {
	_, b := history(t)
	fork := func(change func(*genome.Block)) genome.Block {
		c := genome.Block{Ops: append([]genome.Op(nil), b.Ops...), Heads: append([]genome.Head(nil), b.Heads...)}
		change(&c)
		return c
	}
	part := func(n int) *genome.Genome {
		g := genome.New(genome.NewReplicaID(9, 9))
		for _, op := range b.Ops[:n] {
			if _, err := g.Apply(op); err != nil {
				t.Fatal(err)
			}
		}
		return g
	}
	for n := range len(b.Ops) + 1 { // the same history, held to any extent
		if forks := part(n).CheckHeads(b); len(forks) > 0 {
			t.Fatalf("with %d ops held: %v", n, forks)
		}
	}
	empty := genome.Op{Dot: dot(alice, 11), Gene: 8}
	for name, c := range map[string]struct {
		block genome.Block
		held  int
		want  genome.ReplicaID // 0: none
	}{
		"none":                {genome.Block{Ops: b.Ops}, 0, 0},
		"chain":               {fork(func(b *genome.Block) { b.Heads[1].Chain++ }), 0, bob},
		"chain, all held":     {fork(func(b *genome.Block) { b.Heads[1].Chain++ }), len(b.Ops), bob},
		"value":               {fork(func(b *genome.Block) { b.Ops[0].Genes = []byte("crispR!") }), 0, alice},
		"value, part held":    {fork(func(b *genome.Block) { b.Ops[5].Genes = []byte("?") }), 3, alice},
		"value of a held one": {fork(func(b *genome.Block) { b.Ops[0].Genes = []byte("crispR!") }), 3, 0}, // Apply names it
		"gap":                 {fork(func(b *genome.Block) { b.Ops = b.Ops[1:]; b.Heads[0].Chain++ }), 0, 0},
		"gene not known":      {fork(func(b *genome.Block) { b.Ops[0].Gene = genome.NoGene; b.Heads[0].Chain++ }), 0, 0},
		"not even an op":      {fork(func(b *genome.Block) { b.Ops = append(b.Ops, empty) }), 0, 0},
		"second epoch":        {fork(func(b *genome.Block) { b.Heads[2].Chain ^= 1 }), 10, bob2},
	} {
		t.Run(name, func(t *testing.T) {
			forks := part(c.held).CheckHeads(c.block)
			if c.want == 0 {
				if len(forks) > 0 {
					t.Errorf("CheckHeads = %v, want none", forks)
				}
				return
			}
			if len(forks) != 1 || forks[0].Code != genome.CodeDotConflict || forks[0].Dot.Replica != c.want ||
				forks[0].Ours == forks[0].Theirs || forks[0].Ours == "" || forks[0].Hint == "" {
				t.Errorf("CheckHeads = %+v, want a fork of %v", forks, c.want)
			}
		})
	}
}

// TestCheckHeadsKnownHead: of a run whose head is known, the rest counts.
func TestCheckHeadsKnownHead(t *testing.T) {
	_, b := history(t)
	g := genome.New(genome.NewReplicaID(9, 9))
	if _, err := g.Apply(b.Ops[0].Head(3)); err != nil {
		t.Fatal(err)
	}
	if forks := g.CheckHeads(b); len(forks) > 0 {
		t.Errorf("CheckHeads = %v, want none", forks)
	}
	b.Ops[0].Genes = []byte("crispR!")
	if forks := g.CheckHeads(b); len(forks) != 1 || forks[0].Dot.Replica != alice {
		t.Errorf("CheckHeads = %v, want a fork of alice", forks)
	}
}

// TestHeads: Head of a replica that is not known is the chain before anything.
func TestHeads(t *testing.T) {
	g := genome.New(alice)
	if got, want := g.Head(bob), (genome.Head{Replica: bob, Chain: genome.NewChain(bob)}); got != want {
		t.Errorf("Head(unknown) = %v, want %v", got, want)
	}
	if g.Genes(bob) != 0 || len(g.Heads()) != 0 || g.Version().String() != "" {
		t.Errorf("an empty genome has %v", g.Heads())
	}
}

// goldenDigest is the digest of the golden history, on every machine.
const goldenDigest = "45b1382b75a62d24"

// TestDigestIsCanonical: the digest, the snapshot and the list do not depend on
// the order of arrival, on how runs were cut, or on what numbers replicas got.
func TestDigestIsCanonical(t *testing.T) {
	_, b := history(t)
	var first *genome.Genome
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 6))
		s := sim{t: t, draw: rnd.IntN}
		var ops []genome.Op
		for _, op := range b.Ops {
			ops = append(ops, s.recut(op)...)
			ops = append(ops, op)
		}
		rnd.Shuffle(len(ops), func(i, j int) { ops[i], ops[j] = ops[j], ops[i] })
		g := genome.New(genome.NewReplicaID(9, genome.Epoch(seed+1)))
		for _, op := range ops {
			if _, err := g.Apply(op); err != nil {
				t.Fatal(err)
			}
		}
		if first == nil {
			first = g
		}
		if g.Digest() != first.Digest() || !bytes.Equal(g.AppendSnapshot(nil), first.AppendSnapshot(nil)) {
			t.Fatalf("seed %d: digest %v, want %v", seed, g.Digest(), first.Digest())
		}
		if load(t, g.AppendSnapshot(nil), 0).Digest() != first.Digest() {
			t.Fatalf("seed %d: another digest after a snapshot", seed)
		}
	}
	if got := first.Digest().String(); got != goldenDigest {
		t.Errorf("Digest() = %s, want %s", got, goldenDigest)
	}
}

// TestDigestSeesEverything: order, ids, values and tombstones all count.
func TestDigestSeesEverything(t *testing.T) {
	seen := map[genome.Digest]int{}
	for i, ops := range [][]genome.Op{
		{},
		{ins(dot(alice, 1), genome.Root, "ab")},
		{ins(dot(alice, 1), genome.Root, "ba")},
		{ins(dot(bob, 1), genome.Root, "ab")},
		{ins(dot(alice, 1), genome.Root, "a"), ins(dot(bob, 1), gene(alice, 0), "b")},
		{ins(dot(alice, 1), genome.Root, "abc")},
		{ins(dot(alice, 1), genome.Root, "abc"), del(dot(alice, 4), gene(alice, 2), 1)},
		{ins(dot(alice, 1), genome.Root, "abc"), del(dot(alice, 4), gene(alice, 1), 1)},
		{ins(dot(alice, 1), genome.Root, "abc"), del(dot(alice, 4), gene(alice, 0), 1)},
		{ins(dot(alice, 1), genome.Root, "abc"), del(dot(alice, 4), gene(alice, 0), 3)},
		{ins(dot(alice, 1), genome.Root, "abd"), del(dot(alice, 4), gene(alice, 0), 2)},
	} {
		g := genome.New(carol)
		for _, op := range ops {
			if _, err := g.Apply(op); err != nil {
				t.Fatal(err)
			}
		}
		if j, ok := seen[g.Digest()]; ok {
			t.Errorf("cases %d and %d have the same digest", i, j)
		}
		seen[g.Digest()] = i
	}
}

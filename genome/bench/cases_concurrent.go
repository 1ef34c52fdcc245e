package bench

import (
	"fmt"
	"math/rand/v2"

	"crdt-genome/genome"
	"crdt-genome/genome/internal/list"
)

// ConcurrentCases returns the shapes of concurrency that hurt other designs.
func ConcurrentCases() []Case {
	return []Case{
		prependCase(10_000), prependCase(100_000),
		gapCase(1000, 100),
		liveCase(3, 100_000),
	}
}

// prependCase: two replicas prepend n genes each without seeing the other's,
// then one receives the other's.
func prependCase(n int) Case {
	c := Case{Group: "concurrent", Name: fmt.Sprintf("two replicas prepend %d apart, then meet", n), Ops: n}
	var want []byte
	c.Prepare = func() (func() any, error) {
		both := func(own, other uint32, l *list.List) *list.List {
			for i := range n {
				l.InsertAt(own, 0, []byte{byte(i)})
			}
			return l
		}
		make2 := func() (*list.List, uint32, uint32) {
			l := list.New()
			return l, l.Replica(uint64(writer)), l.Replica(uint64(reader))
		}
		l1, a1, b1 := make2()
		both(a1, b1, l1)
		// The other's ops: each gene is a left child of the one before.
		ops := make([]remoteInsert, n)
		for i := range ops {
			ops[i] = remoteInsert{b1, list.Ref{Rep: b1, Gene: uint32(i - 1)}, list.Left, byte(i)}
		}
		ops[0].parent, ops[0].side = list.Ref{}, list.Right
		want = want[:0]
		for range 2 { // the writer's all stand before the reader's
			for i := n - 1; i >= 0; i-- {
				want = append(want, byte(i))
			}
		}
		return func() any {
			insertRemote(l1, ops)
			return l1
		}, nil
	}
	c.Check = func(outcome any) (int, error) { return checkText(want)(outcome) }
	return c
}

// gapCase: k replicas insert n genes each as a run of single genes at one gap
// without seeing each other's; a list receives all in turns.
func gapCase(k, n int) Case {
	c := Case{Group: "concurrent", Name: fmt.Sprintf("%d replicas insert %d genes each at one place", k, n), Ops: k * n}
	var want []byte
	for i := range k {
		for j := range n {
			want = append(want, byte(i+j))
		}
	}
	c.Prepare = func() (func() any, error) {
		l := list.New()
		base := l.Replica(uint64(genome.NewReplicaID(1<<20, 1)))
		l.InsertAt(base, 0, []byte{'x'})
		reps := make([]uint32, k)
		for i := range reps { // registered in another order than the list's
			j := (i * 7919) % k
			reps[j] = l.Replica(uint64(genome.NewReplicaID(genome.ActorID(j), 1)))
		}
		return func() any {
			for j := range n {
				for i, rep := range reps {
					parent := list.Ref{Rep: rep, Gene: uint32(j - 1)}
					if j == 0 {
						parent = list.Ref{Rep: base}
					}
					l.Insert(rep, parent, list.Right, []byte{byte(i + j)})
				}
			}
			return l
		}, nil
	}
	c.Check = func(outcome any) (int, error) { return checkText(append([]byte{'x'}, want...))(outcome) }
	return c
}

// liveCase: k genomes edit at random places and receive each other's ops one
// round later; n edits in all.
func liveCase(k, n int) Case {
	c := Case{Group: "concurrent", Name: fmt.Sprintf("%d genomes live, each edit to all", k), Ops: n}
	c.Prepare = ready(func() any {
		rnd := rand.New(rand.NewPCG(7, 7))
		gs := make([]*genome.Genome, k)
		for i := range gs {
			gs[i] = newGenome(genome.NewReplicaID(genome.ActorID(i), 1))
		}
		var round []genome.Op
		for range n / k {
			for i, g := range gs {
				if g.Len() > 10 && rnd.IntN(2) == 0 {
					ops, _ := g.Delete(rnd.IntN(g.Len()), 1)
					round = append(round, ops...)
				} else {
					op, _ := g.Insert(rnd.IntN(g.Len()+1), []byte{byte(i)})
					round = append(round, op)
				}
			}
			for i, op := range round {
				for j, g := range gs {
					if i != j {
						g.Apply(op)
					}
				}
			}
			round = round[:0]
		}
		return gs
	})
	c.Check = func(outcome any) (int, error) {
		gs := outcome.([]*genome.Genome)
		for _, g := range gs[1:] {
			if g.Digest() != gs[0].Digest() || !g.Version().Equal(gs[0].Version()) {
				return 0, ErrWrong
			}
		}
		return 0, nil
	}
	return c
}

package bench

import (
	"fmt"
	"math/rand/v2"

	"crdt-genome/genome"
	"crdt-genome/genome/internal/list"
	"crdt-genome/genome/internal/rope"
)

// RandomCases returns the cases of n genes inserted one at a time at random
// places by the given number of replicas, and of half of them deleted at random.
func RandomCases(n, replicas int) []Case {
	group := fmt.Sprintf("%d random genes, %d replicas", n, replicas)
	half := fmt.Sprintf("%d of %d random genes deleted", n/2, n)
	e := &randomEdits{n: n, replicas: replicas}
	return []Case{
		{group, nameRope, n, Rope, e.prepare(e.insertRope), e.check(e.want)},
		{group, "list, local", n, Timed, e.prepare(e.insertLocal), e.check(e.want)},
		{group, "list, remote", n, Timed, e.prepare(e.insertRemote), e.check(e.want)},
		{group, "list in memory, per gene", n, Heap, e.prepare(func() any { return heapOf(e.insertLocal) }), heapSize(e.check(e.want))},
		{half, nameRope, n / 2, Rope, e.prepareDelete(e.insertRope), e.check(e.wantHalf)},
		{half, "list, local", n / 2, Timed, e.prepareDelete(e.insertLocal), e.check(e.wantHalf)},
		{half, "list, remote", n / 2, Timed, e.prepareRemoteDelete, e.check(e.wantHalf)},
	}
}

// randomEdits makes the same edits from the same seed each time.
type randomEdits struct {
	n, replicas int
	places      []uint32       // insert i goes to places[i] ≤ i; made once
	ops         []remoteInsert // the same inserts as ops
	deletes     []uint32       // delete i takes deletes[i] < n-i
	refs        []list.Ref     // the same deletes as ops; made when first needed
	end, half   []byte         // the texts, from the rope
}

func (e *randomEdits) make() {
	if e.places != nil {
		return
	}
	rnd := rand.New(rand.NewPCG(uint64(e.n), 1))
	for i := range e.n {
		e.places = append(e.places, uint32(rnd.IntN(i+1)))
	}
	for i := range e.n / 2 {
		e.deletes = append(e.deletes, uint32(rnd.IntN(e.n-i)))
	}
	l := list.New()
	reps := e.register(l)
	for i, p := range e.places {
		rep, gene := reps[i%len(reps)], byte(i)
		parent, side := l.InsertAt(rep, int(p), []byte{gene})
		e.ops = append(e.ops, remoteInsert{rep, parent, side, gene})
	}
	r := e.insertRope().(*rope.Rope)
	e.end = r.AppendTo(nil)
	for _, p := range e.deletes {
		r.Delete(int(p), 1)
	}
	e.half = r.AppendTo(nil)
}

func (e *randomEdits) want() []byte     { return e.end }
func (e *randomEdits) wantHalf() []byte { return e.half }

func (e *randomEdits) check(want func() []byte) func(any) (int, error) {
	return func(outcome any) (int, error) { return checkText(want())(outcome) }
}

func (e *randomEdits) prepare(run func() any) func() (func() any, error) {
	return func() (func() any, error) {
		e.make()
		return run, nil
	}
}

func (e *randomEdits) insertRope() any {
	r := rope.New()
	for i, p := range e.places {
		r.Insert(int(p), []byte{byte(i)})
	}
	return r
}

// remoteInsert is an insert of one gene, without pointers.
type remoteInsert struct {
	rep    uint32
	parent list.Ref
	side   list.Side
	gene   byte
}

// register makes the replicas of e known to l.
func (e *randomEdits) register(l *list.List) (reps []uint32) {
	for i := range e.replicas {
		reps = append(reps, l.Replica(uint64(genome.NewReplicaID(genome.ActorID(i), 1))))
	}
	return reps
}

func (e *randomEdits) insertLocal() any {
	l := list.New()
	reps := e.register(l)
	var gene [1]byte
	for i, p := range e.places {
		gene[0] = byte(i)
		l.InsertAt(reps[i%len(reps)], int(p), gene[:])
	}
	return l
}

func (e *randomEdits) insertRemote() any {
	l := list.New()
	e.register(l)
	insertRemote(l, e.ops)
	return l
}

// insertRemote inserts single genes one by one.
func insertRemote(l *list.List, ops []remoteInsert) {
	var gene [1]byte
	for i := range ops {
		op := &ops[i]
		gene[0] = op.gene
		l.Insert(op.rep, op.parent, op.side, gene[:])
	}
}

// prepareDelete deletes half of what fill makes.
func (e *randomEdits) prepareDelete(fill func() any) func() (func() any, error) {
	return func() (func() any, error) {
		e.make()
		full := fill()
		return func() any {
			switch l := full.(type) {
			case *rope.Rope:
				for _, p := range e.deletes {
					l.Delete(int(p), 1)
				}
			case *list.List:
				emit := func(list.Ref, uint32, bool) {}
				for _, p := range e.deletes {
					l.DeleteAt(int(p), 1, emit)
				}
			}
			return full
		}, nil
	}
}

// prepareRemoteDelete is the same of ops that come from elsewhere.
func (e *randomEdits) prepareRemoteDelete() (func() any, error) {
	e.make()
	if e.refs == nil {
		from := e.insertLocal().(*list.List)
		for _, p := range e.deletes {
			from.DeleteAt(int(p), 1, func(r list.Ref, _ uint32, _ bool) { e.refs = append(e.refs, r) })
		}
	}
	l := e.insertLocal().(*list.List)
	return func() any {
		for _, r := range e.refs {
			l.Delete(r, 1)
		}
		return l
	}, nil
}

package bench

import (
	"bytes"
	"compress/flate"
	"fmt"
	"math/rand/v2"
	"runtime"

	"crdt-genome/genome"
	"crdt-genome/genome/internal/list"
	"crdt-genome/genome/internal/rope"
)

// Names of cases that others refer to.
const nameRope = "rope, no CRDT"

// a replica for local edits, and one that only receives.
var (
	writer = genome.NewReplicaID(1, 1)
	reader = genome.NewReplicaID(2, 1)
)

// newGenome returns a genome that keeps no history, as the store uses it.
func newGenome(self genome.ReplicaID) *genome.Genome {
	return genome.NewFromConfig(genome.Config{Self: self, NoHistory: true})
}

// checkText returns a Check that compares what the outcome's AppendTo gives.
func checkText(want []byte) func(any) (int, error) {
	return func(outcome any) (int, error) {
		var got []byte
		switch l := outcome.(type) {
		case *genome.Genome:
			got = l.Bytes()
		case interface{ AppendTo([]byte) []byte }:
			got = l.AppendTo(nil)
		}
		if !bytes.Equal(got, want) {
			return 0, errWrong
		}
		return 0, nil
	}
}

// ready is a Prepare that has nothing to prepare.
func ready(run func() any) func() (func() any, error) {
	return func() (func() any, error) { return run, nil }
}

// TraceCases returns the cases of a trace: local edits on the rope, on the
// bare list and on a genome, and what a genome's ops cost to send, receive,
// replay, save and load.
func TraceCases(t *Trace) ([]Case, error) {
	ops, err := t.ops()
	if err != nil {
		return nil, err
	}
	events := 0
	for i := range ops {
		events += ops[i].Len()
	}
	live, err := blocks(ops)
	if err != nil {
		return nil, err
	}
	history, err := blocks(join(ops))
	if err != nil {
		return nil, err
	}
	end := receive(ops)
	snapshot := end.AppendSnapshot(nil)
	packed := pack(history)
	n := len(t.Edits)
	text := checkText(t.End)
	return []Case{
		{t.Name, nameRope, n, true, true, ready(t.onRope), text},
		{t.Name, "list, local", n, false, true, ready(t.onList), text},
		{t.Name, "genome, local", n, false, true, ready(t.onGenome), text},
		{t.Name, "genome, local, each op as bytes", n, false, true, ready(t.emit), t.checkEmitted},
		{t.Name, "remote one by one, decoded", len(ops), false, true, ready(func() any { return receive(ops) }), text},
		{t.Name, "remote one by one, from bytes", len(ops), false, true, ready(func() any { return replay(live) }), text},
		{t.Name, "replay of the joined log", events, false, true, ready(func() any { return replay(history) }), text},
		{t.Name, "snapshot, save", events, false, true, ready(func() any { return [][]byte{end.AppendSnapshot(nil)} }), sizeOf},
		{t.Name, "snapshot, save and deflate", events, false, false, ready(func() any { return deflate([][]byte{end.AppendSnapshot(nil)}) }), sizeOf},
		{t.Name, "snapshot, load", events, false, true, ready(func() any { return load(snapshot) }), text},
		{t.Name, "heap of the genome", events, false, false, ready(func() any { return heapOf(func() any { return receive(ops) }) }), heapSize},
		{t.Name, "log, joined, raw", events, false, false, ready(func() any { return history }), sizeOf},
		{t.Name, "log, joined, packed", events, false, true, ready(func() any { return pack(history) }), sizeOf},
		{t.Name, "log, joined, unpack and replay", events, false, true, ready(func() any { return replay(unpack(packed)) }), text},
	}, nil
}

// ops returns the trace as one replica's ops.
func (t *Trace) ops() ([]genome.Op, error) {
	g := newGenome(writer)
	var ops []genome.Op
	for _, e := range t.Edits {
		if e.Del > 0 {
			out, err := g.Delete(int(e.Pos), int(e.Del))
			if err != nil {
				return nil, fmt.Errorf("trace %s: %w", t.Name, err)
			}
			ops = append(ops, out...)
		}
		if e.Ins > 0 {
			out, err := g.Insert(int(e.Pos), t.Insert(e))
			if err != nil {
				return nil, fmt.Errorf("trace %s: %w", t.Name, err)
			}
			ops = append(ops, out)
		}
	}
	if !bytes.Equal(g.Bytes(), t.End) {
		return nil, fmt.Errorf("trace %s: %w", t.Name, errWrong)
	}
	return ops, nil
}

func (t *Trace) onRope() any {
	r := rope.New()
	for _, e := range t.Edits {
		if e.Del > 0 {
			r.Delete(int(e.Pos), int(e.Del))
		}
		if e.Ins > 0 {
			r.Insert(int(e.Pos), t.Insert(e))
		}
	}
	return r
}

func (t *Trace) onList() any {
	l := list.New()
	rep := l.Replica(uint64(writer))
	emit := func(list.Ref, uint32, bool) {}
	for _, e := range t.Edits {
		if e.Del > 0 {
			l.DeleteAt(int(e.Pos), int(e.Del), emit)
		}
		if e.Ins > 0 {
			l.InsertAt(rep, int(e.Pos), t.Insert(e))
		}
	}
	return l
}

func (t *Trace) onGenome() any {
	g := newGenome(writer)
	for _, e := range t.Edits {
		if e.Del > 0 {
			g.Delete(int(e.Pos), int(e.Del))
		}
		if e.Ins > 0 {
			g.Insert(int(e.Pos), t.Insert(e))
		}
	}
	return g
}

// emitted is a genome and the length of the blocks that carry all its ops.
type emitted struct {
	g     *genome.Genome
	bytes int
}

func (t *Trace) emit() any {
	var (
		w   genome.BlockWriter
		out = make([]byte, 0, 1<<16)
		e   = emitted{g: newGenome(writer)}
	)
	add := func(op *genome.Op) {
		if w.Len() == genome.MaxBatchOps {
			out, _ = w.Append(out[:0], nil)
			e.bytes += len(out)
			w.Reset()
		}
		w.Add(op)
	}
	for _, edit := range t.Edits {
		if edit.Del > 0 {
			ops, _ := e.g.Delete(int(edit.Pos), int(edit.Del))
			for i := range ops {
				add(&ops[i])
			}
		}
		if edit.Ins > 0 {
			op, _ := e.g.Insert(int(edit.Pos), t.Insert(edit))
			add(&op)
		}
	}
	out, _ = w.Append(out[:0], nil)
	e.bytes += len(out)
	return e
}

func (t *Trace) checkEmitted(outcome any) (int, error) {
	e := outcome.(emitted)
	_, err := checkText(t.End)(e.g)
	return e.bytes, err
}

// join makes runs of neighbouring ops, as the log does.
func join(ops []genome.Op) []genome.Op {
	var out []genome.Op
	for _, op := range ops {
		if last := len(out) - 1; last >= 0 {
			if joined, ok := out[last].Join(op); ok {
				out[last] = joined
				continue
			}
		}
		op.Genes = bytes.Clone(op.Genes)
		out = append(out, op)
	}
	return out
}

// blocks encodes ops in full blocks.
func blocks(ops []genome.Op) ([][]byte, error) {
	var out [][]byte
	for len(ops) > 0 {
		n := min(len(ops), genome.MaxBatchOps)
		b, err := genome.AppendBlock(nil, genome.Block{Ops: ops[:n]})
		if err != nil {
			return nil, err
		}
		out, ops = append(out, b), ops[n:]
	}
	return out, nil
}

// receive applies ops one by one.
func receive(ops []genome.Op) *genome.Genome {
	g := newGenome(reader)
	for i := range ops {
		if res, err := g.Apply(ops[i]); err != nil || res.Parked {
			panic(fmt.Sprint("bench: op not applied: ", err))
		}
	}
	return g
}

// replay decodes blocks and applies their ops one by one.
func replay(blocks [][]byte) *genome.Genome {
	var (
		g  = newGenome(reader)
		r  genome.BlockReader
		op genome.Op
	)
	for _, b := range blocks {
		if err := r.Open(b, genome.MaxBatchOps); err != nil {
			panic(err)
		}
		for r.Next(&op) {
			if res, err := g.Apply(op); err != nil || res.Parked {
				panic(fmt.Sprint("bench: op not applied: ", err))
			}
		}
		if _, err := r.Close(); err != nil {
			panic(err)
		}
	}
	return g
}

func pack(blocks [][]byte) (out [][]byte) {
	for _, b := range blocks {
		packed, err := genome.AppendPacked(nil, b)
		if err != nil {
			panic(err)
		}
		out = append(out, packed)
	}
	return out
}

func unpack(packed [][]byte) (out [][]byte) {
	for _, p := range packed {
		b, err := genome.AppendUnpacked(nil, p, maxTraceBytes)
		if err != nil {
			panic(err)
		}
		out = append(out, b)
	}
	return out
}

func load(snapshot []byte) any {
	g, err := genome.LoadSnapshot(snapshot, genome.Config{NoHistory: true})
	if err != nil {
		panic(err)
	}
	return g
}

func deflate(blocks [][]byte) [][]byte {
	var buf bytes.Buffer
	w, _ := flate.NewWriter(&buf, flate.BestCompression)
	for _, b := range blocks {
		w.Write(b)
	}
	w.Close()
	return [][]byte{buf.Bytes()}
}

func sizeOf(outcome any) (n int, err error) {
	for _, b := range outcome.([][]byte) {
		n += len(b)
	}
	return n, nil
}

// RandomCases returns the cases of n genes inserted one at a time at random
// places by the given number of replicas, and of the same list with half of
// its genes deleted at random.
func RandomCases(n, replicas int) []Case {
	group := fmt.Sprintf("%d random genes, %d replicas", n, replicas)
	e := randomEdits{n: n, replicas: replicas}
	return []Case{
		{group, nameRope, n, true, true, e.prepare(e.insertRope), e.check(e.want)},
		{group, "list, local", n, false, true, e.prepare(e.insertLocal), e.check(e.want)},
		{group, "list, remote", n, false, true, e.prepareRemote(), e.check(e.want)},
		{group, "heap of the list", n, false, false, e.prepare(e.heap), heapSize},
		{group, "list, delete half, local", n / 2, false, true, e.prepareDelete(), e.check(e.wantHalf)},
		{group, "list, delete half, remote", n / 2, false, true, e.prepareRemoteDelete(), e.check(e.wantHalf)},
	}
}

// randomEdits makes the same edits from the same seed each time.
type randomEdits struct {
	n, replicas int
	places      []uint32 // insert i goes to places[i] ≤ i; made once
	deletes     []uint32 // delete i takes deletes[i] < n-i
	end, half   []byte   // the texts, from the rope
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

// remoteInsert is an insert of one gene, without pointers.
type remoteInsert struct {
	rep    uint32
	parent list.Ref
	side   list.Side
	gene   byte
}

func (e *randomEdits) prepareRemote() func() (func() any, error) {
	return func() (func() any, error) {
		e.make()
		ops := make([]remoteInsert, 0, e.n)
		l := list.New()
		reps := e.register(l)
		var gene [1]byte
		for i, p := range e.places {
			gene[0] = byte(i)
			rep := reps[i%len(reps)]
			parent, side := l.InsertAt(rep, int(p), gene[:])
			ops = append(ops, remoteInsert{rep, parent, side, gene[0]})
		}
		return func() any {
			l := list.New()
			e.register(l)
			for i := range ops {
				op := &ops[i]
				gene[0] = op.gene
				l.Insert(op.rep, op.parent, op.side, gene[:])
			}
			return l
		}, nil
	}
}

func (e *randomEdits) prepareDelete() func() (func() any, error) {
	return func() (func() any, error) {
		e.make()
		l := e.insertLocal().(*list.List)
		emit := func(list.Ref, uint32, bool) {}
		return func() any {
			for _, p := range e.deletes {
				l.DeleteAt(int(p), 1, emit)
			}
			return l
		}, nil
	}
}

func (e *randomEdits) prepareRemoteDelete() func() (func() any, error) {
	return func() (func() any, error) {
		e.make()
		from, to := e.insertLocal().(*list.List), e.insertLocal().(*list.List)
		refs := make([]list.Ref, 0, len(e.deletes))
		for _, p := range e.deletes {
			from.DeleteAt(int(p), 1, func(r list.Ref, _ uint32, _ bool) { refs = append(refs, r) })
		}
		return func() any {
			for _, r := range refs {
				to.Delete(r, 1)
			}
			return to
		}, nil
	}
}

// heapOutcome is how much memory something holds, and the thing itself, so
// that it is still there when that is measured.
type heapOutcome struct {
	made  any
	bytes int
}

func heapOf(make func() any) heapOutcome {
	before := heapInUse()
	made := make()
	return heapOutcome{made, int(heapInUse() - before)}
}

func (e *randomEdits) heap() any { return heapOf(e.insertLocal) }

func heapSize(outcome any) (int, error) {
	h := outcome.(heapOutcome)
	runtime.KeepAlive(h.made)
	return h.bytes, nil
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

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
	c := Case{Timed: true, Group: "concurrent", Name: fmt.Sprintf("two replicas prepend %d apart, then meet", n), Ops: n}
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
			for i := range ops {
				l1.Insert(ops[i].rep, ops[i].parent, ops[i].side, []byte{ops[i].gene})
			}
			return l1
		}, nil
	}
	c.Check = func(outcome any) (int, error) { return checkText(want)(outcome) }
	return c
}

// gapCase: k replicas insert n genes each as a run of single genes at one gap
// without seeing each other's; a list receives all in turns.
func gapCase(k, n int) Case {
	c := Case{Timed: true, Group: "concurrent", Name: fmt.Sprintf("%d replicas insert %d genes each at one place", k, n), Ops: k * n}
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
	c := Case{Timed: true, Group: "concurrent", Name: fmt.Sprintf("%d genomes live, each edit to all", k), Ops: n}
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
				return 0, errWrong
			}
		}
		return 0, nil
	}
	return c
}

package bench

import (
	"bytes"
	"compress/flate"
	"fmt"

	"crdt-genome/genome"
	"crdt-genome/genome/internal/list"
	"crdt-genome/genome/internal/rope"
)

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
			return 0, ErrWrong
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
	live, err := blocks(ops, false)
	if err != nil {
		return nil, err
	}
	history, err := blocks(join(ops), false)
	if err != nil {
		return nil, err
	}
	log, err := blocks(join(ops), true)
	if err != nil {
		return nil, err
	}
	end := receive(ops)
	snapshot := end.AppendSnapshot(nil)
	packed := pack(history)
	flat := flatten(ops)
	n := len(t.Edits)
	text := checkText(t.End)
	return []Case{
		{t.Name, nameRope, n, Rope, ready(t.onRope), text},
		{t.Name, "list, local", n, Timed, ready(t.onList), text},
		{t.Name, "list, remote", len(ops), Timed, ready(func() any { return receiveOnList(flat) }), text},
		{t.Name, "genome, local", n, Timed, ready(t.onGenome), text},
		{t.Name, "genome, local, each op as bytes", n, Timed, ready(t.emit), t.checkEmitted},
		{t.Name, "genome, remote one by one, decoded", len(ops), Timed, ready(func() any { return receive(ops) }), text},
		{t.Name, "genome, remote one by one, from bytes", len(ops), Timed, ready(func() any { return replay(live) }), text},
		{t.Name, "log, joined: replay", events, Timed, ready(func() any { return replayLog(log) }), text},
		{t.Name, "log, joined: unpack and replay", events, Timed, ready(func() any { return replayLog(unpack(packed)) }), text},
		{t.Name, "log, joined: pack", events, Timed, ready(func() any { return pack(history) }), sizeOf},
		{t.Name, "log, joined: raw", events, Size, ready(func() any { return history }), sizeOf},
		{t.Name, "snapshot: load", events, Timed, ready(func() any { return load(snapshot) }), text},
		{t.Name, "snapshot: save", events, Timed, ready(func() any { return [][]byte{end.AppendSnapshot(nil)} }), sizeOf},
		{t.Name, "snapshot: deflated", events, Size, ready(func() any { return deflate([][]byte{end.AppendSnapshot(nil)}) }), sizeOf},
		{t.Name, "list in memory, per gene", len(t.Text), Heap, ready(func() any { return heapOf(t.onList) }), heapSize(text)},
		{t.Name, "genome in memory, per gene", len(t.Text), Heap, ready(func() any { return heapOf(func() any { return receive(ops) }) }), heapSize(text)},
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
		return nil, fmt.Errorf("trace %s: %w", t.Name, ErrWrong)
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
	t.edit(g, func(*genome.Op) {})
	return g
}

// edit makes the edits on g and hands each op to emit, which must not keep it.
func (t *Trace) edit(g *genome.Genome, emit func(*genome.Op)) {
	var ins genome.Op
	var del []genome.Op
	for _, e := range t.Edits {
		if e.Del > 0 {
			del, _ = g.AppendDelete(del[:0], int(e.Pos), int(e.Del))
			for i := range del {
				emit(&del[i])
			}
		}
		if e.Ins > 0 && g.InsertTo(&ins, int(e.Pos), t.Insert(e)) == nil {
			emit(&ins)
		}
	}
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
	t.edit(e.g, func(op *genome.Op) {
		if w.Len() == genome.MaxBatchOps {
			out, _ = w.Append(out[:0], nil)
			e.bytes += len(out)
			w.Reset()
		}
		w.Add(op)
	})
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
func blocks(ops []genome.Op, chains bool) ([][]byte, error) {
	var out [][]byte
	head := genome.Head{Replica: writer, Chain: genome.NewChain(writer)}
	for len(ops) > 0 {
		n := min(len(ops), genome.MaxBatchOps)
		block := genome.Block{Ops: ops[:n]}
		if chains {
			for _, op := range ops[:n] {
				head.Seq, head.Chain = op.Last(), head.Chain.Extend(op)
			}
			block.Heads = []genome.Head{head}
		}
		b, err := genome.AppendBlock(nil, block)
		if err != nil {
			return nil, err
		}
		out, ops = append(out, b), ops[n:]
	}
	return out, nil
}

// A flatOp is an op of replica 1 as the bare list takes it, without pointers:
// the collector has nothing to do with it.
type flatOp struct {
	delete   bool
	side     list.Side
	ref      list.Ref
	n        uint32 // genes deleted
	from, to uint32 // genes inserted, in flatOps.text
}

type flatOps struct {
	ops  []flatOp
	text []byte
}

// flatten returns the ops of one replica, which names no other's genes.
func flatten(ops []genome.Op) (f flatOps) {
	for i := range ops {
		op := &ops[i]
		o := flatOp{delete: op.Kind == genome.Delete, side: list.Side(op.Side), n: uint32(op.Count)}
		if !op.Ref.IsRoot() {
			o.ref = list.Ref{Rep: 1, Gene: uint32(op.Ref.Gene)}
		}
		o.from = uint32(len(f.text))
		f.text = append(f.text, op.Genes...)
		o.to = uint32(len(f.text))
		f.ops = append(f.ops, o)
	}
	return f
}

// receiveOnList applies ops to a bare list one by one.
func receiveOnList(f flatOps) any {
	l := list.New()
	rep := l.Replica(uint64(writer))
	for i := range f.ops {
		if o := &f.ops[i]; o.delete {
			l.Delete(o.ref, o.n)
		} else {
			l.Insert(rep, o.ref, o.side, f.text[o.from:o.to])
		}
	}
	return l
}

// receive applies ops one by one.
func receive(ops []genome.Op) *genome.Genome {
	g := newGenome(reader)
	var res genome.Result
	for i := range ops {
		if err := g.ApplyTo(&res, 0, &ops[i]); err != nil || res.Parked {
			panic(fmt.Sprint("bench: op not applied: ", err))
		}
	}
	return g
}

// replayLog replays the blocks of a log.
func replayLog(blocks [][]byte) *genome.Genome {
	g := newGenome(reader)
	for _, b := range blocks {
		if _, err := g.ReplayBlock(b); err != nil {
			panic(err)
		}
	}
	return g
}

// replay decodes blocks and applies their ops one by one.
func replay(blocks [][]byte) *genome.Genome {
	var (
		g   = newGenome(reader)
		r   genome.BlockReader
		op  genome.Op
		res genome.Result
	)
	for _, b := range blocks {
		if err := r.Open(b, genome.MaxBatchOps); err != nil {
			panic(err)
		}
		for r.Next(&op) {
			if err := g.ApplyTo(&res, 0, &op); err != nil || res.Parked {
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

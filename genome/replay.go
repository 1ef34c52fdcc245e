package genome

import "fmt"

// Replay applies the ops of a log: those that [Genome.Insert] and
// [Genome.Delete] returned and those of [Result.Applied], in that order, cut and
// joined in any way. It is far cheaper than [Genome.Apply]: nothing is compared
// with what is held, parked or reported. What a damaged or foreign log can do is
// still found, and nothing panics: an op that fails [Op.Check], is not the next
// of its replica, or names a gene that is not there ends the replay with an
// [*OpError] of the code that Apply has for it, [CodeOpInvalid] where Apply would
// park. applied is how many ops were applied before it.
//
// Ops of the replica that [Genome.Self] names are replayed like any other's. The
// genome must not have anything parked. The genes of ops may be kept in the
// history and must not be changed afterwards.
func (g *Genome) Replay(ops []Op) (applied int, err error) {
	if err := g.mayReplay(); err != nil {
		return 0, err
	}
	for i := range ops {
		op := ops[i] // the caller's stays as it is
		if err := g.replay(&op); err != nil {
			return i, err
		}
	}
	return len(ops), nil
}

// ReplayBlock replays an encoded block of a log as [Genome.Replay] does, without
// decoding it to ops first, and returns the heads of its authors in the order of
// its table.
//
// It believes nothing that it is told: whatever data holds, it does not panic,
// and the genome is afterwards what [Genome.Apply] of the same ops makes it.
// The checksum, the form, each op and, if the block carries heads, each chain
// are checked, the chains against those of the events that were applied. What is
// left to the caller is what a block cannot show: that it is the next of this
// log (one that is left out is noticed only if a later one builds on it, so the
// heads at the end are to be compared with those that are known from elsewhere),
// and that the genome, if it came from [LoadSnapshot], was of the right state.
//
// The error is an [*OpError]: that of the decoder, that of Replay, or
// [CodeDotConflict] if a chain is another. After one the genome holds the ops
// before the one that was refused, or all of them if something after the last was
// wrong, and can go on as any other; since the log is damaged, most callers will
// rather drop it. At most [MaxBatchOps] ops of [MaxRun] events are in a block;
// O(events + ops × log n). data must not change afterwards if the genome keeps its
// history.
func (g *Genome) ReplayBlock(data []byte) ([]Head, error) {
	if err := g.mayReplay(); err != nil {
		return nil, err
	}
	r := &g.reader
	defer r.release()
	if err := r.Open(data, MaxBatchOps); err != nil {
		return nil, err
	}
	var op Op
	for r.Next(&op) {
		if err := g.replay(&op); err != nil {
			return nil, err
		}
	}
	said, err := r.Close()
	if err != nil {
		return nil, err
	}
	heads := said[:0:0]
	for i := range r.table {
		if t := &r.table[i]; t.seq > 0 {
			heads = append(heads, g.Head(t.id))
		}
	}
	for i := range said {
		if heads[i] != said[i] {
			return nil, forked(heads[i], said[i])
		}
	}
	return heads, nil
}

func (g *Genome) mayReplay() error {
	if g.parking.ops > 0 {
		return &OpError{Code: CodeOpInvalid, Detail: fmt.Sprintf("a log is replayed before ops come from elsewhere: %d are parked", g.parking.ops)}
	}
	return nil
}

// replay applies one op of a log.
func (g *Genome) replay(op *Op) error {
	if g.usual(op) {
		return nil
	}
	if err := op.Check(); err != nil {
		return err
	}
	rep, ref := g.find(op.Dot.Replica, &g.author), g.find(op.Ref.Replica, &g.named)
	if held := g.reps[rep].Seq; op.Dot.Seq != held+1 {
		return op.refuse(CodeOpInvalid, fmt.Sprintf("does not follow from what comes before: %d events of that replica are held", held))
	}
	if op.lastNamed() >= g.genes(ref) && !op.namesRoot() {
		return op.refuse(CodeOpInvalid, fmt.Sprintf("does not follow from what comes before: it names gene %d of %v, of which %d are held", op.lastNamed(), op.Ref.Replica, g.genes(ref)))
	}
	return g.integrate(op, rep, ref)
}

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
// its table. The block's checksum is
// checked. If the block has chains they are believed: they were computed when it
// was written, and to compute them again takes as long as the rest. Whoever
// doubts a log decodes it and compares the chains with those that Replay gives.
//
// The error is an [*OpError]. After one the genome holds a part of the block,
// under chains that may be wrong, and is of no more use. data must not change
// afterwards if the genome keeps its history.
func (g *Genome) ReplayBlock(data []byte) ([]Head, error) {
	if err := g.mayReplay(); err != nil {
		return nil, err
	}
	r := &g.reader
	if err := r.Open(data, MaxBatchOps); err != nil {
		return nil, err
	}
	g.trusting = r.chains
	defer func() { g.trusting = false }()
	var op Op
	for r.Next(&op) {
		if err := g.replay(&op); err != nil {
			return nil, err
		}
	}
	heads, err := r.Close()
	if err != nil {
		return nil, err
	}
	for _, h := range heads {
		g.reps[g.numbers[h.Replica]].Chain = h.Chain
	}
	if !r.chains {
		for i := range r.table {
			if t := &r.table[i]; t.seq > 0 {
				heads = append(heads, g.Head(t.id))
			}
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

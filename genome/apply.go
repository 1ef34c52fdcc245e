package genome

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"crdt-genome/genome/internal/list"
)

// A Result says what became of an op from elsewhere.
type Result struct {
	// Applied is what was applied, in order: the op, without a head that was
	// known already, and the parked ops that had waited for it. Store these.
	// The slice, not the genes, is used again by the next call.
	Applied []Op
	// Duplicate is set when all of the op was known already.
	Duplicate bool
	// Parked is set when the op waits for what Missing says. It is not applied
	// and must not be acknowledged as held.
	Parked  bool
	Missing []Missing
	// Refused names parked ops that turned out bad when their time had come.
	Refused []*OpError
}

// Apply applies an op from elsewhere, as [Genome.ApplyFrom] does, on the
// account of peer 0.
func (g *Genome) Apply(op Op) (res Result, err error) {
	err = g.ApplyTo(&res, 0, &op)
	return res, err
}

// ApplyFrom applies an op from elsewhere, parks it if something that it
// depends on is not there yet (within bounds counted for each peer; the number
// means nothing else), and does nothing if it is known. Any order of arrival
// and any repetition leads to the same genome. The error is an [*OpError], and
// then nothing was changed. The genes of op may be kept in the history and
// must not be changed afterwards.
//
// O(log n + s log n + genes), s being the concurrent siblings at that very
// place, of which every replica can have one.
func (g *Genome) ApplyFrom(peer uint64, op Op) (res Result, err error) {
	err = g.ApplyTo(&res, peer, &op)
	return res, err
}

// ApplyTo does what [Genome.ApplyFrom] does and copies neither op nor result:
// the form for those who apply millions. res is overwritten; of op at most a Gene
// that is [NoGene] is filled in.
func (g *Genome) ApplyTo(res *Result, peer uint64, op *Op) error {
	*res = Result{Applied: g.applied[:0]}
	if g.usual(op) {
		res.Applied = append(res.Applied, *op)
	} else {
		if err := g.receive(res, peer, op); err != nil {
			*res = Result{}
			return err
		}
	}
	if g.parking.ops > 0 {
		for i := 0; i < len(res.Applied); i++ {
			g.release(res.Applied[i].Dot.Replica, res)
		}
	}
	g.applied = res.Applied
	return nil
}

// usual applies op if it is of the shape that nearly every op has: the next of
// the replica whose op came before it, far from the last seq, naming genes of the
// replica that was named before, which are there. It reports whether it did. What it looks at
// implies all that Check and admit look at; whatever is otherwise it leaves to
// them.
func (g *Genome) usual(op *Op) bool {
	rep, ref := g.author, g.named
	head := &g.reps[rep]
	if op.Dot.Replica != head.Replica || op.Dot.Seq != head.Seq+1 || head.Seq-1 >= MaxSeq-MaxRun-1 || op.Dot.Replica == g.self ||
		op.Ref.Replica != g.reps[ref].Replica || ref == 0 || op.Side > Left {
		return false
	}
	known := uint64(g.list.Genes(rep))
	if op.Gene != known && op.Gene != NoGene {
		return false
	}
	op.Gene = known
	if ref != rep {
		known = uint64(g.list.Genes(ref))
	}
	if op.Ref.Gene >= known {
		return false
	}
	n := uint64(len(op.Genes))
	first := list.Ref{Rep: ref, Gene: uint32(op.Ref.Gene)}
	switch {
	case op.Kind == Insert:
		if n-1 >= MaxRun || op.Count != 0 || op.Reverse || !g.room(int(n)) || !g.list.Insert(rep, first, list.Side(op.Side), op.Genes) {
			return false
		}
	case op.Kind == Delete:
		if op.Count-1 >= MaxRun || n != 0 || op.Side != Right || op.Count > known-op.Ref.Gene {
			return false
		}
		n = op.Count
		g.dead += g.list.Delete(first, uint32(n))
	default:
		return false
	}
	head.Seq += n
	head.Chain = head.Chain.extend(op)
	g.ops += n
	if g.history != nil {
		g.history.append(*op)
	}
	return true
}

// receive is ApplyTo for every shape of op, but for the release of what is
// parked.
func (g *Genome) receive(res *Result, peer uint64, op *Op) error {
	if err := op.Check(); err != nil {
		return err
	}
	missing, err := g.admit(op, res)
	if err != nil || missing == nil {
		return err
	}
	if err := g.parking.park(peer, *op, *missing); err != nil {
		return err
	}
	res.Parked, res.Missing = true, []Missing{*missing}
	return nil
}

// admit applies op and appends to res.Applied, sets res.Duplicate, or returns
// what op waits for.
func (g *Genome) admit(op *Op, res *Result) (*Missing, error) {
	rep, ref := g.find(op.Dot.Replica, &g.author), g.find(op.Ref.Replica, &g.named)
	known := g.reps[rep].Seq
	if op.Dot.Replica == g.self && op.Last() > known {
		return nil, g.selfAhead(op)
	}
	if op.Dot.Seq > known+1 {
		if op.Dot.Seq > known+MaxSeqAhead {
			return nil, op.refuse(CodeSeqTooFar, fmt.Sprintf("only %d events of that replica are held, and at most %d may be ahead", known, MaxSeqAhead))
		}
		return &Missing{Replica: op.Dot.Replica, From: known + 1, To: op.Dot.Seq - 1}, nil
	}
	if op.Dot.Seq <= known {
		if err := g.compare(*op, known); err != nil {
			return nil, err
		}
		if op.Last() <= known {
			res.Duplicate = len(res.Applied) == 0
			return nil, nil
		}
		trimmed, err := g.trim(*op, known)
		if err != nil {
			return nil, err
		}
		op = &trimmed
		ref = g.find(op.Ref.Replica, &g.named)
	}
	if op.lastNamed() >= g.genes(ref) && !op.namesRoot() {
		return g.missingGene(op, g.genes(ref))
	}
	if err := g.integrate(op, rep, ref); err != nil {
		return nil, err
	}
	res.Applied = append(res.Applied, *op)
	return nil, nil
}

// selfAhead refuses an op that shows that this replica has issued more than it
// holds: an event of its own, or a gene of its own that another op names.
func (g *Genome) selfAhead(op *Op) error {
	err := op.refuse(CodeSelfAhead, fmt.Sprintf("holds or names events of %v, which is this replica, that are not held here", g.self))
	err.Hint = "the log of this actor was rolled back, or another process runs as this actor"
	return err
}

// trim cuts off what is known of op, whose first event is. Without a history to
// compare with, a head that cannot be the replica's last genes is still a fork.
func (g *Genome) trim(op Op, known uint64) (Op, error) {
	n := known - op.Dot.Seq + 1
	if op.Kind == Insert && op.Gene == NoGene {
		genes := g.Genes(op.Dot.Replica)
		if genes < n {
			return op, op.conflict(op.Dot, fmt.Sprint("gene ", genes), fmt.Sprintf("%d genes", n))
		}
		op.Gene = genes - n
	}
	return op.TrimHead(int(n)), nil
}

// compare returns a dot_conflict if op's events up to known differ from those
// that are held under the same dots.
func (g *Genome) compare(op Op, known uint64) error {
	if g.lookup == nil {
		return nil
	}
	for seq := op.Dot.Seq; seq <= min(known, op.Last()); {
		held, ok := g.lookup(Dot{op.Dot.Replica, seq})
		if !ok {
			return nil
		}
		for ; seq <= min(known, op.Last(), held.Last()); seq++ {
			i, j := int(seq-op.Dot.Seq), int(seq-held.Dot.Seq)
			genes := held.Gene // inserted before this event
			if held.Kind == Insert {
				genes += uint64(j)
			}
			if i == 0 && op.Gene == NoGene {
				op.Gene = genes
			}
			if ours, theirs := held.Event(j), op.Event(i); ours != theirs {
				return op.conflict(Dot{op.Dot.Replica, seq}, ours.String(), theirs.String())
			}
			if i == 0 && op.Gene != genes {
				return op.conflict(op.Dot, fmt.Sprint("gene ", genes), fmt.Sprint("gene ", op.Gene))
			}
		}
	}
	return nil
}

// conflict refuses op because its event at is held with other content.
func (op *Op) conflict(at Dot, ours, theirs string) *OpError {
	err := op.refuse(CodeDotConflict, fmt.Sprintf("%v exists with other content", at))
	err.Hint = fmt.Sprintf("two processes may run as actor %d", at.Replica.Actor())
	err.Ours, err.Theirs = ours, theirs
	return err
}

// namesRoot reports whether op inserts at the beginning of the list.
func (op *Op) namesRoot() bool { return op.Kind == Insert && op.Ref.IsRoot() }

// lastNamed is the highest gene of op.Ref.Replica that op names.
func (op *Op) lastNamed() uint64 {
	if op.Kind == Delete {
		return op.Ref.Gene + op.Count - 1
	}
	return op.Ref.Gene
}

// missingGene says which gene op waits for, known genes of that replica being
// held, or refuses an op that nothing can make ready.
func (g *Genome) missingGene(op *Op, known uint64) (*Missing, error) {
	m := &Missing{Replica: op.Ref.Replica, Gene: op.lastNamed(), HasGene: true}
	switch {
	case m.Replica == op.Dot.Replica:
		return nil, op.refuse(CodeUnknownTarget, fmt.Sprintf("names gene %d of its own replica, which had inserted %d", m.Gene, known))
	case m.Replica == g.self:
		return nil, g.selfAhead(op)
	case m.Gene >= known+MaxSeqAhead:
		return nil, op.refuse(CodeSeqTooFar, fmt.Sprintf("names a gene of %v more than %d ahead of what is held", m.Replica, MaxSeqAhead))
	}
	return m, nil
}

// integrate applies op, whose dependencies are all there and whose first event
// is the next of its replica. rep and ref are the local numbers of its replica
// (0 if new) and of the one it names.
func (g *Genome) integrate(op *Op, rep, ref uint32) error {
	known := g.genes(rep)
	if op.Gene != NoGene && op.Gene != known {
		err := op.refuse(CodeDotConflict, fmt.Sprintf("says that its replica had inserted %d genes before; it was %d", op.Gene, known))
		err.Hint = "leave out \"gene\" if the op was written by hand; otherwise that replica's history has forked"
		err.Ours, err.Theirs = fmt.Sprint("gene ", known), fmt.Sprint("gene ", op.Gene)
		return err
	}
	op.Gene = known
	if op.Kind == Insert && !g.room(len(op.Genes)) {
		return op.refuse(CodeGenomeFull, ErrFull.Error())
	}
	if rep == 0 {
		if len(g.reps) > MaxReplicas {
			return op.refuse(CodeTooManyReplicas, fmt.Sprintf("%d replicas are known, which is the most", MaxReplicas))
		}
		rep = g.number(op.Dot.Replica)
	}
	first := list.Ref{Rep: ref, Gene: uint32(op.Ref.Gene)}
	if op.Kind == Delete {
		g.dead += g.list.Delete(first, uint32(op.Count))
	} else if !g.list.Insert(rep, first, list.Side(op.Side), op.Genes) {
		return op.refuse(CodeOpInvalid, fmt.Sprintf("its replica has a gene on side %v of %v already", op.Side, op.Ref))
	}
	g.advance(rep, op)
	return nil
}

// advance records that op, the next of replica number rep, is applied.
func (g *Genome) advance(rep uint32, op *Op) {
	r := &g.reps[rep]
	if r.Seq == 0 {
		i, _ := slices.BinarySearchFunc(g.sorted, r.Replica, func(n uint32, id ReplicaID) int {
			return cmp.Compare(g.reps[n].Replica, id)
		})
		g.sorted = slices.Insert(g.sorted, i, rep)
	}
	r.Seq = op.Last()
	r.Chain = r.Chain.extend(op)
	g.ops += uint64(op.Len())
	if g.history != nil {
		g.history.append(*op)
	}
}

// release applies the parked ops that waited for r and can be applied now.
func (g *Genome) release(r ReplicaID, res *Result) {
	for {
		w := g.parking.ready(r, g.Head(r).Seq, g.Genes(r))
		if w == nil {
			return
		}
		missing, err := g.admit(&w.op, res)
		if missing != nil {
			w.missing = *missing
			g.parking.wait(w)
			continue
		}
		g.parking.leave(w)
		var bad *OpError
		if errors.As(err, &bad) {
			res.Refused = append(res.Refused, bad)
		}
	}
}

// CheckHeads compares the chains that a batch carries with what applying its
// ops here would give, before any is applied. It returns one dot_conflict for
// each replica whose history has forked; the caller leaves that replica's ops
// out. Nothing can be said, and nothing is returned, for a replica of which
// more is held than the batch tells, or whose ops do not join what is held.
// O(events in the batch).
func (g *Genome) CheckHeads(b Block) []*OpError {
	if len(b.Heads) == 0 {
		return nil
	}
	rolled := make([]Head, len(b.Heads))
	at := make(map[ReplicaID]int, len(b.Heads)) // index into both; looked up only
	for i, h := range b.Heads {
		rolled[i] = g.Head(h.Replica)
		at[h.Replica] = i
	}
	var unknown Head
	h := &unknown
	for _, op := range b.Ops {
		if h.Replica != op.Dot.Replica {
			if i, ok := at[op.Dot.Replica]; ok {
				h = &rolled[i]
			} else {
				h = &unknown
				continue
			}
		}
		if op.Check() != nil || op.Gene == NoGene || op.Last() <= h.Seq || op.Dot.Seq > h.Seq+1 {
			continue
		}
		if op.Dot.Seq <= h.Seq {
			op = op.TrimHead(int(h.Seq - op.Dot.Seq + 1))
		}
		h.Seq, h.Chain = op.Last(), h.Chain.Extend(op)
	}
	var forks []*OpError
	for i, theirs := range b.Heads {
		ours := rolled[i]
		if ours.Seq != theirs.Seq || ours.Chain == theirs.Chain {
			continue
		}
		forks = append(forks, forked(ours, theirs))
	}
	return forks
}

// forked is the refusal of a history that was told with another chain.
func forked(ours, theirs Head) *OpError {
	return &OpError{
		Code:   CodeDotConflict,
		Dot:    Dot{theirs.Replica, theirs.Seq},
		Detail: fmt.Sprintf("the history of %v up to seq %d differs from the one held here", theirs.Replica, theirs.Seq),
		Hint:   fmt.Sprintf("two processes may run as actor %d, or a log was damaged", theirs.Replica.Actor()),
		Ours:   ours.Chain.String(),
		Theirs: theirs.Chain.String(),
	}
}

package store

import (
	"context"
	"fmt"
	"slices"

	"crdt-genome/genome"
	"crdt-genome/store/signed"
)

// Codes of ops that are refused for want of a signature. Nothing of them is kept;
// what is signed later, or by whom the roster knows by then, a pull brings.
const (
	// CodeSignatureRequired: no signed point covers the op.
	CodeSignatureRequired genome.Code = "signature_required"
	// CodeSignatureInvalid: the author has not signed this history.
	CodeSignatureInvalid genome.Code = "signature_invalid"
	// CodeNotInRoster: the roster has no key of the author.
	CodeNotInRoster genome.Code = "not_in_roster"
)

// A screening goes through a batch before the writer does, and takes what its
// authors have signed. It is done by the caller of Receive, as a signature takes
// some 40 µs and the writer is one for all.
//
// Of a replica, all up to its point is taken or nothing is: an actor's log then
// ends, for each replica, at a signed point after every request, and whoever asks
// it can check what it gets. So nothing is parked either. What comes too early
// is told as pending, and has to be sent again or pulled.
type screening struct {
	authors map[genome.ReplicaID]*candidate // looked up only
	order   []*candidate
	genes   map[genome.ReplicaID]uint64 // of those named, at the beginning; looked up only

	block  genome.Block
	points []sumPoint // of what is taken
	ahead  []genome.Op
	rec    Receipt // what became of the rest
}

// A candidate is what is known of one replica of the batch.
type candidate struct {
	replica genome.ReplicaID
	held    uint64        // events, before the batch
	chain   *signed.Chain // from there on, with what has come
	point   *signed.Point // nil: none, or of what is held
	first   genome.Dot    // of its ops that are new
	news    int           // events that are new
	missing *genome.Missing
	refused *genome.OpError
}

// A sumPoint is a point that was checked, and what the history up to it comes to.
type sumPoint struct {
	signed.Point
	sum signed.Sum
}

// screen checks b, which comes from src.
func (a *Actor) screen(src Source, b signed.Batch) (*screening, error) {
	s := &screening{authors: make(map[genome.ReplicaID]*candidate), genes: make(map[genome.ReplicaID]uint64)}
	self, err := a.screenFrom(s, b)
	if err != nil {
		return nil, err
	}
	ops := make([]genome.Op, 0, len(b.Ops))
	for i := range b.Ops {
		ops = s.follow(ops, b.Ops[i])
	}
	for _, au := range s.order {
		s.judge(au, a.sign.Roster, src.Trusted)
	}
	s.ready(ops, self)
	s.take(ops)
	return s, nil
}

// screenFrom notes where the authors of b stand.
func (a *Actor) screenFrom(s *screening, b signed.Batch) (self genome.ReplicaID, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return 0, a.err
	}
	for i := range b.Ops {
		r, ref := b.Ops[i].Dot.Replica, b.Ops[i].Ref.Replica
		if s.authors[r] == nil {
			au := &candidate{replica: r, held: a.g.Head(r).Seq}
			if c := a.sign.chains[r]; c != nil {
				au.chain = c.Clone()
			} else {
				au.chain = signed.NewChain(a.sign.cluster, r)
			}
			if p, ok := b.Point(r); ok && p.Seq > au.held {
				au.point = p
			}
			s.authors[r] = au
			s.order = append(s.order, au)
			s.genes[r] = a.g.Genes(r)
		}
		if _, ok := s.genes[ref]; !ok {
			s.genes[ref] = a.g.Genes(ref)
		}
	}
	return a.g.Self(), nil
}

// follow adds op to the chain of its author, as far as the author's point goes,
// and to ops. What is held already goes on as it is: it is compared later.
func (s *screening) follow(ops []genome.Op, op genome.Op) []genome.Op {
	au := s.authors[op.Dot.Replica]
	if op.Last() <= au.held {
		return append(ops, op)
	}
	if op.Dot.Seq <= au.held { // what is new of it is a run of its own
		if op.Kind == genome.Insert && op.Gene == genome.NoGene {
			op.Gene = au.chain.Genes() - (au.held + 1 - op.Dot.Seq) // Extend refuses it if that is not so
		}
		k := int(au.held + 1 - op.Dot.Seq)
		ops, op = append(ops, op.Head(k)), op.TrimHead(k)
	}
	if op.Gene == genome.NoGene {
		op.Gene = au.chain.Genes()
	}
	if au.news == 0 {
		au.first = op.Dot
	}
	au.news += op.Len()
	if au.missing != nil || au.refused != nil {
		return ops
	}
	if err := op.Check(); err != nil {
		au.refused = refusal(genome.CodeOpInvalid, op.Dot, err.Error())
		return ops
	}
	if next := au.chain.Seq() + 1; op.Dot.Seq > next {
		au.missing = &genome.Missing{Replica: au.replica, From: next, To: op.Dot.Seq - 1}
		return ops
	}
	if au.point == nil || au.chain.Seq() == au.point.Seq {
		return ops // beyond what is signed
	}
	if n := au.point.Seq - op.Dot.Seq + 1; uint64(op.Len()) > n {
		op = op.Head(int(n))
	}
	if !au.chain.Extend(&op) {
		au.refused = au.invalid()
		return ops
	}
	return append(ops, op)
}

func refusal(code genome.Code, at genome.Dot, detail string) *genome.OpError {
	return &genome.OpError{Code: code, Dot: at, Detail: detail}
}

func (au *candidate) unsigned(seq uint64) *genome.OpError {
	e := refusal(CodeSignatureRequired, genome.Dot{Replica: au.replica, Seq: seq}, "no signed point covers it")
	e.Hint = "only its author can sign it: POST to /v1/edit makes an actor do so"
	return e
}

func (au *candidate) invalid() *genome.OpError {
	e := refusal(CodeSignatureInvalid, au.first, fmt.Sprintf("actor %d has not signed this history of %v up to %d", au.replica.Actor(), au.replica, au.point.Seq))
	e.Hint = "it was changed on its way, or signed with another key than the roster has, or its history has forked"
	return e
}

// judge decides on an author's ops, whatever they name.
func (s *screening) judge(au *candidate, roster *signed.Roster, trusted bool) {
	switch {
	case au.news == 0 || au.refused != nil:
	case au.point == nil || au.chain.Seq() < au.point.Seq && au.missing == nil:
		au.refused = au.unsigned(au.first.Seq)
	case au.chain.Seq() < au.point.Seq: // parts are missing
	case trusted:
		au.missing = nil
	case len(roster.Keys(au.replica.Actor())) == 0:
		au.refused = refusal(CodeNotInRoster, au.first, fmt.Sprintf("the roster has no key of actor %d", au.replica.Actor()))
	case !au.chain.Verify(au.point, roster.Keys(au.replica.Actor())):
		au.refused = au.invalid()
	default:
		au.missing = nil // it is beyond the point
	}
	if au.refused != nil {
		au.missing = nil
	}
}

// out reports whether nothing new of au is taken.
func (au *candidate) out() bool { return au.refused != nil || au.missing != nil }

// ready leaves out authors of whom an op names a gene that is not there. That
// may leave out others; each round leaves out one, so there are as many as
// authors at most.
func (s *screening) ready(ops []genome.Op, self genome.ReplicaID) {
	for again := true; again; {
		again = false
		genes := make(map[genome.ReplicaID]uint64, len(s.authors)) // inserted by the batch; looked up only
		for i := range ops {
			op := &ops[i]
			au := s.authors[op.Dot.Replica]
			if op.Last() <= au.held || au.out() {
				continue
			}
			last := op.Ref.Gene
			if op.Kind == genome.Delete {
				last += op.Count - 1
			}
			// What names a gene of its own author that is not there can never be
			// right: the genome says so.
			if r := op.Ref.Replica; !op.Ref.IsRoot() && r != op.Dot.Replica && last >= s.genes[r]+genes[r] {
				au.missing = &genome.Missing{Replica: r, Gene: last, HasGene: true}
				if r == self {
					s.ahead = append(s.ahead, *op)
				}
				again = true
				break
			}
			genes[op.Dot.Replica] += uint64(len(op.Genes))
		}
	}
}

// take makes the block of what is left, and notes what became of the rest. It
// has no chains: those that came are not signed, and a wrong one would look like a
// fork, of our own replica even make us go on under a new epoch.
func (s *screening) take(ops []genome.Op) {
	s.block.Ops = slices.DeleteFunc(ops, func(op genome.Op) bool {
		au := s.authors[op.Dot.Replica]
		return op.Last() > au.held && au.out()
	})
	for _, au := range s.order {
		switch {
		case au.news == 0:
			continue
		case au.refused != nil:
			s.rec.Refused = append(s.rec.Refused, au.refused)
			continue
		case au.missing != nil:
			s.rec.Pending += au.news
			s.rec.Missing = append(s.rec.Missing, *au.missing)
			continue
		}
		s.points = append(s.points, sumPoint{*au.point, au.chain.Sum()})
		if last := au.held + uint64(au.news); last > au.point.Seq {
			s.rec.Refused = append(s.rec.Refused, au.unsigned(au.point.Seq+1))
		}
	}
}

// receiveSigned is Receive for an actor that signs.
func (a *Actor) receiveSigned(ctx context.Context, src Source, b signed.Batch) (Receipt, error) {
	size, genes := sizeOf(b.Ops)
	if len(b.Ops) > cutOps || size > cutBytes {
		return Receipt{}, &genome.OpError{Code: genome.CodeTooManyOps, Detail: fmt.Sprintf("at most %d ops and %d bytes can be taken at once", cutOps, cutBytes)}
	}
	s, err := a.screen(src, b)
	if err != nil {
		return Receipt{}, err
	}
	if len(s.block.Ops)+len(s.ahead) == 0 {
		return s.rec, nil
	}
	var rec Receipt
	err = a.submit(ctx, len(s.block.Ops), size+signedRoom*len(s.points), func() {
		a.sign.before(len(s.block.Ops), size)
		rec = a.receive(src, s.block, genes)
		for i := range s.points {
			a.keepPoint(&s.points[i])
		}
		for i := range s.ahead {
			a.rolledBack(src, &s.ahead[i], &rec)
		}
	})
	if err != nil {
		return Receipt{}, err
	}
	rec.Pending += s.rec.Pending
	rec.Missing = append(rec.Missing, s.rec.Missing...)
	rec.Refused = append(rec.Refused, s.rec.Refused...)
	return rec, nil
}

// unproven is what an op is refused for that differs from the one held under its
// dot: ours has been signed, and it has not. Two histories that one key has signed
// show when heads are compared.
func unproven(e *genome.OpError) *genome.OpError {
	if e.Code != genome.CodeDotConflict {
		return e
	}
	other := *e
	other.Code, other.Hint = CodeSignatureInvalid, "it was changed on its way, or its author has made two histories"
	return &other
}

// keepPoint keeps a point that was checked, if the replica stands at it now and
// has come there by the very history that was signed.
func (a *Actor) keepPoint(p *sumPoint) {
	c := a.sign.chain(p.Replica)
	e, recent := a.x.findRecent(genome.Dot{Replica: p.Replica, Seq: p.Seq})
	if c.Seq() != p.Seq || c.Sum() != p.sum || !recent {
		return
	}
	if !a.sign.has(e.last()) {
		a.sign.points = append(a.sign.points, point{lsn: e.last(), Point: p.Point})
	}
}

// rolledBack goes on under a new epoch if op, which somebody has signed, names a
// gene of ours that is not here.
func (a *Actor) rolledBack(src Source, op *genome.Op, rec *Receipt) {
	if op.Ref.Replica == a.g.Self() && op.Ref.Gene+max(op.Count, 1) > a.g.Genes(op.Ref.Replica) {
		rc := &receiver{a: a, src: src}
		rc.selfAhead(op)
		rec.SelfAhead = rec.SelfAhead || rc.rec.SelfAhead
	}
}

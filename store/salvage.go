package store

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"crdt-genome/genome"
)

// A Report says what of a log is damaged and what is left of it.
type Report struct {
	Path   string   `json:"path"`
	Damage []Damage `json:"damage"` // in the order found

	Sound uint64 `json:"sound"` // unit events that can be read and applied
	// Waiting are sound events that cannot be applied now: something that they
	// need is missing, or they are not possible. They are kept, and applied
	// when what they need is back.
	Waiting uint64         `json:"waiting"`
	Missing []genome.Range `json:"missing"` // events that the log held and cannot be read, by replica
	Unknown uint64         `json:"unknown"` // further such events, of whom nothing tells
	NoEnd   bool           `json:"no_end"`  // nothing says where the log ended: more may be missing
	Refused []string       `json:"refused"` // why some of Waiting are not possible
	Kept    string         `json:"kept"`    // the damaged file, after a repair
}

// MissingEvents counts what is missing, known or not.
func (r *Report) MissingEvents() (n uint64) {
	for _, m := range r.Missing {
		n += m.Len()
	}
	return n + r.Unknown
}

// ownMissing reports whether events of actor are missing, or may be.
func (r *Report) ownMissing(actor genome.ActorID) bool {
	return r.Unknown > 0 || slices.ContainsFunc(r.Missing, func(m genome.Range) bool { return m.Replica.Actor() == actor })
}

// Survey looks at a log that may be damaged, without changing anything. It
// needs no lock, but what it says of a log that is written to meanwhile means
// nothing. Damage is no error; that is a [*NotLogError], a [*FormatError],
// ctx.Err() or comes from reading.
func Survey(ctx context.Context, path string) (*Report, error) {
	paths, err := Find(path)
	if err != nil {
		return nil, err
	}
	if len(paths) > 1 {
		return nil, fmt.Errorf("%s holds the logs of %d actors: name one, such as %s", path, len(paths), paths[0])
	}
	s, err := surveyFile(paths[0])
	if err != nil {
		return nil, withPath(err, paths[0])
	}
	v, err := s.salvage(ctx)
	if err != nil {
		return nil, err
	}
	return v.report(s), nil
}

// A salvaged log is what of a damaged one can be applied, in order, and what
// has to wait.
type salvaged struct {
	g       *genome.Genome
	entries []entry  // with the positions and chains of a log of their own
	waiting []*value // as found: those of whose ops some have to wait
	refused []string
	dropped []Damage // records that continue another history
}

// salvage applies what was found in the order of the log. Whatever it takes
// continues the chains; what was found outside the tree is taken only where
// the tree's own is missing.
func (s *survey) salvage(ctx context.Context) (*salvaged, error) {
	v := &salvaged{g: genome.NewFromConfig(genome.Config{NoHistory: true})}
	next := uint64(1)
	for _, f := range s.found {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		val, limit := f.value, uint64(math.MaxUint64)
		if !f.tree {
			limit = s.treeFrom(val.lsn)
		}
		if val.last() < next || limit <= next {
			continue
		}
		if !continues(v.g, val) {
			if f.tree {
				v.dropped = append(v.dropped, Damage{First: val.lsn, Last: val.last(), Detail: "it continues another history than what comes before"})
			}
			continue
		}
		v.take(val, next, limit)
		next = min(val.last()+1, limit)
	}
	v.settle()
	return v, nil
}

// take applies the ops of val from position next on and before limit, and
// keeps val if some of them have to wait.
func (v *salvaged) take(val *value, next, limit uint64) {
	waits := false
	val.each(func(_ int, e entry) bool {
		if e.last() < next || e.lsn >= limit {
			return true
		}
		if e.last() >= limit {
			e.op = e.op.Head(int(limit - e.lsn))
		}
		if !v.op(e) {
			waits = true
		}
		return true
	})
	if waits {
		v.waiting = append(v.waiting, val)
	}
}

// op applies what is not known of an op, and reports whether it could.
func (v *salvaged) op(e entry) bool {
	head := v.g.Head(e.op.Dot.Replica)
	if e.op.Last() <= head.Seq {
		return true
	}
	if !ready(v.g, &e.op) {
		return false
	}
	if n := head.Seq + 1 - e.op.Dot.Seq; n > 0 {
		e.op = e.op.TrimHead(int(n))
	}
	if err := applySafely(v.g, &e.op); err != nil {
		v.refused = append(v.refused, fmt.Sprintf("%v: %v", e.op.Dot, err))
		return false
	}
	e.lsn, e.chain = 1, genome.NewChain(e.op.Dot.Replica)
	if head.Seq > 0 {
		e.chain = head.Chain
	}
	if n := len(v.entries); n > 0 {
		e.lsn = v.entries[n-1].last() + 1
	}
	v.entries = append(v.entries, e)
	return true
}

// settle lets what waits try again until nothing more can be applied.
func (v *salvaged) settle() {
	for before := -1; before != len(v.entries); {
		before = len(v.entries)
		waiting := v.waiting
		v.waiting, v.refused = nil, nil
		for _, val := range waiting {
			if continues(v.g, val) {
				v.take(val, 1, math.MaxUint64)
			} else {
				v.waiting = append(v.waiting, val)
			}
		}
	}
}

// continues compares the chains that val says its authors have after it with
// what they would come to in g. Of an author with a gap before it nothing can
// be said.
func continues(g *genome.Genome, val *value) bool {
	for _, h := range val.block.Heads {
		head := g.Head(h.Replica)
		if head.Seq == 0 {
			head.Chain = genome.NewChain(h.Replica)
		}
		for i := range val.block.Ops {
			op := val.block.Ops[i]
			if op.Dot.Replica != h.Replica || op.Last() <= head.Seq {
				continue
			}
			if op.Dot.Seq > head.Seq+1 {
				head.Seq = math.MaxUint64 // a gap
				break
			}
			op = op.TrimHead(int(head.Seq + 1 - op.Dot.Seq))
			head.Seq, head.Chain = op.Last(), head.Chain.Extend(op)
		}
		if head.Seq == h.Seq && head.Chain != h.Chain {
			return false
		}
	}
	return true
}

// ready reports whether all that op depends on is in g: the events before it,
// and the genes that it names.
func ready(g *genome.Genome, op *genome.Op) bool {
	if op.Dot.Seq > g.Head(op.Dot.Replica).Seq+1 {
		return false
	}
	if op.Kind == genome.Delete {
		return op.Ref.Gene+op.Count <= g.Genes(op.Ref.Replica)
	}
	return op.Ref.IsRoot() || op.Ref.Gene < g.Genes(op.Ref.Replica)
}

// applySafely applies a ready op. Whatever the genome may do with ops that no
// genome made, it ends in an error here.
func applySafely(g *genome.Genome, op *genome.Op) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("applying it panics: %v", p)
		}
	}()
	return applyNext(g, op)
}

// waitingOps returns the ops of values that are not in g, by dot.
func waitingOps(g *genome.Genome, values []*value) (ops []genome.Op) {
	for _, v := range values {
		for _, op := range v.block.Ops {
			if op.Last() > g.Head(op.Dot.Replica).Seq {
				ops = append(ops, op)
			}
		}
	}
	slices.SortStableFunc(ops, func(a, b genome.Op) int { return a.Dot.Compare(b.Dot) })
	return ops
}

// missing returns the events before those that wait which are not there, and
// how many events wait.
func missing(g *genome.Genome, values []*value) (ranges []genome.Range, events uint64) {
	held := genome.Head{}
	for _, op := range waitingOps(g, values) {
		if op.Dot.Replica != held.Replica {
			held = g.Head(op.Dot.Replica)
			held.Replica = op.Dot.Replica
		}
		if op.Dot.Seq > held.Seq+1 {
			ranges = append(ranges, genome.Range{Replica: held.Replica, From: held.Seq + 1, To: op.Dot.Seq - 1})
		}
		if op.Last() > held.Seq {
			events += op.Last() - max(held.Seq, op.Dot.Seq-1)
			held.Seq = op.Last()
		}
	}
	return ranges, events
}

// report says what there is, and what there is not: as many events as the log
// had, less those found, are missing. Which, follows from the events of the
// same replicas after them, and at the end of the log from the damaged record
// itself, if what it seems to say adds up.
func (v *salvaged) report(s *survey) *Report {
	r := &Report{Path: s.path, Damage: slices.Concat(s.damage, v.dropped), Refused: v.refused, Sound: v.g.Ops(), NoEnd: !s.sure}
	for _, n := range s.notes {
		r.Damage = append(r.Damage, Damage{Detail: n})
	}
	r.Missing, r.Waiting = missing(v.g, v.waiting)
	gone := s.last - min(s.last, r.Sound+r.Waiting)
	for _, m := range r.Missing {
		gone -= min(gone, m.Len())
	}
	r.Unknown = gone
	for i := range r.Damage {
		r.Unknown -= r.hinted(&r.Damage[i], v, r.Unknown)
	}
	slices.SortFunc(r.Missing, func(a, b genome.Range) int {
		return cmp.Or(cmp.Compare(a.Replica, b.Replica), cmp.Compare(a.From, b.From))
	})
	for i := range r.Damage {
		d := &r.Damage[i]
		r.mended(d, v)
		if d.First > 0 && len(d.Ranges) == 0 && d.Mended { // it was found elsewhere
			d.Ranges = rangesOf(s.foundFrom(d.First, d.Last))
		}
	}
	return r
}

// foundFrom returns what was found that begins from first to last.
func (s *survey) foundFrom(first, last uint64) []found {
	i, _ := slices.BinarySearchFunc(s.found, first, func(f found, lsn uint64) int { return cmp.Compare(f.value.lsn, lsn) })
	n, _ := slices.BinarySearchFunc(s.found[i:], last+1, func(f found, lsn uint64) int { return cmp.Compare(f.value.lsn, lsn) })
	return s.found[i : i+n]
}

// hinted takes what a damaged record seems to have held for known if it is as
// many events as are missing there, and they come right after what is held.
func (r *Report) hinted(d *Damage, v *salvaged, unknown uint64) (n uint64) {
	if len(d.Ranges) != 1 {
		return 0
	}
	hint := d.Ranges[0]
	held := v.g.Head(hint.Replica).Seq
	for _, op := range waitingOps(v.g, v.waiting) {
		if op.Dot.Replica == hint.Replica {
			held = op.Last() // the ranges before it are named already
		}
	}
	if hint.From > held+1 || hint.To <= held || hint.To-held > unknown {
		return 0
	}
	hint.From = held + 1
	r.Missing = append(r.Missing, hint)
	return hint.Len()
}

// mended looks whether what stood in a damaged place is there all the same.
func (r *Report) mended(d *Damage, v *salvaged) {
	var lost []genome.Range
	for _, m := range d.Ranges {
		for _, l := range r.Missing {
			if l.Replica == m.Replica && l.From <= m.To && m.From <= l.To {
				lost = append(lost, m)
				break
			}
		}
	}
	d.Mended = r.MissingEvents() == 0 || len(d.Ranges) > 0 && len(lost) == 0
	if d.First > 0 && len(d.Ranges) == 0 && !d.Mended && len(r.Missing) > 0 && r.Unknown == 0 {
		d.Ranges = r.Missing // nothing else is damaged, or cannot be told apart
	}
}

// encodeRanges and decodeRanges are the payload of the meta value "missing".
func encodeRanges(ranges []genome.Range, unknown uint64) []byte {
	b := binary.LittleEndian.AppendUint64(nil, unknown)
	for _, r := range ranges {
		b = binary.LittleEndian.AppendUint64(b, uint64(r.Replica))
		b = binary.LittleEndian.AppendUint64(b, r.From)
		b = binary.LittleEndian.AppendUint64(b, r.To)
	}
	return b
}

func decodeRanges(b []byte) (ranges []genome.Range, unknown uint64, err error) {
	if len(b)%24 != 8 {
		return nil, 0, &CorruptError{Detail: `meta value "missing" is damaged`}
	}
	unknown = binary.LittleEndian.Uint64(b)
	for b = b[8:]; len(b) > 0; b = b[24:] {
		ranges = append(ranges, genome.Range{Replica: genome.ReplicaID(binary.LittleEndian.Uint64(b)),
			From: binary.LittleEndian.Uint64(b[8:]), To: binary.LittleEndian.Uint64(b[16:])})
	}
	return ranges, unknown, nil
}

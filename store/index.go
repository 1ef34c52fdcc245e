package store

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"

	"crdt-genome/genome"
)

// An index knows where in the log each event lies. Sealed segments are known
// by what they hold of whom, and read from the disk when asked for; what came
// after them, at most some sealOps ops, is kept whole. It is guarded by the
// actor's mutex; segments and entries never change once they are in it, and
// the slices that hold them only grow or are replaced, so a slice taken under
// the mutex may be read after it.
type index struct {
	segs []segment
	by   map[genome.ReplicaID]*history // looked up only
	last *history                      // that was looked up last; nil: none

	recent  []entry // not sealed; those from durable on are not on the disk yet
	durable int
	bytes   int      // sum of entry.bytes over recent
	keys    []uint64 // of the tail's values on the disk

	actors  []genome.ReplicaID // in the order of first use
	stored  int                // how many of actors are on the disk
	firstBy []uint64           // LSN of each actor's first use

	err error // a read of the log, or a draw of an epoch, failed in the writer: the actor must fail
}

// A history is what is logged of one replica.
type history struct {
	head   genome.Head // after the last entry
	segs   []int32     // that hold some of it, ascending
	recent []int32     // indices into index.recent, ascending
}

// of returns r's history, nil if there is none.
func (x *index) of(r genome.ReplicaID) *history {
	if x.last == nil || x.last.head.Replica != r {
		h := x.by[r]
		if h == nil {
			return nil
		}
		x.last = h
	}
	return x.last
}

// ensure returns r's history, an empty one if there is none.
func (x *index) ensure(r genome.ReplicaID) *history {
	h := x.of(r)
	if h == nil {
		h = &history{head: genome.Head{Replica: r, Chain: genome.NewChain(r)}}
		x.by[r] = h
	}
	return h
}

// A segment is a sealed value.
type segment struct {
	lsn, events uint64
	ops         int
	authors     []segmentAuthor // by replica
}

// A segmentAuthor is what a segment holds of one replica: events first … last
// without a gap, and the chain before them.
type segmentAuthor struct {
	replica     genome.ReplicaID
	first, last uint64
	chain       genome.Chain
}

func (s *segment) last() uint64 { return s.lsn + s.events - 1 }

func (s *segment) author(r genome.ReplicaID) (segmentAuthor, bool) {
	i, ok := slices.BinarySearchFunc(s.authors, r, func(a segmentAuthor, r genome.ReplicaID) int {
		return cmp.Compare(a.replica, r)
	})
	if !ok {
		return segmentAuthor{}, false
	}
	return s.authors[i], true
}

func newIndex() *index {
	return &index{by: make(map[genome.ReplicaID]*history)}
}

// end is the LSN of the last event, durable or not.
func (x *index) end() uint64 {
	if n := len(x.recent); n > 0 {
		return x.recent[n-1].last()
	}
	return x.sealedEnd()
}

// sealedEnd is the LSN of the last event in a segment.
func (x *index) sealedEnd() uint64 {
	if n := len(x.segs); n > 0 {
		return x.segs[n-1].last()
	}
	return 0
}

// sealedHead is how far the segments show r's history, and the chain there.
func (x *index) sealedHead(r genome.ReplicaID) genome.Head {
	if h := x.of(r); h != nil && len(h.recent) > 0 {
		e := &x.recent[h.recent[0]]
		return genome.Head{Replica: r, Seq: e.op.Dot.Seq - 1, Chain: e.chain}
	}
	return x.head(r)
}

// durableEnd is the LSN of the last event on the disk.
func (x *index) durableEnd() uint64 {
	if x.durable > 0 {
		return x.recent[x.durable-1].last()
	}
	return x.sealedEnd()
}

func (x *index) head(r genome.ReplicaID) genome.Head {
	if h := x.of(r); h != nil {
		return h.head
	}
	return genome.Head{Replica: r, Chain: genome.NewChain(r)}
}

// add appends op, which must be the next of its replica.
func (x *index) add(op *genome.Op, p prov) {
	h := x.ensure(op.Dot.Replica)
	if op.Dot.Seq != h.head.Seq+1 {
		panic("store: an applied op does not follow what is logged: " + op.Dot.String())
	}
	lsn := x.end() + 1
	if h.head.Seq == 0 {
		x.actors = append(x.actors, op.Dot.Replica)
		x.firstBy = append(x.firstBy, lsn)
	}
	h.recent = append(h.recent, int32(len(x.recent)))
	x.recent = append(x.recent, entry{op: *op, lsn: lsn, chain: h.head.Chain, prov: p})
	x.bytes += opBytes + len(op.Genes)
	h.head.Seq, h.head.Chain = op.Last(), h.head.Chain.Extend(*op)
}

// chunk returns how many of entries, of at most max ops, make one value.
func chunk(entries []entry, max int) int {
	bytes := 0
	for i := range entries {
		bytes += entries[i].bytes()
		if i == max || i > 0 && bytes > sealBytes {
			return i
		}
	}
	return len(entries)
}

// newSegment describes the value made of entries, which are by authors.
func newSegment(entries []entry, authors []author) segment {
	s := segment{lsn: entries[0].lsn, events: entries[len(entries)-1].last() - entries[0].lsn + 1, ops: len(entries)}
	for _, a := range authors {
		first := &entries[a.first]
		s.authors = append(s.authors, segmentAuthor{a.replica, first.op.Dot.Seq, entries[a.last].op.Last(), first.chain})
	}
	slices.SortFunc(s.authors, func(a, b segmentAuthor) int { return cmp.Compare(a.replica, b.replica) })
	return s
}

// addSegment appends a sealed value, whose ops and heads have been checked
// against what comes before.
func (x *index) addSegment(v *value) error {
	s := segment{lsn: v.lsn, events: v.events, ops: len(v.block.Ops)}
	var at numbering // index into s.authors
	for _, h := range v.block.Heads {
		at.of(h.Replica)
		s.authors = append(s.authors, segmentAuthor{replica: h.Replica, last: h.Seq, chain: x.head(h.Replica).Chain})
	}
	lsn, met := v.lsn, 0
	last := -1 // author of the op before
	for i := range v.block.Ops {
		op := &v.block.Ops[i]
		r := op.Dot.Replica
		if last < 0 || s.authors[last].replica != r {
			j := at.of(r)
			if j == len(s.authors) {
				return fmt.Errorf("no chain is given for %v", r)
			}
			if last = j; s.authors[j].first == 0 {
				met++
				s.authors[j].first = op.Dot.Seq
				if x.head(r).Seq+1 != op.Dot.Seq {
					return fmt.Errorf("%v does not follow what is held", op.Dot)
				}
				if op.Dot.Seq == 1 {
					x.actors = append(x.actors, r)
					x.firstBy = append(x.firstBy, lsn)
				}
			}
		}
		lsn += uint64(op.Len())
	}
	if met != len(s.authors) {
		return errors.New("a chain is given for a replica without ops")
	}
	for _, h := range v.block.Heads {
		x.ensure(h.Replica).head = h
	}
	slices.SortFunc(s.authors, func(a, b segmentAuthor) int { return cmp.Compare(a.replica, b.replica) })
	x.link(s)
	return nil
}

// addTail appends a value of the tail under key, and checks its chains.
func (x *index) addTail(v *value, key uint64) error {
	var err error
	v.each(func(_ int, e entry) bool {
		if x.head(e.op.Dot.Replica).Seq+1 != e.op.Dot.Seq {
			err = fmt.Errorf("%v does not follow what is held", e.op.Dot)
			return false
		}
		x.add(&e.op, e.prov)
		return true
	})
	if err != nil {
		return err
	}
	for _, h := range v.block.Heads {
		if got := x.head(h.Replica); got != h {
			return fmt.Errorf("chain of %v at %d is %v, computed %d %v", h.Replica, h.Seq, h.Chain, got.Seq, got.Chain)
		}
	}
	x.durable = len(x.recent)
	x.keys = append(x.keys, key)
	return nil
}

// link appends a segment.
func (x *index) link(s segment) {
	n := int32(len(x.segs))
	x.segs = append(x.segs, s)
	for _, a := range s.authors {
		h := x.ensure(a.replica)
		h.segs = append(h.segs, n)
	}
}

// seal replaces all recent entries by the segments made of them.
func (x *index) seal(segs []segment) {
	for _, s := range segs {
		x.link(s)
	}
	for i := range x.recent {
		h := x.of(x.recent[i].op.Dot.Replica)
		h.recent = h.recent[:0]
	}
	x.recent, x.durable, x.bytes, x.keys = nil, 0, 0, nil
}

// findRecent returns the recent entry that holds d.
func (x *index) findRecent(d genome.Dot) (entry, bool) {
	h := x.of(d.Replica)
	if h == nil {
		return entry{}, false
	}
	at := h.recent
	i := sort.Search(len(at), func(i int) bool { return x.recent[at[i]].op.Last() >= d.Seq })
	if i == len(at) || x.recent[at[i]].op.Dot.Seq > d.Seq {
		return entry{}, false
	}
	return x.recent[at[i]], true
}

// findSegment returns the number of the segment that holds d, or of the first
// that holds a later event of its replica; false if there is none.
func (x *index) findSegment(d genome.Dot) (int, bool) {
	h := x.of(d.Replica)
	if h == nil {
		return 0, false
	}
	at := h.segs
	i := sort.Search(len(at), func(i int) bool {
		a, _ := x.segs[at[i]].author(d.Replica)
		return a.last >= d.Seq
	})
	if i == len(at) {
		return 0, false
	}
	return int(at[i]), true
}

// segmentAt returns the number of the first segment that ends at lsn or later.
func segmentAt(segs []segment, lsn uint64) int {
	return sort.Search(len(segs), func(i int) bool { return segs[i].last() >= lsn })
}

// cacheSize is how many decoded segments are kept: readers of one region
// follow each other, and each segment takes some hundred KiB.
const cacheSize = 8

// A cache keeps the segments decoded last. It is safe for concurrent use.
type cache struct {
	disk disk
	path string
	most int // decoded segments

	mu     sync.Mutex
	values []*value // the one used last at the end
}

// get returns a segment, decoded and checked. Callers must not change it. The
// error names what the segment holds, not what it seems to: no byte of one that
// is damaged is used.
func (c *cache) get(seg *segment) (*value, error) {
	c.mu.Lock()
	for i, v := range c.values {
		if v.lsn == seg.lsn {
			c.values = append(slices.Delete(c.values, i, i+1), v)
			c.mu.Unlock()
			return v, nil
		}
	}
	c.mu.Unlock()
	v, err := findIn(c.disk, bucketSeg, seg.lsn)
	if err == nil && (v == nil || v.lsn != seg.lsn) {
		err = &CorruptError{LSN: seg.lsn, Detail: "the record is gone"}
	}
	if err != nil {
		return nil, seg.named(err, c.path)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.values) == c.most {
		c.values = slices.Delete(c.values, 0, 1)
	}
	c.values = append(c.values, v)
	return v, nil
}

// named adds to the error of reading s what it holds.
func (s *segment) named(err error, path string) error {
	c, ok := errors.AsType[*CorruptError](err)
	if !ok || c.LSN == 0 {
		return withPath(err, path)
	}
	named := &CorruptError{Path: path, LSN: s.lsn, Last: s.last(), Detail: c.Detail}
	for _, a := range s.authors {
		named.Ranges = append(named.Ranges, genome.Range{Replica: a.replica, From: a.first, To: a.last})
	}
	return named
}

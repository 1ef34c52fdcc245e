package store

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"crdt-genome/genome"
)

// A State is what an actor holds at one moment, all of it durable. It is
// shared: nobody may change it.
type State struct {
	Genes      []byte
	Hex        string // Genes, two lower-case digits a gene
	Digest     genome.Digest
	Version    genome.Version
	Heads      []genome.Head
	VVHash     uint64 // Version.Hash()
	Ops, LSN   uint64 // unit events held, which is also the last position in the log
	Tombstones int
}

// State returns the present state. It is made once for each commit and shared
// by all who ask. O(genes) when something has changed, else O(1).
func (a *Actor) State(ctx context.Context) (*State, error) {
	st, seen, err := a.stateSeen()
	if err != nil {
		return nil, err
	}
	if err := a.wait(ctx, seen); err != nil {
		return nil, err
	}
	return st, nil
}

func (a *Actor) stateSeen() (*State, uint64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return nil, 0, a.err
	}
	if a.state == nil || a.stateAt != a.applied {
		v := a.g.Version()
		b := a.g.Bytes()
		a.state = &State{Genes: b, Hex: hex.EncodeToString(b), Digest: a.g.Digest(), Version: v, Heads: a.g.Heads(),
			VVHash: v.Hash(), Ops: a.g.Ops(), LSN: a.g.Ops(), Tombstones: a.g.Tombstones()}
		a.stateAt = a.applied
	}
	return a.state, a.seenLocked(), nil
}

// View lets fn read the genome and returns once everything that it can have
// seen is durable: if View fails, fn's findings must not be told to anybody.
// fn must be quick, keep nothing of the genome and not call the actor.
func (a *Actor) View(ctx context.Context, fn func(g *genome.Genome)) error {
	seen, err := a.look(fn)
	if err != nil {
		return err
	}
	return a.wait(ctx, seen)
}

// Ping goes through the writer as an edit does, and changes nothing. It returns
// once the writer has answered, whatever that is: nil then, also if the disk is
// full; else what ended ctx or the actor.
func (a *Actor) Ping(ctx context.Context) error {
	err := a.submit(ctx, 0, 0, func() {})
	if errors.Is(err, ErrStoreFull) && a.Err() == nil {
		return nil
	}
	return err
}

func (a *Actor) look(fn func(g *genome.Genome)) (seen uint64, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return 0, a.err
	}
	fn(a.g)
	return a.seenLocked(), nil
}

// Version returns the durable version vector.
func (a *Actor) Version() genome.Version {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.versionLocked()
}

// versionLocked takes back what is not durable yet.
func (a *Actor) versionLocked() genome.Version {
	v := a.g.Version()
	if len(a.pending) == 0 {
		return v
	}
	for i := range v {
		if h, ok := a.pending[v[i].Replica]; ok {
			v[i].Seq = h.Seq
		}
	}
	return slices.DeleteFunc(v, func(e genome.VersionEntry) bool { return e.Seq == 0 })
}

// Heads returns the durable version vector with the chain of each replica.
func (a *Actor) Heads() []genome.Head {
	a.mu.Lock()
	defer a.mu.Unlock()
	heads := a.g.Heads()
	for i := range heads {
		if h, ok := a.pending[heads[i].Replica]; ok {
			heads[i] = h
		}
	}
	return slices.DeleteFunc(heads, func(h genome.Head) bool { return h.Seq == 0 })
}

// LSN returns the position of the last durable event, 0 if there is none.
func (a *Actor) LSN() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.x.durableEnd()
}

// Changed returns a channel that is closed at the next commit. Call it before
// looking, or a commit may slip in between.
func (a *Actor) Changed() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.changed
}

// lookup returns the op that holds d, for the comparison of duplicates. It
// runs in the writer, which holds the mutex, and sees what is not durable yet.
func (a *Actor) lookup(d genome.Dot) (genome.Op, bool) {
	if e, ok := a.x.findRecent(d); ok {
		return e.op, true
	}
	i, ok := a.x.findSegment(d)
	if !ok {
		return genome.Op{}, false
	}
	v, err := a.cache.get(&a.x.segs[i])
	if err != nil {
		a.x.err = err
		return genome.Op{}, false
	}
	for _, op := range v.block.Ops {
		if op.Dot.Replica == d.Replica && op.Dot.Seq <= d.Seq && d.Seq <= op.Last() {
			return op, true
		}
	}
	return genome.Op{}, false
}

// ChainAt returns the chain of a replica after the event d, or false if d is
// not held durably. O(log segments + events of one segment).
func (a *Actor) ChainAt(ctx context.Context, d genome.Dot) (genome.Chain, bool, error) {
	if err := ctx.Err(); err != nil {
		return 0, false, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return 0, false, a.err
	}
	h, ok := a.pending[d.Replica]
	if !ok {
		h = a.x.head(d.Replica)
	}
	switch {
	case d.Seq == 0 || d.Seq > h.Seq:
		return 0, false, nil
	case d.Seq == h.Seq:
		return h.Chain, true, nil
	}
	if e, ok := a.x.findRecent(d); ok {
		return e.chain.Extend(e.op.Head(int(d.Seq - e.op.Dot.Seq + 1))), true, nil
	}
	i, ok := a.x.findSegment(d)
	if !ok {
		return 0, false, nil
	}
	seg := &a.x.segs[i]
	a.mu.Unlock()
	chain, err := a.segmentChain(seg, d)
	a.mu.Lock()
	return chain, err == nil, err
}

// segmentChain returns the chain after d, which seg holds.
func (a *Actor) segmentChain(seg *segment, d genome.Dot) (genome.Chain, error) {
	v, err := a.cache.get(seg)
	if err != nil {
		return 0, err
	}
	author, _ := seg.author(d.Replica)
	chain := author.chain
	for _, op := range v.block.Ops {
		if op.Dot.Replica != d.Replica {
			continue
		}
		if op.Last() >= d.Seq {
			return chain.Extend(op.Head(int(d.Seq - op.Dot.Seq + 1))), nil
		}
		chain = chain.Extend(op)
	}
	return 0, &CorruptError{Path: a.folder.path(), LSN: seg.lsn, Detail: fmt.Sprintf("%v is not in it", d)}
}

// snapshot is the durable log at one moment.
type snapshot struct {
	segs   []segment
	recent []entry
	v      genome.Version
	end    uint64
	points []point // of recent, with [Config.Sign]
	first  int     // segment to begin with
}

// snap takes a snapshot; begin chooses the first segment.
func (a *Actor) snap(begin func(s *snapshot)) (*snapshot, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return nil, a.err
	}
	n := a.x.durable
	s := &snapshot{segs: a.x.segs, recent: a.x.recent[:n:n], v: a.versionLocked(), end: a.x.durableEnd()}
	if a.sign != nil {
		s.points = a.sign.points[:a.sign.durable:a.sign.durable]
	}
	begin(s)
	return s, nil
}

// Limits of one answer of Since and Own, whatever the caller says.
const (
	maxReadOps   = genome.MaxBatchOps
	maxReadBytes = 1 << 20
)

// Since returns ops that a peer with vector v lacks, in the order of the log,
// in which it can apply them without parking; heads that it knows are cut off.
// The block carries the chains of its authors. It holds at most maxOps ops
// (0 and more than [genome.MaxBatchOps]: that many) of together at most
// maxBytes (0: 1 MiB; the genes and 32 bytes for each op are counted), but at
// least one if any is lacking. more says that the peer will still lack
// something; what it then holds is the vector for the next call.
func (a *Actor) Since(ctx context.Context, v genome.Version, maxOps, maxBytes int) (b genome.Block, more bool, err error) {
	c, _, err := a.since(ctx, v, maxOps, maxBytes)
	if err == nil {
		b, err = a.blockOf(ctx, c)
	}
	return b, c.full, err
}

// blockOf returns the block of what was collected.
func (a *Actor) blockOf(ctx context.Context, c *collector) (b genome.Block, err error) {
	b.Ops = c.ops
	b.Heads, err = a.headsOf(ctx, c.ops)
	return b, err
}

// since collects what v lacks, of the snapshot that it returns.
func (a *Actor) since(ctx context.Context, v genome.Version, maxOps, maxBytes int) (*collector, *snapshot, error) {
	c := newCollector(maxOps, maxBytes)
	s, err := a.snap(func(s *snapshot) {
		s.first = len(s.segs)
		for _, r := range v.Lacks(s.v) {
			if i, ok := a.x.findSegment(genome.Dot{Replica: r.Replica, Seq: r.From}); ok {
				s.first = min(s.first, i)
			}
		}
	})
	if err != nil || v.Covers(s.v) {
		return c, s, err
	}
	err = a.scan(ctx, s, func(seg *segment) bool {
		return slices.ContainsFunc(seg.authors, func(p segmentAuthor) bool { return v.Get(p.replica) < p.last })
	}, func(e *entry) bool {
		known := v.Get(e.op.Dot.Replica)
		if e.op.Last() <= known {
			return true
		}
		op, lsn := e.op, e.lsn
		if op.Dot.Seq <= known {
			n := known - op.Dot.Seq + 1
			op, lsn = op.TrimHead(int(n)), lsn+n
		}
		return c.add(op, lsn)
	})
	return c, s, err
}

func (a *Actor) own(ctx context.Context, afterLSN uint64, skip func(genome.Dot) bool, maxOps, maxBytes int) (*collector, *snapshot, error) {
	mine := func(r genome.ReplicaID, _ uint64) bool { return r.Actor() == a.cfg.Actor }
	return a.outbox(ctx, afterLSN, mine, func(e *entry) bool {
		return skip == nil || !skip(genome.Dot{Replica: e.op.Dot.Replica, Seq: e.op.Last()})
	}, maxOps, maxBytes)
}

// scan calls fn with the entries of s in order, from segment s.first on, until
// it returns false. Segments that wanted refuses are not read.
func (a *Actor) scan(ctx context.Context, s *snapshot, wanted func(*segment) bool, fn func(*entry) bool) error {
	for i := s.first; i < len(s.segs); i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !wanted(&s.segs[i]) {
			continue
		}
		v, err := a.cache.get(&s.segs[i])
		if err != nil {
			return err
		}
		on := true
		v.each(func(_ int, e entry) bool {
			on = fn(&e)
			return on
		})
		if !on {
			return nil
		}
	}
	for i := range s.recent {
		if !fn(&s.recent[i]) {
			return nil
		}
	}
	return nil
}

// A collector gathers ops up to its limits.
type collector struct {
	maxOps, maxBytes int
	ops              []genome.Op
	ends             []uint64 // positions of their last events
	first            uint64   // position of the first event taken
	last             uint64   // of the last
	stop             uint64   // of the first event that did not fit, if full
	bytes            int
	full             bool   // something did not fit
	next             uint64 // position to go on from; only of an outbox
}

func newCollector(maxOps, maxBytes int) *collector {
	if maxOps <= 0 || maxOps > maxReadOps {
		maxOps = maxReadOps
	}
	if maxBytes <= 0 || maxBytes > maxReadBytes {
		maxBytes = maxReadBytes
	}
	return &collector{maxOps: maxOps, maxBytes: maxBytes}
}

// add takes op at lsn, or reports that it does not fit.
func (c *collector) add(op genome.Op, lsn uint64) bool {
	size := opBytes + len(op.Genes)
	if len(c.ops) > 0 && (len(c.ops) == c.maxOps || c.bytes+size > c.maxBytes) {
		c.full, c.stop = true, lsn
		return false
	}
	if len(c.ops) == 0 {
		c.first = lsn
	}
	c.ops = append(c.ops, op)
	c.bytes += size
	c.last = lsn + uint64(op.Len()) - 1
	c.ends = append(c.ends, c.last)
	return true
}

// headsOf returns the chains after the last op of each author in ops.
func (a *Actor) headsOf(ctx context.Context, ops []genome.Op) ([]genome.Head, error) {
	var heads []genome.Head
	at := make(map[genome.ReplicaID]int) // index into heads; looked up only
	for i := range ops {
		r := ops[i].Dot.Replica
		j, ok := at[r]
		if !ok {
			j = len(heads)
			at[r] = j
			heads = append(heads, genome.Head{Replica: r})
		}
		heads[j].Seq = ops[i].Last()
	}
	for i, h := range heads {
		chain, ok, err := a.ChainAt(ctx, genome.Dot{Replica: h.Replica, Seq: h.Seq})
		if err != nil {
			return nil, err
		}
		if !ok {
			panic("store: an op that was read is not held: " + genome.Dot{Replica: h.Replica, Seq: h.Seq}.String())
		}
		heads[i].Chain = chain
	}
	return heads, nil
}

// Records yields the durable log from position from on, up to where it ends
// when the reader gets there. No transaction is open while the caller works.
// The error, if any, comes last.
func (a *Actor) Records(ctx context.Context, from uint64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		scanRecords(ctx, a.disk, a.folder.path(), a.cfg.Actor, from, func() (uint64, error) { return a.LSN(), a.Err() },
			func(r Record, err error) bool { return yield(r, a.named(err)) })
	}
}

// named adds to an error that names an op what the segment holds which it is in.
func (a *Actor) named(err error) error {
	c, ok := errors.AsType[*CorruptError](err)
	if !ok || c.LSN == 0 {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if i := segmentAt(a.x.segs, c.LSN); i < len(a.x.segs) && a.x.segs[i].lsn <= c.LSN {
		return a.x.segs[i].named(err, a.folder.path())
	}
	return err
}

// scanRecords yields records from the values of d, one short read after the
// other, as far as limit says at each step.
func scanRecords(ctx context.Context, d disk, path string, self genome.ActorID, from uint64, limit func() (uint64, error), yield func(Record, error) bool) {
	next, missed := max(from, 1), false
	for {
		end, err := limit()
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			yield(Record{}, err)
			return
		}
		if next > end {
			return
		}
		v, err := findValue(d, next)
		if err != nil {
			yield(Record{}, withPath(err, path))
			return
		}
		if v == nil {
			if missed { // not a tail that was sealed just when we looked
				yield(Record{}, &CorruptError{Path: path, LSN: next, Detail: "the record is missing"})
				return
			}
			missed = true
			continue
		}
		missed = false
		if !v.records(next, self, yield) {
			return
		}
		next = v.last() + 1
	}
}

// findValue returns the segment or the value of the tail that holds the event
// at lsn, or nil.
func findValue(d disk, lsn uint64) (*value, error) {
	for _, b := range []bucket{bucketSeg, bucketTail} {
		if v, err := findIn(d, b, lsn); v != nil || err != nil {
			return v, err
		}
	}
	return nil, nil
}

// findIn looks in one bucket. Of a packed value only the part that is asked
// for is decoded.
func findIn(d disk, b bucket, lsn uint64) (*value, error) {
	k, data, err := d.floor(b, lsnKey(lsn))
	if err != nil || k == nil {
		return nil, err
	}
	key, err := keyLSN(k)
	if err != nil {
		return nil, err
	}
	if key+valueSpan(data) <= lsn {
		return nil, nil
	}
	parts, err := openValue(key, data)
	if err != nil {
		return nil, err
	}
	for i := range parts {
		if parts[i].last() >= lsn {
			return parts[i].decode()
		}
	}
	return nil, nil
}

// counts are what an actor counts while it runs.
type counts struct {
	commits, seals        uint64
	packed, checkpoints   uint64
	commitTime            time.Duration
	ops, deletes          [viaEnd]uint64
	duplicates, conflicts uint64
}

package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"

	"crdt-genome/genome"
)

// An encoder makes values of entries, and keeps its memory from one to the
// next. The zero encoder is ready.
type encoder struct {
	w       genome.BlockWriter
	r       genome.BlockReader
	numbers numbering
	authors []author
	heads   []genome.Head
	check   value // the origins that were encoded, decoded again
}

// provBytes is what the origins of a value take, or less than they do.
const provBytes = 32

// An author is who wrote some of a value's entries.
type author struct {
	replica     genome.ReplicaID
	first, last int // of the entries
}

// numbering numbers replicas in the order in which it meets them. The zero
// numbering has met nobody.
type numbering struct {
	ids   []genome.ReplicaID
	index map[genome.ReplicaID]int // of those beyond the first few; looked up only
}

// of returns r's number; it is len(n.ids) before the call if r is new.
func (n *numbering) of(r genome.ReplicaID) int {
	const few = 8 // nearly every value; a map takes longer than to look at them
	for i := range n.ids[:min(few, len(n.ids))] {
		if n.ids[i] == r {
			return i
		}
	}
	i, ok := n.index[r]
	if !ok {
		i = len(n.ids)
		n.ids = append(n.ids, r)
		if i >= few {
			if n.index == nil {
				n.index = make(map[genome.ReplicaID]int)
			}
			n.index[r] = i
		}
	}
	return i
}

func (n *numbering) reset() {
	n.ids = n.ids[:0]
	clear(n.index)
}

// authorsOf returns the authors of entries in the order of their first, until
// it is called again.
func (e *encoder) authorsOf(entries []entry) []author {
	e.numbers.reset()
	e.authors = e.authors[:0]
	for i := range entries {
		n := e.numbers.of(entries[i].op.Dot.Replica)
		if n == len(e.authors) {
			e.authors = append(e.authors, author{replica: e.numbers.ids[n], first: i})
		}
		e.authors[n].last = i
	}
	return e.authors
}

// appendValue appends the value of entries, which must follow each other
// without a gap, at least one and at most sealOps. authors are theirs.
func (e *encoder) appendValue(dst []byte, entries []entry, authors []author) ([]byte, error) {
	e.w.Reset()
	for i := range entries {
		if err := e.w.Add(&entries[i].op); err != nil {
			return dst, err
		}
	}
	e.heads = e.heads[:0]
	for _, a := range authors {
		last := &entries[a.last]
		e.heads = append(e.heads, genome.Head{Replica: a.replica, Seq: last.op.Last(), Chain: last.chain.Extend(last.op)})
	}
	events := entries[len(entries)-1].last() - entries[0].lsn + 1
	if events > math.MaxUint32 {
		return dst, fmt.Errorf("%d events in one value", events)
	}
	start := len(dst)
	dst = slices.Grow(dst, valueHeaderLen+provBytes+e.w.Size())
	dst = append(dst, make([]byte, valueHeaderLen)...)
	dst = appendProvs(dst, entries)
	dst, err := e.w.Append(dst, e.heads)
	if err != nil {
		return dst[:start], err
	}
	putHeader(dst[start:], codecBlock, len(authors), events, entries[0].lsn)
	return dst, nil
}

// same decodes a sealed value and compares it with what went in, before the
// only other copy is deleted.
func (e *encoder) same(data []byte, entries []entry) error {
	parts, err := openValue(entries[0].lsn, data)
	if err == nil && len(parts) != 1 {
		err = fmt.Errorf("it has %d parts", len(parts))
	}
	var rest []byte
	if err == nil {
		_, rest, err = e.check.decodeProvs(parts[0].data)
	}
	if err == nil {
		err = e.r.Open(rest, sealOps)
	}
	if err != nil {
		return fmt.Errorf("a new segment cannot be read: %w", err)
	}
	n, lsn, run := 0, entries[0].lsn, provRun{}
	provs := e.check.provs
	var op genome.Op
	for ; n < len(entries) && e.r.Next(&op); n++ {
		if run.n == 0 && len(provs) > 0 {
			run, provs = provs[0], provs[1:]
		}
		run.n--
		if want := &entries[n]; lsn != want.lsn || run.prov != want.prov || !sameOp(&op, &want.op) {
			break
		}
		lsn += uint64(op.Len())
	}
	heads, err := e.r.Close()
	if err != nil || n != len(entries) || run.n != 0 || len(provs) != 0 || len(heads) != parts[0].authors {
		return fmt.Errorf("a new segment at op %d does not say what the tail says", entries[0].lsn)
	}
	return nil
}

// A piece is one value to be written.
type piece struct {
	entries []entry
	data    []byte
	seg     segment // if it is sealed
	err     error
}

// make encodes the piece and, if it is to be sealed, checks it.
func (p *piece) make(e *encoder, seal bool) {
	authors := e.authorsOf(p.entries)
	if p.data, p.err = e.appendValue(nil, p.entries, authors); p.err != nil {
		p.err = fmt.Errorf("encode ops from %d on: %w", p.entries[0].lsn, p.err)
		return
	}
	if seal {
		p.seg = newSegment(p.entries, authors)
		p.err = e.same(p.data, p.entries)
	}
}

// An encoding makes the values of a commit, several at a time if there are
// several: those who wait for a large batch wait for nothing else then.
type encoding struct{ encoders []encoder }

func newEncoding() *encoding { return &encoding{make([]encoder, runtime.GOMAXPROCS(0))} }

func (c *encoding) values(pieces []piece, seal bool) error {
	if len(pieces) == 1 { // not worth a goroutine
		pieces[0].make(&c.encoders[0], seal)
		return pieces[0].err
	}
	var group sync.WaitGroup
	for i := range c.encoders {
		group.Go(func() {
			for ; i < len(pieces); i += len(c.encoders) {
				pieces[i].make(&c.encoders[i%len(c.encoders)], seal)
			}
		})
	}
	group.Wait()
	var err error
	for i := range pieces {
		err = errors.Join(err, pieces[i].err)
	}
	return err
}

// appendProvs appends where entries came from, a run at a time.
func appendProvs(dst []byte, entries []entry) []byte {
	runs := uint64(0)
	for i := range entries {
		if i == 0 || entries[i].prov != entries[i-1].prov {
			runs++
		}
	}
	dst = binary.AppendUvarint(dst, runs)
	ms := int64(0)
	for len(entries) > 0 {
		p, n := entries[0].prov, 1
		for n < len(entries) && entries[n].prov == p {
			n++
		}
		entries = entries[n:]
		dst = binary.AppendUvarint(dst, uint64(n))
		dst = binary.AppendVarint(dst, p.ms-ms)
		ms = p.ms
		if p.known {
			dst = append(dst, byte(p.via)|provFromKnown)
			dst = binary.AppendUvarint(dst, uint64(p.from))
		} else {
			dst = append(dst, byte(p.via))
		}
	}
	return dst
}

// encodeValue returns the value of entries.
func encodeValue(entries []entry) ([]byte, error) {
	var e encoder
	return e.appendValue(nil, entries, e.authorsOf(entries))
}

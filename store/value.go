package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"time"

	"crdt-genome/genome"
)

// A Via says how an op came into a log.
type Via uint8

// The ways. They are stored; new ones are added at the end.
const (
	ViaLocal Via = iota // minted here
	ViaPost             // pushed by a peer or posted by hand
	ViaPull             // fetched from a peer
	viaEnd
)

func (v Via) String() string {
	if v >= viaEnd {
		return fmt.Sprintf("via(%d)", uint8(v))
	}
	return [...]string{"local", "post", "pull"}[v]
}

// The header of a value and its body are drawn in the package comment.
const (
	valueMagic     = 0x6f67 // "go" in the file
	valueVersion   = 1
	valueHeaderLen = 28
	codecBlock     = 1 // provenance and one genome block, uncompressed
	codecPacked    = 2 // several such bodies, compressed; only in sealed values

	// flagsCritical are those that a reader must understand; the others may
	// be ignored by it.
	flagsCritical = 0x00ff

	provFromKnown = 0x80
	provVia       = 0x7f
)

// A value holds at most sealOps ops, and no more than one op beyond sealBytes,
// counted as opBytes and its genes for each op. Both bound what one read of a
// record decodes.
const (
	sealOps   = genome.MaxBatchOps
	sealBytes = 1 << 20
	opBytes   = 32
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// prov is where an op came from.
type prov struct {
	ms    int64 // when it was taken in, milliseconds since 1970, UTC
	via   Via
	known bool // from says something
	from  genome.ActorID
}

func (p prov) time() time.Time {
	if p.ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(p.ms).UTC()
}

// An entry is an op at its place in the log.
type entry struct {
	op    genome.Op
	lsn   uint64       // of the op's first unit event
	chain genome.Chain // of the op's replica before the op
	prov  prov
}

func (e *entry) last() uint64 { return e.lsn + uint64(e.op.Len()) - 1 }

func (e *entry) bytes() int { return opBytes + len(e.op.Genes) }

// provRun is the provenance of n neighbouring ops.
type provRun struct {
	n int
	prov
}

// A value is a decoded value of the tail or seg bucket.
type value struct {
	lsn    uint64 // of its first unit event: its key
	events uint64
	size   int // bytes, header included
	crc    uint32
	block  genome.Block
	provs  []provRun

	memory []byte // of the body, if it was packed
	reader genome.BlockReader
}

func (v *value) last() uint64 { return v.lsn + v.events - 1 }

// each calls fn with every op and its place, until fn returns false. The
// entries have no chain.
func (v *value) each(fn func(i int, e entry) bool) {
	lsn, run, left := v.lsn, 0, v.provs[0].n
	for i, op := range v.block.Ops {
		if left == 0 {
			run++
			left = v.provs[run].n
		}
		left--
		if !fn(i, entry{op: op, lsn: lsn, prov: v.provs[run].prov}) {
			return
		}
		lsn += uint64(op.Len())
	}
}

// putHeader completes the value v, whose body is there.
func putHeader(v []byte, codec byte, authors int, events, lsn uint64) {
	binary.LittleEndian.PutUint16(v[0:], valueMagic)
	v[2], v[3] = valueVersion, codec
	binary.LittleEndian.PutUint16(v[6:], uint16(min(authors, math.MaxUint16)))
	binary.LittleEndian.PutUint32(v[8:], uint32(events))
	binary.LittleEndian.PutUint32(v[12:], uint32(len(v)-valueHeaderLen))
	binary.LittleEndian.PutUint64(v[16:], lsn)
	binary.LittleEndian.PutUint32(v[24:], valueSum(v))
}

// valueSum is the checksum of a value: of all but the checksum itself.
func valueSum(v []byte) uint32 {
	return crc32.Update(crc32.Checksum(v[:24], castagnoli), castagnoli, v[valueHeaderLen:])
}

// valueSpan returns how many events the value says it holds, without checking
// anything but its length.
func valueSpan(v []byte) uint64 {
	if len(v) < valueHeaderLen {
		return 0
	}
	return uint64(binary.LittleEndian.Uint32(v[8:]))
}

// A part is what a value holds, or one of several where it is packed: the ops
// of one segment. It is not decoded yet.
type part struct {
	lsn, events uint64
	packed      bool
	data        []byte // body of a plain value, or the packed part
	authors     int    // of a plain value, as its header says; else -1
	crc         uint32 // of the whole value
}

func (p *part) last() uint64 { return p.lsn + p.events - 1 }

func (p *part) bad(format string, args ...any) error {
	return &CorruptError{LSN: p.lsn, Detail: fmt.Sprintf(format, args...)}
}

// openValue checks the value under key from outside, checksum included, and
// returns its parts, which share data. The error is a [*CorruptError] or a
// [*FormatError], without Path.
func openValue(key uint64, data []byte) ([]part, error) {
	p := part{lsn: key, events: valueSpan(data)}
	if len(data) < valueHeaderLen {
		return nil, p.bad("%d bytes are shorter than a header", len(data))
	}
	sum, got := binary.LittleEndian.Uint32(data[24:]), valueSum(data)
	switch {
	case binary.LittleEndian.Uint16(data) != valueMagic:
		return nil, p.bad("it does not begin as a record does")
	case sum != got:
		return nil, p.bad("checksum %08x, computed %08x", sum, got)
	case data[2] > valueVersion:
		return nil, &FormatError{Part: "record version", Format: int(data[2]), Program: valueVersion}
	case data[2] == 0 || data[3] == 0:
		return nil, p.bad("version %d, codec %d", data[2], data[3])
	case data[3] > codecPacked:
		return nil, &FormatError{Part: "record codec", Format: int(data[3]), Program: codecPacked}
	}
	flags := binary.LittleEndian.Uint16(data[4:])
	if flags&flagsCritical != 0 {
		return nil, &FormatError{Part: "record flags", Format: int(flags), Program: 0}
	}
	if lsn := binary.LittleEndian.Uint64(data[16:]); lsn != key || key == 0 {
		return nil, p.bad("it says that it is op %d", lsn)
	}
	p.data, p.crc = data[valueHeaderLen:], sum
	if n := binary.LittleEndian.Uint32(data[12:]); uint64(n) != uint64(len(p.data)) {
		return nil, p.bad("a body of %d bytes should have %d", len(p.data), n)
	}
	p.authors = int(binary.LittleEndian.Uint16(data[6:]))
	if data[3] == codecPacked {
		return p.split()
	}
	return []part{p}, nil
}

// decodeValue decodes a plain value: one that openValue finds a single part in.
func decodeValue(key uint64, data []byte) (*value, error) {
	parts, err := openValue(key, data)
	if err != nil {
		return nil, err
	}
	if len(parts) != 1 {
		return nil, parts[0].bad("it has %d parts", len(parts))
	}
	return parts[0].decode()
}

// checkValue decodes all of a value.
func checkValue(key uint64, data []byte) error {
	parts, err := openValue(key, data)
	for i := 0; err == nil && i < len(parts); i++ {
		_, err = parts[i].decode()
	}
	return err
}

// decode decodes and checks the part. The value keeps the part's data.
func (p *part) decode() (*value, error) {
	v := &value{}
	if err := p.decodeTo(v, nil); err != nil {
		return nil, err
	}
	return v, nil
}

// decodeTo does so into v, whose memory it uses again, and unpacks with u, or
// with an unpacker of its own if that is nil.
func (p *part) decodeTo(v *value, u *unpacker) error {
	body := p.data
	if p.packed {
		if u == nil {
			u = &unpacker{}
		}
		var err error
		if body, err = u.appendBody(v.memory[:0], p.data); err != nil {
			return p.bad("%v", err)
		}
		v.memory = body
	}
	v.lsn, v.events, v.size, v.crc = p.lsn, p.events, len(p.data), p.crc
	if !p.packed {
		v.size += valueHeaderLen
	}
	if err := v.decodeBody(body); err != nil {
		return p.bad("%v", err)
	}
	if p.authors >= 0 && p.authors != min(len(v.block.Heads), math.MaxUint16) {
		return p.bad("%d authors, not %d", len(v.block.Heads), p.authors)
	}
	return nil
}

func (v *value) decodeBody(body []byte) error {
	ops, rest, err := v.decodeProvs(body)
	if err != nil {
		return err
	}
	if err := v.decodeBlock(rest); err != nil {
		return err
	}
	if len(v.block.Ops) == 0 || len(v.block.Ops) != ops || len(v.block.Heads) == 0 {
		return fmt.Errorf("%d ops with the origin of %d", len(v.block.Ops), ops)
	}
	var events uint64
	for i := range v.block.Ops {
		events += uint64(v.block.Ops[i].Len())
	}
	if events != v.events {
		return fmt.Errorf("%d events, not %d", events, v.events)
	}
	return nil
}

// decodeBlock does what [genome.DecodeBlock] does, in memory that is there.
func (v *value) decodeBlock(data []byte) (err error) {
	if err := v.reader.Open(data, sealOps); err != nil {
		return err
	}
	n := v.reader.Len()
	v.block.Ops = slices.Grow(v.block.Ops[:0], n)[:n]
	for i := range v.block.Ops {
		if !v.reader.Next(&v.block.Ops[i]) {
			return v.reader.Err()
		}
	}
	v.block.Heads, err = v.reader.Close()
	return err
}

// decodeProvs returns for how many ops there is provenance, and what follows.
func (v *value) decodeProvs(b []byte) (ops int, rest []byte, err error) {
	errShort := errors.New("ends in the origins")
	v.provs = v.provs[:0]
	runs, n := binary.Uvarint(b)
	if n <= 0 || runs > sealOps {
		return 0, nil, errShort
	}
	b = b[n:]
	ms := int64(0)
	for range runs {
		count, n := binary.Uvarint(b)
		if n <= 0 || count == 0 || count > sealOps {
			return 0, nil, errShort
		}
		delta, m := binary.Varint(b[n:])
		if m <= 0 || len(b) <= n+m {
			return 0, nil, errShort
		}
		ms += delta
		tag := b[n+m]
		b = b[n+m+1:]
		p := prov{ms: ms, via: Via(tag & provVia)}
		if p.via >= viaEnd { // no checksum but the value's covers it, and mending may have guessed that
			return 0, nil, fmt.Errorf("ops came in by unknown way %d", p.via)
		}
		if tag&provFromKnown != 0 {
			from, n := binary.Uvarint(b)
			if n <= 0 || from > math.MaxUint32 {
				return 0, nil, errShort
			}
			p.known, p.from, b = true, genome.ActorID(from), b[n:]
		}
		ops += int(count)
		v.provs = append(v.provs, provRun{int(count), p})
	}
	return ops, b, nil
}

// A Record is an op in a log, as people see it.
type Record struct {
	LSN       uint64    // position of the op's first unit event, from 1
	Time      time.Time // when it was taken in, for people only; zero if that is not known any more
	Via       Via
	From      genome.ActorID // who sent it; the actor itself if ViaLocal
	FromKnown bool           // From is known; always so if ViaLocal
	Op        genome.Op
	Bytes     int    // its share of the stored record
	CRC       uint32 // of the stored record that it is part of
}

// records yields the ops of v from position from on; a head before it is cut off.
func (v *value) records(from uint64, self genome.ActorID, yield func(Record, error) bool) (more bool) {
	n := len(v.block.Ops)
	more = true
	v.each(func(i int, e entry) bool {
		if e.last() < from {
			return true
		}
		r := Record{LSN: e.lsn, Time: e.prov.time(), Via: e.prov.via, From: e.prov.from,
			FromKnown: e.prov.known, Op: e.op, Bytes: v.size*(i+1)/n - v.size*i/n, CRC: v.crc}
		if r.LSN < from {
			r.Op = r.Op.TrimHead(int(from - r.LSN))
			r.LSN = from
		}
		if r.Via == ViaLocal {
			r.From, r.FromKnown = self, true
		}
		more = yield(r, nil)
		return more
	})
	return more
}

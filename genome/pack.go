package genome

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"crdt-genome/genome/internal/deflate"
)

// packVersion is the first byte of a packed block. It differs from
// blockVersion, so that neither is ever taken for the other.
const packVersion = 2

// The columns of a packed block.
const (
	columnTags    = iota // a byte a record
	columnNumbers        // lengths, gaps, authors and replicas that are written out
	columnRefs           // numbers of the genes named, less the cursor's
	columnText
	packColumns
)

// What does not shrink enough stays as it is, since a reader of the log would
// inflate it at a tenth of the speed at which it reads the rest: a column of
// which less than one part in columnGain is saved (numbers of genes at random
// places), and all of a block of which less than one part in blockGain is (ops
// at random places by many authors; typed text shrinks to a third).
const (
	columnGain = 6
	blockGain  = 3
)

// AppendPacked appends the packed form of an encoded block to dst: the same
// records, sorted into columns of like bytes, deflated where that pays. Typed
// text takes about a third of what the block does. The form is drawn in the
// package comment. It fails with an [*OpError] if block is not one.
func AppendPacked(dst, block []byte) ([]byte, error) {
	p, err := splitBlock(block)
	if err != nil {
		return dst, err
	}
	out := append(dst, packVersion)
	out = binary.AppendUvarint(out, uint64(len(p.head)))
	out = append(out, p.head...)
	for i, packed := range p.deflate() {
		column := p.columns[i]
		out = binary.AppendUvarint(out, uint64(len(column)))
		out = binary.AppendUvarint(out, uint64(len(packed)))
		if packed == nil {
			packed = column
		}
		out = append(out, packed...)
	}
	return append(out, block[len(block)-4:]...), nil
}

// deflate returns the columns deflated, nil for those that stay as they are.
func (p *splitted) deflate() (packed [packColumns][]byte) {
	var e deflate.Encoder
	before, after := 0, 0
	for i, column := range p.columns {
		packed[i] = e.Append(nil, column)
		size := len(packed[i])
		if size+len(column)/columnGain >= len(column) {
			packed[i], size = nil, len(column)
		}
		before, after = before+len(column), after+size
	}
	if after+before/blockGain > before {
		return [packColumns][]byte{}
	}
	return packed
}

// AppendUnpacked appends the block that packed was made of to dst, as an
// [Unpacker] does.
func AppendUnpacked(dst, packed []byte, maxBytes int) ([]byte, error) {
	var u Unpacker
	return u.Append(dst, packed, maxBytes)
}

// An Unpacker unpacks blocks and keeps its memory from one to the next. The
// zero Unpacker is ready.
type Unpacker struct {
	memory [packColumns][]byte // of the columns that were deflated
	src    bytes.Reader
	flate  io.ReadCloser // reads src; nil at first
}

// Append appends the block that packed was made of to dst, byte for byte. It
// fails with an [*OpError] if packed is of another version ([CodeWireVersion]),
// damaged, or unpacks to more than maxBytes ([CodeBadEncoding]), which also
// bounds the memory used.
func (u *Unpacker) Append(dst, packed []byte, maxBytes int) ([]byte, error) {
	if len(packed) == 0 || packed[0] != packVersion {
		return dst, &OpError{Code: CodeWireVersion, Detail: "bad packed block: not of a version that this program reads"}
	}
	r := BlockReader{data: packed[1:]}
	p := splitted{head: r.bytes(r.uvarint())}
	left := uint64(max(maxBytes, 0))
	for i := range p.columns {
		raw, size := r.uvarint(), r.uvarint()
		if raw > left {
			r.fail(CodeBadEncoding, fmt.Sprintf("unpacks to more than %d bytes", maxBytes))
		}
		if r.err != nil {
			return dst, r.err
		}
		left -= raw
		if size == 0 {
			p.columns[i] = r.bytes(raw)
			continue
		}
		column, err := u.inflate(u.memory[i], r.bytes(size), int(raw))
		if err != nil {
			r.fail(CodeBadEncoding, err.Error())
		}
		p.columns[i], u.memory[i] = column, column
	}
	sum := uint32(r.fixed(4))
	if r.err == nil && len(r.data) > 0 {
		r.fail(CodeBadEncoding, "bytes left over")
	}
	if r.err != nil {
		return dst, r.err
	}
	out, ok := p.join(dst)
	if !ok || crc32.Checksum(out[len(dst):], castagnoli) != sum {
		return dst, &OpError{Code: CodeBadEncoding, Detail: "bad packed block: it does not unpack to what was packed"}
	}
	return binary.LittleEndian.AppendUint32(out, sum), nil
}

// inflate returns the size bytes that data holds deflated, in the memory of buf
// if that is enough.
func (u *Unpacker) inflate(buf, data []byte, size int) ([]byte, error) {
	u.src.Reset(data)
	if u.flate == nil {
		u.flate = flate.NewReader(&u.src)
	} else if err := u.flate.(flate.Resetter).Reset(&u.src, nil); err != nil {
		return nil, fmt.Errorf("a column is damaged: %v", err)
	}
	buf = slices.Grow(buf[:0], size)[:size]
	n, err := io.ReadFull(u.flate, buf)
	if err == nil {
		var one [1]byte
		if n, err = io.ReadFull(u.flate, one[:]); err == io.EOF {
			return buf, nil
		}
		n += size
	}
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF || u.src.Len() == 0 && n < size {
		return nil, fmt.Errorf("a column is damaged: %v", err)
	}
	return nil, fmt.Errorf("a column has not the %d bytes that it says", size)
}

// splitted is a block taken apart: head is everything from the flags to the
// number of ops.
type splitted struct {
	head    []byte
	columns [packColumns][]byte
}

func splitBlock(block []byte) (*splitted, error) {
	var r BlockReader
	if err := r.Open(block, MaxBatchOps); err != nil {
		return nil, err
	}
	p := &splitted{}
	p.columns[columnText] = r.text
	rest := binary.AppendUvarint(nil, uint64(len(r.data))) // the length of the records, which join computes
	p.head = block[1 : len(block)-4-len(r.text)-len(r.data)-len(rest)]
	state := firstPackState
	for records, ok := r.data, true; len(records) > 0; {
		if records, ok = state.split(records, &p.columns); !ok {
			return nil, &OpError{Code: CodeBadEncoding, Detail: "bad block: a record is cut short"}
		}
	}
	return p, nil
}

// join appends the block without its checksum.
func (p *splitted) join(dst []byte) ([]byte, bool) {
	columns := p.columns
	size := len(columns[columnTags]) + len(columns[columnNumbers]) + len(columns[columnRefs])
	out := slices.Grow(dst, 1+len(p.head)+binary.MaxVarintLen64+size+len(columns[columnText])+4)
	out = append(append(out, blockVersion), p.head...)
	out = binary.AppendUvarint(out, uint64(size))
	state := firstPackState
	for len(columns[columnTags]) > 0 {
		ok := false
		if out, ok = state.joinUsual(out, &columns); !ok {
			out, ok = state.join(out, &columns)
		}
		if !ok {
			return dst, false
		}
	}
	if len(columns[columnNumbers])+len(columns[columnRefs]) > 0 {
		return dst, false
	}
	return append(out, columns[columnText]...), true
}

// packState is what must be known of the records before to know whether a
// record names a gene: only the root is not followed by a number. Both are
// table indices as on the wire; ref is 0 for the root, else 1 + index.
type packState struct{ author, ref uint64 }

// firstPackState is that before the first record: see the cursor of a block.
var firstPackState = packState{author: 0, ref: 1}

// A mover moves integers from the front of one slice to the end of another.
type mover struct {
	from, to []byte
	short    bool // there were fewer
}

func (m *mover) move() uint64 {
	if len(m.from) > 0 && m.from[0] < 0x80 {
		v := m.from[0]
		m.to, m.from = append(m.to, v), m.from[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(m.from)
	if n <= 0 {
		m.short = true
		return 0
	}
	m.to, m.from = append(m.to, m.from[:n]...), m.from[n:]
	return v
}

// numbers moves the integers that follow tag, but for the gene named, and
// reports whether one is.
func (s *packState) numbers(tag byte, m *mover) (named bool) {
	if tag>>tagShift == 0 && m.move()&runGap != 0 {
		m.move()
		m.move()
	}
	if tag&tagAuthor != 0 {
		s.author = m.move()
	}
	if tag&tagRef != 0 {
		s.ref = m.move()
	}
	named = s.ref != 0
	if tag&tagKind < 2 { // the cursor goes to what was inserted
		s.ref = s.author + 1
	}
	return named
}

// split moves the first record to the columns and returns the others.
func (s *packState) split(records []byte, columns *[packColumns][]byte) (rest []byte, ok bool) {
	tag := records[0]
	columns[columnTags] = append(columns[columnTags], tag)
	m := mover{from: records[1:], to: columns[columnNumbers]}
	named := s.numbers(tag, &m)
	columns[columnNumbers] = m.to
	if named {
		m.to = columns[columnRefs]
		m.move()
		columns[columnRefs] = m.to
	}
	return m.from, !m.short
}

// joinUsual does what join does if the next records have the shape that nearly
// all have: a few events of the author of the record before, naming a gene near
// the cursor. It goes on as long as they do, and reports whether any did.
func (s *packState) joinUsual(records []byte, columns *[packColumns][]byte) (out []byte, some bool) {
	tags, refs := columns[columnTags], columns[columnRefs]
	n := 0
	for ; n < len(tags) && n < len(refs) && s.ref != 0; n++ {
		tag := tags[n]
		if tag&(tagAuthor|tagRef) != 0 || tag>>tagShift == 0 || refs[n] >= 0x80 {
			break
		}
		records = append(records, tag, refs[n])
		if tag&tagKind < 2 {
			s.ref = s.author + 1
		}
	}
	columns[columnTags], columns[columnRefs] = tags[n:], refs[n:]
	return records, n > 0
}

// join is the reverse of split: it appends the next record of the columns.
func (s *packState) join(records []byte, columns *[packColumns][]byte) ([]byte, bool) {
	tag := columns[columnTags][0]
	columns[columnTags] = columns[columnTags][1:]
	m := mover{from: columns[columnNumbers], to: append(records, tag)}
	named := s.numbers(tag, &m)
	columns[columnNumbers] = m.from
	if named {
		m.from = columns[columnRefs]
		m.move()
		columns[columnRefs] = m.from
	}
	return m.to, !m.short
}

// bytes reads n bytes.
func (r *BlockReader) bytes(n uint64) []byte {
	if n > uint64(len(r.data)) {
		r.fail(CodeBadEncoding, "lengths beyond the end")
		return nil
	}
	b := r.data[:n]
	r.data = r.data[n:]
	return b
}

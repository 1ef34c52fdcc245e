package store

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"

	"crdt-genome/genome"
)

// A packed value holds the bodies of several plain sealed values, one part
// each, compressed: the form of history at rest. A part is decoded by itself,
// so that a reader of one segment does not pay for its neighbours. Parts keep
// the bounds of the values that they were: the index is the same before and
// after.
const (
	// packParts is how many segments go into a packed value: a value takes
	// whole pages, so that the more there are, the less of the last is wasted.
	packParts = 16
	// packBytes bounds what one packing holds in memory. A group of segments
	// that is longer ends earlier, with at least one.
	packBytes = 4 << 20
	// maxBody bounds what a part may unpack to: sealBytes of genes and one op
	// beyond, and for each op its record and two lines in the table.
	maxBody = 4 << 20
)

// appendPacked appends the value of parts, which are plain and follow each
// other without a gap.
func appendPacked(dst []byte, parts []part) ([]byte, error) {
	var events uint64
	var directory, bodies []byte
	for i := range parts {
		n := len(bodies)
		var err error
		if bodies, err = appendPackedBody(bodies, parts[i].data); err != nil {
			return dst, fmt.Errorf("pack ops from %d on: %w", parts[i].lsn, err)
		}
		directory = binary.AppendUvarint(directory, parts[i].events)
		directory = binary.AppendUvarint(directory, uint64(len(bodies)-n))
		events += parts[i].events
	}
	if events > math.MaxUint32 {
		return dst, fmt.Errorf("%d events in one value", events)
	}
	start := len(dst)
	dst = append(dst, make([]byte, valueHeaderLen)...)
	dst = binary.AppendUvarint(dst, uint64(len(parts)))
	dst = append(append(dst, directory...), bodies...)
	putHeader(dst[start:], codecPacked, 0, events, parts[0].lsn)
	return dst, nil
}

// split returns the parts of a packed body.
func (p *part) split() ([]part, error) {
	b := p.data
	n, w := binary.Uvarint(b)
	if w <= 0 || n == 0 || n > packParts || p.authors != 0 {
		return nil, p.bad("the directory of its parts is damaged")
	}
	b = b[w:]
	parts := make([]part, n)
	sizes := make([]uint64, n)
	lsn := p.lsn
	for i := range parts {
		events, w1 := binary.Uvarint(b)
		size, w2 := binary.Uvarint(b[max(w1, 0):])
		if w1 <= 0 || w2 <= 0 || events == 0 || events > p.events || size > uint64(len(b)) {
			return nil, p.bad("the directory of its parts is damaged")
		}
		b = b[w1+w2:]
		parts[i], sizes[i] = part{lsn: lsn, events: events, packed: true, authors: -1, crc: p.crc}, size
		lsn += events
	}
	for i := range parts {
		if sizes[i] > uint64(len(b)) {
			return nil, p.bad("its parts run past the end")
		}
		parts[i].data, b = b[:sizes[i]:sizes[i]], b[sizes[i]:]
	}
	if len(b) > 0 || lsn != p.lsn+p.events {
		return nil, p.bad("its parts do not add up")
	}
	return parts, nil
}

// appendPackedBody appends the packed form of a plain value's body.
func appendPackedBody(dst, body []byte) ([]byte, error) {
	var v value
	_, block, err := v.decodeProvs(body)
	if err != nil {
		return dst, err
	}
	origins := body[:len(body)-len(block)]
	packed := deflate(origins)
	if len(packed) >= len(origins) {
		packed = nil // as they are
	}
	dst = binary.AppendUvarint(dst, uint64(len(origins)))
	dst = binary.AppendUvarint(dst, uint64(len(packed)))
	if packed == nil {
		packed = origins
	}
	return genome.AppendPacked(append(dst, packed...), block)
}

// An unpacker unpacks bodies and keeps its memory from one to the next. The
// zero unpacker is ready.
type unpacker struct {
	block genome.Unpacker
	src   bytes.Reader
	flate io.ReadCloser // reads src; nil at first
}

// unpackBody returns the body that data was packed from, byte for byte.
func unpackBody(data []byte) ([]byte, error) { return new(unpacker).appendBody(nil, data) }

// appendBody appends the body that data was packed from.
func (u *unpacker) appendBody(dst, data []byte) ([]byte, error) {
	size, n := binary.Uvarint(data)
	packed, m := binary.Uvarint(data[max(n, 0):])
	if n <= 0 || m <= 0 || size > maxBody || max(packed, 1) > uint64(len(data)-n-m) {
		return dst, errors.New("the origins are cut short")
	}
	data = data[n+m:]
	dst = slices.Grow(dst, int(size)+2*len(data))
	if packed == 0 {
		if size > uint64(len(data)) {
			return dst, errors.New("the origins are cut short")
		}
		dst, data = append(dst, data[:size]...), data[size:]
	} else {
		var err error
		if dst, err = u.appendInflated(dst, data[:packed], int(size)); err != nil {
			return dst, err
		}
		data = data[packed:]
	}
	return u.block.Append(dst, data, maxBody)
}

// deflaters keeps what deflate works with, nearly a megabyte each.
var deflaters = sync.Pool{New: func() any {
	w, err := flate.NewWriter(nil, flate.BestCompression)
	if err != nil {
		panic("store: deflate: " + err.Error()) // the level is a constant
	}
	return w
}}

func deflate(data []byte) []byte {
	var buf bytes.Buffer
	w := deflaters.Get().(*flate.Writer)
	defer deflaters.Put(w)
	w.Reset(&buf)
	_, err := w.Write(data)
	if err = errors.Join(err, w.Close()); err != nil {
		panic("store: deflate into memory: " + err.Error())
	}
	return buf.Bytes()
}

// appendInflated appends the size bytes that data holds deflated.
func (u *unpacker) appendInflated(dst, data []byte, size int) ([]byte, error) {
	u.src.Reset(data)
	if u.flate == nil {
		u.flate = flate.NewReader(&u.src)
	} else if err := u.flate.(flate.Resetter).Reset(&u.src, nil); err != nil {
		return dst, fmt.Errorf("the origins are damaged: %v", err)
	}
	buf := bytes.NewBuffer(dst)
	n, err := io.Copy(buf, io.LimitReader(u.flate, int64(size)+1))
	if err != nil {
		return dst, fmt.Errorf("the origins are damaged: %v", err)
	}
	if n != int64(size) {
		return dst, fmt.Errorf("the origins are not the %d bytes that they should be", size)
	}
	return buf.Bytes(), nil
}

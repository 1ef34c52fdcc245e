package genome

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
)

// A BlockReader reads a block op by op and allocates nothing but its table.
// The zero BlockReader is ready to Open.
type BlockReader struct {
	table  []blockReplica
	data   []byte // what is left of the part being read: the table, then the records
	text   []byte // the genes of the records not yet read
	cur    blockCursor
	left   int // records not yet read
	named  int // lines of the table that the records read so far have named
	chains bool
	err    *OpError
}

// Open starts to read data, which must not change until the last op is out of
// use. It checks version and flags ([CodeWireVersion]), checksum and table
// ([CodeBadEncoding]) and refuses more than maxOps ops ([CodeTooManyOps]). The
// error is always an [*OpError]. Nothing is allocated before the bytes that
// pay for it have been seen.
func (r *BlockReader) Open(data []byte, maxOps int) error {
	*r = BlockReader{table: r.table[:0]}
	if len(data) < 2+4 {
		return r.fail(CodeBadEncoding, "shorter than any block")
	}
	if v := data[0]; v != blockVersion {
		return r.fail(CodeWireVersion, fmt.Sprintf("version %d; this program reads %d", v, blockVersion))
	}
	body, sum := data[:len(data)-4], binary.LittleEndian.Uint32(data[len(data)-4:])
	if got := crc32.Checksum(body, castagnoli); got != sum {
		return r.fail(CodeBadEncoding, fmt.Sprintf("checksum %08x, computed %08x", sum, got))
	}
	flags := body[1]
	if flags&^blockChains != 0 {
		return r.fail(CodeWireVersion, fmt.Sprintf("flags %#x; this program knows %#x", flags, blockChains))
	}
	r.chains = flags&blockChains != 0
	r.data = body[2:]
	r.readTable(2 * uint64(max(maxOps, 0)))
	count, size := r.uvarint(), r.uvarint()
	switch {
	case r.err != nil:
		return r.err
	case count > uint64(max(maxOps, 0)):
		return r.fail(CodeTooManyOps, fmt.Sprintf("%d ops; at most %d", count, maxOps))
	case size > uint64(len(r.data)) || count > size:
		return r.fail(CodeBadEncoding, "lengths beyond the end")
	}
	r.data, r.text, r.left = r.data[:size], r.data[size:], int(count)
	return nil
}

// Len returns the number of ops not yet read.
func (r *BlockReader) Len() int { return r.left }

// Err returns why Next returned false, nil at the end. It is an [*OpError].
func (r *BlockReader) Err() error {
	if r.err != nil {
		return r.err
	}
	return nil
}

// Close checks, after the last op, that nothing is left over, and returns the
// heads that the block carries. The error is an [*OpError].
func (r *BlockReader) Close() ([]Head, error) {
	if r.err == nil && r.chains && r.named == 0 {
		r.fail(CodeBadEncoding, "chains without authors")
	}
	if r.err == nil && (r.left != 0 || len(r.data) != 0 || len(r.text) != 0 || r.named != len(r.table)) {
		r.fail(CodeBadEncoding, "bytes left over")
	}
	authors := 0
	for i := range r.table {
		t := &r.table[i]
		if t.seq > 0 {
			authors++
		}
		if t.seq > 0 && t.nextSeq == t.seq {
			r.fail(CodeBadEncoding, "an author without ops")
		}
	}
	switch {
	case r.err != nil:
		return nil, r.err
	case !r.chains:
		return nil, nil
	}
	heads := make([]Head, 0, authors)
	for i := range r.table {
		if t := &r.table[i]; t.seq > 0 {
			heads = append(heads, Head{t.id, t.nextSeq - 1, t.chain})
		}
	}
	return heads, nil
}

// release lets go of the block, and keeps the memory of the table.
func (r *BlockReader) release() { *r = BlockReader{table: r.table[:0]} }

// fail records the first error and stops the reading.
func (r *BlockReader) fail(code Code, detail string) error {
	if r.err == nil {
		r.err = &OpError{Code: code, Detail: "bad block: " + detail}
	}
	r.data, r.text, r.left = nil, nil, 0
	return r.err
}

// readTable reads the table. limit is how many replicas the ops that the caller
// allows can name: a line takes several times the memory that it takes in the
// block.
func (r *BlockReader) readTable(limit uint64) {
	n := r.uvarint()
	switch {
	case n > uint64(len(r.data)/minReplicaBytes):
		r.fail(CodeBadEncoding, "more replicas than bytes for them")
		return
	case n > limit:
		r.fail(CodeTooManyOps, fmt.Sprintf("%d replicas; the ops that are allowed name at most %d", n, limit))
		return
	}
	r.table = slices.Grow(r.table, int(n))
	for range n {
		actor := r.uvarint()
		t := blockReplica{id: NewReplicaID(ActorID(actor), Epoch(r.fixed(4))), seq: r.uvarint()}
		if t.seq > 0 {
			t.gene = r.uvarint()
			if r.chains {
				t.chain = Chain(r.fixed(8))
			}
		}
		if actor > math.MaxUint32 || !t.id.Valid() || t.seq > MaxSeq || t.gene > MaxSeq {
			r.fail(CodeBadEncoding, "a replica in the table is out of bounds")
		}
		if r.err != nil {
			return
		}
		t.nextSeq, t.nextGene = t.seq, t.gene
		r.table = append(r.table, t)
	}
	if !r.distinct() {
		r.fail(CodeBadEncoding, "a replica stands in the table twice")
	}
}

// distinct reports whether no replica stands in the table twice.
func (r *BlockReader) distinct() bool {
	const few = 8 // nearly every block
	if len(r.table) > few {
		ids := make([]ReplicaID, len(r.table))
		for i := range r.table {
			ids[i] = r.table[i].id
		}
		slices.Sort(ids)
		return len(slices.Compact(ids)) == len(r.table)
	}
	for i := range r.table {
		for j := range i {
			if r.table[i].id == r.table[j].id {
				return false
			}
		}
	}
	return true
}

// Next reads the next op into op and reports whether there was one. The op has
// passed [Op.Check]; its genes are part of the block.
func (r *BlockReader) Next(op *Op) bool {
	if r.left == 0 {
		return false
	}
	r.left--
	return r.usual(op) || r.next(op)
}

// usual reads the next op if its record has the shape that nearly all have: no
// gap, the author of the record before and the replica of the cursor, numbers of
// few bytes and far from their bounds. Whatever is otherwise it leaves to next.
func (r *BlockReader) usual(op *Op) bool {
	const shape, most = tagAuthor | tagRef, 1 + 2*shortBytes
	data := r.data
	if len(data) < most || r.named == 0 || data[0]&shape != 0 {
		return false
	}
	kind, n := data[0]&tagKind, uint64(data[0]>>tagShift)
	data = data[1:]
	if n == 0 {
		long, size := shortUvarint(data)
		if n = uint64(long >> 1); long&runGap != 0 || n <= tagMaxRun || n > MaxRun {
			return false
		}
		data = data[size:]
	}
	u, size := shortUvarint(data)
	c := &r.cur
	t, ref := &r.table[c.author], r.table[c.ref].id
	gene := c.gene + uint64(int64(u>>1)^-int64(u&1))
	if size == 0 || max(gene, t.nextSeq, t.nextGene) > MaxSeq-MaxRun {
		return false
	}
	// Field by field: see InsertTo.
	op.Side, op.Reverse = Right, false
	op.Dot, op.Gene = Dot{t.id, t.nextSeq}, t.nextGene
	switch {
	case kind < 2:
		if n > uint64(len(r.text)) {
			return false
		}
		op.Kind, op.Side, op.Ref, op.Count = Insert, Side(kind), GeneID{ref, gene}, 0
		op.Genes, r.text = r.text[:n:n], r.text[n:]
		t.nextGene += n
		c.ref, c.gene = c.author, t.nextGene-1
	case kind == 2:
		op.Kind, op.Ref, op.Count, op.Genes = Delete, GeneID{ref, gene}, n, nil
		c.gene = gene + n - 1
	case gene < n-1:
		return false
	default:
		gene -= n - 1
		op.Kind, op.Reverse, op.Ref, op.Count, op.Genes = Delete, true, GeneID{ref, gene}, n, nil
		c.gene = gene
	}
	t.nextSeq += n
	r.data = data[size:]
	return true
}

// next reads an op of any shape.
func (r *BlockReader) next(op *Op) bool {
	if len(r.data) == 0 {
		r.fail(CodeBadEncoding, "fewer records than it says")
		return false
	}
	tag := r.data[0]
	r.data = r.data[1:]
	n := uint64(tag >> tagShift)
	seqGap, geneGap := uint64(0), uint64(0)
	if n == 0 {
		n, seqGap, geneGap = r.length()
	}
	author, ref := r.cur.author, r.cur.ref
	if tag&tagAuthor != 0 {
		author = r.index(0, author)
	}
	if tag&tagRef != 0 {
		ref = r.index(refRoot, ref)
	}
	if !r.name(author) || !r.name(ref) || r.table[author].seq == 0 {
		r.fail(CodeBadEncoding, "an op names a replica that the table does not have there")
		return false
	}
	t := &r.table[author]
	if t.nextSeq == t.seq && seqGap|geneGap != 0 {
		r.fail(CodeBadEncoding, "a gap before the first op of its author")
		return false
	}
	*op = Op{Dot: Dot{t.id, t.nextSeq + seqGap}, Gene: t.nextGene + geneGap}
	if ref != refRoot {
		op.Ref = GeneID{r.table[ref].id, r.cur.gene + uint64(r.svarint())}
	}
	if !r.fill(op, tag&tagKind, n) {
		return false
	}
	t.nextSeq, t.nextGene = op.Dot.Seq+n, op.Gene+uint64(len(op.Genes))
	r.cur.after(op, author, ref)
	return true
}

// name notes that a record names line i of the table, or the root. It reports
// false unless the lines are named in their order: a block has one encoding.
func (r *BlockReader) name(i int) bool {
	if i == r.named {
		r.named++
	}
	return i < min(r.named, len(r.table))
}

// fill completes op, a run of n events of that kind whose Ref is still the
// gene that the first event names, and checks it.
func (r *BlockReader) fill(op *Op, kind byte, n uint64) bool {
	switch kind {
	case 0, 1:
		if n > uint64(len(r.text)) {
			r.fail(CodeBadEncoding, "genes beyond the end")
			return false
		}
		op.Side = Side(kind)
		op.Genes, r.text = r.text[:n:n], r.text[n:]
	case 3:
		if op.Ref.Gene < n-1 {
			r.fail(CodeBadEncoding, "a deletion runs below gene 0")
			return false
		}
		op.Reverse = true
		op.Ref.Gene -= n - 1
		fallthrough
	default:
		op.Kind, op.Count = Delete, n
	}
	if r.err != nil {
		return false
	}
	if err := op.Check(); err != nil {
		r.fail(err.(*OpError).Code, err.Error())
		return false
	}
	return true
}

// length reads a run length that is written out, and its gap.
func (r *BlockReader) length() (n, seqGap, geneGap uint64) {
	n = r.uvarint()
	gap := n&runGap != 0
	n >>= 1
	if gap {
		seqGap, geneGap = r.uvarint(), r.uvarint()
	}
	switch {
	case n == 0 || n > MaxRun || seqGap > MaxSeq || geneGap > MaxSeq:
		r.fail(CodeOpInvalid, fmt.Sprintf("a run of %d genes after a gap of %d; 1 to %d are allowed", n, seqGap, MaxRun))
	case !gap && n <= tagMaxRun || gap && seqGap|geneGap == 0:
		r.fail(CodeBadEncoding, "a run length is not in its shortest form")
	}
	return n, seqGap, geneGap
}

// index reads a table index, written as the distance from first, that must
// differ from old.
func (r *BlockReader) index(first, old int) int {
	u := r.uvarint()
	i := int(min(u, uint64(len(r.table)+1))) + first
	if i >= len(r.table) || i == old {
		r.fail(CodeBadEncoding, "a table index is wrong")
		return 0
	}
	return i
}

// fixed reads n ≤ 8 bytes, little-endian.
func (r *BlockReader) fixed(n int) (v uint64) {
	if len(r.data) < n {
		r.fail(CodeBadEncoding, "ends in the table")
		return 0
	}
	for i := range n {
		v |= uint64(r.data[i]) << (8 * i)
	}
	r.data = r.data[n:]
	return v
}

// uvarint reads a LEB128 integer in its shortest form.
func (r *BlockReader) uvarint() uint64 {
	if len(r.data) > 0 && r.data[0] < 0x80 {
		v := r.data[0]
		r.data = r.data[1:]
		return uint64(v)
	}
	return r.longUvarint()
}

// svarint reads a zigzag-coded integer.
func (r *BlockReader) svarint() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (r *BlockReader) longUvarint() uint64 {
	v, n := binary.Uvarint(r.data)
	if n <= 0 || r.data[n-1] == 0 {
		r.fail(CodeBadEncoding, "an integer is cut short or not in its shortest form")
		return 0
	}
	r.data = r.data[n:]
	return v
}

// shortBytes is how many bytes shortUvarint reads.
const shortBytes = 3

// shortUvarint decodes the integer at the beginning of b, which has at least
// shortBytes bytes. 0, 0 means that it is longer or not in its shortest form.
func shortUvarint(b []byte) (v uint32, size int) {
	b0, b1, b2 := uint32(b[0]), uint32(b[1]), uint32(b[2])
	switch {
	case b0 < 0x80:
		return b0, 1
	case b1 < 0x80 && b1 > 0:
		return b0&0x7f | b1<<7, 2
	case b1 >= 0x80 && b2 < 0x80 && b2 > 0:
		return b0&0x7f | b1&0x7f<<7 | b2<<14, 3
	}
	return 0, 0
}

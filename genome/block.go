package genome

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
)

// MediaType names the binary block on the wire.
const MediaType = "application/vnd.genome.ops"

// blockVersion is the first byte of every block.
const blockVersion = 1

// blockChains is the flag that says that chains are present.
const blockChains = 1

// A Block is a batch of ops with, for each author in it, the chain after its
// last op. One format serves the wire and the log; it is drawn in the package
// comment.
type Block struct {
	Ops   []Op
	Heads []Head // one for each author in Ops, or none at all
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A tag's bits, and what its high four bits mean beside a length of 1 … 15.
const (
	tagKind    = 3 // insert right, insert left, delete, delete reverse
	tagAuthor  = 1 << 2
	tagRef     = 1 << 3
	tagShift   = 4
	tagMaxRun  = 15
	runGapFlag = 1
)

// AppendBlock appends the encoding of b to dst. The ops of one replica must
// come in the order of their seqs, each with its Gene known; gaps between them
// are allowed. Heads must be empty or name exactly the authors in Ops, at
// their last seqs. It fails with an [*OpError] where that does not hold, and
// then returns dst unchanged. Equal blocks have equal encodings.
func AppendBlock(dst []byte, b Block) ([]byte, error) {
	e := blockEncoder{index: make(map[ReplicaID]int)}
	if err := e.scan(b); err != nil {
		return dst, err
	}
	start := len(dst)
	out := append(dst, blockVersion, e.flags)
	out = binary.AppendUvarint(out, uint64(len(e.table)))
	for _, r := range e.table {
		out = binary.AppendUvarint(out, uint64(r.id.Actor()))
		out = binary.LittleEndian.AppendUint32(out, uint32(r.id.Epoch()))
		out = binary.AppendUvarint(out, r.seq)
		if r.seq == 0 {
			continue // only referred to
		}
		out = binary.AppendUvarint(out, r.gene)
		if e.flags&blockChains != 0 {
			out = binary.LittleEndian.AppendUint64(out, uint64(r.chain))
		}
	}
	meta, text := e.records(b.Ops)
	out = binary.AppendUvarint(out, uint64(len(b.Ops)))
	out = binary.AppendUvarint(out, uint64(len(meta)))
	out = append(append(out, meta...), text...)
	return binary.LittleEndian.AppendUint32(out, crc32.Checksum(out[start:], castagnoli)), nil
}

// blockReplica is a line of a block's table.
type blockReplica struct {
	id        ReplicaID
	seq, gene uint64 // of its first op in the block; seq 0: only referred to
	chain     Chain  // after its last op

	nextSeq, nextGene uint64 // while coding: what the next op has if there is no gap
}

type blockEncoder struct {
	flags byte
	table []blockReplica
	index map[ReplicaID]int // into table; looked up only, never ranged over
}

func (e *blockEncoder) number(id ReplicaID) int {
	i, ok := e.index[id]
	if !ok {
		i = len(e.table)
		e.index[id] = i
		e.table = append(e.table, blockReplica{id: id})
	}
	return i
}

// scan checks b and makes the table: replicas in the order of first use.
func (e *blockEncoder) scan(b Block) error {
	if len(b.Ops) > MaxBatchOps {
		return &OpError{Code: CodeTooManyOps, Detail: fmt.Sprintf("%d ops in one block; at most %d", len(b.Ops), MaxBatchOps)}
	}
	for i := range b.Ops {
		op := &b.Ops[i]
		if err := op.Check(); err != nil {
			return err
		}
		if op.Gene == NoGene {
			return op.refuse(CodeOpInvalid, "cannot be encoded before its gene number is known")
		}
		r := &e.table[e.number(op.Dot.Replica)]
		switch {
		case r.seq == 0:
			r.seq, r.gene = op.Dot.Seq, op.Gene
		case op.Dot.Seq < r.nextSeq || op.Gene < r.nextGene:
			return op.refuse(CodeOpInvalid, "ops of one replica must be in order in a block")
		}
		r.nextSeq, r.nextGene = op.Last()+1, op.Gene+uint64(len(op.Genes))
		if !op.Ref.IsRoot() {
			e.number(op.Ref.Replica)
		}
	}
	return e.scanHeads(b.Heads)
}

func (e *blockEncoder) scanHeads(heads []Head) error {
	if len(heads) == 0 {
		return nil
	}
	e.flags |= blockChains
	authors := 0
	for i := range e.table {
		if e.table[i].seq > 0 {
			authors++
		}
	}
	for _, h := range heads {
		i, ok := e.index[h.Replica]
		if !ok || e.table[i].nextSeq != h.Seq+1 {
			return &OpError{Code: CodeOpInvalid, Dot: Dot{h.Replica, h.Seq}, Detail: "a head must name the last op of its replica in the block"}
		}
		e.table[i].chain = h.Chain
	}
	if authors != len(heads) {
		return &OpError{Code: CodeOpInvalid, Detail: "a block has a head for every author in it, or none"}
	}
	return nil
}

// records encodes the ops into records and text.
func (e *blockEncoder) records(ops []Op) (meta, text []byte) {
	for i := range e.table {
		e.table[i].nextSeq, e.table[i].nextGene = e.table[i].seq, e.table[i].gene
	}
	var cur cursor
	for i := range ops {
		op := &ops[i]
		author := e.index[op.Dot.Replica]
		r := &e.table[author]
		ref := len(e.table) // root
		if !op.Ref.IsRoot() {
			ref = e.index[op.Ref.Replica]
		}
		tag := byte(op.kindBits())
		if author != cur.author {
			tag |= tagAuthor
		}
		if ref != cur.ref {
			tag |= tagRef
		}
		n, gap := uint64(op.Len()), op.Dot.Seq != r.nextSeq || op.Gene != r.nextGene
		if n <= tagMaxRun && !gap {
			meta = append(meta, tag|byte(n)<<tagShift)
		} else {
			meta = append(meta, tag)
			flag := uint64(0)
			if gap {
				flag = runGapFlag
			}
			meta = binary.AppendUvarint(meta, n<<1|flag)
			if gap {
				meta = binary.AppendUvarint(meta, op.Dot.Seq-r.nextSeq)
				meta = binary.AppendUvarint(meta, op.Gene-r.nextGene)
			}
		}
		if author != cur.author {
			meta = binary.AppendUvarint(meta, uint64(author))
		}
		if ref != cur.ref {
			meta = binary.AppendUvarint(meta, uint64(ref))
		}
		if !op.Ref.IsRoot() {
			meta = binary.AppendVarint(meta, int64(op.firstGene()-cur.gene))
		}
		r.nextSeq, r.nextGene = op.Last()+1, op.Gene+uint64(len(op.Genes))
		cur.after(op, author, ref)
		text = append(text, op.Genes...)
	}
	return meta, text
}

// A cursor is where the record before left off: its author, and the gene it
// touched last, from which the next reference is counted.
type cursor struct {
	author int
	ref    int // table index of the gene's replica
	gene   uint64
}

func (c *cursor) after(op *Op, author, ref int) {
	c.author = author
	switch {
	case op.Kind == Insert:
		c.ref, c.gene = author, op.Gene+uint64(len(op.Genes))-1
	case op.Reverse:
		c.ref, c.gene = ref, op.Ref.Gene
	default:
		c.ref, c.gene = ref, op.Ref.Gene+op.Count-1
	}
}

func (op *Op) kindBits() int {
	switch {
	case op.Kind == Delete && op.Reverse:
		return 3
	case op.Kind == Delete:
		return 2
	case op.Side == Left:
		return 1
	}
	return 0
}

// firstGene is the gene that op's first event refers to.
func (op *Op) firstGene() uint64 {
	if op.Reverse {
		return op.Ref.Gene + op.Count - 1
	}
	return op.Ref.Gene
}

// DecodeBlock decodes a block of at most maxOps ops and checks it completely:
// its version ([CodeWireVersion]), checksum and form ([CodeBadEncoding],
// non-minimal integers included), and every op by [Op.Check]. Nothing is
// allocated before the bytes that pay for it have been seen: at most maxOps
// ops and 1/5 of data's length in replicas. The genes of the ops are part of
// data and share its memory. The error is always an [*OpError].
func DecodeBlock(data []byte, maxOps int) (Block, error) {
	d := blockDecoder{data: data}
	b := d.decode(maxOps)
	if d.err != nil {
		return Block{}, d.err
	}
	return b, nil
}

type blockDecoder struct {
	data []byte // what is left
	err  *OpError
}

func (d *blockDecoder) fail(code Code, format string, args ...any) {
	if d.err == nil {
		d.err = &OpError{Code: code, Detail: "bad block: " + fmt.Sprintf(format, args...)}
		d.data = nil
	}
}

func (d *blockDecoder) bad(what string) { d.fail(CodeBadEncoding, "%s", what) }

func (d *blockDecoder) decode(maxOps int) (b Block) {
	if len(d.data) < 2+4 {
		d.bad("shorter than any block")
		return b
	}
	if v := d.data[0]; v != blockVersion {
		d.fail(CodeWireVersion, "version %d; this program reads %d", v, blockVersion)
		return b
	}
	body, sum := d.data[:len(d.data)-4], binary.LittleEndian.Uint32(d.data[len(d.data)-4:])
	if got := crc32.Checksum(body, castagnoli); got != sum {
		d.fail(CodeBadEncoding, "checksum %08x, computed %08x", sum, got)
		return b
	}
	flags := body[1]
	if flags&^blockChains != 0 {
		d.fail(CodeWireVersion, "flags %#x; this program knows %#x", flags, blockChains)
		return b
	}
	d.data = body[2:]
	table := d.table(flags)
	count := d.uvarint("op count")
	metaLen := d.uvarint("length of the records")
	switch {
	case d.err != nil:
		return b
	case count > uint64(maxOps):
		d.fail(CodeTooManyOps, "%d ops; at most %d", count, maxOps)
		return b
	case metaLen > uint64(len(d.data)) || count > metaLen:
		d.bad("lengths beyond the end")
		return b
	}
	text := d.data[metaLen:]
	d.data = d.data[:metaLen]
	b.Ops = d.records(table, int(count), text)
	if d.err == nil && flags&blockChains != 0 {
		for _, r := range table {
			if r.seq > 0 {
				b.Heads = append(b.Heads, Head{r.id, r.nextSeq - 1, r.chain})
			}
		}
	}
	return b
}

// minReplicaBytes is the least that one line of the table takes.
const minReplicaBytes = 1 + 4 + 1

func (d *blockDecoder) table(flags byte) []blockReplica {
	n := d.uvarint("replica count")
	if n > uint64(len(d.data)/minReplicaBytes) {
		d.bad("replica count beyond the end")
		return nil
	}
	table := make([]blockReplica, n)
	seen := make(map[ReplicaID]bool, n)
	for i := range table {
		r := &table[i]
		actor := d.uvarint("actor")
		if actor > math.MaxUint32 {
			d.bad("actor above 2^32-1")
		}
		r.id = NewReplicaID(ActorID(actor), Epoch(d.fixed(4)))
		if r.seq = d.uvarint("seq"); r.seq > 0 {
			r.gene = d.uvarint("gene number")
			if flags&blockChains != 0 {
				r.chain = Chain(d.fixed(8))
			}
		}
		if seen[r.id] {
			d.bad("a replica stands in the table twice")
		}
		seen[r.id] = true
		r.nextSeq, r.nextGene = r.seq, r.gene
	}
	return table
}

func (d *blockDecoder) records(table []blockReplica, count int, text []byte) []Op {
	ops := make([]Op, 0, count)
	var cur cursor
	for range count {
		op := d.record(table, &cur, &text)
		if d.err != nil {
			return nil
		}
		if err := op.Check(); err != nil {
			d.err = err.(*OpError)
			return nil
		}
		ops = append(ops, op)
	}
	if len(d.data) != 0 || len(text) != 0 {
		d.bad("bytes left over")
	}
	for i := range table {
		if table[i].seq > 0 && table[i].nextSeq == table[i].seq {
			d.bad("an author without ops")
		}
	}
	return ops
}

// record decodes one op and takes its genes from the front of text.
func (d *blockDecoder) record(table []blockReplica, cur *cursor, text *[]byte) (op Op) {
	tag := d.byte("tag")
	n, seqGap, geneGap := uint64(tag>>tagShift), uint64(0), uint64(0)
	if n == 0 {
		n = d.uvarint("run length")
		gap := n&runGapFlag != 0
		n >>= 1
		if gap {
			seqGap, geneGap = d.uvarint("seq gap"), d.uvarint("gene gap")
		}
		if !gap && n <= tagMaxRun || gap && seqGap|geneGap == 0 {
			d.bad("a run length is not in its shortest form")
		}
	}
	author, ref := cur.author, cur.ref
	if tag&tagAuthor != 0 {
		author = d.index("author", len(table)-1, cur.author)
	}
	if tag&tagRef != 0 {
		ref = d.index("reference", len(table), cur.ref)
	}
	if d.err != nil || author >= len(table) || ref > len(table) || table[author].seq == 0 {
		d.bad("an op names a replica that the table does not have")
		return op
	}
	if n == 0 || n > MaxRun || seqGap > MaxSeq || geneGap > MaxSeq {
		d.fail(CodeOpInvalid, "a run of %d genes; 1 to %d are allowed", n, MaxRun)
		return op
	}
	r := &table[author]
	op.Dot = Dot{r.id, r.nextSeq + seqGap}
	op.Gene = r.nextGene + geneGap
	var first uint64
	if ref < len(table) {
		op.Ref.Replica = table[ref].id
		first = cur.gene + uint64(d.varint("reference"))
	}
	d.payload(&op, tag&tagKind, n, first, text)
	if d.err != nil {
		return op
	}
	r.nextSeq, r.nextGene = op.Dot.Seq+n, op.Gene+uint64(len(op.Genes))
	if r.nextSeq > MaxSeq || r.nextGene > MaxSeq {
		d.bad("numbers run past the highest seq")
	}
	cur.after(&op, author, ref)
	return op
}

// payload fills in what depends on the kind; first is the gene that the first
// event refers to.
func (d *blockDecoder) payload(op *Op, kind byte, n, first uint64, text *[]byte) {
	op.Ref.Gene = first
	switch kind {
	case 0, 1:
		op.Side = Side(kind)
		if n > uint64(len(*text)) {
			d.bad("genes beyond the end")
			return
		}
		op.Genes, *text = (*text)[:n:n], (*text)[n:]
		return
	case 3:
		op.Reverse = true
		op.Ref.Gene = first - (n - 1)
		if first < n-1 {
			d.bad("a deletion runs below gene 0")
		}
	}
	op.Kind, op.Count = Delete, n
}

// index reads a table index up to limit that differs from old.
func (d *blockDecoder) index(what string, limit, old int) int {
	i := d.uvarint(what)
	if i > uint64(max(limit, 0)) || i == uint64(old) {
		d.bad(what + " index is wrong")
		return 0
	}
	return int(i)
}

func (d *blockDecoder) byte(what string) byte {
	if len(d.data) == 0 {
		d.bad(what + " beyond the end")
		return 0
	}
	b := d.data[0]
	d.data = d.data[1:]
	return b
}

// fixed reads n bytes, little-endian.
func (d *blockDecoder) fixed(n int) (v uint64) {
	if len(d.data) < n {
		d.bad("ends in the table")
		return 0
	}
	for i := range n {
		v |= uint64(d.data[i]) << (8 * i)
	}
	d.data = d.data[n:]
	return v
}

// uvarint reads a LEB128 integer in its shortest form.
func (d *blockDecoder) uvarint(what string) uint64 {
	v, n := binary.Uvarint(d.data)
	if n <= 0 || n > 1 && d.data[n-1] == 0 {
		d.bad(what + " is not a shortest-form integer")
		return 0
	}
	d.data = d.data[n:]
	return v
}

func (d *blockDecoder) varint(what string) int64 {
	u := d.uvarint(what)
	return int64(u>>1) ^ -int64(u&1)
}

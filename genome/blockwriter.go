package genome

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// A BlockWriter builds a block op by op. The zero BlockWriter is empty.
type BlockWriter struct {
	table   []blockReplica
	index   map[ReplicaID]int // into table; looked up only, never ranged over
	cur     blockCursor
	records []byte
	text    []byte
	count   int
}

// Reset empties w and keeps its memory.
func (w *BlockWriter) Reset() {
	*w = BlockWriter{table: w.table[:0], index: w.index, records: w.records[:0], text: w.text[:0]}
	clear(w.index)
}

// Len returns the number of ops in w. O(1).
func (w *BlockWriter) Len() int { return w.count }

// Size returns the length of the block that Append would append, with chains,
// or a little more, never less. O(1).
func (w *BlockWriter) Size() int {
	const perReplica, rest = 5 + 4 + 6 + 6 + 8, 2 + 3 + 3 + 4 + 4
	return rest + perReplica*len(w.table) + len(w.records) + len(w.text)
}

// Add adds op, whose Gene must be known. Its genes are copied. It fails with
// an [*OpError] and changes nothing if op fails [Op.Check], does not come after
// the ops of its replica that are in w, or w holds [MaxBatchOps] ops already.
func (w *BlockWriter) Add(op *Op) error {
	if w.usual(op) {
		return nil
	}
	if err := op.Check(); err != nil {
		return err
	}
	if op.Gene == NoGene {
		return op.refuse(CodeOpInvalid, "cannot be encoded before its gene number is known")
	}
	if w.count >= MaxBatchOps {
		return &OpError{Code: CodeTooManyOps, Detail: fmt.Sprintf("more than %d ops in one block", MaxBatchOps)}
	}
	author := w.number(op.Dot.Replica, w.cur.author)
	r := &w.table[author]
	switch {
	case r.seq == 0:
		r.seq, r.gene = op.Dot.Seq, op.Gene
		r.nextSeq, r.nextGene = r.seq, r.gene
	case op.Dot.Seq < r.nextSeq || op.Gene < r.nextGene:
		return op.refuse(CodeOpInvalid, "ops of one replica must be in order in a block")
	}
	seqGap, geneGap := op.Dot.Seq-r.nextSeq, op.Gene-r.nextGene
	r.nextSeq, r.nextGene = op.Dot.Seq+uint64(op.Len()), op.Gene+uint64(len(op.Genes))
	ref := refRoot
	if !op.Ref.IsRoot() {
		ref = w.number(op.Ref.Replica, w.cur.ref)
	}
	w.record(op, author, ref, seqGap, geneGap)
	w.cur.after(op, author, ref)
	w.text = append(w.text, op.Genes...)
	w.count++
	return nil
}

// usual adds op if it has the shape that nearly all have: a few events that
// follow the op before, of the same author, naming a gene of the replica that
// was named before, near the cursor. Whatever is otherwise it leaves to Add.
func (w *BlockWriter) usual(op *Op) bool {
	if w.count == 0 || w.count >= MaxBatchOps {
		return false
	}
	c := &w.cur
	r, ref := &w.table[c.author], &w.table[c.ref]
	if op.Dot.Replica != r.id || op.Dot.Seq != r.nextSeq || op.Gene != r.nextGene || op.Ref.Replica != ref.id ||
		max(r.nextSeq, r.nextGene, op.Ref.Gene) > MaxSeq-tagMaxRun || op.Side > Left {
		return false
	}
	n := uint64(len(op.Genes))
	first, last := op.Ref.Gene, op.Gene+n-1
	switch {
	case op.Kind == Insert && n-1 < tagMaxRun && op.Count == 0 && !op.Reverse:
	case op.Kind == Delete && n == 0 && op.Count-1 < tagMaxRun && op.Side == Right:
		n = op.Count
		if last = first + n - 1; op.Reverse {
			first, last = last, first
		}
	default:
		return false
	}
	d := first - c.gene
	d = d<<1 ^ uint64(int64(d)>>63) // zigzag
	if d >= 0x80 {
		return false
	}
	w.records = append(w.records, op.kindBits()|byte(n)<<tagShift, byte(d))
	r.nextSeq += n
	if op.Kind == Insert {
		if n == 1 { // typing: not worth a call
			w.text = append(w.text, op.Genes[0])
		} else {
			w.text = append(w.text, op.Genes...)
		}
		r.nextGene += n
		c.ref = c.author
	}
	c.gene = last
	w.count++
	return true
}

// refRoot stands for the root while the length of the table is not known; the
// index on the wire is 0 for the root and one more than the table's for others.
const refRoot = -1

// number returns the table index of id; try is tried first.
func (w *BlockWriter) number(id ReplicaID, try int) int {
	if try >= 0 && try < len(w.table) && w.table[try].id == id {
		return try
	}
	const few = 8 // nearly every block; a map takes longer than to look at them
	for i := range w.table[:min(few, len(w.table))] {
		if w.table[i].id == id {
			return i
		}
	}
	i, ok := w.index[id]
	if !ok {
		if w.index == nil {
			w.index = make(map[ReplicaID]int)
		}
		i = len(w.table)
		w.index[id] = i
		w.table = append(w.table, blockReplica{id: id})
	}
	return i
}

// record encodes op.
func (w *BlockWriter) record(op *Op, author, ref int, seqGap, geneGap uint64) {
	tag, n, gap := op.kindBits(), uint64(op.Len()), seqGap|geneGap != 0
	if author != w.cur.author {
		tag |= tagAuthor
	}
	if ref != w.cur.ref {
		tag |= tagRef
	}
	out := w.records
	switch {
	case gap:
		out = binary.AppendUvarint(append(out, tag), n<<1|runGap)
		out = binary.AppendUvarint(binary.AppendUvarint(out, seqGap), geneGap)
	case n > tagMaxRun:
		out = binary.AppendUvarint(append(out, tag), n<<1)
	default:
		out = append(out, tag|byte(n)<<tagShift)
	}
	if author != w.cur.author {
		out = binary.AppendUvarint(out, uint64(author))
	}
	if ref != w.cur.ref {
		out = binary.AppendUvarint(out, uint64(ref+1))
	}
	if ref != refRoot {
		out = binary.AppendVarint(out, int64(op.firstGene()-w.cur.gene))
	}
	w.records = out
}

// Append appends the block to dst. heads must be empty or name exactly the
// authors of the ops added, at their last seqs; else it fails with an
// [*OpError] and returns dst unchanged.
func (w *BlockWriter) Append(dst []byte, heads []Head) ([]byte, error) {
	flags := byte(0)
	if len(heads) > 0 {
		flags = blockChains
		if err := w.setChains(heads); err != nil {
			return dst, err
		}
	}
	out := append(dst, blockVersion, flags)
	out = binary.AppendUvarint(out, uint64(len(w.table)))
	for i := range w.table {
		r := &w.table[i]
		out = binary.AppendUvarint(out, uint64(r.id.Actor()))
		out = binary.LittleEndian.AppendUint32(out, uint32(r.id.Epoch()))
		out = binary.AppendUvarint(out, r.seq)
		if r.seq == 0 {
			continue // only referred to
		}
		out = binary.AppendUvarint(out, r.gene)
		if flags&blockChains != 0 {
			out = binary.LittleEndian.AppendUint64(out, uint64(r.chain))
		}
	}
	out = binary.AppendUvarint(out, uint64(w.count))
	out = binary.AppendUvarint(out, uint64(len(w.records)))
	out = append(append(out, w.records...), w.text...)
	return binary.LittleEndian.AppendUint32(out, crc32.Checksum(out[len(dst):], castagnoli)), nil
}

func (w *BlockWriter) setChains(heads []Head) error {
	authors := 0
	for i := range w.table {
		if w.table[i].seq > 0 {
			authors++
		}
	}
	for _, h := range heads {
		i, ok := w.index[h.Replica]
		if !ok || w.table[i].nextSeq != h.Seq+1 {
			return &OpError{Code: CodeOpInvalid, Dot: Dot{h.Replica, h.Seq}, Detail: "a head must name the last op of its replica in the block"}
		}
		w.table[i].chain = h.Chain
	}
	if authors != len(heads) {
		return &OpError{Code: CodeOpInvalid, Detail: "a block has a head for every author in it, or none"}
	}
	return nil
}

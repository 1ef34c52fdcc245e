package genome

import "encoding/binary"

// AppendEvents appends the canonical form of op's unit events to dst: the same
// bytes however runs are cut and joined, and other bytes for every other history.
// It is what is hashed where somebody signs. op.Gene must be known (not
// [NoGene]) and op must pass [Op.Check]. O(events).
//
//	chained gene (right child of the gene its author inserted before):  1, value
//	other gene:  2 right or 3 left, value, u64 LE parent's replica, u64 LE its number; the root is 0, 0
//	deletion:    4, u64 LE gene's replica, u64 LE its number
func (op *Op) AppendEvents(dst []byte) []byte {
	if op.Kind == Delete {
		for i := range op.Len() {
			ref := op.Event(i).Ref
			dst = binary.LittleEndian.AppendUint64(append(dst, 4), uint64(ref.Replica))
			dst = binary.LittleEndian.AppendUint64(dst, ref.Gene)
		}
		return dst
	}
	genes := op.Genes
	if !op.chained() {
		tag := byte(2)
		if op.Side == Left {
			tag = 3
		}
		dst = binary.LittleEndian.AppendUint64(append(dst, tag, genes[0]), uint64(op.Ref.Replica))
		dst = binary.LittleEndian.AppendUint64(dst, op.Ref.Gene)
		genes = genes[1:]
	}
	for _, v := range genes {
		dst = append(dst, 1, v)
	}
	return dst
}

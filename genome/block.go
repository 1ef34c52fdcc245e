package genome

import "hash/crc32"

// MediaType names the binary block on the wire.
const MediaType = "application/vnd.genome.ops"

// blockVersion is the first byte of every block.
const blockVersion = 1

// blockChains is the flag that says that chains are present.
const blockChains = 1

// minReplicaBytes is the least that one line of a block's table takes.
const minReplicaBytes = 1 + 4 + 1

// A record's tag. Its high four bits are a length of 1 … 15, or 0.
const (
	tagKind   = 3 // 0 insert right, 1 insert left, 2 delete, 3 delete reverse
	tagAuthor = 1 << 2
	tagRef    = 1 << 3
	tagShift  = 4
	tagMaxRun = 15

	runGap = 1 // in a length that is written out: a gap follows
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A Block is a batch of ops with, for each author in it, the chain after its
// last op. One format serves the wire and the log; it is drawn in the package
// comment.
type Block struct {
	Ops   []Op
	Heads []Head // one for each author in Ops, or none at all
}

// AppendBlock appends the encoding of b to dst. The ops of one replica must
// come in the order of their seqs, each with its Gene known; gaps between them
// are allowed. Heads must be empty or name exactly the authors in Ops, at
// their last seqs. It fails with an [*OpError] where that does not hold, and
// then returns dst unchanged. Equal blocks have equal encodings.
func AppendBlock(dst []byte, b Block) ([]byte, error) {
	var w BlockWriter
	for i := range b.Ops {
		if err := w.Add(&b.Ops[i]); err != nil {
			return dst, err
		}
	}
	return w.Append(dst, b.Heads)
}

// DecodeBlock decodes a block of at most maxOps ops and checks it completely,
// as a [BlockReader] does. Its memory is bounded by maxOps ops and 1/6 of
// data's length in replicas; the genes of the ops share the memory of data.
// The error is always an [*OpError].
func DecodeBlock(data []byte, maxOps int) (Block, error) {
	var r BlockReader
	if err := r.Open(data, maxOps); err != nil {
		return Block{}, err
	}
	b := Block{Ops: make([]Op, r.Len())}
	for i := range b.Ops {
		if !r.Next(&b.Ops[i]) {
			return Block{}, r.Err()
		}
	}
	heads, err := r.Close()
	if err != nil {
		return Block{}, err
	}
	b.Heads = heads
	return b, nil
}

// blockReplica is a line of a block's table.
type blockReplica struct {
	id        ReplicaID
	seq, gene uint64 // of its first op in the block; seq 0: only referred to
	chain     Chain  // after its last op

	nextSeq, nextGene uint64 // what its next op has if there is no gap
}

// A blockCursor is where the record before left off: its author, and the gene
// it touched last, from which the next reference is counted. Both replicas are
// table indices.
type blockCursor struct {
	author, ref int
	gene        uint64
}

// after moves c past op, whose author and named replica are these indices.
func (c *blockCursor) after(op *Op, author, ref int) {
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

// kindBits returns the low bits of op's tag.
func (op *Op) kindBits() byte {
	switch {
	case op.Kind == Insert:
		return byte(op.Side)
	case op.Reverse:
		return 3
	}
	return 2
}

// firstGene is the gene that op's first event refers to.
func (op *Op) firstGene() uint64 {
	if op.Reverse {
		return op.Ref.Gene + op.Count - 1
	}
	return op.Ref.Gene
}

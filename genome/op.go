package genome

import (
	"fmt"
	"math"
)

// Bounds on ops. Each bounds the work or memory that one op from outside can
// cost; all are part of the contract between replicas.
const (
	// MaxRun is the number of unit events that one op may hold.
	MaxRun = 1 << 16
	// MaxSeq is the highest seq and gene number. The list numbers its genes
	// with 32 bits, so no replica can come near it.
	MaxSeq = 1<<40 - 1
	// MaxSeqAhead is how far beyond the held seq an op may lie to be parked.
	MaxSeqAhead = 1 << 16
	// MaxBatchOps is the number of ops in one batch on the wire or in the log.
	MaxBatchOps = 4096
	// MaxGenes is the number of genes in a genome, deleted ones included. The
	// list numbers them with 32 bits and leaves some numbers unused.
	MaxGenes = 1 << 31
	// MaxReplicas is the number of replicas (actors times epochs) in a genome.
	MaxReplicas = 1 << 20
)

// A Kind says what an op does.
type Kind uint8

// The kinds of op.
const (
	Insert Kind = iota
	Delete
)

// String returns "insert" or "delete".
func (k Kind) String() string {
	if k == Delete {
		return "delete"
	}
	return "insert"
}

// A Side says on which side of its parent a gene hangs in the Fugue tree.
type Side uint8

// The sides.
const (
	Right Side = iota
	Left
)

// String returns "R" or "L".
func (s Side) String() string {
	if s == Left {
		return "L"
	}
	return "R"
}

// NoGene in [Op.Gene] means that the sender did not say.
const NoGene = math.MaxUint64

// An Op is a run of unit events of one replica: n ≥ 1 genes inserted, each the
// right child of the one before, or n ≥ 1 genes with consecutive ids deleted.
// What is immutable is the sequence of a replica's unit events; ops are its
// packaging, and whoever stores or sends them may cut or join runs.
type Op struct {
	Kind    Kind
	Side    Side // Insert: side of the parent; Delete: Right
	Reverse bool // Delete: the events delete the highest gene first

	Dot  Dot    // of the first event; the others follow it
	Gene uint64 // how many genes Dot.Replica had inserted before: the number of Genes[0]; or NoGene
	Ref  GeneID // Insert: parent of the first gene, Root for the beginning; Delete: the lowest gene

	Count uint64 // Delete: how many genes; Insert: 0
	Genes []byte // Insert: the genes; Delete: nil
}

// Len returns the number of unit events, which is the number of seqs taken.
func (op *Op) Len() int {
	if op.Kind == Delete {
		return int(op.Count)
	}
	return len(op.Genes)
}

// Last returns the seq of the last event.
func (op *Op) Last() uint64 { return op.Dot.Seq + uint64(op.Len()) - 1 }

// Check validates all of op that can be validated without a genome: ids,
// lengths and fields that contradict each other. The error is an [*OpError]
// with [CodeOpInvalid] or [CodeBadID].
func (op *Op) Check() error {
	switch {
	case !op.Dot.Replica.Valid():
		return op.refuse(CodeBadID, "the replica has epoch 0, which is reserved")
	case op.Dot.Seq == 0:
		return op.refuse(CodeBadID, "seq counts from 1")
	case op.Kind > Delete || op.Side > Left:
		return op.refuse(CodeOpInvalid, "unknown kind or side")
	case op.Gene != NoGene && op.Gene > MaxSeq:
		return op.refuse(CodeOpInvalid, fmt.Sprintf("gene number %d is above %d", op.Gene, uint64(MaxSeq)))
	}
	n, err := uint64(len(op.Genes)), error(nil)
	if op.Kind == Delete {
		n, err = op.Count, op.checkDelete()
	} else {
		err = op.checkInsert()
	}
	switch {
	case err != nil:
		return err
	case n == 0:
		return op.refuse(CodeOpInvalid, "an op has at least one gene")
	case n > MaxRun:
		return op.refuse(CodeOpInvalid, fmt.Sprintf("%d genes in one op; at most %d", n, MaxRun))
	case op.Dot.Seq > MaxSeq-n || op.Ref.Gene > MaxSeq-n:
		return op.refuse(CodeOpInvalid, fmt.Sprintf("its numbers run past %d", uint64(MaxSeq)))
	}
	return nil
}

func (op *Op) checkInsert() error {
	switch {
	case op.Count != 0 || op.Reverse:
		return op.refuse(CodeOpInvalid, "an insert has no count and no reverse")
	case op.Ref.IsRoot() && op.Side == Left:
		return op.refuse(CodeOpInvalid, "nothing can stand left of the beginning of the list")
	case !op.Ref.IsRoot() && !op.Ref.Replica.Valid():
		return op.refuse(CodeBadID, "the parent's replica has epoch 0, which is reserved")
	}
	return nil
}

func (op *Op) checkDelete() error {
	switch {
	case len(op.Genes) != 0 || op.Side != Right:
		return op.refuse(CodeOpInvalid, "a delete has no genes and no side")
	case !op.Ref.Replica.Valid():
		return op.refuse(CodeBadID, "the target's replica has epoch 0, which is reserved")
	}
	return nil
}

func (op *Op) refuse(code Code, detail string) *OpError {
	return &OpError{Code: code, Dot: op.Dot, Detail: detail}
}

// TrimHead returns op without its first n unit events, 0 ≤ n < op.Len(). The
// genes are shared with op. If the Gene of an insert is [NoGene], so is the Ref
// of the rest of it: set both before the rest is used.
func (op Op) TrimHead(n int) Op {
	if n == 0 {
		return op
	}
	op.Dot.Seq += uint64(n)
	if op.Kind == Delete {
		op.Count -= uint64(n)
		if !op.Reverse {
			op.Ref.Gene += uint64(n)
		}
		return op
	}
	op.Genes = op.Genes[n:]
	op.Side = Right
	if op.Gene != NoGene {
		op.Gene += uint64(n)
		op.Ref = GeneID{op.Dot.Replica, op.Gene - 1}
	}
	return op
}

// Head returns the first n unit events of op, 1 ≤ n ≤ op.Len(). The genes are
// shared with op.
func (op Op) Head(n int) Op {
	if op.Kind == Insert {
		op.Genes = op.Genes[:n:n]
		return op
	}
	if op.Reverse {
		op.Ref.Gene += op.Count - uint64(n)
	}
	op.Count = uint64(n)
	return op
}

// Join returns op followed by next as one op, if the two are one run: next
// holds the following events of the same replica, and a run can hold them. Both
// must have their Gene known. Genes are appended to op.Genes in the manner of
// the built-in append, so op's own array may be grown in place.
func (op Op) Join(next Op) (Op, bool) {
	n := uint64(op.Len())
	if next.Dot.Replica != op.Dot.Replica || next.Dot.Seq != op.Dot.Seq+n ||
		next.Kind != op.Kind || n+uint64(next.Len()) > MaxRun {
		return op, false
	}
	if op.Kind == Insert {
		if next.Gene != op.Gene+n || !next.chained() {
			return op, false
		}
		op.Genes = append(op.Genes, next.Genes...)
		return op, true
	}
	if next.Gene != op.Gene || next.Ref.Replica != op.Ref.Replica {
		return op, false
	}
	up, down := op.Count == 1 || !op.Reverse, op.Count == 1 || op.Reverse
	switch {
	case up && next.Ref.Gene == op.Ref.Gene+n && (next.Count == 1 || !next.Reverse):
		op.Reverse = false
	case down && next.Ref.Gene+next.Count == op.Ref.Gene && (next.Count == 1 || next.Reverse):
		op.Reverse, op.Ref.Gene = true, next.Ref.Gene
	default:
		return op, false
	}
	op.Count += next.Count
	return op, true
}

// An Event is one unit event: what a dot stands for. Events are comparable;
// two different events under one dot are a fork.
type Event struct {
	Kind  Kind
	Side  Side
	Value Gene
	Ref   GeneID // the parent, or the gene deleted
}

// Event returns the i-th unit event of op, 0 ≤ i < op.Len(). For i > 0 of an
// insert, op.Gene must be known.
func (op *Op) Event(i int) Event {
	switch {
	case op.Kind == Delete && op.Reverse:
		return Event{Kind: Delete, Ref: GeneID{op.Ref.Replica, op.Ref.Gene + op.Count - 1 - uint64(i)}}
	case op.Kind == Delete:
		return Event{Kind: Delete, Ref: GeneID{op.Ref.Replica, op.Ref.Gene + uint64(i)}}
	case i == 0:
		return Event{Kind: Insert, Side: op.Side, Value: op.Genes[0], Ref: op.Ref}
	}
	return Event{Kind: Insert, Value: op.Genes[i], Ref: GeneID{op.Dot.Replica, op.Gene + uint64(i) - 1}}
}

// String returns e in words: "insert 2a R of 1@00c0ffee#4".
func (e Event) String() string {
	if e.Kind == Delete {
		return "delete " + e.Ref.String()
	}
	return fmt.Sprintf("insert %02x %s of %s", e.Value, e.Side, e.Ref)
}

package genome

import (
	"fmt"
	"strconv"
)

// A Chain is a running 64-bit mix over one replica's unit events in order. A
// (seq, chain) pair names a whole history: equal seq and unequal chain is a
// fork. It does not depend on how runs are cut.
//
// Each event adds one or three words, and adding a word is a bijection of the
// chain: two histories that differ in one event can therefore not come to the
// same chain again by any equal continuation. It is fast and not
// cryptographic; somebody who wants to can forge it.
//
//	chained gene (right child of the gene its author inserted before):  tag|value
//	other gene:                                tag|value, parent replica, parent number
//	deletion:                                  tag, gene's replica, gene's number
type Chain uint64

// Word tags. The value of a gene stands in the low 8 bits.
const (
	chainChained = 1 << 8
	chainRight   = 2 << 8
	chainLeft    = 3 << 8
	chainDelete  = 4 << 8
)

// NewChain returns the chain of r before its first event.
func NewChain(r ReplicaID) Chain { return Chain(0x6372647467656e31).add(uint64(r)) }

// chainFactor is 2^64 / golden ratio, which is odd.
const chainFactor = 0x9e3779b97f4a7c15

// add mixes one word in: xor, an odd multiplier and a shift-xor, each
// invertible.
func (c Chain) add(word uint64) Chain {
	c = (c ^ Chain(word)) * chainFactor
	return c ^ c>>32
}

// A mix is a chain before its last shift-xor, which undoes itself. Words are
// added to it with one step less for the next word to wait for, since the xor with
// that word need not come last: what bounds a long run is this waiting.
type mix uint64

func (c Chain) mix() mix   { return mix(c ^ c>>32) }
func (y mix) chain() Chain { return Chain(y ^ y>>32) }

func (y mix) add(word uint64) mix { return (y ^ mix(word) ^ y>>32) * chainFactor }

// Extend returns the chain after the events of op, whose Gene must be known
// (not [NoGene]) and which must pass [Op.Check]. O(events).
func (c Chain) Extend(op Op) Chain { return c.extend(&op) }

func (c Chain) extend(op *Op) Chain {
	if len(op.Genes) == 1 && op.chained() { // typing
		return c.add(chainChained | uint64(op.Genes[0]))
	}
	y := c.mix()
	if op.Kind == Delete {
		gene, step := op.Ref.Gene, uint64(1)
		if op.Reverse {
			gene, step = gene+op.Count-1, ^uint64(0)
		}
		for range op.Count {
			y = y.add(chainDelete).add(uint64(op.Ref.Replica)).add(gene)
			gene += step
		}
		return y.chain()
	}
	genes := op.Genes
	if !op.chained() {
		tag := uint64(chainRight)
		if op.Side == Left {
			tag = chainLeft
		}
		y = y.add(tag | uint64(genes[0])).add(uint64(op.Ref.Replica)).add(op.Ref.Gene)
		genes = genes[1:]
	}
	for _, v := range genes {
		y = y.add(chainChained | uint64(v))
	}
	return y.chain()
}

// chained reports whether the first gene of op is the right child of the gene
// that its author inserted just before.
func (op *Op) chained() bool {
	return op.Side == Right && op.Gene > 0 && op.Ref.Gene == op.Gene-1 && op.Ref.Replica == op.Dot.Replica
}

// String returns c as 16 hex digits.
func (c Chain) String() string { return fmt.Sprintf("%016x", uint64(c)) }

// MarshalText returns 16 hex digits. It never fails.
func (c Chain) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText parses 16 hex digits. The error is an [*OpError] with
// [CodeBadEncoding].
func (c *Chain) UnmarshalText(text []byte) error {
	n, err := parseHex64(text)
	*c = Chain(n)
	return err
}

func parseHex64(text []byte) (uint64, error) {
	n, err := strconv.ParseUint(string(text), 16, 64)
	if err != nil || len(text) != 16 {
		return 0, &OpError{Code: CodeBadEncoding, Detail: fmt.Sprintf("%.40q is not 16 hex digits", text)}
	}
	return n, nil
}

// A Head is how far a replica's history is held and the chain there.
type Head struct {
	Replica ReplicaID
	Seq     uint64
	Chain   Chain
}

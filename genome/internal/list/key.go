package list

import "math"

// A key is the depth key of a gene: d<<32 | e. The root has (0, 0), a right
// child of X has (d(X)+1, 0), a left child of Y has (d(Y), e(Y)+1). A key never
// changes. d and e cannot overflow: each step down adds 1 to one of them, and
// there are fewer than 1<<32 genes.
type key uint64

func (k key) depth() uint32 { return uint32(k >> 32) }

// right returns the key of a right child of a gene with key k.
func (k key) right() key { return (k>>32 + 1) << 32 }

// left returns the key of a left child of a gene with key k.
func (k key) left() key { return k + 1 }

// after returns the key of the gene off places after a gene with key k in the
// same span: each gene there is the right child of the one before.
func (k key) after(off int) key {
	if off == 0 {
		return k
	}
	return (k>>32 + key(off)) << 32
}

// ceiling returns the greatest key of k's depth. The first later entry at or
// below it is the end of the right subtree of any gene of that depth.
func (k key) ceiling() key { return k | math.MaxUint32 }

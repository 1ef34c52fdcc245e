package deflate

import (
	"cmp"
	"math/bits"
	"slices"
)

const (
	maxBits       = 15 // of a code
	maxHeaderBits = 7  // of a code for the lengths of codes
)

// A code is the length of each symbol's code; 0: it has none. The codes follow
// from the lengths, RFC 1951, 3.2.2.
type code struct {
	literal  [literals]uint8
	distance [distances]uint8
}

// fixed is the code that needs no header, RFC 1951, 3.2.6.
var fixed = func() (k code) {
	for s := range k.literal {
		switch {
		case s < 144:
			k.literal[s] = 8
		case s < 256:
			k.literal[s] = 9
		case s < 280:
			k.literal[s] = 7
		default:
			k.literal[s] = 8
		}
	}
	for s := range k.distance {
		k.distance[s] = 5
	}
	return k
}()

// huffman sets the lengths of the best prefix code for symbols of these
// frequencies in which none is longer than limit bits. If fewer than two symbols
// are in use, others get a code too: an inflater may refuse a code in which some
// sequence of bits means nothing. With limits as long as those of deflate a code
// that is too long is so rare that the simple remedy is good enough: to take the
// frequencies for more equal than they are.
func huffman(lengths []uint8, freq []uint32, limit int) {
	var used []leafNode
	for s, f := range freq {
		if f > 0 {
			used = append(used, leafNode{s, uint64(f)})
		}
	}
	for s := 0; len(used) < 2; s++ {
		if freq[s] == 0 {
			used = append(used, leafNode{s, 0})
		}
	}
	slices.SortFunc(used, func(a, b leafNode) int {
		return cmp.Or(cmp.Compare(a.freq, b.freq), cmp.Compare(a.symbol, b.symbol))
	})
	for {
		deepest := depths(lengths, used)
		if deepest <= limit {
			return
		}
		for i := range used {
			used[i].freq = (used[i].freq + 1) / 2
		}
	}
}

type leafNode struct {
	symbol int
	freq   uint64
}

// depths sets the depth of each leaf, which ascend in frequency, in Huffman's
// tree, and returns the greatest. Inner nodes are made in ascending order too,
// so the two least are at the front of one of two queues.
func depths(lengths []uint8, leaves []leafNode) (deepest int) {
	n := len(leaves)
	sum := make([]uint64, n-1)   // of each inner node
	parent := make([]int, 2*n-1) // of leaves, then of inner nodes
	leaf, inner := 0, 0          // fronts of the queues
	for made := range sum {
		for range 2 {
			if leaf < n && (inner == made || leaves[leaf].freq <= sum[inner]) {
				sum[made] += leaves[leaf].freq
				parent[leaf] = made
				leaf++
			} else {
				sum[made] += sum[inner]
				parent[n+inner] = made
				inner++
			}
		}
	}
	depth := make([]int, n-1) // of inner nodes; the last is the root
	for i := n - 3; i >= 0; i-- {
		depth[i] = depth[parent[n+i]] + 1
	}
	for i := range leaves {
		d := depth[parent[i]] + 1
		lengths[leaves[i].symbol] = uint8(min(d, 255))
		deepest = max(deepest, d)
	}
	return deepest
}

// codes returns the code of each symbol, the first bit lowest.
func codes(lengths []uint8) []uint16 {
	var next [maxBits + 2]int // code of the next symbol with that length
	for _, n := range lengths {
		if n > 0 {
			next[n+1]++
		}
	}
	for n := 2; n < len(next); n++ {
		next[n] = (next[n] + next[n-1]) << 1
	}
	out := make([]uint16, len(lengths))
	for s, n := range lengths {
		if n > 0 {
			out[s] = bits.Reverse16(uint16(next[n])) >> (16 - n)
			next[n]++
		}
	}
	return out
}

package deflate

import (
	"encoding/binary"
	"math/bits"
)

const (
	hashBits  = 15
	maxChain  = 64 // places looked at for one position
	maxFound  = 12 // matches kept for one position
	goodMatch = 64 // a match so long is taken without looking inside
)

// A finder finds the matches that may begin at each position of a part. Places
// where the same three bytes stand are chained, the nearest first.
type finder struct {
	head [1 << hashBits]uint32 // the last place with that hash, + 1; 0: none
	prev [window]uint32        // by place modulo window: the place before with its hash, + 1

	matches []edge
	begin   []uint32 // of each position's matches, and the end of the last's
}

func (f *finder) reset() { clear(f.head[:]) }

// at returns the matches that begin at position i of the part: ascending in
// length and distance, for each length the nearest.
func (f *finder) at(i int) []edge { return f.matches[f.begin[i]:f.begin[i+1]] }

// find finds the matches of the positions from … to-1. Those before were found
// before.
func (f *finder) find(data []byte, from, to int) {
	f.matches, f.begin = f.matches[:0], f.begin[:0]
	skip := from // no search before that
	for i := from; i < to; i++ {
		f.begin = append(f.begin, uint32(len(f.matches)))
		if len(data)-i < minMatch {
			continue
		}
		h := (uint32(data[i]) | uint32(data[i+1])<<8 | uint32(data[i+2])<<16) * 0x9e3779b1 >> (32 - hashBits)
		if i >= skip && to-i >= minMatch {
			if length := f.search(data, i, min(to, i+maxMatch), f.head[h]); length >= goodMatch {
				skip = i + length
			}
		}
		f.prev[i%window], f.head[h] = f.head[h], uint32(i)+1
	}
	f.begin = append(f.begin, uint32(len(f.matches)))
}

// search adds the matches of data[i:end] and returns the length of the longest.
// next is the first place to look at, + 1.
func (f *finder) search(data []byte, i, end int, next uint32) int {
	longest, found := minMatch-1, 0
	for range maxChain {
		j := int(next) - 1
		if j < 0 || i-j > window {
			break
		}
		if data[j+longest] == data[i+longest] {
			if n := common(data[j:], data[i:end]); n > longest {
				longest = n
				if found == maxFound {
					f.matches = f.matches[:len(f.matches)-1]
				} else {
					found++
				}
				f.matches = append(f.matches, match(n, i-j))
				if n >= goodMatch || i+n == end {
					break
				}
			}
		}
		next = f.prev[j%window]
	}
	return longest
}

// common returns how many bytes a and b, which is not longer, begin with alike.
func common(a, b []byte) int {
	n := 0
	for ; len(b)-n >= 8; n += 8 {
		if x := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(b[n:]); x != 0 {
			return n + bits.TrailingZeros64(x)/8
		}
	}
	for n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

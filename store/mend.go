package store

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
)

// A checksum that does not match says where a single flipped bit is: the CRC
// is linear, so the difference of the two sums is that which this one bit
// makes, and no two bits of a record make the same (CRC-32C tells up to three
// errors apart over 2^31 bits; Castagnoli et al., "Optimization of Cyclic
// Redundancy-Check Codes with 24 and 32 Parity Bits", 1993). Several flipped
// bits may look like one other bit. So a mended record is believed only after
// what it holds has been checked as well: the genome's block has a checksum of
// its own, and the ops must continue the chains.

// mend returns a copy of a damaged value with the one bit turned back that
// makes its checksum match, or false if there is no such bit.
func mend(v []byte) ([]byte, bool) {
	if len(v) < valueHeaderLen {
		return nil, false
	}
	diff := binary.LittleEndian.Uint32(v[24:]) ^ valueSum(v)
	if bits.OnesCount32(diff) == 1 { // of the checksum itself
		out := append([]byte{}, v...)
		binary.LittleEndian.PutUint32(out[24:], valueSum(v))
		return out, true
	}
	body := len(v) - valueHeaderLen
	at, bit, ok := flippedBit(diff, 24+body)
	if !ok {
		return nil, false
	}
	if at >= 24 {
		at += valueHeaderLen - 24
	}
	out := append([]byte{}, v...)
	out[at] ^= 1 << bit
	return out, true
}

// flippedBit finds the bit of an n byte message that changes its CRC-32C by
// diff.
func flippedBit(diff uint32, n int) (at, bit int, ok bool) {
	var effect [8]uint32 // of each bit of the byte looked at
	for b := range effect {
		effect[b] = castagnoli[1<<b]
	}
	for at = n - 1; at >= 0; at-- {
		for b, e := range effect {
			if e == diff {
				return at, b, true
			}
			effect[b] = shiftByte(castagnoli, e)
		}
	}
	return 0, 0, false
}

// shiftByte is what becomes of a difference of the CRC when a zero byte follows.
func shiftByte(tab *crc32.Table, e uint32) uint32 { return tab[byte(e)] ^ e>>8 }

package store

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
	"slices"
)

// A checksum that does not match says where a single flipped bit is: the CRC
// is linear, so the difference of the two sums is that which this one bit
// makes, and no two bits of a record make the same (CRC-32C tells up to three
// errors apart over 2^31 bits; Castagnoli et al., "Optimization of Cyclic
// Redundancy-Check Codes with 24 and 32 Parity Bits", 1993). Several flipped
// bits may look like one other bit. So a mended record is believed only after
// what it holds has been checked as well: the genome's block has a checksum of
// its own, and the ops must continue the chains.
//
// The origins have none. They are believed only if the bit turned back is of a
// block: its own checksum then shows that this was the damage, and with that the
// record's checksum vouches for all the rest. Otherwise something else may have
// been damaged, the origins themselves perhaps, and they count as unknown: a
// time or a sender that is made up would be worse than none. So it is with
// parts that are taken out of a record that cannot be mended.

// unknownOrigin is where ops came from of which it is not known any more.
var unknownOrigin = prov{via: ViaPost}

// forgetOrigins makes all origins of v unknown.
func (v *value) forgetOrigins() { v.provs = []provRun{{len(v.block.Ops), unknownOrigin}} }

// vouched reports whether byte at of a mended value, which has these parts, is
// of a block.
func vouched(value []byte, parts []part, at int) bool {
	end := len(value)
	for i := range slices.Backward(parts) {
		from := end - len(parts[i].data)
		if at >= from && at < end {
			return at-from >= parts[i].originsLen()
		}
		end = from
	}
	return false // of a header
}

// originsLen is how many bytes of a sound part come before its block.
func (p *part) originsLen() int {
	if !p.packed {
		var v value
		_, block, err := v.decodeProvs(p.data)
		if err != nil {
			return len(p.data)
		}
		return len(p.data) - len(block)
	}
	size, n := binary.Uvarint(p.data)
	packed, m := binary.Uvarint(p.data[max(n, 0):])
	if packed == 0 {
		packed = size
	}
	return n + m + int(packed)
}

// mend returns a copy of a damaged value with the one bit turned back that
// makes its checksum match, and the byte that it is of; false if there is no
// such bit.
func mend(v []byte) (out []byte, at int, ok bool) {
	if len(v) < valueHeaderLen {
		return nil, 0, false
	}
	diff := binary.LittleEndian.Uint32(v[24:]) ^ valueSum(v)
	if bits.OnesCount32(diff) == 1 { // of the checksum itself
		out := append([]byte{}, v...)
		binary.LittleEndian.PutUint32(out[24:], valueSum(v))
		return out, 24, true
	}
	body := len(v) - valueHeaderLen
	at, bit, ok := flippedBit(diff, 24+body)
	if !ok {
		return nil, 0, false
	}
	if at >= 24 {
		at += valueHeaderLen - 24
	}
	out = append([]byte{}, v...)
	out[at] ^= 1 << bit
	return out, at, true
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

package genome

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// A Digest names a whole state: which genes stand in the list in which order,
// which of them are deleted, and the values of the others. Two genomes with
// equal version vectors and unequal digests have diverged, which is a bug or
// damage. The text form is 16 hex digits.
type Digest uint64

// String returns d as 16 hex digits.
func (d Digest) String() string { return fmt.Sprintf("%016x", uint64(d)) }

// MarshalText returns 16 hex digits. It never fails.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText parses 16 hex digits. The error is an [*OpError] with
// [CodeBadEncoding].
func (d *Digest) UnmarshalText(text []byte) error {
	n, err := parseHex64(text)
	*d = Digest(n)
	return err
}

// digestVersion is hashed first, so that a change of the form below can never
// pass for a divergence.
const digestVersion = "crdt-genome digest 1\n"

// Digest returns the digest of the present state: the first 64 bits of
// SHA-256 over digestVersion and the runs of the list in order, dead ones
// included. A run is as many neighbouring genes as have consecutive ids of one
// replica and are alike alive or dead, so the cut is the same on every
// machine. Each run is hashed as
//
//	replica u64 LE, first gene number u64 LE, length u64 LE << 1 | live
//
// and after a live one its genes. O(genes).
func (g *Genome) Digest() Digest {
	h := sha256.New()
	h.Write([]byte(digestVersion))
	var (
		buf  []byte // header and genes of the run that is growing
		cur  Run
		head [24]byte
	)
	flush := func() {
		if cur.N == 0 {
			return
		}
		binary.LittleEndian.PutUint64(head[0:], uint64(cur.First.Replica))
		binary.LittleEndian.PutUint64(head[8:], cur.First.Gene)
		n := uint64(cur.N) << 1
		if cur.Live {
			n |= 1
		}
		binary.LittleEndian.PutUint64(head[16:], n)
		h.Write(head[:])
		h.Write(buf)
		buf = buf[:0]
	}
	for r := range g.Runs() {
		next := cur.First.Gene + uint64(cur.N)
		if cur.N > 0 && r.Live == cur.Live && r.First.Replica == cur.First.Replica && r.First.Gene == next {
			cur.N += r.N
		} else {
			flush()
			cur = r
		}
		buf = append(buf, r.Genes...)
	}
	flush()
	return Digest(binary.BigEndian.Uint64(h.Sum(nil)))
}

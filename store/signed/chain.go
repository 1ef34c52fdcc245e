package signed

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"errors"
	"hash"

	"crdt-genome/genome"
)

const (
	chainDomain = "crdt-genome op chain v1\x00"
	pointDomain = "crdt-genome signed point v1\x00"
)

// A Sum names a replica's history.
type Sum [sha256.Size]byte

// A Chain is a running sum over one replica's events. It is not safe for
// concurrent use.
type Chain struct {
	cluster    string // at most 255 bytes
	replica    genome.ReplicaID
	seq, genes uint64 // events in it, and genes that these inserted
	hash       hash.Cloner
	buf        []byte
}

// NewChain returns the chain of r before its first event.
func NewChain(cluster string, r genome.ReplicaID) *Chain {
	c := &Chain{cluster: cluster, replica: r, hash: sha256.New().(hash.Cloner)} // it is one, since Go 1.25
	c.write(binary.LittleEndian.AppendUint64(c.header(chainDomain), uint64(r)))
	return c
}

func (c *Chain) header(domain string) []byte {
	return append(append([]byte(domain), byte(len(c.cluster))), c.cluster...)
}

func (c *Chain) write(b []byte) { _, _ = c.hash.Write(b) } // a hash never fails

// Seq returns how many events are in c.
func (c *Chain) Seq() uint64 { return c.seq }

// Genes returns how many genes the events in c inserted.
func (c *Chain) Genes() uint64 { return c.genes }

// Extend adds the events of op, whose Gene must be known and which must pass
// [genome.Op.Check]. It reports false, and changes nothing, if op is not the next of c.
func (c *Chain) Extend(op *genome.Op) bool {
	if op.Dot.Replica != c.replica || op.Dot.Seq != c.seq+1 || op.Gene != c.genes {
		return false
	}
	c.buf = op.AppendEvents(c.buf[:0])
	c.write(c.buf)
	c.seq, c.genes = op.Last(), c.genes+uint64(len(op.Genes))
	return true
}

// Clone returns a copy.
func (c *Chain) Clone() *Chain {
	d := *c
	d.hash, d.buf = must(c.hash.Clone()), nil
	return &d
}

// must is for what SHA-256 can always do.
func must[T any](v T, err error) T {
	if err != nil {
		panic("signed: " + err.Error())
	}
	return v
}

// Sum returns the sum of what is in c, which may grow afterwards.
func (c *Chain) Sum() (s Sum) {
	c.hash.Sum(s[:0])
	return s
}

// AppendState appends what [Chain.Restore] needs to go on from here.
func (c *Chain) AppendState(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, c.seq)
	dst = binary.LittleEndian.AppendUint64(dst, c.genes)
	return must(c.hash.(encoding.BinaryAppender).AppendBinary(dst))
}

var errState = errors.New("not the state of a chain")

// Restore brings c, which must be new, to a state of the same replica. Its state after an error
// is not defined.
func (c *Chain) Restore(state []byte) error {
	if len(state) < 16 {
		return errState
	}
	c.seq, c.genes = binary.LittleEndian.Uint64(state), binary.LittleEndian.Uint64(state[8:])
	if c.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(state[16:]) != nil {
		return errState
	}
	return nil
}

// A Point is an author's signature of its history up to Seq.
type Point struct {
	Replica genome.ReplicaID
	Seq     uint64 // ≥ 1
	Sig     [ed25519.SignatureSize]byte
}

// message is what is signed.
func (c *Chain) message() []byte {
	sum := c.Sum()
	b := binary.LittleEndian.AppendUint64(c.header(pointDomain), uint64(c.replica))
	b = binary.LittleEndian.AppendUint64(b, c.seq)
	return append(b, sum[:]...)
}

// Sign returns the point of all that is in c.
func (c *Chain) Sign(key ed25519.PrivateKey) Point {
	p := Point{Replica: c.replica, Seq: c.seq}
	copy(p.Sig[:], ed25519.Sign(key, c.message()))
	return p
}

// Verify reports whether p is the point of all that is in c, by one of keys.
func (c *Chain) Verify(p *Point, keys []ed25519.PublicKey) bool {
	if p.Replica != c.replica || p.Seq != c.seq {
		return false
	}
	m := c.message()
	for _, key := range keys {
		if ed25519.Verify(key, m, p.Sig[:]) {
			return true
		}
	}
	return false
}

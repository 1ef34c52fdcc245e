package signed

import (
	"cmp"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"slices"

	"crdt-genome/genome"
)

const (
	// batchVersion is the first byte of a batch with points. Blocks have 1,
	// packed blocks 2, so that none is ever taken for another.
	batchVersion = 3
	pointLen     = 16 + ed25519.SignatureSize
	// maxPoints is the number of points in a batch: one for each replica.
	maxPoints = genome.MaxBatchOps
)

// A Batch is a block with signed points for its replicas, in the order of their
// ids, at most one for each.
type Batch struct {
	genome.Block
	Points []Point
}

// Point returns the point of r.
func (b *Batch) Point(r genome.ReplicaID) (*Point, bool) {
	i, ok := slices.BinarySearchFunc(b.Points, r, func(p Point, r genome.ReplicaID) int { return cmp.Compare(p.Replica, r) })
	if !ok {
		return nil, false
	}
	return &b.Points[i], true
}

// SortPoints brings points into the order that a batch has them in.
func SortPoints(points []Point) {
	slices.SortFunc(points, func(p, q Point) int { return cmp.Compare(p.Replica, q.Replica) })
}

// AppendBatch appends the encoding of b: without points that of its block. It
// fails as [genome.AppendBlock] does, and then returns dst unchanged.
func AppendBatch(dst []byte, b Batch) ([]byte, error) {
	if len(b.Points) == 0 {
		return genome.AppendBlock(dst, b.Block)
	}
	out := binary.AppendUvarint(append(dst, batchVersion), uint64(len(b.Points)))
	for i := range b.Points {
		out = appendPoint(out, &b.Points[i])
	}
	out, err := genome.AppendBlock(out, b.Block)
	if err != nil {
		return dst, err
	}
	return out, nil
}

func appendPoint(dst []byte, p *Point) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(p.Replica.Actor()))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(p.Replica.Epoch()))
	dst = binary.LittleEndian.AppendUint64(dst, p.Seq)
	return append(dst, p.Sig[:]...)
}

// DecodeBatch decodes a batch, or a block, of at most maxOps ops, checks it as
// [genome.DecodeBlock] does, and needs no more memory than that and what the
// points take. No signature is checked. The error is always a [*genome.OpError].
func DecodeBatch(data []byte, maxOps int) (b Batch, err error) {
	if len(data) > 0 && data[0] == batchVersion {
		if b.Points, data, err = decodePoints(data[1:]); err != nil {
			return Batch{}, err
		}
	}
	if b.Block, err = genome.DecodeBlock(data, maxOps); err != nil {
		return Batch{}, err
	}
	return b, nil
}

func decodePoints(data []byte) (points []Point, rest []byte, err error) {
	n, size := binary.Uvarint(data)
	if size <= 0 || size > 1 && data[size-1] == 0 || n < 1 || n > maxPoints || uint64(len(data)-size)/pointLen < n {
		return nil, nil, badBatch("it says that it has %d points", n)
	}
	data = data[size:]
	points = make([]Point, n)
	for i := range points {
		p := &points[i]
		p.Replica = genome.NewReplicaID(genome.ActorID(binary.LittleEndian.Uint32(data)), genome.Epoch(binary.LittleEndian.Uint32(data[4:])))
		p.Seq = binary.LittleEndian.Uint64(data[8:])
		copy(p.Sig[:], data[16:pointLen])
		data = data[pointLen:]
		if !p.Replica.Valid() || p.Seq == 0 || p.Seq > genome.MaxSeq || i > 0 && points[i-1].Replica >= p.Replica {
			return nil, nil, badBatch("point %d is of %v, which cannot be", i, genome.Dot{Replica: p.Replica, Seq: p.Seq})
		}
	}
	return points, data, nil
}

func badBatch(format string, args ...any) error {
	return &genome.OpError{Code: genome.CodeBadEncoding, Detail: "bad batch: " + fmt.Sprintf(format, args...)}
}

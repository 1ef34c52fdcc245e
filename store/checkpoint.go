package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"crdt-genome/genome"
)

// A checkpoint is the genome and the index at one position of the log, in a
// file beside it, so that a start does not replay all history. It is a copy:
// any that is missing, damaged or of another log is passed over, and the log
// is replayed from an older one or from its beginning. The form of the file is
// drawn in the package comment.
//
// The index in it ends where the last segment ends that was sealed then. The
// few events between that and the checkpoint's position are in the genome
// already; replay only indexes them.
const (
	ckptMagic     = "crdtckpt"
	ckptVersion   = 1
	ckptHeaderLen = 64

	// keepCheckpoints is how many are kept: if the newest turns out bad, the
	// one before still saves most of the replay.
	keepCheckpoints = 2
	// checkpointEvery is the least number of events between two checkpoints
	// while an actor runs: what a start after a crash may have to apply. They
	// come less often in a longer log, so that writing them takes a constant
	// share of all writing.
	checkpointEvery = 1 << 18
	checkpointShare = 10
	// checkpointAtStop is how many events there must be for a clean stop to
	// write one: fewer are replayed faster than a file is written.
	checkpointAtStop = sealOps
)

// A checkpoint, decoded.
type checkpoint struct {
	uuid        [16]byte
	lsn         uint64
	digest      genome.Digest
	first, last prov // of the first and the last op up to lsn
	g           *genome.Genome
	x           *index // sealed segments only
}

// A manifest is what the log says of a checkpoint of its own.
type manifest struct {
	lsn    uint64
	bytes  uint64 // length of the file
	crc    uint32 // CRC-32C of the file
	digest genome.Digest
	vv     uint64 // genome.Version.Hash()
}

const manifestLen = 8 + 4 + 8 + 8

func (m *manifest) put() write {
	key := lsnKey(m.lsn)
	v := binary.LittleEndian.AppendUint64(nil, m.bytes)
	v = binary.LittleEndian.AppendUint32(v, m.crc)
	v = binary.LittleEndian.AppendUint64(v, uint64(m.digest))
	v = binary.LittleEndian.AppendUint64(v, m.vv)
	return write{bucketCkpt, key, sumMeta(string(key), v)}
}

// decodeManifest returns false for anything that put does not write.
func decodeManifest(k, v []byte) (m manifest, ok bool) {
	if len(k) != 8 || len(v) != manifestLen+4 || !bytes.Equal(sumMeta(string(k), bytes.Clone(v[:manifestLen])), v) {
		return m, false
	}
	return manifest{
		lsn: binary.BigEndian.Uint64(k), bytes: binary.LittleEndian.Uint64(v), crc: binary.LittleEndian.Uint32(v[8:]),
		digest: genome.Digest(binary.LittleEndian.Uint64(v[12:])), vv: binary.LittleEndian.Uint64(v[20:]),
	}, true
}

// readManifests returns the manifests of the log, the newest first. Those that
// are damaged are left out: they only make a start slower.
func readManifests(d disk) (ms []manifest, err error) {
	err = d.ascend(bucketCkpt, func(k, v []byte) error {
		if m, ok := decodeManifest(k, v); ok {
			ms = append([]manifest{m}, ms...)
		}
		return nil
	})
	return ms, err
}

// encodeCheckpoint returns the file of a checkpoint of g and x at lsn, and its
// manifest.
func encodeCheckpoint(c *checkpoint) ([]byte, manifest) {
	c.digest = c.g.Digest()
	idx := c.appendIndex(nil)
	b := append(make([]byte, 0, ckptHeaderLen+len(idx)), ckptMagic...)
	b = binary.LittleEndian.AppendUint16(b, ckptVersion)
	b = binary.LittleEndian.AppendUint16(b, 0)
	b = append(b, c.uuid[:]...)
	b = binary.LittleEndian.AppendUint64(b, c.lsn)
	b = binary.LittleEndian.AppendUint64(b, uint64(c.digest))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(idx)))
	b = binary.LittleEndian.AppendUint64(b, 0) // length of the snapshot, below
	b = append(b, 0, 0, 0, 0)                  // checksum, below
	b = append(b, idx...)
	n := len(b)
	b = c.g.AppendSnapshot(b)
	binary.LittleEndian.PutUint64(b[52:], uint64(len(b)-n))
	binary.LittleEndian.PutUint32(b[60:], ckptSum(b, n))
	return b, manifest{lsn: c.lsn, bytes: uint64(len(b)), crc: sum32(b), digest: c.digest, vv: c.g.Version().Hash()}
}

func sum32(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// ckptSum is the checksum of header and index, which end at n.
func ckptSum(b []byte, n int) uint32 {
	return crc32.Update(crc32.Checksum(b[:60], castagnoli), castagnoli, b[ckptHeaderLen:n])
}

func appendProv(b []byte, p prov) []byte {
	b = binary.AppendVarint(b, p.ms)
	if !p.known {
		return append(b, byte(p.via))
	}
	return binary.AppendUvarint(append(b, byte(p.via)|provFromKnown), uint64(p.from))
}

// appendIndex appends what x has sealed.
func (c *checkpoint) appendIndex(b []byte) []byte {
	x := c.x
	b = appendProv(appendProv(b, c.first), c.last)
	n := 0
	for n < len(x.actors) && x.firstBy[n] <= x.sealedEnd() {
		n++
	}
	b = binary.AppendUvarint(b, uint64(n))
	at := make(map[genome.ReplicaID]int, n) // index into the table; looked up only
	for i, r := range x.actors[:n] {
		at[r] = i
		h := x.sealedHead(r)
		b = binary.LittleEndian.AppendUint32(b, uint32(r.Actor()))
		b = binary.LittleEndian.AppendUint32(b, uint32(r.Epoch()))
		b = binary.AppendUvarint(b, x.firstBy[i])
		b = binary.AppendUvarint(b, h.Seq)
		b = binary.LittleEndian.AppendUint64(b, uint64(h.Chain))
	}
	b = binary.AppendUvarint(b, uint64(len(x.segs)))
	for i := range x.segs {
		s := &x.segs[i]
		b = binary.AppendUvarint(b, s.events)
		b = binary.AppendUvarint(b, uint64(s.ops))
		b = binary.AppendUvarint(b, uint64(len(s.authors)))
		for _, a := range s.authors {
			b = binary.AppendUvarint(b, uint64(at[a.replica]))
			b = binary.AppendUvarint(b, a.last-a.first+1)
			b = binary.LittleEndian.AppendUint64(b, uint64(a.chain))
		}
	}
	return b
}

// decodeCheckpoint decodes a checkpoint of the log of that uuid and checks all
// that can be checked without the log. lookup is for the genome, see
// genome.Config.
func decodeCheckpoint(data []byte, uuid [16]byte, lookup func(genome.Dot) (genome.Op, bool)) (*checkpoint, error) {
	if len(data) < ckptHeaderLen || string(data[:8]) != ckptMagic {
		return nil, errors.New("it is no checkpoint")
	}
	if v := binary.LittleEndian.Uint16(data[8:]); v != ckptVersion {
		return nil, fmt.Errorf("checkpoint version %d; this program reads %d", v, ckptVersion)
	}
	c := &checkpoint{
		uuid: [16]byte(data[12:]), lsn: binary.LittleEndian.Uint64(data[28:]),
		digest: genome.Digest(binary.LittleEndian.Uint64(data[36:])),
	}
	n, size := binary.LittleEndian.Uint64(data[44:]), binary.LittleEndian.Uint64(data[52:])
	rest := uint64(len(data) - ckptHeaderLen)
	switch {
	case c.uuid != uuid:
		return nil, errors.New("it belongs to another log")
	case n > rest || size != rest-n:
		return nil, fmt.Errorf("%d bytes do not add up", len(data))
	case ckptSum(data, ckptHeaderLen+int(n)) != binary.LittleEndian.Uint32(data[60:]):
		return nil, errors.New("the checksum does not match")
	}
	idx := &indexReader{b: data[ckptHeaderLen : ckptHeaderLen+n]}
	if !idx.read(c) {
		return nil, errors.New("the index in it makes no sense")
	}
	var err error
	if c.g, err = genome.LoadSnapshot(data[ckptHeaderLen+n:], genome.Config{NoHistory: true, Lookup: lookup}); err != nil {
		return nil, err
	}
	if c.g.Ops() != c.lsn || c.lsn < c.x.sealedEnd() {
		return nil, fmt.Errorf("it says that it is from op %d, and has %d ops and segments up to %d", c.lsn, c.g.Ops(), c.x.sealedEnd())
	}
	return c, nil
}

// An indexReader reads the index part of a checkpoint.
type indexReader struct {
	b   []byte
	bad bool
}

func (r *indexReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

// fixed reads n ≤ 8 bytes.
func (r *indexReader) fixed(n int) uint64 {
	var b [8]byte
	if copy(b[:n], r.b) < n {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return binary.LittleEndian.Uint64(b[:])
}

// count reads a count of things that take at least size bytes each.
func (r *indexReader) count(size int) int {
	n := r.uvarint()
	if n > uint64(len(r.b)/size) {
		r.bad = true
		return 0
	}
	return int(n)
}

func (r *indexReader) prov() prov {
	ms, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return prov{}
	}
	r.b = r.b[n:]
	tag := byte(r.fixed(1))
	p := prov{ms: ms, via: Via(tag & provVia)}
	r.bad = r.bad || p.via >= viaEnd
	if tag&provFromKnown != 0 {
		from := r.uvarint()
		r.bad = r.bad || from > math.MaxUint32
		p.known, p.from = true, genome.ActorID(from)
	}
	return p
}

// read fills in c.first, c.last and c.x, and reports whether it makes sense.
func (r *indexReader) read(c *checkpoint) bool {
	c.first, c.last = r.prov(), r.prov()
	c.x = newIndex()
	n := r.count(8 + 1 + 1 + 8)
	heads := make([]genome.Head, n) // at the end of the index
	seqs := make([]uint64, n)       // so far
	for i := range n {
		actor := genome.ActorID(r.fixed(4))
		id := genome.NewReplicaID(actor, genome.Epoch(r.fixed(4)))
		first := r.uvarint()
		heads[i] = genome.Head{Replica: id, Seq: r.uvarint(), Chain: genome.Chain(r.fixed(8))}
		c.x.actors = append(c.x.actors, id)
		c.x.firstBy = append(c.x.firstBy, first)
		c.x.ensure(id).head = heads[i]
	}
	lsn := uint64(1)
	for range r.count(1 + 1 + 1) {
		s := segment{lsn: lsn, events: r.uvarint(), ops: int(r.uvarint())}
		for range r.count(1 + 1 + 8) {
			i, events := r.uvarint(), r.uvarint()
			chain := genome.Chain(r.fixed(8))
			if r.bad || i >= uint64(n) {
				return false
			}
			s.authors = append(s.authors, segmentAuthor{heads[i].Replica, seqs[i] + 1, seqs[i] + events, chain})
			seqs[i] += events
		}
		lsn += s.events
		c.x.link(s)
	}
	for i, h := range heads {
		r.bad = r.bad || h.Seq != seqs[i] || h.Seq == 0
	}
	return !r.bad && len(r.b) == 0
}

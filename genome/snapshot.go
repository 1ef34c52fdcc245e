package genome

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"

	"crdt-genome/genome/internal/list"
)

// snapshotVersion is the first byte of every snapshot.
const snapshotVersion = 1

// A span's tag in a snapshot. Its high four bits are a length of 1 … 15, or 0.
const (
	spanLive    = 1 << 0
	spanReplica = 1 << 1
	spanGene    = 1 << 2
	spanKey     = 1 << 3
)

// AppendSnapshot appends the whole state of g to dst: what a [Genome] made by
// [LoadSnapshot] needs to go on as g would, except parked ops, which others
// hold, and the history. The values of deleted genes are not in it. The form
// is drawn in the package comment. Equal genomes have equal snapshots.
// O(spans + genes).
func (g *Genome) AppendSnapshot(dst []byte) []byte {
	out := append(dst, snapshotVersion, 0)
	out = binary.AppendUvarint(out, uint64(len(g.sorted)))
	index := make([]int, len(g.reps)) // by local number
	for i, rep := range g.sorted {
		r := &g.reps[rep]
		index[rep] = i
		out = binary.AppendUvarint(out, uint64(r.Replica.Actor()))
		out = binary.LittleEndian.AppendUint32(out, uint32(r.Replica.Epoch()))
		out = binary.AppendUvarint(out, r.Seq)
		out = binary.AppendUvarint(out, uint64(g.list.Genes(rep)))
		out = binary.LittleEndian.AppendUint64(out, uint64(r.Chain))
	}
	out = binary.AppendUvarint(out, uint64(g.Len()))
	out = g.list.AppendTo(out)
	var spans []byte
	count := 0
	var next snapshotCursor
	for x := range g.list.Spans() {
		spans = next.append(spans, x, index[x.First.Rep])
		count++
	}
	out = binary.AppendUvarint(out, uint64(count))
	out = binary.AppendUvarint(out, uint64(len(spans)))
	out = append(out, spans...)
	return binary.LittleEndian.AppendUint32(out, crc32.Checksum(out[len(dst):], castagnoli))
}

// A snapshotCursor is what would continue the span before.
type snapshotCursor struct {
	replica int // index in the snapshot's table
	gene    uint32
	depth   uint32
	live    bool
	begun   bool // there is a span before
}

// tag returns the low bits of x's tag.
func (c *snapshotCursor) tag(x list.Span, replica int) (tag byte) {
	if x.Live {
		tag |= spanLive
	}
	if replica != c.replica {
		tag |= spanReplica
	}
	if x.First.Gene != c.gene {
		tag |= spanGene
	}
	if x.Depth != c.depth || x.Left != 0 {
		tag |= spanKey
	}
	return tag
}

// continues reports whether x and the span before are one span.
func (c *snapshotCursor) continues(x list.Span, replica int) bool {
	return c.begun && x.Live == c.live && c.tag(x, replica)&^spanLive == 0
}

func (c *snapshotCursor) append(out []byte, x list.Span, replica int) []byte {
	tag := c.tag(x, replica)
	if x.N <= tagMaxRun {
		out = append(out, tag|byte(x.N)<<tagShift)
	} else {
		out = binary.AppendUvarint(append(out, tag), uint64(x.N))
	}
	if tag&spanReplica != 0 {
		out = binary.AppendUvarint(out, uint64(replica))
	}
	if tag&spanGene != 0 {
		out = binary.AppendVarint(out, int64(x.First.Gene)-int64(c.gene))
	}
	if tag&spanKey != 0 {
		out = binary.AppendVarint(out, int64(x.Depth)-int64(c.depth))
		out = binary.AppendUvarint(out, uint64(x.Left))
	}
	c.after(x, replica)
	return out
}

func (c *snapshotCursor) after(x list.Span, replica int) {
	c.replica, c.gene, c.depth, c.live, c.begun = replica, x.First.Gene+x.N, x.Depth+x.N, x.Live, true
}

// LoadSnapshot returns the genome that data was made of, writing as cfg.Self.
// It has no history from before the snapshot, so it panics unless cfg.NoHistory
// is set. It checks version ([CodeWireVersion]), checksum and form
// ([CodeBadEncoding]): whatever it accepts is a list that can go on, and saves as
// the same bytes. It does not check that the state is one that ops can lead to;
// compare the [Genome.Digest] with one kept elsewhere. The error is an
// [*OpError].
//
// O(spans + genes), without a search for any place. A deleted gene takes hardly
// a byte in a snapshot and 5 to 30 in memory: bound cfg.MaxGenes where the bytes
// come from somebody else.
func LoadSnapshot(data []byte, cfg Config) (*Genome, error) {
	if !cfg.NoHistory {
		panic("genome: LoadSnapshot needs Config.NoHistory: a snapshot has no history")
	}
	d := snapshotReader{}
	g := d.load(data, cfg)
	if d.err != nil {
		return nil, d.err
	}
	return g, nil
}

// snapshotReader shares the integers of the BlockReader.
type snapshotReader struct {
	BlockReader
	keys keyCheck
}

func (d *snapshotReader) bad(detail string) *Genome {
	if d.err == nil {
		d.err = &OpError{Code: CodeBadEncoding, Detail: "bad snapshot: " + detail}
	}
	return nil
}

func (d *snapshotReader) load(data []byte, cfg Config) *Genome {
	if len(data) < 2+4 {
		return d.bad("shorter than any snapshot")
	}
	if data[0] != snapshotVersion || data[1] != 0 {
		d.err = &OpError{Code: CodeWireVersion, Detail: fmt.Sprintf("snapshot version %d.%d; this program reads %d.0", data[0], data[1], snapshotVersion)}
		return nil
	}
	body, sum := data[:len(data)-4], binary.LittleEndian.Uint32(data[len(data)-4:])
	if got := crc32.Checksum(body, castagnoli); got != sum {
		return d.bad(fmt.Sprintf("checksum %08x, computed %08x", sum, got))
	}
	d.data = body[2:]
	g := NewFromConfig(cfg)
	loader := d.replicas(g)
	n := d.uvarint()
	if loader == nil || n > uint64(len(d.data)) {
		return d.bad("text beyond the end")
	}
	d.text, d.data = d.data[:n], d.data[n:]
	count, size := d.uvarint(), d.uvarint()
	if size != uint64(len(d.data)) {
		return d.bad("lengths do not add up")
	}
	var next snapshotCursor
	for range count {
		x, ok := d.usual(&next)
		if !ok {
			x, ok = d.span(&next, g.maxGenes)
		}
		if !ok || !d.add(x, &next, loader, g) {
			return d.bad("a span is wrong")
		}
	}
	if len(d.data) != 0 || len(d.text) != 0 || !d.keys.done() {
		return d.bad("bytes left over, or a parent left out")
	}
	l, err := loader.List()
	if err != nil {
		return d.bad(err.Error())
	}
	g.list = l
	return g
}

// replicas reads the table into g and begins a list of these replicas.
func (d *snapshotReader) replicas(g *Genome) *list.Loader {
	n := d.uvarint()
	if n > uint64(len(d.data)/minReplicaBytes) || n > MaxReplicas {
		d.bad("replica count beyond the end")
		return nil
	}
	names, genes := make([]uint64, n), make([]uint32, n)
	var total uint64
	for i := range names {
		actor := d.uvarint()
		id := NewReplicaID(ActorID(actor), Epoch(d.fixed(4)))
		seq, count := d.uvarint(), d.uvarint()
		head := Head{id, seq, Chain(d.fixed(8))}
		total += count
		if actor > math.MaxUint32 || !id.Valid() || seq == 0 || seq > MaxSeq || count > seq || count > g.maxGenes || total > g.maxGenes ||
			i > 0 && uint64(id) <= names[i-1] {
			d.bad("a replica in the table is out of bounds or out of order")
			return nil
		}
		names[i], genes[i] = uint64(id), uint32(count)
		rep := uint32(i + 1)
		g.numbers[id] = rep
		g.reps = append(g.reps, head)
		g.sorted = append(g.sorted, rep)
		g.ops += seq
	}
	return list.NewLoader(names, genes)
}

// usual reads one span if it has the shape that nearly all have, with numbers
// of few bytes. Whatever is otherwise, or
// might be wrong, it leaves to span.
func (d *snapshotReader) usual(c *snapshotCursor) (x list.Span, ok bool) {
	const most = 1 + 5*shortBytes // bytes
	data := d.data
	if len(data) < most || !c.begun || (c.gene|c.depth) > math.MaxInt32 {
		return x, false
	}
	tag := data[0]
	data = data[1:]
	x = list.Span{First: list.Ref{Rep: uint32(c.replica + 1), Gene: c.gene}, N: uint32(tag >> tagShift), Live: tag&spanLive != 0, Depth: c.depth}
	if tag&(spanReplica|spanGene|spanKey) == 0 && x.Live == c.live {
		return x, false
	}
	if x.N == 0 {
		n, size := shortUvarint(data)
		if n <= tagMaxRun {
			return x, false
		}
		x.N = n
		data = data[size:]
	}
	if tag&spanReplica != 0 {
		v, size := shortUvarint(data)
		if size == 0 || v == uint32(c.replica) || v > MaxReplicas {
			return x, false
		}
		x.First.Rep = v + 1
		data = data[size:]
	}
	if tag&spanGene != 0 {
		v, size := shortUvarint(data)
		if v == 0 {
			return x, false
		}
		x.First.Gene += v>>1 ^ -(v & 1)
		data = data[size:]
	}
	if tag&spanKey != 0 {
		v, size := shortUvarint(data)
		left := data[size]
		if size == 0 || v == 0 && left == 0 || left >= 0x80 {
			return x, false
		}
		x.Depth += v>>1 ^ -(v & 1)
		x.Left = uint32(left)
		data = data[size+1:]
	}
	if (x.First.Gene | x.Depth) > math.MaxInt32 {
		return x, false // below 0
	}
	d.data = data
	return x, true
}

// span reads one span of any shape. It reports false for one that is not in its
// one form, too: a state has one encoding.
func (d *snapshotReader) span(c *snapshotCursor, maxGenes uint64) (x list.Span, ok bool) {
	if len(d.data) == 0 {
		return x, false
	}
	tag := d.data[0]
	d.data = d.data[1:]
	x = list.Span{N: uint32(tag >> tagShift), Live: tag&spanLive != 0, Depth: c.depth}
	if x.N == 0 {
		n := d.uvarint()
		if n <= tagMaxRun || n > maxGenes {
			return x, false
		}
		x.N = uint32(n)
	}
	replica, gene := c.replica, int64(c.gene)
	if tag&spanReplica != 0 {
		replica = int(min(d.uvarint(), MaxReplicas))
	}
	if tag&spanGene != 0 {
		gene += d.svarint()
	}
	if tag&spanKey != 0 {
		depth, left := int64(c.depth)+d.svarint(), d.uvarint()
		if depth < 0 || depth > math.MaxUint32 || left > math.MaxUint32 {
			return x, false
		}
		x.Depth, x.Left = uint32(depth), uint32(left)
	}
	if d.err != nil || gene < 0 || gene > math.MaxUint32 {
		return x, false
	}
	x.First = list.Ref{Rep: uint32(replica + 1), Gene: uint32(gene)}
	return x, tag&^(0xf<<tagShift) == c.tag(x, replica) && !c.continues(x, replica)
}

// add adds a span, with its text if it is alive, to the list.
func (d *snapshotReader) add(x list.Span, c *snapshotCursor, loader *list.Loader, g *Genome) bool {
	if !d.keys.next(x) {
		return false
	}
	var text []byte
	if x.Live {
		if uint64(x.N) > uint64(len(d.text)) {
			return false
		}
		text, d.text = d.text[:x.N], d.text[x.N:]
	} else {
		g.dead += int(x.N)
	}
	c.after(x, int(x.First.Rep)-1)
	return loader.Add(x, text) == nil
}

// keyCheck verifies that depth keys, in list order, are those of a tree. What
// it keeps is the left children whose parents are still to come: at most one at
// each depth, the deepest last. The list trusts its keys so far that it might
// search for ever for a parent that never comes.
type keyCheck []leftChild

type leftChild struct{ depth, left uint32 }

// next takes the key of the next span's first gene; the other genes of a span
// are right children, and of these only the first could be out of place.
func (k *keyCheck) next(x list.Span) bool {
	open := *k
	if last := len(open) - 1; last >= 0 {
		switch t := open[last]; {
		case t.depth > x.Depth || t.depth == x.Depth && t.left > x.Left+1:
			return false // t's parent, (depth, left-1), has not come
		case t.depth == x.Depth:
			open = open[:last]
		}
	}
	if x.Left > 0 {
		open = append(open, leftChild{x.Depth, x.Left})
	}
	*k = open
	return true
}

// done reports whether no parent is still to come.
func (k keyCheck) done() bool { return len(k) == 0 }

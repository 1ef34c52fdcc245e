package genome

import (
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"slices"

	"crdt-genome/genome/internal/list"
)

var (
	// ErrIndex reports an index or range outside the list. Nothing was changed.
	ErrIndex = errors.New("index outside the genome")
	// ErrRun reports an edit of no genes, or of more than [MaxRun] in one
	// insert. Nothing was changed; split the edit.
	ErrRun = fmt.Errorf("an edit has 1 to %d genes", MaxRun)
	// ErrReadOnly reports an edit of a genome that has no replica of its own.
	ErrReadOnly = errors.New("genome has no replica of its own to write as")
	// ErrFull reports that the list has no room for more genes. It numbers
	// every gene ever inserted with 32 bits.
	ErrFull = errors.New("genome is full")
)

// A Genome is one replica's list and all that it takes to keep it equal to the
// others': version vector, chains, ops that came too early. Two genomes that
// have applied the same events are equal, in whatever order these came.
//
// A Genome is not safe for concurrent use. It does no I/O; what must outlive
// the process is the caller's to store: the ops that [Genome.Insert] and
// [Genome.Delete] return and those in [Result.Applied], in that order.
type Genome struct {
	self     ReplicaID
	list     *list.List
	maxGenes uint64
	reps     []Head               // how far each is applied, by the list's local number; 0 is the root's
	numbers  map[ReplicaID]uint32 // local numbers; looked up only, never ranged over
	sorted   []uint32             // local numbers of replicas with events, by ReplicaID
	author   uint32               // the number that find returned last for an author,
	named    uint32               // and for the replica of a gene that an op names
	ops      uint64               // unit events applied
	dead     int
	parking  parking
	reader   BlockReader            // of ReplayBlock
	applied  []Op                   // Result.Applied of the last call
	text     []byte                 // where the genes of local inserts are kept: the rest of a chunk
	deletes  []Op                   // where the ops of local deletions are kept, likewise
	history  *history               // nil if the caller keeps it
	lookup   func(d Dot) (Op, bool) // the op that holds d, in whatever history there is; may be nil
}

// A Config says how a Genome is made. The zero Config is a read-only genome
// that keeps its history in memory.
type Config struct {
	// Self is the replica that local edits are issued as; 0 for none.
	Self ReplicaID
	// NoHistory leaves it to the caller to keep the ops; Since then yields
	// nothing.
	NoHistory bool
	// Lookup returns the applied op that holds an event, from where the caller
	// keeps them. It tells a repeated op from a fork; without it (and with
	// NoHistory) every op under a known dot passes for a repetition. Ignored
	// unless NoHistory is set.
	Lookup func(Dot) (Op, bool)
	// MaxGenes is the most genes, deleted ones included, that the genome may
	// hold: inserts beyond it are refused with [ErrFull] or [CodeGenomeFull],
	// larger snapshots with [CodeBadEncoding]. 0, and anything above, means
	// [MaxGenes]. A replica with a lower limit than others cannot follow them
	// beyond it.
	MaxGenes uint64
}

// New returns an empty genome that edits as self and keeps its history in
// memory. It panics if self is not valid, which is a mistake of the caller: an
// epoch is minted, not received.
func New(self ReplicaID) *Genome {
	if !self.Valid() {
		panic(fmt.Sprintf("genome: New(%v): epoch 0 is reserved", self))
	}
	return NewFromConfig(Config{Self: self})
}

// NewFromConfig returns an empty genome. O(1).
func NewFromConfig(cfg Config) *Genome {
	g := &Genome{
		self:     cfg.Self,
		list:     list.New(),
		maxGenes: cfg.MaxGenes,
		reps:     make([]Head, 1),
		numbers:  make(map[ReplicaID]uint32),
	}
	if g.maxGenes == 0 || g.maxGenes > MaxGenes {
		g.maxGenes = MaxGenes
	}
	if cfg.NoHistory {
		g.lookup = cfg.Lookup
	} else {
		g.history = &history{}
		g.lookup = g.history.lookup
	}
	return g
}

// Self returns the replica that local edits are issued as, 0 for none. O(1).
func (g *Genome) Self() ReplicaID { return g.self }

// SetSelf makes later edits come from r: a new epoch, or, after the history of
// r was replayed, r itself. The caller vouches that r has issued no event
// beyond those applied here, or ids would be issued twice; see G1. It fails if
// r is not valid, and then changes nothing. O(1).
func (g *Genome) SetSelf(r ReplicaID) error {
	if !r.Valid() {
		return fmt.Errorf("replica %v: epoch 0 is reserved", r)
	}
	g.self = r
	return nil
}

// Insert inserts genes before the index-th gene, 0 ≤ index ≤ Len, and returns
// the op that does the same elsewhere. The genes are copied. It fails with
// [ErrIndex], [ErrRun], [ErrReadOnly] or [ErrFull] and then changes nothing.
// O(log n + len(genes)).
func (g *Genome) Insert(index int, genes []byte) (op Op, err error) {
	err = g.InsertTo(&op, index, genes)
	return op, err
}

// InsertTo does what [Genome.Insert] does and puts the op where op is, or
// leaves that alone if it fails: the form for those who insert millions.
func (g *Genome) InsertTo(op *Op, index int, genes []byte) error {
	switch {
	case !g.self.Valid():
		return ErrReadOnly
	case index < 0 || index > g.Len():
		return fmt.Errorf("insert at %d of %d: %w", index, g.Len(), ErrIndex)
	case len(genes) == 0 || len(genes) > MaxRun:
		return ErrRun
	case !g.room(len(genes)):
		return ErrFull
	}
	rep := g.own()
	kept := g.keep(genes)
	parent, side := g.list.InsertAt(rep, index, kept)
	// Field by field: a literal is made elsewhere and then copied, in words of
	// another size, for which the processor waits.
	op.Kind, op.Side, op.Reverse = Insert, Side(side), false
	op.Dot = Dot{g.self, g.reps[rep].Seq + 1}
	op.Gene = uint64(g.list.Genes(rep)) - uint64(len(genes))
	op.Ref = g.geneID(parent)
	op.Count, op.Genes = 0, kept
	g.advance(rep, op)
	return nil
}

// room reports whether n more genes may be inserted.
func (g *Genome) room(n int) bool {
	return uint64(g.list.Len()+g.dead+n) <= g.maxGenes && g.list.Room(n)
}

// keepChunk is how much is allocated at once for the genes of local inserts.
const keepChunk = 4096

// keep returns a copy of genes that nobody else can write to.
func (g *Genome) keep(genes []byte) []byte {
	if len(genes) > keepChunk/4 {
		return slices.Clone(genes)
	}
	if cap(g.text)-len(g.text) < len(genes) {
		g.text = make([]byte, 0, keepChunk)
	}
	start := len(g.text)
	if len(genes) == 1 { // typing: not worth a call
		g.text = append(g.text, genes[0])
	} else {
		g.text = append(g.text, genes...)
	}
	return g.text[start:len(g.text):len(g.text)]
}

// Delete deletes count genes from the index-th on and returns the ops that do
// the same elsewhere: one for each run of consecutive ids. It fails with
// [ErrIndex], [ErrRun] or [ErrReadOnly] and then changes nothing.
// O(count + runs × log n).
func (g *Genome) Delete(index, count int) ([]Op, error) {
	if len(g.deletes) == cap(g.deletes) {
		g.deletes = make([]Op, 0, keepOps)
	}
	used := len(g.deletes)
	ops, err := g.AppendDelete(g.deletes[used:], index, count)
	if err != nil {
		return nil, err
	}
	if cap(ops) <= cap(g.deletes)-used { // still in the chunk
		g.deletes = g.deletes[:used+len(ops)]
	}
	return slices.Clip(ops), nil
}

// AppendDelete does what [Genome.Delete] does and appends the ops to dst: the
// form for those who delete millions and use the memory of the ops again. If it
// fails it returns dst unchanged.
func (g *Genome) AppendDelete(dst []Op, index, count int) ([]Op, error) {
	switch {
	case !g.self.Valid():
		return dst, ErrReadOnly
	case count < 1:
		return dst, ErrRun
	case index < 0 || index > g.Len() || count > g.Len()-index:
		return dst, fmt.Errorf("delete %d from %d of %d: %w", count, index, g.Len(), ErrIndex)
	}
	rep := g.own()
	g.list.DeleteAt(index, count, func(first list.Ref, n uint32, reverse bool) {
		for n > 0 { // a run may be longer than an op
			part := min(n, MaxRun)
			dst = append(dst, Op{
				Kind:    Delete,
				Reverse: reverse,
				Dot:     Dot{g.self, g.reps[rep].Seq + 1},
				Gene:    uint64(g.list.Genes(rep)),
				Ref:     g.geneID(first),
				Count:   uint64(part),
			})
			g.advance(rep, &dst[len(dst)-1])
			first.Gene += part
			n -= part
		}
	})
	g.dead += count
	return dst, nil
}

// keepOps is how many ops of local deletions are allocated at once.
const keepOps = 32

// own returns the local number of the own replica.
func (g *Genome) own() uint32 {
	if rep := g.find(g.self, &g.author); rep != 0 {
		return rep
	}
	return g.number(g.self)
}

// number returns the local number of r, registering it.
func (g *Genome) number(r ReplicaID) uint32 {
	n, ok := g.numbers[r]
	if !ok {
		n = g.list.Replica(uint64(r))
		g.numbers[r] = n
		g.reps = append(g.reps, Head{r, 0, NewChain(r)})
	}
	return n
}

// find returns the local number of r, 0 if it has none. *last is what find
// returned before and is tried first.
func (g *Genome) find(r ReplicaID, last *uint32) uint32 {
	if g.reps[*last].Replica != r {
		*last = g.numbers[r]
	}
	return *last
}

// genes returns how many genes replica number rep has inserted.
func (g *Genome) genes(rep uint32) uint64 {
	if rep == 0 {
		return 0
	}
	return uint64(g.list.Genes(rep))
}

func (g *Genome) geneID(r list.Ref) GeneID {
	return GeneID{g.reps[r.Rep].Replica, uint64(r.Gene)}
}

// Len returns the number of genes in the list. O(1).
func (g *Genome) Len() int { return g.list.Len() }

// Bytes returns the genes in order, as a copy. O(n).
func (g *Genome) Bytes() []byte { return g.AppendBytes(make([]byte, 0, g.Len())) }

// AppendBytes appends the genes in order to dst. O(n).
func (g *Genome) AppendBytes(dst []byte) []byte { return g.list.AppendTo(dst) }

// String returns the genes as lower-case hex, two digits a gene. O(n).
func (g *Genome) String() string { return hex.EncodeToString(g.Bytes()) }

// Version returns the version vector, as a copy. O(replicas).
func (g *Genome) Version() Version {
	v := make(Version, 0, len(g.sorted))
	for _, n := range g.sorted {
		v = append(v, VersionEntry{g.reps[n].Replica, g.reps[n].Seq})
	}
	return v
}

// Heads returns the version vector with the chain of each replica, by
// ascending replica. O(replicas).
func (g *Genome) Heads() []Head {
	heads := make([]Head, 0, len(g.sorted))
	for _, n := range g.sorted {
		heads = append(heads, g.reps[n])
	}
	return heads
}

// Head returns how far r's history is applied; seq 0 if not at all. O(1).
func (g *Genome) Head(r ReplicaID) Head {
	if n, ok := g.numbers[r]; ok {
		return g.reps[n]
	}
	return Head{r, 0, NewChain(r)}
}

// Ops returns the number of unit events applied. O(1).
func (g *Genome) Ops() uint64 { return g.ops }

// Genes returns how many genes r has inserted, dead ones included. O(1).
func (g *Genome) Genes(r ReplicaID) uint64 {
	return g.genes(g.numbers[r])
}

// Tombstones returns the number of deleted genes, which stay in the list for
// ever because an op that is still under way may name them. O(1).
func (g *Genome) Tombstones() int { return g.dead }

// Parked returns how many ops, and about how many bytes, wait for others. They
// are no part of the state: neither version, digest nor snapshot shows them, and
// a caller that drops the Genome loses nothing that was acknowledged. O(1).
func (g *Genome) Parked() (ops, bytes int) { return g.parking.ops, g.parking.bytes }

// IndexOf returns how many genes stand before id, whether id itself is in the
// list or deleted, and whether it is known at all. O(log n).
func (g *Genome) IndexOf(id GeneID) (index int, live, known bool) {
	if id.IsRoot() || id.Gene >= g.Genes(id.Replica) {
		return 0, false, false
	}
	index, live = g.list.Index(list.Ref{Rep: g.numbers[id.Replica], Gene: uint32(id.Gene)})
	return index, live, true
}

// A Run is neighbours in the list with consecutive ids of one replica, alike
// alive or dead.
type Run struct {
	First GeneID
	N     int
	Live  bool
	Genes []byte // nil if dead; valid until the genome changes
}

// Runs yields the list in order, dead genes included. A run may be cut
// anywhere, so neighbours may belong together. The genome must not change
// meanwhile.
func (g *Genome) Runs() iter.Seq[Run] {
	return func(yield func(Run) bool) {
		for r := range g.list.Runs() {
			if !yield(Run{g.geneID(r.First), int(r.N), r.Live, r.Text}) {
				return
			}
		}
	}
}

// Since yields the ops that a peer with vector v lacks, in an order in which it
// can apply them without parking, known heads cut off. It needs the history in
// memory and yields nothing with [Config.NoHistory]. The genome must not
// change meanwhile.
func (g *Genome) Since(v Version) iter.Seq[Op] {
	lacks := v.Lacks(g.Version())
	if g.history == nil || len(lacks) == 0 {
		return func(func(Op) bool) {}
	}
	return g.history.since(v, lacks)
}

package genome

import (
	"cmp"
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
	applied  []Op                   // Result.Applied of the last call
	text     []byte                 // where the genes of local inserts are kept: the rest of a chunk
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
func (g *Genome) Insert(index int, genes []byte) (Op, error) {
	switch {
	case !g.self.Valid():
		return Op{}, ErrReadOnly
	case index < 0 || index > g.Len():
		return Op{}, fmt.Errorf("insert at %d of %d: %w", index, g.Len(), ErrIndex)
	case len(genes) == 0 || len(genes) > MaxRun:
		return Op{}, ErrRun
	case !g.room(len(genes)):
		return Op{}, ErrFull
	}
	rep := g.own()
	op := Op{
		Kind:  Insert,
		Dot:   Dot{g.self, g.reps[rep].Seq + 1},
		Gene:  uint64(g.list.Genes(rep)),
		Genes: g.keep(genes),
	}
	parent, side := g.list.InsertAt(rep, index, op.Genes)
	op.Ref, op.Side = g.geneID(parent), Side(side)
	g.advance(rep, &op)
	return op, nil
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
	g.text = append(g.text, genes...)
	return g.text[start:len(g.text):len(g.text)]
}

// Delete deletes count genes from the index-th on and returns the ops that do
// the same elsewhere: one for each run of consecutive ids. It fails with
// [ErrIndex], [ErrRun] or [ErrReadOnly] and then changes nothing.
// O(count + runs × log n).
func (g *Genome) Delete(index, count int) ([]Op, error) {
	switch {
	case !g.self.Valid():
		return nil, ErrReadOnly
	case count < 1:
		return nil, ErrRun
	case index < 0 || index > g.Len() || count > g.Len()-index:
		return nil, fmt.Errorf("delete %d from %d of %d: %w", count, index, g.Len(), ErrIndex)
	}
	rep := g.own()
	var ops []Op
	g.list.DeleteAt(index, count, func(first list.Ref, n uint32, reverse bool) {
		for n > 0 { // a run may be longer than an op
			part := min(n, MaxRun)
			op := Op{
				Kind:    Delete,
				Reverse: reverse,
				Dot:     Dot{g.self, g.reps[rep].Seq + 1},
				Gene:    uint64(g.list.Genes(rep)),
				Ref:     g.geneID(first),
				Count:   uint64(part),
			}
			g.advance(rep, &op)
			ops = append(ops, op)
			first.Gene += part
			n -= part
		}
	})
	g.dead += count
	return ops, nil
}

// own returns the local number of the own replica.
func (g *Genome) own() uint32 {
	if rep := g.find(g.self, &g.author); rep != 0 {
		return rep
	}
	return g.number(g.self)
}

// A Result says what became of an op from elsewhere.
type Result struct {
	// Applied is what was applied, in order: the op, without a head that was
	// known already, and the parked ops that had waited for it. Store these.
	// The slice, not the genes, is used again by the next call.
	Applied []Op
	// Duplicate is set when all of the op was known already.
	Duplicate bool
	// Parked is set when the op waits for what Missing says. It is not applied
	// and must not be acknowledged as held.
	Parked  bool
	Missing []Missing
	// Refused names parked ops that turned out bad when their time had come.
	Refused []*OpError
}

// Apply applies an op from elsewhere, as [Genome.ApplyFrom] does, on the
// account of peer 0.
func (g *Genome) Apply(op Op) (Result, error) { return g.ApplyFrom(0, op) }

// ApplyFrom applies an op from elsewhere, parks it if something that it
// depends on is not there yet (within bounds counted for each peer; the number
// means nothing else), and does nothing if it is known. Any order of arrival
// and any repetition leads to the same genome. The error is an [*OpError], and
// then nothing was changed. The genes of op may be kept in the history and
// must not be changed afterwards.
//
// O(log n + s log n + genes), s being the concurrent siblings at that very
// place, of which every replica can have one.
func (g *Genome) ApplyFrom(peer uint64, op Op) (Result, error) {
	if err := op.Check(); err != nil {
		return Result{}, err
	}
	res := Result{Applied: g.applied[:0]}
	missing, err := g.admit(&op, &res)
	if err != nil {
		return Result{}, err
	}
	if missing != nil {
		if err := g.parking.park(peer, op, *missing); err != nil {
			return Result{}, err
		}
		return Result{Parked: true, Missing: []Missing{*missing}}, nil
	}
	if g.parking.ops > 0 {
		for i := 0; i < len(res.Applied); i++ {
			g.release(res.Applied[i].Dot.Replica, &res)
		}
	}
	g.applied = res.Applied
	return res, nil
}

// admit applies op and appends to res.Applied, sets res.Duplicate, or returns
// what op waits for.
func (g *Genome) admit(op *Op, res *Result) (*Missing, error) {
	rep, ref := g.find(op.Dot.Replica, &g.author), g.find(op.Ref.Replica, &g.named)
	known := g.reps[rep].Seq
	if op.Dot.Replica == g.self && op.Last() > known {
		return nil, g.selfAhead(op)
	}
	if op.Dot.Seq > known+1 {
		if op.Dot.Seq > known+MaxSeqAhead {
			return nil, op.refuse(CodeSeqTooFar, fmt.Sprintf("only %d events of that replica are held, and at most %d may be ahead", known, MaxSeqAhead))
		}
		return &Missing{Replica: op.Dot.Replica, From: known + 1, To: op.Dot.Seq - 1}, nil
	}
	if op.Dot.Seq <= known {
		if err := g.compare(*op, known); err != nil {
			return nil, err
		}
		if op.Last() <= known {
			res.Duplicate = len(res.Applied) == 0
			return nil, nil
		}
		trimmed, err := g.trim(*op, known)
		if err != nil {
			return nil, err
		}
		op = &trimmed
		ref = g.find(op.Ref.Replica, &g.named)
	}
	if op.lastNamed() >= g.genes(ref) && !op.namesRoot() {
		return g.missingGene(op, g.genes(ref))
	}
	return nil, g.integrate(op, rep, ref, res)
}

// selfAhead refuses an op that shows that this replica has issued more than it
// holds: an event of its own, or a gene of its own that another op names.
func (g *Genome) selfAhead(op *Op) error {
	err := op.refuse(CodeSelfAhead, fmt.Sprintf("holds or names events of %v, which is this replica, that are not held here", g.self))
	err.Hint = "the log of this actor was rolled back, or another process runs as this actor"
	return err
}

// trim cuts off what is known of op, whose first event is. Without a history to
// compare with, a head that cannot be the replica's last genes is still a fork.
func (g *Genome) trim(op Op, known uint64) (Op, error) {
	n := known - op.Dot.Seq + 1
	if op.Kind == Insert && op.Gene == NoGene {
		genes := g.Genes(op.Dot.Replica)
		if genes < n {
			return op, op.conflict(op.Dot, fmt.Sprint("gene ", genes), fmt.Sprintf("%d genes", n))
		}
		op.Gene = genes - n
	}
	return op.TrimHead(int(n)), nil
}

// compare returns a dot_conflict if op's events up to known differ from those
// that are held under the same dots.
func (g *Genome) compare(op Op, known uint64) error {
	if g.lookup == nil {
		return nil
	}
	for seq := op.Dot.Seq; seq <= min(known, op.Last()); {
		held, ok := g.lookup(Dot{op.Dot.Replica, seq})
		if !ok {
			return nil
		}
		for ; seq <= min(known, op.Last(), held.Last()); seq++ {
			i, j := int(seq-op.Dot.Seq), int(seq-held.Dot.Seq)
			genes := held.Gene // inserted before this event
			if held.Kind == Insert {
				genes += uint64(j)
			}
			if i == 0 && op.Gene == NoGene {
				op.Gene = genes
			}
			if ours, theirs := held.Event(j), op.Event(i); ours != theirs {
				return op.conflict(Dot{op.Dot.Replica, seq}, ours.String(), theirs.String())
			}
			if i == 0 && op.Gene != genes {
				return op.conflict(op.Dot, fmt.Sprint("gene ", genes), fmt.Sprint("gene ", op.Gene))
			}
		}
	}
	return nil
}

// conflict refuses op because its event at is held with other content.
func (op *Op) conflict(at Dot, ours, theirs string) *OpError {
	err := op.refuse(CodeDotConflict, fmt.Sprintf("%v exists with other content", at))
	err.Hint = fmt.Sprintf("two processes may run as actor %d", at.Replica.Actor())
	err.Ours, err.Theirs = ours, theirs
	return err
}

// namesRoot reports whether op inserts at the beginning of the list.
func (op *Op) namesRoot() bool { return op.Kind == Insert && op.Ref.IsRoot() }

// lastNamed is the highest gene of op.Ref.Replica that op names.
func (op *Op) lastNamed() uint64 {
	if op.Kind == Delete {
		return op.Ref.Gene + op.Count - 1
	}
	return op.Ref.Gene
}

// missingGene says which gene op waits for, known genes of that replica being
// held, or refuses an op that nothing can make ready.
func (g *Genome) missingGene(op *Op, known uint64) (*Missing, error) {
	m := &Missing{Replica: op.Ref.Replica, Gene: op.lastNamed(), HasGene: true}
	switch {
	case m.Replica == op.Dot.Replica:
		return nil, op.refuse(CodeUnknownTarget, fmt.Sprintf("names gene %d of its own replica, which had inserted %d", m.Gene, known))
	case m.Replica == g.self:
		return nil, g.selfAhead(op)
	case m.Gene >= known+MaxSeqAhead:
		return nil, op.refuse(CodeSeqTooFar, fmt.Sprintf("names a gene of %v more than %d ahead of what is held", m.Replica, MaxSeqAhead))
	}
	return m, nil
}

// integrate applies op, whose dependencies are all there and whose first event
// is the next of its replica. rep and ref are the local numbers of its replica
// (0 if new) and of the one it names.
func (g *Genome) integrate(op *Op, rep, ref uint32, res *Result) error {
	known := g.genes(rep)
	if op.Gene != NoGene && op.Gene != known {
		err := op.refuse(CodeDotConflict, fmt.Sprintf("says that its replica had inserted %d genes before; it was %d", op.Gene, known))
		err.Hint = "leave out \"gene\" if the op was written by hand; otherwise that replica's history has forked"
		err.Ours, err.Theirs = fmt.Sprint("gene ", known), fmt.Sprint("gene ", op.Gene)
		return err
	}
	op.Gene = known
	if op.Kind == Insert && !g.room(len(op.Genes)) {
		return op.refuse(CodeGenomeFull, ErrFull.Error())
	}
	if rep == 0 {
		if len(g.reps) > MaxReplicas {
			return op.refuse(CodeTooManyReplicas, fmt.Sprintf("%d replicas are known, which is the most", MaxReplicas))
		}
		rep = g.number(op.Dot.Replica)
	}
	first := list.Ref{Rep: ref, Gene: uint32(op.Ref.Gene)}
	if op.Kind == Delete {
		g.dead += g.list.Delete(first, uint32(op.Count))
	} else if !g.list.Insert(rep, first, list.Side(op.Side), op.Genes) {
		return op.refuse(CodeOpInvalid, fmt.Sprintf("its replica has a gene on side %v of %v already", op.Side, op.Ref))
	}
	g.advance(rep, op)
	res.Applied = append(res.Applied, *op)
	return nil
}

// advance records that op, the next of replica number rep, is applied.
func (g *Genome) advance(rep uint32, op *Op) {
	r := &g.reps[rep]
	if r.Seq == 0 {
		i, _ := slices.BinarySearchFunc(g.sorted, r.Replica, func(n uint32, id ReplicaID) int {
			return cmp.Compare(g.reps[n].Replica, id)
		})
		g.sorted = slices.Insert(g.sorted, i, rep)
	}
	r.Seq = op.Last()
	r.Chain = r.Chain.extend(op)
	g.ops += uint64(op.Len())
	if g.history != nil {
		g.history.append(*op)
	}
}

// release applies the parked ops that waited for r and can be applied now.
func (g *Genome) release(r ReplicaID, res *Result) {
	for {
		w := g.parking.ready(r, g.Head(r).Seq, g.Genes(r))
		if w == nil {
			return
		}
		missing, err := g.admit(&w.op, res)
		if missing != nil {
			w.missing = *missing
			g.parking.wait(w)
			continue
		}
		g.parking.leave(w)
		var bad *OpError
		if errors.As(err, &bad) {
			res.Refused = append(res.Refused, bad)
		}
	}
}

// CheckHeads compares the chains that a batch carries with what applying its
// ops here would give, before any is applied. It returns one dot_conflict for
// each replica whose history has forked; the caller leaves that replica's ops
// out. Nothing can be said, and nothing is returned, for a replica of which
// more is held than the batch tells, or whose ops do not join what is held.
// O(events in the batch).
func (g *Genome) CheckHeads(b Block) []*OpError {
	if len(b.Heads) == 0 {
		return nil
	}
	rolled := make(map[ReplicaID]Head, len(b.Heads)) // looked up only
	for _, h := range b.Heads {
		rolled[h.Replica] = g.Head(h.Replica)
	}
	for _, op := range b.Ops {
		h := rolled[op.Dot.Replica]
		if op.Check() != nil || op.Gene == NoGene || op.Last() <= h.Seq || op.Dot.Seq > h.Seq+1 {
			continue
		}
		if op.Dot.Seq <= h.Seq {
			op = op.TrimHead(int(h.Seq - op.Dot.Seq + 1))
		}
		rolled[op.Dot.Replica] = Head{h.Replica, op.Last(), h.Chain.Extend(op)}
	}
	var forks []*OpError
	for _, theirs := range b.Heads {
		ours := rolled[theirs.Replica]
		if ours.Seq != theirs.Seq || ours.Chain == theirs.Chain {
			continue
		}
		forks = append(forks, &OpError{
			Code:   CodeDotConflict,
			Dot:    Dot{theirs.Replica, theirs.Seq},
			Detail: fmt.Sprintf("the history of %v up to seq %d differs from the one held here", theirs.Replica, theirs.Seq),
			Hint:   fmt.Sprintf("two processes may run as actor %d, or a log was damaged", theirs.Replica.Actor()),
			Ours:   ours.Chain.String(),
			Theirs: theirs.Chain.String(),
		})
	}
	return forks
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

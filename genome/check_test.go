package genome_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"crdt-genome/genome"
)

// tb is what the checkers need of a testing.TB or a rapid.T.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
}

// A model says, the slow way, what a genome must be after the ops applied to
// it. It takes ops apart by itself and shares no code with the package.
type model struct {
	tree   *oracle
	events map[genome.ReplicaID][]genome.Event
	genes  map[genome.ReplicaID]uint64
	chains map[genome.ReplicaID]uint64
}

func newModel() *model {
	return &model{newOracle(), map[genome.ReplicaID][]genome.Event{}, map[genome.ReplicaID]uint64{}, map[genome.ReplicaID]uint64{}}
}

// unit returns the events of op.
func unit(op genome.Op) []genome.Event {
	var out []genome.Event
	for i := range op.Count {
		ev := genome.Event{Kind: genome.Delete, Ref: genome.GeneID{Replica: op.Ref.Replica, Gene: op.Ref.Gene + i}}
		if op.Reverse {
			ev.Ref.Gene = op.Ref.Gene + op.Count - 1 - i
		}
		out = append(out, ev)
	}
	for i, v := range op.Genes {
		ev := genome.Event{Side: op.Side, Value: v, Ref: op.Ref}
		if i > 0 {
			ev.Side, ev.Ref = genome.Right, genome.GeneID{Replica: op.Dot.Replica, Gene: op.Gene + uint64(i) - 1}
		}
		out = append(out, ev)
	}
	return out
}

// apply does what op says. It fails where op breaks G1 or G2.
func (m *model) apply(op genome.Op) error {
	r := op.Dot.Replica
	if have := uint64(len(m.events[r])); op.Dot.Seq != have+1 || op.Gene != m.genes[r] {
		return fmt.Errorf("op %v gene %d applied after %d events, %d genes of its replica (G1)", op.Dot, op.Gene, have, m.genes[r])
	}
	for _, ev := range unit(op) {
		var err error
		if ev.Kind == genome.Delete {
			err = m.tree.delete(ev.Ref)
		} else {
			err = m.tree.insert(genome.GeneID{Replica: r, Gene: m.genes[r]}, ev.Ref, ev.Side, ev.Value)
		}
		if err != nil {
			return fmt.Errorf("op %v applied before what it depends on: %w (G2)", op.Dot, err)
		}
		m.extendChain(r, ev)
		m.events[r] = append(m.events[r], ev)
		if ev.Kind == genome.Insert {
			m.genes[r]++
		}
	}
	return nil
}

// extendChain is the chain as the comment of genome.Chain draws it.
func (m *model) extendChain(r genome.ReplicaID, ev genome.Event) {
	add := func(c, word uint64) uint64 {
		c = (c ^ word) * 0x9e3779b97f4a7c15
		return c ^ c>>32
	}
	c, ok := m.chains[r]
	if !ok {
		c = add(0x6372647467656e31, uint64(r))
	}
	before := genome.GeneID{Replica: r, Gene: m.genes[r] - 1}
	words := []uint64{uint64(2+ev.Side)<<8 | uint64(ev.Value), uint64(ev.Ref.Replica), ev.Ref.Gene}
	switch {
	case ev.Kind == genome.Delete:
		words[0] = 4 << 8
	case m.genes[r] > 0 && ev.Ref == before && ev.Side == genome.Right:
		words = []uint64{1<<8 | uint64(ev.Value)}
	}
	for _, w := range words {
		c = add(c, w)
	}
	m.chains[r] = c
}

func (m *model) version() genome.Version {
	var v genome.Version
	for r, events := range m.events {
		v = v.With(genome.Dot{Replica: r, Seq: uint64(len(events))})
	}
	return v
}

// knows reports whether all events of op are applied.
func (m *model) knows(op genome.Op) bool {
	return uint64(len(m.events[op.Dot.Replica])) >= op.Last()
}

// missing returns what op has to wait for, empty if nothing.
func (m *model) missing(op genome.Op) string {
	if have := uint64(len(m.events[op.Dot.Replica])); op.Dot.Seq > have+1 {
		return genome.Missing{From: have + 1, To: op.Dot.Seq - 1}.String()
	}
	last := op.Ref
	if op.Kind == genome.Delete {
		last.Gene += op.Count - 1
	}
	if m.tree.nodes[last] == nil {
		return fmt.Sprintf("#%d", last.Gene)
	}
	return ""
}

// digest is the digest as the comment of Genome.Digest draws it.
func digestOf(order []*node) genome.Digest {
	type run struct {
		first genome.GeneID
		n     uint64
		live  bool
		genes []byte
	}
	var runs []run
	for _, n := range order {
		last := len(runs) - 1
		next := genome.GeneID{Replica: n.id.Replica, Gene: n.id.Gene}
		if last < 0 || runs[last].live == n.dead || runs[last].first.Replica != next.Replica || runs[last].first.Gene+runs[last].n != next.Gene {
			runs, last = append(runs, run{first: next, live: !n.dead}), last+1
		}
		runs[last].n++
		if !n.dead {
			runs[last].genes = append(runs[last].genes, n.value)
		}
	}
	h := sha256.New()
	h.Write([]byte("crdt-genome digest 1\n"))
	for _, r := range runs {
		length := r.n * 2
		if r.live {
			length++
		}
		_ = binary.Write(h, binary.LittleEndian, []uint64{uint64(r.first.Replica), r.first.Gene, length})
		h.Write(r.genes)
	}
	return genome.Digest(binary.BigEndian.Uint64(h.Sum(nil)))
}

// check verifies all that can be seen of g: G1, G2, G4 and G6 of the package
// comment, the counts, the list in each of its forms, the digest, the chains.
func (m *model) check(t tb, g *genome.Genome) {
	t.Helper()
	order := m.tree.order()[1:]
	var live []byte
	var dead int
	for i, n := range order {
		if n.dead {
			dead++
		}
		if i%(len(order)/16+1) == int(g.Ops())%(len(order)/16+1) { // a sample: Index is slow in a plain list
			if index, alive, known := g.IndexOf(n.id); index != len(live) || alive == n.dead || !known {
				t.Fatalf("IndexOf(%v) = %d, %v, %v, want %d, %v, true", n.id, index, alive, known, len(live), !n.dead)
			}
		}
		if !n.dead {
			live = append(live, n.value)
		}
	}
	if got := g.Bytes(); !bytes.Equal(got, live) {
		t.Fatalf("Bytes() = %x, want %x (G4)", got, live)
	}
	if got := g.String(); got != hex.EncodeToString(live) || g.Len() != len(live) || g.Tombstones() != dead {
		t.Fatalf("String() = %s, Len() = %d, Tombstones() = %d, want %x, %d, %d", got, g.Len(), g.Tombstones(), live, len(live), dead)
	}
	if got := g.AppendBytes([]byte("x")); string(got) != "x"+string(live) {
		t.Fatalf("AppendBytes(x) = %x, want 78%x", got, live)
	}
	m.checkRuns(t, g, order)
	if got, want := g.Digest(), digestOf(order); got != want {
		t.Fatalf("Digest() = %v, want %v", got, want)
	}
	m.checkVersion(t, g)
	if ops, bytes := g.Parked(); ops < 0 || bytes < 0 || (ops == 0) != (bytes == 0) ||
		ops > genome.MaxParkedOps*genome.MaxParkedPeers || bytes > genome.MaxParkedBytes*genome.MaxParkedPeers {
		t.Fatalf("Parked() = %d, %d (G6)", ops, bytes)
	}
}

func (m *model) checkRuns(t tb, g *genome.Genome, order []*node) {
	t.Helper()
	i := 0
	for r := range g.Runs() {
		if r.N < 1 || r.Live != (r.Genes != nil) || r.Live && len(r.Genes) != r.N {
			t.Fatalf("Runs() yields %+v", r)
		}
		for k := range r.N {
			id := genome.GeneID{Replica: r.First.Replica, Gene: r.First.Gene + uint64(k)}
			if i >= len(order) || order[i].id != id || order[i].dead == r.Live || r.Live && order[i].value != r.Genes[k] {
				t.Fatalf("Runs() has %v (live %v) in place %d, which is wrong", id, r.Live, i)
			}
			i++
		}
	}
	if i != len(order) {
		t.Fatalf("Runs() yields %d genes, want %d", i, len(order))
	}
}

func (m *model) checkVersion(t tb, g *genome.Genome) {
	t.Helper()
	want := m.version()
	if got := g.Version(); !got.Equal(want) {
		t.Fatalf("Version() = %v, want %v (G1, G6)", got, want)
	}
	if g.Ops() != want.Ops() {
		t.Fatalf("Ops() = %d, want %d", g.Ops(), want.Ops())
	}
	heads := g.Heads()
	if len(heads) != len(want) {
		t.Fatalf("Heads() = %v, want those of %v", heads, want)
	}
	for i, e := range want {
		h := genome.Head{Replica: e.Replica, Seq: e.Seq, Chain: genome.Chain(m.chains[e.Replica])}
		if heads[i] != h || g.Head(e.Replica) != h {
			t.Fatalf("Heads()[%d] = %v, Head(%v) = %v, want %v", i, heads[i], e.Replica, g.Head(e.Replica), h)
		}
		if got := g.Genes(e.Replica); got != m.genes[e.Replica] {
			t.Fatalf("Genes(%v) = %d, want %d", e.Replica, got, m.genes[e.Replica])
		}
	}
}

// A replica is a genome beside its model. Every call checks everything.
type replica struct {
	t   tb
	g   *genome.Genome
	m   *model
	log []genome.Op // what a store would hold: local ops and Result.Applied, in order
}

func newReplica(t tb, self genome.ReplicaID) *replica {
	return &replica{t: t, g: genome.New(self), m: newModel()}
}

func (r *replica) note(ops ...genome.Op) {
	r.t.Helper()
	for _, op := range ops {
		if err := op.Check(); err != nil {
			r.t.Fatalf("an applied op is malformed: %v", err)
		}
		if err := r.m.apply(op); err != nil {
			r.t.Fatalf("%v", err)
		}
		r.log = append(r.log, op)
	}
	r.m.check(r.t, r.g)
}

func (r *replica) insert(index int, genes []byte) genome.Op {
	r.t.Helper()
	parent, side := r.m.tree.place(index)
	op, err := r.g.Insert(index, genes)
	if err != nil {
		r.t.Fatalf("Insert(%d, %x): %v", index, genes, err)
	}
	if op.Ref != parent || op.Side != side {
		r.t.Fatalf("Insert(%d) hangs on side %v of %v, want %v of %v", index, op.Side, op.Ref, side, parent)
	}
	r.note(op)
	return op
}

func (r *replica) delete(index, n int) []genome.Op {
	r.t.Helper()
	ops, err := r.g.Delete(index, n)
	if err != nil {
		r.t.Fatalf("Delete(%d, %d): %v", index, n, err)
	}
	r.note(ops...)
	return ops
}

// state is all that an op which changes nothing must not change.
func (r *replica) state() string {
	ops, bytes := r.g.Parked()
	return fmt.Sprint(r.g.Digest(), r.g.Version(), r.g.Heads(), ops, bytes)
}

// deliver applies op and checks that the result tells the truth.
func (r *replica) deliver(peer uint64, op genome.Op) (genome.Result, error) {
	r.t.Helper()
	before, missing, known := r.state(), r.m.missing(op), r.m.knows(op)
	res, err := r.g.ApplyFrom(peer, op)
	if known != res.Duplicate && err == nil {
		r.t.Fatalf("Apply(%v…%d): Duplicate = %v, want %v", op.Dot, op.Last(), res.Duplicate, known)
	}
	if (err != nil || known) && r.state() != before {
		r.t.Fatalf("Apply(%v) = %v, %v changed something (G3, G5)", op.Dot, res, err)
	}
	if err != nil {
		var bad *genome.OpError
		if !errors.As(err, &bad) || bad.Code == "" || bad.Detail == "" {
			r.t.Fatalf("Apply(%v): error %#v is not an OpError with a code", op.Dot, err)
		}
		return res, err
	}
	if !known && res.Parked != (missing != "") {
		r.t.Fatalf("Apply(%v): Parked = %v, but missing is %q", op.Dot, res.Parked, missing)
	}
	if res.Parked && (len(res.Missing) != 1 || res.Missing[0].String() != missing || len(res.Applied) > 0) {
		r.t.Fatalf("Apply(%v): Missing = %v, Applied = %v, want %s and nothing", op.Dot, res.Missing, res.Applied, missing)
	}
	r.note(res.Applied...)
	if !res.Parked && !r.m.knows(op) {
		r.t.Fatalf("Apply(%v…%d) = %+v and it is neither parked nor known", op.Dot, op.Last(), res)
	}
	return res, nil
}

// mustDeliver delivers an op that must not be refused.
func (r *replica) mustDeliver(op genome.Op) genome.Result {
	r.t.Helper()
	res, err := r.deliver(0, op)
	if err != nil || len(res.Refused) > 0 {
		r.t.Fatalf("Apply(%v) refuses: %v, %v", op.Dot, err, res.Refused)
	}
	return res
}

// pull fetches what r lacks of from, through the binary codec.
func (r *replica) pull(from *replica) {
	r.t.Helper()
	lacks := r.g.Version().Lacks(from.g.Version())
	var b genome.Block
	got := r.g.Version()
	for op := range from.g.Since(r.g.Version()) {
		if !r.inRanges(lacks, op) {
			r.t.Fatalf("Since(%v) yields %v…%d, not in %v", r.g.Version(), op.Dot, op.Last(), lacks)
		}
		b.Ops, got = append(b.Ops, op), got.With(genome.Dot{Replica: op.Dot.Replica, Seq: op.Last()})
	}
	if !got.Covers(from.g.Version()) {
		r.t.Fatalf("Since yields up to %v, want %v", got, from.g.Version())
	}
	for chunk := range slices.Chunk(b.Ops, genome.MaxBatchOps) {
		data, err := genome.AppendBlock(nil, genome.Block{Ops: chunk})
		if err != nil {
			r.t.Fatalf("AppendBlock: %v", err)
		}
		back, err := genome.DecodeBlock(data, genome.MaxBatchOps)
		if err != nil {
			r.t.Fatalf("DecodeBlock: %v", err)
		}
		for _, op := range back.Ops {
			if res := r.mustDeliver(op); res.Parked {
				r.t.Fatalf("an op of Since was parked: it misses %v", res.Missing)
			}
		}
	}
}

func (r *replica) inRanges(ranges []genome.Range, op genome.Op) bool {
	return slices.ContainsFunc(ranges, func(x genome.Range) bool {
		return x.Replica == op.Dot.Replica && x.From <= op.Dot.Seq && op.Last() <= x.To
	})
}

// checkEqual verifies that all replicas hold the same events and therefore the
// same everything (G4).
func checkEqual(t tb, replicas ...*replica) {
	t.Helper()
	a := replicas[0]
	for _, b := range replicas[1:] {
		if a.state() != b.state() || !bytes.Equal(a.g.Bytes(), b.g.Bytes()) {
			t.Fatalf("%v and %v differ (G4):\n%s\n%s", a.g.Self(), b.g.Self(), a.state(), b.state())
		}
	}
}

// heal lets all replicas fetch from each other until all are equal.
func heal(t tb, replicas ...*replica) {
	t.Helper()
	for range 2 {
		for i := 1; i < len(replicas); i++ {
			replicas[i].pull(replicas[i-1])
		}
		replicas[0].pull(replicas[len(replicas)-1])
	}
	checkEqual(t, replicas...)
	if ops, bytes := replicas[0].g.Parked(); ops != 0 || bytes != 0 {
		t.Fatalf("%d ops (%d bytes) are still parked after healing", ops, bytes)
	}
}

package genome

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
)

// Bounds on parked ops. Parking only saves a second transfer; what does not
// fit is refused with [CodePendingFull] and fetched again later, so both are
// small. Nothing that is parked is ever pushed out by something newer: else a
// peer could push out what others sent. An op leaves when its time has come,
// applied, known or refused. One whose past is lost for ever stays until the
// process ends, on the account of whoever sent it.
const (
	// MaxParkedOps is how many ops of one peer may be parked.
	MaxParkedOps = 4096
	// MaxParkedBytes is how many bytes of genes and op headers of one peer may
	// be parked.
	MaxParkedBytes = 1 << 20
	// MaxParkedPeers times the two above bound the parking as a whole.
	MaxParkedPeers = 64
	// parkedOpBytes is charged for an op besides its genes.
	parkedOpBytes = 128
)

// Missing says what a parked op waits for: events From … To of Replica, or,
// where HasGene is set, the gene numbers of Replica up to Gene.
type Missing struct {
	Replica  ReplicaID
	From, To uint64
	Gene     uint64
	HasGene  bool
}

// String returns "41-56", "41" or "#12", without the replica.
func (m Missing) String() string {
	switch {
	case m.HasGene:
		return fmt.Sprintf("#%d", m.Gene)
	case m.From == m.To:
		return fmt.Sprint(m.From)
	}
	return fmt.Sprintf("%d-%d", m.From, m.To)
}

// parking holds ops that came before what they depend on. Each waits for one
// thing at a time: a seq or a gene number of one replica.
type parking struct {
	waiting map[ReplicaID]*waiters // looked up only, never ranged over
	spans   map[span]bool          // what is parked; looked up only
	peers   map[uint64]*account    // by peer; looked up only
	ops     int
	bytes   int
	arrived uint64
}

type account struct{ ops, bytes int }

// A span is what tells parked ops apart. The dot alone would not do: the same
// events may come in runs cut elsewhere, and a longer one holds more. Each
// peer's are its own, so that nobody keeps another's op out with a forged one.
type span struct {
	peer uint64
	dot  Dot
	last uint64
}

type parkedOp struct {
	op      Op
	peer    uint64
	missing Missing
	arrival uint64 // breaks ties, so that the order of release is the order of arrival
}

// waiters are the ops that wait for one replica, by what they wait for.
type waiters struct{ bySeq, byGene parkedHeap }

func (p *parkedOp) bytes() int { return len(p.op.Genes) + parkedOpBytes }

// need is the number that p waits for: the seq before its own, or a gene number.
func (p *parkedOp) need() uint64 {
	if p.missing.HasGene {
		return p.missing.Gene
	}
	return p.missing.To
}

type parkedHeap []*parkedOp

func (h parkedHeap) Len() int { return len(h) }
func (h parkedHeap) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(h[i].need(), h[j].need()), cmp.Compare(h[i].arrival, h[j].arrival)) < 0
}
func (h parkedHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *parkedHeap) Push(x any)   { *h = append(*h, x.(*parkedOp)) }
func (h *parkedHeap) Pop() any {
	last := (*h)[len(*h)-1]
	(*h)[len(*h)-1] = nil
	*h = (*h)[:len(*h)-1]
	return last
}

// park keeps op until m is there. The newest is refused when the account of
// peer, or the whole parking, is full.
func (p *parking) park(peer uint64, op Op, m Missing) error {
	if p.waiting == nil {
		p.waiting = make(map[ReplicaID]*waiters)
		p.spans = make(map[span]bool)
		p.peers = make(map[uint64]*account)
	}
	if p.spans[span{peer, op.Dot, op.Last()}] {
		return nil // here already; if its content differs, the chains will tell
	}
	w := &parkedOp{op: op, peer: peer, missing: m, arrival: p.arrived}
	acc := p.peers[peer]
	switch {
	case acc == nil && len(p.peers) >= MaxParkedPeers:
		return op.refuse(CodePendingFull, fmt.Sprintf("ops of %d peers are parked already", MaxParkedPeers))
	case acc != nil && (acc.ops >= MaxParkedOps || acc.bytes+w.bytes() > MaxParkedBytes):
		return op.refuse(CodePendingFull, fmt.Sprintf("%d ops (%d bytes) of this peer are parked already", acc.ops, acc.bytes))
	case acc == nil:
		acc = &account{}
		p.peers[peer] = acc
	}
	// The genes may be part of a request's body, and parking outlives it.
	w.op.Genes = slices.Clone(op.Genes)
	p.arrived++
	acc.ops++
	acc.bytes += w.bytes()
	p.ops++
	p.bytes += w.bytes()
	p.spans[span{peer, op.Dot, op.Last()}] = true
	p.wait(w)
	return nil
}

// wait files w under what it waits for.
func (p *parking) wait(w *parkedOp) {
	ws := p.waiting[w.missing.Replica]
	if ws == nil {
		ws = &waiters{}
		p.waiting[w.missing.Replica] = ws
	}
	if w.missing.HasGene {
		heap.Push(&ws.byGene, w)
	} else {
		heap.Push(&ws.bySeq, w)
	}
}

// ready takes out one op that waited for r having seq events and that many
// genes, or returns nil.
func (p *parking) ready(r ReplicaID, seq, genes uint64) *parkedOp {
	ws := p.waiting[r]
	if ws == nil {
		return nil
	}
	var w *parkedOp
	switch {
	case len(ws.bySeq) > 0 && ws.bySeq[0].need() <= seq:
		w = heap.Pop(&ws.bySeq).(*parkedOp)
	case len(ws.byGene) > 0 && ws.byGene[0].need() < genes:
		w = heap.Pop(&ws.byGene).(*parkedOp)
	}
	if len(ws.bySeq)+len(ws.byGene) == 0 {
		delete(p.waiting, r)
	}
	return w
}

// leave forgets w, which ready has taken out, and frees its account.
func (p *parking) leave(w *parkedOp) {
	delete(p.spans, span{w.peer, w.op.Dot, w.op.Last()})
	p.ops--
	p.bytes -= w.bytes()
	acc := p.peers[w.peer]
	acc.ops--
	acc.bytes -= w.bytes()
	if acc.ops == 0 {
		delete(p.peers, w.peer)
	}
}

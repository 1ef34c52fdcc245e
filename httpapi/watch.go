package httpapi

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"crdt-genome/genome"
)

const (
	// watchEvery is the pause between two rounds of questions to the peers
	// while somebody reads /v1/changes, and watchPerPeer what each peer adds,
	// so that 50 peers are asked once a second and not twice.
	watchEvery   = 500 * time.Millisecond
	watchPerPeer = 10 * time.Millisecond

	// viewFor is how long one view of the cluster serves all streams.
	viewFor = 20 * time.Millisecond

	// heardFor is how long a peer is believed to reach whom it said it does:
	// it must outlast a round in which one of them does not answer.
	heardFor = 2*askTimeout + watchEvery

	// maxHeard is the number of peers that are asked what they know of the
	// others. In a larger group that would cost too much.
	maxHeard = 64
)

// A watch serves those who look on: it asks the peers more often while
// anybody does, and wakes the streams when something may have changed. Nothing
// else depends on it.
type watch struct {
	elements *elementsCache
	first    chan struct{} // capacity 1: somebody began to look on

	mu      sync.Mutex
	readers int
	changed chan struct{}              // closed at the next bump
	heard   map[genome.ActorID]hearsay // by who says it; looked up only
	asked   bool                       // one round is complete
	view    *ClusterView
	viewAt  time.Time // zero: view is out of date
}

// hearsay is what a peer says of the others.
type hearsay struct {
	actors []ActorStatus
	at     time.Time
}

func newWatch() *watch {
	return &watch{elements: newElementsCache(), first: make(chan struct{}, 1), changed: make(chan struct{}),
		heard: map[genome.ActorID]hearsay{}}
}

// join counts a reader in; the caller must leave.
func (w *watch) join() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.readers++
	if w.readers == 1 {
		wake(w.first)
	}
}

func (w *watch) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.readers--
}

// watched reports whether anybody looks on.
func (w *watch) watched() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.readers > 0
}

// next returns a channel that is closed when something may have changed. Call
// it before looking.
func (w *watch) next() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed
}

// bump wakes the streams.
func (w *watch) bump() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.readers == 0 {
		return
	}
	w.viewAt = time.Time{}
	close(w.changed)
	w.changed = make(chan struct{})
}

// watchLoop asks the peers while somebody looks on.
func (n *Node) watchLoop(ctx context.Context) {
	for {
		select {
		case <-n.watch.first:
		case <-ctx.Done():
			return
		}
		for n.watch.watched() {
			n.freshen(ctx)
			n.overhear(ctx)
			n.watch.bump()
			if !sleep(ctx, watchEvery+time.Duration(len(n.peers()))*watchPerPeer) {
				return
			}
		}
	}
}

// overhear asks each peer that answers what it knows of the others: an actor
// that we do not reach may be well, and only the link to it cut.
func (n *Node) overhear(ctx context.Context) {
	var g errgroup.Group
	g.SetLimit(verifyParallel)
	peers := n.peers()
	for _, p := range peers[:min(len(peers), maxHeard)] {
		if !p.reachable() {
			continue
		}
		g.Go(func() error {
			var r ClusterReply
			if err := p.getJSON(ctx, call{path: "/v1/cluster"}, &r); err != nil {
				return nil // that it does not answer shows elsewhere
			}
			n.watch.mu.Lock()
			defer n.watch.mu.Unlock()
			n.watch.heard[p.actor] = hearsay{r.Actors, time.Now()}
			return nil
		})
	}
	_ = g.Wait() // the functions have no errors
	n.watch.mu.Lock()
	defer n.watch.mu.Unlock()
	n.watch.asked = true
}

func (p *peer) reachable() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.answered && p.downSince.IsZero()
}

// Verdicts that only a ClusterView has; see there.
const (
	VerdictConnecting  = "connecting"  // nobody has been asked yet
	VerdictPartitioned = "partitioned" // some are out of reach, and not all hold the same ops
)

// A ClusterView is what GET /v1/changes tells of all actors: a ClusterReply to
// which what the peers say of each other has been added. An actor is
// unreachable to a ClusterReply if the answering node does not reach it; a
// view knows whether somebody does.
type ClusterView struct {
	Verdict string             `json:"verdict"` // converged, behind, partitioned, unreachable, diverged or connecting
	Equal   int                `json:"equal"`   // actors that are reached and lack nothing that anybody is known to hold
	Of      int                `json:"of"`
	Groups  [][]genome.ActorID `json:"groups"` // who is reached, over others too; then, if any, who is not
	Replica genome.ReplicaID   `json:"replica"`
	Ops     uint64             `json:"ops"` // of the answering node, as are the next two
	Genes   int                `json:"genes"`
	Digest  string             `json:"digest"`
	Paused  bool               `json:"paused"`           // its mutator
	Fenced  string             `json:"fenced,omitempty"` // why it mints nothing

	actors []ActorView
}

// An ActorView is one actor in a ClusterView.
type ActorView struct {
	ActorStatus
	Through []genome.ActorID `json:"through,omitempty"` // unreachable from here: who reaches it
}

// reached reports whether the node reaches a, if only over others.
func (a *ActorView) reached() bool {
	return a.Self || a.State != StateUnreachable || len(a.Through) > 0
}

// clusterView returns the present view, which all streams share.
func (n *Node) clusterView(ctx context.Context) (*ClusterView, error) {
	w := n.watch
	w.mu.Lock()
	view, at := w.view, w.viewAt
	w.mu.Unlock()
	if view != nil && time.Since(at) < viewFor && view.Ops == n.actor.LSN() {
		return view, nil
	}
	now := time.Now()
	reply, err := n.clusterReply(ctx)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	v := newClusterView(reply, w.heard, now)
	if !w.asked && reply.Rounds == 0 && len(n.peers()) > 0 {
		v.Verdict = VerdictConnecting
	}
	v.Replica, v.Paused = n.actor.Replica(), n.mutator.paused()
	w.view, w.viewAt = v, now
	return v, nil
}

// newClusterView adds to what a node knows itself what its peers have said.
func newClusterView(reply ClusterReply, heard map[genome.ActorID]hearsay, now time.Time) *ClusterView {
	v := &ClusterView{Of: reply.Of, Fenced: reply.Fenced}
	for _, a := range reply.Actors {
		v.actors = append(v.actors, ActorView{ActorStatus: a})
		if a.Self {
			v.Ops, v.Genes, v.Digest = a.Ops, a.Genes, a.Digest
		}
	}
	for i := range v.actors {
		a := &v.actors[i]
		h := heard[a.Actor]
		v.hear(a.Actor, h.actors, a.State != StateUnreachable && now.Sub(h.at) <= heardFor)
	}
	v.judge()
	return v
}

// hear takes in what a peer said of the others. Vectors only grow within one
// run of a process, so what was said of them stays true; whom it reaches counts
// only while that is fresh.
func (v *ClusterView) hear(from genome.ActorID, said []ActorStatus, fresh bool) {
	for _, s := range said {
		i, ok := slices.BinarySearchFunc(v.actors, s.Actor, func(a ActorView, id genome.ActorID) int { return cmp.Compare(a.Actor, id) })
		if !ok || v.actors[i].Self {
			continue
		}
		a := &v.actors[i]
		if fresh && a.State == StateUnreachable && s.State != StateUnreachable && s.SinceMS == 0 {
			a.Through = append(a.Through, from)
		}
		if a.Boot == "" || a.Boot == s.Boot || s.Self {
			a.VV = a.VV.Merge(s.VV)
			a.Ops, a.Boot = a.VV.Ops(), cmp.Or(a.Boot, s.Boot)
		}
	}
}

// of returns what v has of actor's replicas. They are beside each other.
func of(v genome.Version, actor genome.ActorID) genome.Version {
	i, _ := slices.BinarySearchFunc(v, actor, func(e genome.VersionEntry, a genome.ActorID) int { return cmp.Compare(e.Replica.Actor(), a) })
	k := i
	for k < len(v) && v[k].Replica.Actor() == actor {
		k++
	}
	return v[i:k]
}

// judge says what each actor lacks, and the verdict over all. Of an actor that
// has never been heard of nothing is said but that it is not reached.
func (v *ClusterView) judge() {
	var all genome.Version
	for _, a := range v.actors {
		all = all.Merge(a.VV)
	}
	diverged, lacking := false, false
	var near, far []genome.ActorID
	for i := range v.actors {
		a := &v.actors[i]
		if !a.Self && len(a.VV) > 0 { // an author holds what it has written, whoever told us of it
			a.VV = a.VV.Merge(of(all, a.Actor))
		}
		a.setLacks(all)
		known, reached := a.Self || a.Boot != "", a.reached()
		diverged = diverged || a.State == StateDiverged
		lacking = lacking || known && a.LacksOps > 0
		if known && reached && a.LacksOps == 0 && a.State != StateDiverged {
			v.Equal++
		}
		if reached {
			near = append(near, a.Actor)
		} else {
			far = append(far, a.Actor)
		}
	}
	v.Groups = [][]genome.ActorID{near}
	if far != nil {
		v.Groups = append(v.Groups, far)
	}
	switch {
	case diverged:
		v.Verdict = StateDiverged
	case len(v.Groups) > 1 && lacking:
		v.Verdict = VerdictPartitioned
	case len(v.Groups) > 1:
		v.Verdict = StateUnreachable
	case lacking:
		v.Verdict = StateBehind
	default:
		v.Verdict = VerdictConverged
	}
}

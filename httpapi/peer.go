package httpapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"crdt-genome/genome"
	"crdt-genome/httpapi/membership"
)

// A peer is one of the others: how to ask it and what is known of it. It has
// two goroutines, pushLoop and pullLoop.
type peer struct {
	*Client
	n      *Node
	actor  genome.ActorID // who answers
	actors membership.Set // all that it answers for

	wakePush chan struct{} // capacity 1: a sign of life, or a resync is due
	wakePull chan struct{} // capacity 1: something is missing that it has

	asked    chan struct{} // closed when it has been asked for its heads once, answered or not
	askedOne sync.Once

	cut atomic.Bool // the link is cut by hand; see putLink

	mu sync.Mutex // guards the fields below; never held across a call
	peerState
}

// peerState is what is known of a peer. Nothing of it is needed for
// correctness: a node that forgets it all asks again.
type peerState struct {
	stop context.CancelFunc // ends its two loops; nil: it has none

	boot     bootID
	vv       genome.Version // what it is known to hold
	heads    []genome.Head  // what it said last, with chains
	replica  string
	answered bool // at least once

	failures  int       // in a row
	downSince time.Time // first of them; zero: reachable
	down      bool      // probeAfter failures: logged as unreachable
	lastErr   error
	warned    time.Time // of the last log line about downSince
	lastWake  time.Time
	nextTry   time.Duration // pause that the sender chose last

	complained map[string]bool // what has been logged once of this boot; ≤ maxComplaints
	clockOff   bool            // its last answer's clock was far from ours
	forks      map[genome.ReplicaID]Fork
	alarm      bool // it has diverged, and that was named

	rode   string    // its state that came with its latest answer; "": none, or it has changed since
	rodeAt time.Time // when
	same   int       // actors of its process that hold what it does; 0: not said

	verdict  string // of the last verification: one of State…
	genes    int
	digest   string
	logBytes int64
	rtt      time.Duration
	lags     lag // it behind us
	leads    lag // we behind it

	posts, failed uint64
	refused       uint64 // unit events that it refused for good
	inFlight      int    // bytes of the batch on its way
	pushedTo      uint64 // position in our log up to which its sender is done
}

// A lag tells for how long one side has been lacking the oldest event that it
// lacks, at most: since the instant whose vector, target, it has not reached.
// It is 0 when nothing is lacking, and does not grow while events come in as
// fast as they are made.
type lag struct {
	target genome.Version
	since  time.Time // zero: lacks nothing
}

// update compares what one side has with what the other has, want.
func (l *lag) update(have, want genome.Version, now time.Time) {
	switch {
	case have.Covers(want):
		*l = lag{}
	case l.since.IsZero() || have.Covers(l.target):
		*l = lag{want, now}
	}
}

func (l *lag) age(now time.Time) time.Duration {
	if l.since.IsZero() {
		return 0
	}
	return now.Sub(l.since)
}

func (n *Node) newPeer(p Peer, rt http.RoundTripper) *peer {
	q := &peer{n: n, actor: p.Actor, actors: p.actors(), wakePush: make(chan struct{}, 1), wakePull: make(chan struct{}, 1), asked: make(chan struct{})}
	if n.cfg.Chaos {
		rt = &cuttable{rt, q}
	}
	q.Client = newClient(p.URL, rt, n.cfg.Trust)
	q.identify = n.identify
	q.check = q.checkReply
	q.complained = map[string]bool{}
	q.forks = map[genome.ReplicaID]Fork{}
	return q
}

// peer returns the peer of actor a, nil if it is not one of ours.
func (n *Node) peer(a genome.ActorID) *peer { return find(n.peers(), a) }

// find returns the one of peers, which ascend, that is actor a; nil: none.
func find(peers []*peer, a genome.ActorID) *peer {
	i, ok := slices.BinarySearchFunc(peers, a, func(p *peer, a genome.ActorID) int { return cmp.Compare(p.actor, a) })
	if !ok {
		return nil
	}
	return peers[i]
}

// A WrongActorError says that another actor than expected answers.
type WrongActorError struct {
	URL       string
	Got, Want genome.ActorID
}

func (e *WrongActorError) Error() string {
	return fmt.Sprintf("%s is actor %d, expected %d", e.URL, e.Got, e.Want)
}

// A WrongClusterError says that the peer belongs to another group.
type WrongClusterError struct{ URL, Got, Want string }

func (e *WrongClusterError) Error() string {
	return fmt.Sprintf("%s belongs to cluster %s, this actor to %s", e.URL, e.Got, e.Want)
}

// checkReply makes sure that the peer is who the configuration says.
func (p *peer) checkReply(resp *http.Response) error {
	h := resp.Header
	actor, err := strconv.ParseUint(h.Get(headerActor), 10, 32)
	boot := bootID(h.Get(headerBoot))
	switch {
	case err != nil:
		return &NotGenomeError{URL: p.URL() + "/", Got: "no " + headerActor + " header"}
	case genome.ActorID(actor) == p.n.cfg.Store.Actor && boot < p.n.boot && boot != "":
		p.n.fenceTwin(boot)
		fallthrough
	case genome.ActorID(actor) != p.actor:
		return &WrongActorError{URL: p.URL(), Got: genome.ActorID(actor), Want: p.actor}
	case h.Get(headerCluster) != p.n.cluster:
		return &WrongClusterError{URL: p.URL(), Got: h.Get(headerCluster), Want: p.n.cluster}
	}
	if v := h.Get(headerProtocol); v != protocol {
		p.once("protocol "+v, func() {
			p.n.log.Warn().Uint32("peer", uint32(p.actor)).Str("protocol", v).Str("ours", protocol).
				Str("hint", "its ops are refused, ours still go out").Msg("peer speaks another protocol")
		})
	}
	p.mu.Lock()
	p.replica = h.Get(headerReplica)
	p.setBootLocked(boot)
	p.mu.Unlock()
	p.noteRide(h, true)
	p.checkClock(h, time.Now())
	return nil
}

// setBootLocked notes which process answers. What a new one holds is unknown:
// its log may be older than what the last one told us, and need not have forked.
func (p *peer) setBootLocked(boot bootID) {
	if boot == p.boot {
		return
	}
	if p.boot != "" {
		p.vv = nil
		p.lags, p.leads = lag{}, lag{}
		wake(p.wakePush)
	}
	p.boot = boot
	clear(p.complained)
	// Its log may be another one. If the fork or the divergence is still there,
	// the next exchange finds it again.
	clear(p.forks)
	p.alarm = false
}

// wake tells a loop that there is something to do; it never blocks.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// once calls f unless it has been called for what, since the peer's last start.
func (p *peer) once(what string, f func()) {
	p.mu.Lock()
	seen := p.complained[what] || len(p.complained) >= maxComplaints
	if !seen {
		p.complained[what] = true
	}
	p.mu.Unlock()
	if !seen {
		f()
	}
}

// answeredNow notes that the peer did what was asked.
func (p *peer) answeredNow() {
	p.mu.Lock()
	first, wasDown, since := !p.answered, p.down, p.downSince
	p.answered, p.failures, p.down = true, 0, false
	p.downSince, p.lastErr, p.nextTry = time.Time{}, nil, 0
	p.mu.Unlock()
	p.n.watch.bump()
	if wasDown {
		p.n.log.Info().Uint32("peer", uint32(p.actor)).Int64("after_ms", time.Since(since).Milliseconds()).Msg("peer back")
	}
	if first || wasDown {
		wake(p.wakePush)
		wake(p.wakePull)
	}
}

// failedNow notes that the peer did not. Errors that come from our own
// stopping say nothing of the peer.
func (p *peer) failedNow(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	now := time.Now()
	p.mu.Lock()
	p.failures++
	p.lastErr = err
	if p.downSince.IsZero() {
		p.downSince = now
	}
	report := p.failures >= probeAfter && (!p.down || now.Sub(p.warned) >= unreachableEvery)
	if report {
		p.down, p.warned = true, now
	}
	since, next := now.Sub(p.downSince), p.nextTry
	p.mu.Unlock()
	p.n.watch.bump()
	if report {
		p.n.log.Warn().Uint32("peer", uint32(p.actor)).Int64("since_ms", since.Milliseconds()).
			Str("err", shortError(err)).Int64("next_try_ms", next.Milliseconds()).Msg("peer unreachable")
	}
}

// shortError leaves out what the line says anyway: method, URL, addresses.
func shortError(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "timeout"
	}
	return err.Error()
}

// signOfLife notes that the peer speaks to us: a sender that is waiting to try
// it again need not wait.
func (p *peer) signOfLife(boot bootID) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := boot.started(); ok {
		p.setBootLocked(boot)
	}
	if p.failures > 0 && now.Sub(p.lastWake) >= wakeAtMost {
		p.lastWake = now
		wake(p.wakePush)
		wake(p.wakePull)
	}
}

// holds notes what the peer said that it holds.
func (p *peer) holds(heads []genome.Head) {
	mine := p.n.actor.Version()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heads, p.vv = heads, versionOf(heads)
	p.measureLocked(mine)
}

// measureLocked brings the lags up to date with mine, what we hold.
func (p *peer) measureLocked(mine genome.Version) {
	now := time.Now()
	p.lags.update(p.vv, mine, now)
	p.leads.update(mine, p.vv, now)
}

// version returns what the peer is known to hold.
func (p *peer) version() genome.Version {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.vv
}

// delivered notes that the peer holds each replica's events up to its head.
func (p *peer) delivered(heads []genome.Head) {
	mine := p.n.actor.Version()
	p.mu.Lock()
	p.vv = raise(p.vv, heads)
	p.measureLocked(mine)
	p.mu.Unlock()
	p.n.watch.bump()
}

// brought notes that p holds what it sent us: in rings, where it is a
// neighbour that we would pass that on to. It may be a lie, which costs the
// liar: it is left to pull.
func (p *peer) brought(b genome.Block) {
	heads := lasts(b)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.vv = raise(p.vv, heads)
}

// raise returns a copy of v that holds each replica's events up to its head.
// The heads may come in any order and name a replica again.
func raise(v genome.Version, heads []genome.Head) genome.Version {
	heads = slices.Clone(heads)
	slices.SortFunc(heads, func(a, b genome.Head) int { // the latest of a replica first
		return cmp.Or(cmp.Compare(a.Replica, b.Replica), cmp.Compare(b.Seq, a.Seq))
	})
	return v.Merge(versionOf(slices.CompactFunc(heads, func(a, b genome.Head) bool { return a.Replica == b.Replica })))
}

// ask gets the peer's heads and learns from them. It is how every exchange
// begins: self-ahead, forks and what is missing all show here.
func (p *peer) ask(ctx context.Context) error {
	defer p.askedOne.Do(func() { close(p.asked) })
	reply, err := p.Heads(ctx)
	if err != nil {
		p.trouble(ctx, err)
		return err
	}
	heads := reply.Heads()
	if err := p.n.noteHeads(ctx, p, heads); err != nil {
		return err
	}
	p.holds(heads)
	p.answeredNow()
	return nil
}

// trouble notes an error of a call. A peer that is not one of ours, or that
// refuses to talk to us, is of as little use as one that is away, but it is
// named at once: waiting does not mend that.
func (p *peer) trouble(ctx context.Context, err error) {
	prob, refused := errors.AsType[*Problem](err)
	_, other := errors.AsType[*NotGenomeError](err)
	_, actor := errors.AsType[*WrongActorError](err)
	_, cluster := errors.AsType[*WrongClusterError](err)
	switch {
	case refused && prob.Code == codeActorInUse:
		p.n.fenceTwin("")
	case refused && prob.Status < 500:
		p.complain(prob.Code, err)
	case other || actor || cluster:
		p.complain("identity", err)
	}
	p.failedNow(ctx, err)
}

func (p *peer) complain(what string, err error) {
	p.once(what, func() {
		p.n.log.Warn().Uint32("peer", uint32(p.actor)).Str("url", p.URL()).Err(err).Msg("peer refused")
	})
}

// noteHeads compares a peer's heads with ours: more of our own replica than we
// have means that we were rolled back; an equal seq with another chain is a
// fork, as is another chain at the end of the shorter side. A fork beyond our
// own end shows when its ops come (store checks their chain).
func (n *Node) noteHeads(ctx context.Context, p *peer, heads []genome.Head) error {
	fenced := false
	for _, m := range n.mates() {
		f, err := m.actor.NotePeer(ctx, heads)
		if err != nil {
			return err
		}
		fenced = fenced || f
	}
	var err error
	if fenced {
		wake(p.wakePull)
	}
	mine := n.actor.Heads()
	for _, h := range heads {
		i, ok := slices.BinarySearchFunc(mine, h.Replica, func(m genome.Head, r genome.ReplicaID) int { return cmp.Compare(m.Replica, r) })
		if !ok || h.Seq == 0 || mine[i].Seq < h.Seq {
			continue
		}
		chain := mine[i].Chain
		if h.Seq < mine[i].Seq {
			if chain, ok, err = n.actor.ChainAt(ctx, genome.Dot{Replica: h.Replica, Seq: h.Seq}); err != nil {
				return err
			}
		}
		if ok && chain != h.Chain {
			p.addFork(Fork{h.Replica, h.Seq, chain, h.Chain})
		}
	}
	return nil
}

// addFork names a fork, once. It is never merged and stays until the peer or
// this node is started again: to mend it takes a person.
func (p *peer) addFork(f Fork) {
	p.mu.Lock()
	_, known := p.forks[f.Replica]
	p.forks[f.Replica] = f
	p.mu.Unlock()
	if known {
		return
	}
	p.n.counts.forks.Add(1)
	p.n.log.Error().Str("event", "fork").Uint32("peer", uint32(p.actor)).Stringer("replica", f.Replica).Uint64("seq", f.Seq).
		Stringer("ours", f.Ours).Stringer("theirs", f.Theirs).Msg("fork: two histories of one replica")
}

// forked returns mine, with the replicas that fork between us and p taken as
// held, so that their ops are not asked for.
func (p *peer) forked(mine genome.Version) genome.Version {
	p.mu.Lock()
	defer p.mu.Unlock()
	for r := range p.forks {
		mine = mine.With(genome.Dot{Replica: r, Seq: p.vv.Get(r)})
	}
	return mine
}

func countOps(ranges []genome.Range) uint64 {
	var ops uint64
	for _, r := range ranges {
		ops += r.Len()
	}
	return ops
}

// collect shows the peer's metrics; mine is what we hold.
func (p *peer) collect(mine genome.Version, gauge gaugeFunc, count countFunc) {
	p.mu.Lock()
	s, label := p.peerState, strconv.FormatUint(uint64(p.actor), 10)
	p.mu.Unlock()
	s.lags.update(s.vv, mine, time.Now()) // of our copy
	gauge(descPeerUp, truth(s.answered && s.failures == 0), label)
	gauge(descPeerLag, float64(countOps(s.vv.Lacks(mine))), label)
	gauge(descPeerLagAge, s.lags.age(time.Now()).Seconds(), label)
	count(descPeerPosts, s.posts, label, "ok")
	count(descPeerPosts, s.failed, label, "failed")
	gauge(descPeerQueue, float64(s.inFlight), label)
	count(descPeerDropped, s.refused, label)
	gauge(descPeerBackoff, s.nextTry.Seconds(), label)
}

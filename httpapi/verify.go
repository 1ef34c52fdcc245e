package httpapi

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"crdt-genome/genome"
	"crdt-genome/store"
)

// A round asks every peer for its genome and counts the answers. Each peer
// falls into exactly one class, so the four counts add up to the peers:
//
//	match        its genome, as a string, equals ours. This is the original's
//	             meaning. It says nothing of the ops: a peer that lacks an
//	             insert and its deletion matches although it is behind, and
//	             /v1/cluster shows what it lacks.
//	behind       it answered, and its vector differs from ours, either way
//	unreachable  no answer, or not one of ours: never a match, not even when
//	             both genomes are empty
//	diverged     same vector, other state; or a fork between us. Comes before
//	             all other classes: it never mends itself.
type round struct {
	match, behind, unreachable, diverged int
}

// peers is the number of actors that a round looked at.
func (r *round) peers() int { return r.match + r.behind + r.unreachable + r.diverged }

func (r *round) add(o round) {
	r.match, r.behind, r.unreachable, r.diverged = r.match+o.match, r.behind+o.behind, r.unreachable+o.unreachable, r.diverged+o.diverged
}

// count adds actors of one class.
func (r *round) count(verdict string, actors int) {
	switch verdict {
	case StateEqual:
		r.match += actors
	case StateBehind:
		r.behind += actors
	case StateDiverged:
		r.diverged += actors
	default:
		r.unreachable += actors
	}
}

// verifyMates compares the other actors of the process with its lead. The
// digest, which takes a look at every gene, is made only where it can tell
// something: of equal vectors.
func (n *Node) verifyMates(ctx context.Context, st *store.State) (r round) {
	for _, m := range n.mates() {
		if m == n {
			continue
		}
		state := StateBehind
		err := m.actor.View(ctx, func(g *genome.Genome) {
			switch {
			case g.Version().Hash() != st.VVHash:
			case g.Digest() == st.Digest:
				state = StateEqual
			default:
				state = StateDiverged
			}
		})
		if err != nil {
			state = StateUnreachable
		}
		if state == StateDiverged {
			n.counts.diverged.Add(1)
			n.log.Error().Str("event", "diverged").Uint32("peer", uint32(m.cfg.Store.Actor)).Stringer("vector", st.Version).Msg("diverged: same ops, other genome")
		}
		r.count(state, 1)
	}
	return r
}

// verifyLoop makes a round every VerifyInterval. A round that takes longer
// delays the next: there is one line a round, and no round overlaps another.
func (n *Node) verifyLoop(ctx context.Context) {
	tick := time.NewTicker(n.cfg.VerifyInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		st, err := n.actor.State(ctx)
		if err != nil {
			if ctx.Err() == nil {
				n.log.Warn().Err(err).Msg("verification left out")
			}
			continue
		}
		r := n.verify(ctx, st, n.linked())
		r.add(n.verifyMates(ctx, st))
		if ctx.Err() != nil {
			return // answers cut short by our own stopping mean nothing
		}
		n.noteRound(r)
		n.logRound(r, st)
		n.logLonely()
	}
}

// noteRound keeps what a round found, for the metrics.
func (n *Node) noteRound(r round) {
	n.counts.rounds.Add(1)
	n.verified.mu.Lock()
	defer n.verified.mu.Unlock()
	n.verified.converged = r.match == r.peers()
	if n.verified.converged {
		n.verified.at = time.Now()
	}
}

// verified is what the last round found.
type verified struct {
	mu        sync.Mutex
	converged bool      // all peers matched
	at        time.Time // … and when they last did; zero: never
}

// convergedAt returns whether all peers matched in the last round, and when
// they last did in seconds since 1970, 0 for never.
func (n *Node) convergedAt() (converged bool, at float64) {
	n.verified.mu.Lock()
	defer n.verified.mu.Unlock()
	if !n.verified.at.IsZero() {
		at = float64(n.verified.at.UnixMilli()) / 1000
	}
	return n.verified.converged, at
}

func (n *Node) logRound(r round, st *store.State) {
	e := n.log.Info()
	if r.diverged > 0 {
		e = n.log.Warn()
	}
	if n.relaying() { // the others are looked at by their neighbours
		e.Int("members", 1+len(n.peers()))
	}
	e.Int("match_count", r.match).Int("peers", r.peers()).Int("behind", r.behind).Int("unreachable", r.unreachable).
		Int("diverged", r.diverged).Uint64("ops", st.Ops).Int("genes", len(st.Genes)).Stringer("digest", st.Digest).Msg("match count")
}

// logLonely says once that nobody has answered since the start.
func (n *Node) logLonely() {
	if n.lonely || len(n.peers()) == 0 || time.Since(n.started) < lonelyAfter {
		return
	}
	n.lonely = true // asked once
	var urls []string
	for _, p := range n.peers() {
		p.mu.Lock()
		answered := p.answered
		p.mu.Unlock()
		if answered {
			return
		}
		if len(urls) < 8 {
			urls = append(urls, p.URL())
		}
	}
	n.log.Info().Strs("urls", urls).Str("hint", "start them, or try: crdt-genome run --count 3").Msg("no peer has answered yet")
}

// verify asks peers at once, a bounded number at a time.
func (n *Node) verify(ctx context.Context, st *store.State, peers []*peer) round {
	verdicts := make([]string, len(peers))
	var g errgroup.Group
	g.SetLimit(verifyParallel)
	for i, p := range peers {
		g.Go(func() error {
			if p.rides(st) {
				verdicts[i] = StateEqual
			} else {
				verdicts[i] = p.compare(ctx, st)
			}
			return nil
		})
	}
	_ = g.Wait() // the functions have no errors
	var r round
	for i, v := range verdicts {
		k := int(peers[i].actors.Len())
		if v == StateEqual { // so are those of its process that hold what it does
			same := min(k, peers[i].mates())
			r.count(StateBehind, k-same)
			k = same
		}
		r.count(v, k)
	}
	return r
}

// compare asks p for its genome, compares it with ours as of st, and notes
// what it finds.
func (p *peer) compare(ctx context.Context, st *store.State) string {
	theirs, err := p.GenomeIfNot(ctx, st.Digest)
	if err != nil {
		p.trouble(ctx, err)
		p.setVerdict(StateUnreachable, theirs)
		return StateUnreachable
	}
	p.answeredNow()
	sameVector := theirs.VVHash == hash16(st.VVHash)
	if sameVector {
		p.delivered(st.Heads)
	}
	if !sameVector || theirs.Digest != st.Digest { // the heads say what is missing, and where a fork is
		if err := p.ask(ctx); err != nil && ctx.Err() == nil {
			p.n.log.Debug().Uint32("peer", uint32(p.actor)).Err(err).Msg("vector not compared")
		}
	}
	theirs.Hex = p.hexOf(theirs, st)
	verdict := p.classify(theirs, sameVector, st)
	p.setVerdict(verdict, theirs)
	if p.lacked() > 0 && p.leadFor() > p.n.cfg.tune.grace {
		wake(p.wakePull)
	}
	return verdict
}

// hexOf returns the genome in an answer, ours if it was left out as known.
func (p *peer) hexOf(theirs GenomeReply, st *store.State) string {
	if theirs.NotModified {
		return st.Hex
	}
	return theirs.Hex
}

func (p *peer) classify(theirs GenomeReply, sameVector bool, st *store.State) string {
	// Equal digests and unequal genomes: then the digest is wrong.
	if sameVector && (theirs.Digest != st.Digest || theirs.Hex != st.Hex) {
		p.diverged(theirs, st)
		return StateDiverged
	}
	switch {
	case p.hasForks():
		return StateDiverged
	case sameVector:
		p.reunited()
		return StateEqual
	case theirs.Hex == st.Hex:
		return StateEqual
	}
	return StateBehind
}

func (p *peer) hasForks() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.forks) > 0
}

// diverged raises the alarm: same ops, other state. It is named and counted
// once, until both are equal again or the peer starts anew; the edits that go
// on meanwhile make it no second alarm.
func (p *peer) diverged(theirs GenomeReply, st *store.State) {
	p.mu.Lock()
	known := p.alarm
	p.alarm = true
	p.mu.Unlock()
	if known {
		return
	}
	p.n.counts.diverged.Add(1)
	path, err := p.n.keepEvidence(p, theirs, st)
	if err != nil {
		p.n.log.Warn().Err(err).Msg("evidence not kept")
	}
	p.n.log.Error().Str("event", "diverged").Uint32("peer", uint32(p.actor)).Stringer("vector", st.Version).
		Stringer("a", st.Digest).Stringer("b", theirs.Digest).Str("evidence", path).Msg("diverged: same ops, other genome")
}

// reunited ends the alarm.
func (p *peer) reunited() {
	p.mu.Lock()
	was := p.alarm
	p.alarm = false
	p.mu.Unlock()
	if was {
		p.n.log.Warn().Str("event", "reunited").Uint32("peer", uint32(p.actor)).Msg("equal again after a divergence")
	}
}

// setVerdict keeps what a verification found, for /v1/cluster.
func (p *peer) setVerdict(verdict string, theirs GenomeReply) {
	mine := p.n.actor.Version()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.verdict = verdict
	p.measureLocked(mine)
	if verdict == StateUnreachable {
		return // the rest stays as last known
	}
	p.genes, p.digest, p.same = len(theirs.Hex)/2, theirs.Digest.String(), theirs.Same
	p.logBytes, p.rtt = theirs.LogBytes, theirs.RTT
}

// leadFor is for how long we have been lacking something that p has.
func (p *peer) leadFor() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.leads.age(time.Now())
}

// freshFor is how long a verification made for /v1/cluster serves others.
const freshFor = 250 * time.Millisecond

type freshness struct {
	mu sync.Mutex // one at a time
	at time.Time
}

// freshen asks the peers again, but those that have not answered lately: they
// would only make the answer wait.
func (n *Node) freshen(ctx context.Context) {
	n.fresh.mu.Lock()
	defer n.fresh.mu.Unlock()
	if time.Since(n.fresh.at) < freshFor {
		return
	}
	st, err := n.actor.State(ctx)
	if err != nil {
		return // clusterReply meets the same
	}
	var up []*peer
	for _, p := range n.linked() {
		if !p.isDown() {
			up = append(up, p)
		}
	}
	n.verify(ctx, st, up)
	n.fresh.at = time.Now()
}

// clusterReply says how this node sees all actors: what each lacks of the ops
// that any of them is known to hold.
func (n *Node) clusterReply(ctx context.Context) (ClusterReply, error) {
	if !n.leads() { // the lead knows the others
		reply, err := n.leader().clusterReply(ctx)
		reply.Fenced = n.fencedWhy()
		for i := range reply.Actors {
			reply.Actors[i].Self = reply.Actors[i].Actor == n.cfg.Store.Actor
		}
		return reply, err
	}
	st, err := n.actor.State(ctx)
	if err != nil {
		return ClusterReply{}, err
	}
	all, peers := st.Version, n.peers()
	for _, p := range peers {
		all = all.Merge(p.version())
	}
	self := ActorStatus{Actor: n.cfg.Store.Actor, URL: n.url, Self: true, State: StateEqual, Ops: st.Ops, Genes: len(st.Genes),
		Digest: st.Digest.String(), Replica: n.actor.Replica().String(), Boot: string(n.boot), VV: st.Version,
		UptimeMS: time.Since(n.started).Milliseconds(), LogBytes: n.logBytes()}
	mates := n.mateStatus()
	reply := ClusterReply{Of: 1 + len(peers) + len(mates), Rounds: n.counts.rounds.Load(), Fenced: n.fencedWhy(), Actors: append(mates, self)}
	for _, p := range peers {
		reply.Actors = append(reply.Actors, p.status())
	}
	for i := range reply.Actors {
		a := &reply.Actors[i]
		a.setLacks(all)
		switch {
		case a.State == StateEqual && a.LacksOps > 0:
			a.State = StateBehind
		case a.State == StateBehind && a.LacksOps == 0 && a.VV.Equal(all):
			a.State = StateEqual // it was behind in the last round, and has said since that it is not
		}
	}
	slices.SortFunc(reply.Actors, func(a, b ActorStatus) int { return cmp.Compare(a.Actor, b.Actor) })
	reply.Verdict, reply.Equal = verdictOf(reply.Actors)
	return reply, nil
}

// mateStatus returns the other actors of the process.
func (n *Node) mateStatus() (all []ActorStatus) {
	for _, m := range n.mates() {
		if m == n {
			continue
		}
		v := m.actor.Version()
		all = append(all, ActorStatus{Actor: m.cfg.Store.Actor, URL: m.url, State: StateEqual, Ops: v.Ops(), Replica: m.actor.Replica().String(),
			Boot: string(m.boot), VV: v, UptimeMS: time.Since(m.started).Milliseconds(), LogBytes: m.logBytes()})
	}
	return all
}

// setLacks notes what a lacks of all.
func (a *ActorStatus) setLacks(all genome.Version) {
	lacks := a.VV.Lacks(all)
	a.Lacks, a.LacksOps = nil, countOps(lacks)
	for _, r := range lacks {
		if a.Lacks == nil {
			a.Lacks = map[string]string{}
		}
		a.Lacks[r.Replica.String()] = seqs(r)
	}
}

// seqs returns the range without its replica: "404-412" or "404".
func seqs(r genome.Range) string {
	s := r.String()
	return s[len(r.Replica.String())+1:]
}

// status returns what is known of p, Lacks left out.
func (p *peer) status() ActorStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	a := ActorStatus{Actor: p.actor, Actors: p.actors, URL: p.URL(), State: cmp.Or(p.verdict, StateUnreachable), Ops: p.vv.Ops(), Genes: p.genes,
		Digest: p.digest, Replica: p.replica, Boot: string(p.boot), VV: p.vv, RTTMS: float64(p.rtt.Microseconds()) / 1000,
		LogBytes: p.logBytes, Posts: p.posts, Failed: p.failed, Link: p.link()}
	if start, ok := p.boot.started(); ok {
		a.UptimeMS = now.Sub(start).Milliseconds()
	}
	if !p.downSince.IsZero() {
		a.SinceMS = now.Sub(p.downSince).Milliseconds()
	}
	if p.down {
		a.State = StateUnreachable // a sender or a pull may know before the next verification does
	}
	a.OldestMS = p.lags.age(now).Milliseconds()
	if p.lastErr != nil {
		a.Error = shortError(p.lastErr)
	}
	for _, f := range p.forks {
		a.Forks = append(a.Forks, f)
	}
	slices.SortFunc(a.Forks, func(x, y Fork) int { return cmp.Compare(x.Replica, y.Replica) })
	return a
}

// verdictOf sums up: the worst of the states wins.
func verdictOf(actors []ActorStatus) (verdict string, equal int) {
	worst := map[string]bool{}
	for _, a := range actors {
		worst[a.State] = true
		if a.State == StateEqual {
			equal++
		}
	}
	for _, v := range []string{StateDiverged, StateUnreachable, StateBehind} {
		if worst[v] {
			return v, equal
		}
	}
	return VerdictConverged, equal
}

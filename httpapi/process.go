package httpapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"crdt-genome/genome"
	"crdt-genome/httpapi/membership"
	"crdt-genome/store"
	"crdt-genome/store/signed"
)

// A Process runs several actors as one member of the group. Each has its own
// log, port and API. The one with the lowest number leads: it alone talks to
// the other members, for all.
//
//	others <-- HTTP --> lead <-- in memory --> each of the other actors
//
// What the lead's log gets, from wherever, goes on to the others' logs, many
// ops at a time; what theirs get, of edits and of POSTs, goes to the lead's.
// So the cost of an op in another process does not depend on how many actors
// it has, and here it is one append to each log.
//
// A POST of another member carries [headerProcess] and is answered when every
// actor here has made it durable in its own log. Any other POST speaks to one
// actor, and is answered when that one has.
//
// As between processes, the fast way may fail: an actor that did not take
// something is compared with the lead, and gets what it lacks (repair).
type Process struct {
	nodes []*Node // by actor
	lead  *Node   // the first
	rest  []*follower

	ctx    context.Context // of the exchange within
	cancel context.CancelFunc
	loops  sync.WaitGroup

	mu     sync.Mutex
	shared uint64        // position in the lead's log up to which all that are not behind have it
	moved  chan struct{} // closed when shared moves

	stuck     chan struct{}
	stuckOnce sync.Once
	watchers  sync.WaitGroup // one for each node, until it is done or stuck

	closeOnce sync.Once
	hurry     chan struct{} // closed when a Close ran out of time
	hurryOnce sync.Once
	done      chan struct{}
	err       error // read after done
}

// A follower is one of the actors that do not lead.
type follower struct {
	*Node
	state       atomic.Int32                       // inStep, catchingUp or behind
	forked      atomic.Pointer[[]genome.ReplicaID] // replicas of which it and the lead hold different histories; nil: none
	lags, leads lag                                // it behind the lead, the lead behind it; only in repairLoop
}

// What an actor is to its process. Only in step does it hold all that p.shared
// says.
const (
	inStep     int32 = iota // it gets what is shared
	catchingUp              // the same, but it may still lack what was shared before
	behind                  // it did not take something, and gets nothing until repair
)

const (
	// openParallel is how many logs are opened at a time.
	openParallel = 8
	// shareAtLeast and shareEach make the least time between two rounds of
	// sharing: every round is a commit to each log, which costs as much as
	// some hundred ops, so many actors share more at a time.
	shareAtLeast = 5 * time.Millisecond
	shareEach    = 4 * time.Millisecond
	shareAtMost  = 400 * time.Millisecond
	// From manyActors on, logs are sealed after manySeal ops: what is not
	// sealed stands in memory, in each log.
	manyActors = 16
	manySeal   = 1024
	// repairAfter is how long an actor may lack the oldest op that it lacks
	// before that is taken for a loss.
	repairAfter = 2 * time.Second
	// repairEvery is how often that is looked at.
	repairEvery = time.Second
	// maxForked is how many replicas of which they hold different histories two
	// actors of a process may leave out. With one more, they are not in step.
	maxForked = 64
)

// StartProcess starts an actor for each of cfgs, which must agree in what
// concerns the group; the join and the peers of the lowest actor count. ctx
// bounds the start only.
func StartProcess(ctx context.Context, cfgs []Config) (*Process, error) {
	cfgs = slices.Clone(cfgs)
	slices.SortFunc(cfgs, func(a, b Config) int { return int(int64(a.Store.Actor) - int64(b.Store.Actor)) })
	actors, err := actorsOf(cfgs)
	if err != nil {
		return nil, err
	}
	p := &Process{nodes: make([]*Node, len(cfgs)), moved: make(chan struct{}),
		stuck: make(chan struct{}), hurry: make(chan struct{}), done: make(chan struct{})}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(openParallel)
	for i, cfg := range cfgs {
		cfg.actors = actors
		if i > 0 {
			cfg.Join, cfg.Peers, cfg.Bus = nil, nil, nil
		}
		if len(cfgs) >= manyActors && cfg.Store.SealOps == 0 {
			cfg.Store.SealOps = manySeal
		}
		g.Go(func() (err error) {
			p.nodes[i], err = prepare(gctx, cfg)
			return err
		})
	}
	err = g.Wait()
	if err == nil {
		p.lead = p.nodes[0]
		for _, n := range p.nodes[1:] {
			p.rest = append(p.rest, &follower{Node: n})
			n.joined = p.lead.joined
		}
		err = p.meet(ctx)
	}
	if err != nil {
		p.cancel()
		return nil, errors.Join(err, p.abandon())
	}
	p.run()
	return p, nil
}

// actorsOf returns whom cfgs run.
func actorsOf(cfgs []Config) (membership.Set, error) {
	if len(cfgs) == 0 {
		return nil, errors.New("a process without actors")
	}
	var actors []uint32
	for _, c := range cfgs {
		actors = append(actors, uint32(c.Store.Actor))
	}
	return membership.SetOf(actors)
}

// abandon lets go of what a start that failed has opened.
func (p *Process) abandon() (err error) {
	for _, n := range p.nodes {
		if n != nil {
			n.cancel()
			err = errors.Join(err, n.group.list.Close(n.ctx), closeListener(n.ln), n.actor.Close())
		}
	}
	return err
}

// meet makes all actors hold the same before any of them speaks to others.
func (p *Process) meet(ctx context.Context) error {
	for _, n := range p.nodes {
		n.proc = p
	}
	for _, f := range p.rest {
		if err := f.give(ctx, f.Node, p.lead); err != nil {
			return err
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(openParallel)
	for _, f := range p.rest {
		g.Go(func() error { return f.give(gctx, p.lead, f.Node) })
	}
	p.shared = p.lead.actor.LSN()
	return g.Wait()
}

// give brings to, which is f or the lead, what from, the other, has and it
// lacks, whatever their logs' order.
func (f *follower) give(ctx context.Context, from, to *Node) error {
	src := store.Source{Via: store.ViaPull, From: from.cfg.Store.Actor, Peer: account(from.cfg.Store.Actor), Known: true, Trusted: true}
	for {
		block, more, err := from.actor.SignedSince(ctx, f.but(to.actor.Version(), from.actor.Version()), maxBatchOps, maxChunk)
		if err != nil || len(block.Ops) == 0 {
			return err
		}
		rec, err := to.actor.Receive(ctx, src, block.Block, block.Points...)
		if err != nil {
			return err
		}
		for _, e := range rec.Refused {
			f.fork(e.Dot.Replica)
			to.counts.reject(string(e.Code))
			to.log.Error().Str("event", "fork").Uint32("peer", uint32(from.cfg.Store.Actor)).Stringer("op", e.Dot).
				Str("code", string(e.Code)).Str("detail", e.Error()).Msg("refused an op of an actor of the same process")
		}
		if !more || rec.Applied == 0 {
			return nil
		}
	}
}

// fork notes that f and the lead hold different histories of r, or one of them
// refuses what the other holds of it: neither will ever take the other's.
func (f *follower) fork(r genome.ReplicaID) {
	if forked := f.forks(); !slices.Contains(forked, r) && len(forked) < maxForked {
		forked = append(slices.Clip(forked), r)
		f.forked.Store(&forked)
	}
}

func (f *follower) forks() []genome.ReplicaID {
	if forked := f.forked.Load(); forked != nil {
		return *forked
	}
	return nil
}

// but returns have with what is forked taken to be held as far as in want.
func (f *follower) but(have, want genome.Version) genome.Version {
	for _, r := range f.forks() {
		if seq := want.Get(r); seq > have.Get(r) {
			have = have.With(genome.Dot{Replica: r, Seq: seq})
		}
	}
	return have
}

// sound returns b without what is forked.
func (f *follower) sound(b genome.Block) genome.Block {
	forked := f.forks()
	if len(forked) == 0 {
		return b
	}
	return genome.Block{
		Ops:   slices.DeleteFunc(slices.Clone(b.Ops), func(op genome.Op) bool { return slices.Contains(forked, op.Dot.Replica) }),
		Heads: slices.DeleteFunc(slices.Clone(b.Heads), func(h genome.Head) bool { return slices.Contains(forked, h.Replica) }),
	}
}

func (p *Process) run() {
	for _, n := range p.nodes {
		n.run()
	}
	p.loops.Go(func() { p.share(p.ctx) })
	p.loops.Go(func() { p.repairLoop(p.ctx) })
	for _, f := range p.rest {
		p.loops.Go(func() { p.collect(p.ctx, f) })
	}
	for _, n := range p.nodes {
		p.watchers.Go(func() { // one that fails takes the process with it: a member is whole or gone
			select {
			case <-n.Stuck():
				p.stuckOnce.Do(func() { close(p.stuck) })
			case <-n.Done():
				p.closeOnce.Do(func() { go p.stop() }) // its error is told by Err
			}
		})
	}
}

// pause is the least time between two rounds of sharing.
func (p *Process) pause() time.Duration {
	return min(max(shareAtLeast, time.Duration(len(p.nodes))*shareEach), shareAtMost)
}

// share brings what the lead's log gets to all others.
func (p *Process) share(ctx context.Context) {
	var last time.Time
	src := store.Source{Via: store.ViaPost, From: p.lead.cfg.Store.Actor, Peer: account(p.lead.cfg.Store.Actor), Known: true, Trusted: true}
	for ctx.Err() == nil {
		changed := p.lead.actor.Changed()
		block, next, err := p.lead.actor.SignedNews(ctx, p.shared, nil, nil, maxBatchOps, maxChunk)
		switch {
		case err != nil:
			p.lead.log.Debug().Err(err).Msg("not shared")
			if !sleep(ctx, backoffFirst) {
				return
			}
		case next == p.shared:
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
			if !sleep(ctx, p.pause()-time.Since(last)) {
				return
			}
			last = time.Now()
		default:
			p.shareBlock(ctx, src, block)
			p.mu.Lock()
			p.shared = next
			close(p.moved)
			p.moved = make(chan struct{})
			p.mu.Unlock()
		}
	}
}

// shareBlock gives block to all at once and waits for them: each commits it to
// its own log.
func (p *Process) shareBlock(ctx context.Context, src store.Source, block signed.Batch) {
	var all sync.WaitGroup
	for _, f := range p.rest {
		if f.state.Load() == behind {
			continue
		}
		all.Go(func() {
			rec, err := f.actor.Receive(ctx, src, f.sound(block.Block), block.Points...)
			if err != nil || rec.Pending > 0 || len(rec.Refused) > 0 {
				f.state.Store(behind)
				f.log.Warn().Err(err).Int("pending", rec.Pending).Int("refused", len(rec.Refused)).Msg("actor fell behind its process")
			}
		})
	}
	all.Wait()
}

// collect brings what an actor's log gets to the lead's, but for what came
// from there.
func (p *Process) collect(ctx context.Context, f *follower) {
	lead := p.lead.cfg.Store.Actor
	src := store.Source{Via: store.ViaPost, From: f.cfg.Store.Actor, Peer: account(f.cfg.Store.Actor), Known: true, Trusted: true}
	var last time.Time
	for at := f.actor.LSN(); ctx.Err() == nil; {
		changed := f.actor.Changed()
		block, next, err := f.actor.SignedNews(ctx, at, p.lead.actor.Version(), func(a store.Arrival) bool { return !(a.Known && a.From == lead) }, maxBatchOps, maxChunk)
		if err == nil && len(block.Ops) > 0 {
			_, err = p.lead.actor.Receive(ctx, src, block.Block, block.Points...)
		}
		switch {
		case err != nil:
			f.log.Debug().Err(err).Msg("not collected")
			if !sleep(ctx, backoffFirst) {
				return
			}
		case next == at:
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
			if !sleep(ctx, p.pause()/2-time.Since(last)) {
				return
			}
			last = time.Now()
		default:
			at = next
		}
	}
}

// repairLoop compares every actor with the lead, and mends what sharing and
// collecting left: an op that was parked, say, counts as come from whoever
// brought what it waited for, which may be the lead, who then lacks it.
func (p *Process) repairLoop(ctx context.Context) {
	for sleep(ctx, repairEvery) {
		want := p.lead.actor.Version()
		for _, f := range p.rest {
			have := f.actor.Version()
			f.lags.update(f.but(have, want), want, time.Now())
			f.leads.update(f.but(want, have), have, time.Now())
			if f.state.Load() == inStep && max(f.lags.age(time.Now()), f.leads.age(time.Now())) < repairAfter {
				continue
			}
			if err := p.repair(ctx, f); err != nil {
				f.log.Debug().Err(err).Msg("not repaired")
				continue
			}
			f.lags, f.leads = lag{}, lag{}
		}
	}
}

// repair makes f and the lead equal, and if f was behind, lets it take part in
// the sharing again. What was shared until then it has missed, so it is not in
// step before it has been given that too.
func (p *Process) repair(ctx context.Context, f *follower) error {
	if err := errors.Join(f.give(ctx, p.lead, f.Node), f.give(ctx, f.Node, p.lead)); err != nil {
		return err
	}
	if !f.state.CompareAndSwap(behind, catchingUp) {
		return nil
	}
	want := p.lead.actor.Version()
	err := f.give(ctx, p.lead, f.Node)
	if have := f.actor.Version(); err == nil && !f.but(have, want).Covers(want) {
		err = fmt.Errorf("it still lacks %s", rangesText(have.Lacks(want)))
	}
	if err != nil {
		f.state.Store(behind)
		return err
	}
	if f.state.CompareAndSwap(catchingUp, inStep) { // unless it has failed to take something since
		f.log.Info().Msg("actor is with its process again")
	}
	return nil
}

// held waits until every actor holds the lead's log up to lsn, to which b has
// come. The error says that one does not.
func (p *Process) held(ctx context.Context, lsn uint64, b genome.Block) error {
	for {
		p.mu.Lock()
		shared, moved := p.shared, p.moved
		p.mu.Unlock()
		if shared >= lsn {
			break
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		case <-p.ctx.Done():
			return problem(codeStopping, "this process is stopping", "")
		}
	}
	for _, f := range p.rest {
		if f.state.Load() != inStep {
			return problem(codeStoreFull, fmt.Sprintf("actor %d of this process has not taken it", f.cfg.Store.Actor), "send it again")
		}
		forked := f.forks()
		if i := slices.IndexFunc(b.Ops, func(op genome.Op) bool { return slices.Contains(forked, op.Dot.Replica) }); i >= 0 {
			return problem(string(genome.CodeDotConflict), fmt.Sprintf("actor %d of this process holds another history of %v", f.cfg.Store.Actor, b.Ops[i].Dot.Replica), "")
		}
	}
	return nil
}

// holding counts the actors whose vector has the hash.
func (p *Process) holding(hash uint64) (k int) {
	for _, n := range p.nodes {
		if n.actor.Version().Hash() == hash {
			k++
		}
	}
	return k
}

// Nodes returns the actors by number; the first leads.
func (p *Process) Nodes() []*Node { return p.nodes }

// Close stops all actors: first none mints, then what each has goes to the
// lead and from there to the others and the group, then all close. ctx is as
// with Node.Close, also in a second Close.
func (p *Process) Close(ctx context.Context) error {
	p.closeOnce.Do(func() { go p.stop() })
	select {
	case <-p.done:
	case <-ctx.Done():
		p.hurryOnce.Do(func() { close(p.hurry) })
		<-p.done
	}
	return p.err
}

func (p *Process) stop() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // ends with stop, by cancel
		select {
		case <-p.hurry:
			cancel()
		case <-ctx.Done():
		}
	}()
	for _, n := range p.nodes {
		n.stopping.Store(true)
		n.mintCancel()
	}
	for _, n := range p.nodes {
		n.minting.Wait() // not for the log: an edit under way is given up
	}
	p.settle(ctx)
	p.cancel()
	p.loops.Wait()
	errs := make([]error, len(p.nodes))
	var all sync.WaitGroup
	for i, n := range p.nodes {
		all.Go(func() { errs[i] = n.Close(ctx) })
	}
	all.Wait()
	p.watchers.Wait()
	p.err = errors.Join(errs...)
	close(p.done)
}

// settle waits, for as long as a node flushes, until all logs hold the same.
func (p *Process) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	for {
		want, same := p.lead.actor.Version(), true
		for _, f := range p.rest {
			same = same && (f.actor.Err() != nil || f.actor.Version().Equal(want))
		}
		if same || p.lead.actor.Err() != nil || !sleep(ctx, 2*time.Millisecond) {
			return
		}
	}
}

// Stuck is closed when an apply loop has stood still for too long; see
// Node.Stuck.
func (p *Process) Stuck() <-chan struct{} { return p.stuck }

// Done is closed when all have stopped.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns why the process stopped, nil if it was closed and all went well.
// Before Done is closed it returns nil.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// leads reports whether n speaks to the other members.
func (n *Node) leads() bool { return n.proc == nil || n == n.proc.lead }

// mates returns the nodes of n's process, n's lead first.
func (n *Node) mates() []*Node {
	if n.proc == nil {
		return []*Node{n}
	}
	return n.proc.nodes
}

// leader returns the node that speaks for n's process.
func (n *Node) leader() *Node {
	if n.proc == nil {
		return n
	}
	return n.proc.lead
}

// ours reports whether actor a runs in this process.
func (n *Node) ours(a genome.ActorID) bool { return n.cfg.actors.Has(uint32(a)) }

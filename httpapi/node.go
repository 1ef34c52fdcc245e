package httpapi

import (
	"context"
	"errors"
	"fmt"
	stdlog "log"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"crdt-genome/genome"
	"crdt-genome/store"
)

// defaultCluster is the name that store gives a cluster that has none.
const defaultCluster = "crdt-genome"

// A Node is a running actor. It is safe for concurrent use. Close it to stop
// it; it stops by itself when its log fails.
type Node struct {
	cfg     Config // read-only after Start
	log     zerolog.Logger
	cluster string
	boot    bootID
	started time.Time
	actor   *store.Actor
	ln      net.Listener
	srv     *http.Server
	url     string
	group   group
	riding  ride
	proc    *Process          // nil: it runs this one actor
	rt      http.RoundTripper // to the peers
	mutator *mutator
	twins   twins
	older   *olderDigests
	watch   *watch
	heart   heart
	counts  counters
	conns   *conns
	metrics *metrics
	scrape  http.Handler // of /metrics

	fetching chan struct{}        // capacity 1: one pull at a time; see pass
	streams  chan struct{}        // capacity maxStreams: followed logs
	vectors  chan struct{}        // capacity maxVectors: bodies above maxBody
	joined   chan struct{}        // closed when peers have been asked about ourselves
	pulled   atomic.Bool          // one pull has been complete
	stopping atomic.Bool          // nothing is minted any more
	twin     atomic.Pointer[twin] // an older process that runs as this actor
	lonely   bool                 // only in verifyLoop: that nobody answers has been dealt with
	fresh    freshness
	verified verified
	pending  pendingClock
	busTo    atomic.Uint64 // position in our log up to which all is on the bus

	ctx           context.Context // of the loops
	cancel        context.CancelFunc
	mintCtx       context.Context // of the mutator, ends before ctx
	mintCancel    context.CancelFunc
	streamsCtx    context.Context // of followed logs
	streamsCancel context.CancelFunc
	minting       sync.WaitGroup // the mutator
	loops         sync.WaitGroup // all other goroutines but supervise and stallLoop

	closing   chan struct{} // closed by the first Close
	closeOnce sync.Once
	hurry     chan struct{} // closed when a Close ran out of time
	hurryOnce sync.Once
	stuck     chan struct{} // closed by stallLoop
	done      chan struct{} // closed at the very end
	err       error         // read after done
}

// counters count what a person may want to know the number of.
type counters struct {
	panics, stalls, forks, diverged, rounds, pullRounds, busSent, busFailed, busTaken atomic.Uint64

	mu       sync.Mutex
	rejected map[string]uint64 // by code; the codes are finite
}

func (c *counters) reject(code string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rejected == nil {
		c.rejected = map[string]uint64{}
	}
	c.rejected[code]++
}

// Counts are totals since the node's start.
type Counts struct {
	Panics, Stalls, Forks, Diverged, Rounds, PullRounds uint64
	Rejected                                            map[string]uint64 // by code
	Posts, PostsFailed                                  uint64            // batches, over all peers
	BusSent, BusFailed, BusTaken                        uint64            // batches, over the bus
}

// Counts returns the totals since the start.
func (n *Node) Counts() Counts {
	c := Counts{Panics: n.counts.panics.Load(), Stalls: n.counts.stalls.Load(), Forks: n.counts.forks.Load(), Diverged: n.counts.diverged.Load(),
		Rounds: n.counts.rounds.Load(), PullRounds: n.counts.pullRounds.Load(),
		BusSent: n.counts.busSent.Load(), BusFailed: n.counts.busFailed.Load(), BusTaken: n.counts.busTaken.Load(), Rejected: map[string]uint64{}}
	n.counts.mu.Lock()
	for code, k := range n.counts.rejected {
		c.Rejected[code] = k
	}
	n.counts.mu.Unlock()
	for _, p := range n.peers() {
		p.mu.Lock()
		c.Posts, c.PostsFailed = c.Posts+p.posts, c.PostsFailed+p.failed
		p.mu.Unlock()
	}
	return c
}

// Start opens the log, listens and starts the loops. ctx bounds the start
// only: the replay of a long log can be given up, a node that has started runs
// until Close. Errors of store pass through; see also [ListenError] and
// [UnsafeBindError].
func Start(ctx context.Context, cfg Config) (*Node, error) {
	n, err := prepare(ctx, cfg)
	if err == nil {
		n.run()
	}
	return n, err
}

// prepare does all of Start but to start the loops.
func prepare(ctx context.Context, cfg Config) (*Node, error) {
	ln := cfg.Listener
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, errors.Join(err, closeListener(ln))
	}
	m := newMetrics()
	if also := cfg.Store.Committed; also == nil {
		cfg.Store.Committed = m.committed
	} else {
		cfg.Store.Committed = func(took time.Duration) {
			m.committed(took)
			also(took)
		}
	}
	if cfg.Store.Held == nil {
		cfg.Store.Held = cfg.held()
	}
	actor, err := store.Open(ctx, cfg.Store)
	if err != nil {
		return nil, errors.Join(err, closeListener(ln))
	}
	n, err := newNode(ctx, cfg, actor, m)
	if err != nil {
		return nil, errors.Join(err, actor.Close(), closeListener(ln))
	}
	return n, nil
}

// closeListener closes a listener that was handed over.
func closeListener(ln net.Listener) error {
	if ln == nil {
		return nil
	}
	if err := ln.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func newNode(ctx context.Context, cfg Config, actor *store.Actor, m *metrics) (*Node, error) {
	ln := cfg.Listener
	if ln == nil {
		var err error
		if ln, err = cfg.listen(ctx); err != nil {
			return nil, err
		}
	}
	now := time.Now()
	n := &Node{cfg: cfg, log: cfg.Log, cluster: cfg.Store.Cluster, boot: newBootID(now), started: now, actor: actor, ln: ln,
		url: strings.TrimSuffix(cfg.Advertise, "/"), mutator: newMutator(cfg.Mutate, cfg.Store.Actor), older: newOlderDigests(), watch: newWatch(),
		fetching: make(chan struct{}, 1), streams: make(chan struct{}, maxStreams), vectors: make(chan struct{}, maxVectors), joined: make(chan struct{}),
		closing: make(chan struct{}), hurry: make(chan struct{}), stuck: make(chan struct{}), done: make(chan struct{})}
	if n.cluster == "" {
		n.cluster = defaultCluster
	}
	if n.url == "" {
		n.url = cfg.Trust.Scheme() + "://" + ln.Addr().String()
	}
	n.conns, n.metrics = newConns(cfg.tune.conns), m
	n.scrape = n.newScrape()
	n.twins = twins{grace: cfg.tune.twinGrace, seen: map[genome.ActorID][]sighting{}}
	n.heart.beat(now)
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.mintCtx, n.mintCancel = context.WithCancel(n.ctx)
	n.streamsCtx, n.streamsCancel = context.WithCancel(n.ctx)
	rt := cfg.Transport
	if rt == nil {
		tr := newTransport()
		cfg.Trust.Configure(tr, dialTimeout)
		rt = tr
	}
	n.rt = rt
	n.srv = n.newServer(ln)
	err := actor.SetAddr(n.url)
	if err == nil {
		err = n.openGroup()
	}
	if err != nil {
		n.cancel()
		return nil, errors.Join(err, ln.Close())
	}
	return n, nil
}

// listen names who holds the port, where that is one of ours.
func (c *Config) listen(ctx context.Context) (net.Listener, error) {
	addr := c.Listen
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err == nil {
		return ln, nil
	}
	e := &ListenError{Addr: addr, Err: err}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		e.Err = op.Err
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		// Without the token: whoever holds the port may be anybody.
		if v, err := NewClient("http://" + addr).Version(ctx); err == nil {
			e.PID, e.Actor = v.PID, v.Actor
		}
	}
	return nil, e
}

// run starts every goroutine of the node; see H7.
func (n *Node) run() {
	served := make(chan error, 1)
	n.loops.Go(func() { served <- n.serve() })
	if n.leads() { // the others of a process leave this to its first
		n.follow()
		n.loops.Go(func() { n.followLoop(n.ctx) })
		n.loops.Go(func() { n.join(n.ctx) })
		n.loops.Go(func() { n.pullTimer(n.ctx) })
		n.loops.Go(func() { n.verifyLoop(n.ctx) })
		if n.cfg.Bus != nil {
			s := n.newBusSender() // before anybody can edit: it begins at the end of the log
			n.loops.Go(func() { s.loop(n.ctx) })
			n.loops.Go(func() { n.busListenLoop(n.ctx) })
		}
	}
	n.loops.Go(func() { n.watchLoop(n.ctx) })
	n.loops.Go(func() { n.beatLoop(n.ctx) })
	watchCtx, unwatch := context.WithCancel(context.Background())
	watched := make(chan struct{})
	go func() {
		n.stallLoop(watchCtx)
		close(watched)
	}()
	n.minting.Go(func() { n.mutateLoop(n.mintCtx) })
	n.log.Info().Stringer("addr", n.ln.Addr()).Str("url", n.url).Stringer("replica", n.actor.Replica()).Msg("listening")
	go func() {
		n.err = n.supervise(served)
		unwatch() // not before: to close the log may take for ever, too
		<-watched
		close(n.done)
	}()
}

// join opens the gate for minting once every peer has been asked what it holds
// of our replica, or has had its chance (keeps H9). The asking itself is the
// first thing that the push loops do.
func (n *Node) join(ctx context.Context) {
	defer close(n.joined)
	ctx, cancel := context.WithTimeout(ctx, n.cfg.JoinTimeout)
	defer cancel()
	select {
	case <-n.group.list.Ready():
	case <-ctx.Done():
		return
	}
	n.follow() // who has just become known has its chance too
	for _, p := range n.linked() {
		select {
		case <-p.asked:
		case <-ctx.Done():
			return
		}
	}
}

// supervise waits for a reason to stop, and stops. It returns that reason, nil
// if it was Close, and what went wrong then.
func (n *Node) supervise(served <-chan error) error {
	var err error
	select {
	case <-n.closing:
	case <-n.actor.Done():
		err = fmt.Errorf("log of actor %d: %w", n.cfg.Store.Actor, n.actor.Err())
	case err = <-served:
	}
	return errors.Join(err, n.stop(err == nil))
}

// stop ends everything, in an order in which nothing is lost that could be
// kept: each step relies on those before it.
func (n *Node) stop(graceful bool) error {
	start := time.Now()
	hurry, cancel := context.WithCancel(context.Background())
	defer cancel()
	if !graceful {
		cancel()
	}
	go func() { // ends with stop, by cancel
		select {
		case <-n.hurry:
			cancel()
		case <-hurry.Done():
		}
	}()
	n.stopping.Store(true) // 1. edits are refused
	n.mintCancel()         // 2. the mutator ends; its last op is durable or was never minted
	n.minting.Wait()
	flushCtx, stopFlush := context.WithTimeout(hurry, flushTimeout)
	unsent := n.flush(flushCtx) // 3. what is durable goes out
	stopFlush()
	if err := n.group.list.Close(hurry); err != nil { // 4. the others learn that it goes
		n.log.Debug().Err(err).Msg("group left badly")
	}
	n.cancel()        // 5. loops and streams end
	n.shutdown(hurry) // 6. requests under way are answered
	n.loops.Wait()
	if t, ok := n.rt.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
	ops := n.actor.Version().Ops()
	err := n.actor.Close() // 7. nobody uses it any more
	n.log.Info().Uint64("ops", ops).Uint64("unsent", unsent).Int64("took_ms", time.Since(start).Milliseconds()).Msg("stopped")
	return err
}

// Close stops the node gracefully: it mints nothing more, sends what it has to
// the peers it can reach (at most a second), answers the requests under way (at
// most three) and closes the log. When ctx ends it stops waiting for others,
// but still closes the log. It returns what Err does; a second Close waits for
// the first.
func (n *Node) Close(ctx context.Context) error {
	n.closeOnce.Do(func() { close(n.closing) })
	select {
	case <-n.done:
	case <-ctx.Done():
		n.hurryOnce.Do(func() { close(n.hurry) })
		<-n.done
	}
	return n.err
}

// Done is closed when the node has stopped and let go of everything.
func (n *Node) Done() <-chan struct{} { return n.done }

// Err returns why the node stopped, nil if it was closed and all went well.
// It is to be called after Done is closed; before, it returns nil.
func (n *Node) Err() error {
	select {
	case <-n.done:
		return n.err
	default:
		return nil
	}
}

// URL returns the address that others dial.
func (n *Node) URL() string { return n.url }

// Addr returns the address listened on.
func (n *Node) Addr() net.Addr { return n.ln.Addr() }

// Actor returns the actor, to read from.
func (n *Node) Actor() *store.Actor { return n.actor }

// Cluster returns how this node sees all actors.
func (n *Node) Cluster(ctx context.Context) (ClusterReply, error) { return n.clusterReply(ctx) }

// A twin is an older process that runs as our actor.
type twin struct {
	boot  bootID
	heard time.Time // when there was last a sign that it lives
}

// fenceTwin stops minting: an older process runs as this actor. boot may be
// unknown. A restart lifts it, when a person has stopped one of the two, and
// so do twinSilence without a sign of the other: it may have been stopped, or
// somebody made it up. Ids are safe in any case, as each has its own epoch.
func (n *Node) fenceTwin(boot bootID) {
	if boot == "" {
		boot = "unknown"
	}
	if n.twin.Swap(&twin{boot, time.Now()}) != nil {
		return
	}
	n.log.Error().Str("event", "actor_in_use").Str("older", string(boot)).Str("boot", string(n.boot)).
		Str("hint", n.twinHint()).Msg("another process runs as this actor: minting stopped")
}

// twinHint says how the fence is lifted.
func (n *Node) twinHint() string {
	return fmt.Sprintf("stop one of the two, or give it another --actor; this one mints again %v after the other was last heard of, or when it is restarted", n.cfg.tune.twinSilence)
}

// fencedBy returns the process that fenceTwin was called for, "" if none.
func (n *Node) fencedBy() bootID {
	t := n.twin.Load()
	switch {
	case t == nil:
		return ""
	case time.Since(t.heard) < n.cfg.tune.twinSilence:
		return t.boot
	case n.twin.CompareAndSwap(t, nil):
		n.log.Info().Str("older", string(t.boot)).Dur("silent_ms", n.cfg.tune.twinSilence).Msg("the other process is not heard of any more: minting again")
	}
	return ""
}

// fencedWhy says why nothing is minted, "" if something is.
func (n *Node) fencedWhy() string {
	if n.fencedBy() != "" {
		return "an older process runs as this actor (" + codeActorInUse + ")"
	}
	reason, fenced := n.actor.Fenced()
	if fenced && reason == "" {
		reason = codeFenced
	}
	return reason
}

// writable returns why no op can be taken, nil if one can.
func (n *Node) writable() error {
	select {
	case <-n.actor.Done():
		return errors.Join(errors.New("the log has failed"), n.actor.Err())
	default:
	}
	if n.stopping.Load() {
		return errors.New("stopping")
	}
	return n.actor.Writable()
}

// newDebugLog takes what net/http itself has to say: bad TLS, aborted requests.
func newDebugLog(log zerolog.Logger) *stdlog.Logger {
	return stdlog.New(debugWriter{log}, "", 0)
}

type debugWriter struct{ log zerolog.Logger }

func (d debugWriter) Write(p []byte) (int, error) {
	d.log.Debug().Str("detail", strings.TrimSpace(string(p))).Msg("http server")
	return len(p), nil
}

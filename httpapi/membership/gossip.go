package membership

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/hashicorp/memberlist"
	"github.com/rs/zerolog"

	"crdt-genome/httpapi/internal/timing"
)

const (
	// MaxMembers bounds the members that are kept; more are refused. It is
	// what one person may invent in the name of others.
	MaxMembers = 10000
	// MaxKnown bounds the addresses that are kept over a restart. A few that
	// still answer are enough.
	MaxKnown = 64
	// MaxSeeds bounds the seeds.
	MaxSeeds = 64

	// rejoinEvery is how often seeds that are not members are tried again.
	rejoinEvery = time.Minute
	// joinFirst and joinMax bound the full-jitter pause between two tries of
	// one that has not joined anybody yet.
	joinFirst = 500 * time.Millisecond
	joinMax   = 30 * time.Second
	// exchangeEvery is how often each member compares its list with another's
	// (less often from 32 members on): who missed the gossip of a join, which
	// goes by UDP, learns of it then. memberlist's own 30 s would let a few in
	// a hundred wait for a minute on a busy machine.
	exchangeEvery = 10 * time.Second
	// streamTimeout bounds an exchange of states with one other: memberlist's
	// own 10 s would keep a stop waiting, and a LAN does not need them.
	streamTimeout = 3 * time.Second
	// leaveTimeout bounds the goodbye.
	leaveTimeout = 500 * time.Millisecond
	// goneFor and maxGone bound the memory of those that are no members any
	// more, which is for people only.
	goneFor = 15 * time.Minute
	maxGone = 64
	// keepEvery is the least time between two calls of Config.Keep.
	keepEvery = 5 * time.Second
	// complaints of memberlist, which strangers can provoke, are logged at
	// most so often.
	complaintBurst = 8
	complaintEvery = 10 * time.Second
)

// A Config says how to join a group. Listen, Cluster and Self are required.
type Config struct {
	Listen    string // HOST:PORT, an IP address; TCP and UDP; port 0: any free one
	Advertise string // HOST:PORT that others reach Listen at; default: Listen
	Cluster   string // name of the group
	Key       []byte // 16, 24 or 32 bytes; required off loopback
	Seeds     []string
	Self      Member // Actors, URL, Boot and Protocol

	// Known are addresses of members from before a restart; Keep is called
	// with those of now when they have changed. It may be nil.
	Known []string
	Keep  func(ctx context.Context, known []string) error

	Log zerolog.Logger

	tap func([]byte) // tests: sees what is sent, which is then plain
}

// A NoKeyError refuses to speak to other machines without a key.
type NoKeyError struct{ Addr string }

func (e *NoKeyError) Error() string {
	return fmt.Sprintf("refusing to look for members on %s without a key", e.Addr)
}

// A ListenError says why the address for gossip could not be had.
type ListenError struct {
	Addr string
	Err  error
}

func (e *ListenError) Error() string {
	return fmt.Sprintf("cannot listen for members on %s: %v", e.Addr, e.Err)
}

func (e *ListenError) Unwrap() error { return e.Err }

// A Gossip is a List kept by memberlist.
type Gossip struct {
	cfg     Config
	log     zerolog.Logger
	ml      *memberlist.Memberlist
	seeds   []string
	meta    atomic.Pointer[[]byte]
	ctx     context.Context
	cancel  context.CancelFunc
	loops   sync.WaitGroup
	ready   chan struct{}
	isReady sync.Once
	dirty   chan struct{} // capacity 1: members have changed

	closeOnce sync.Once
	closeErr  error

	mu      sync.Mutex
	self    Member
	live    map[string]Member // by name, without self
	gone    []Member          // the latest first
	members []Member          // made of the above, unless stale
	rivals  []Member
	stale   bool
	changed chan struct{}
}

// Join listens, and looks for the others in the background.
func Join(cfg Config) (*Gossip, error) {
	host, port, err := splitAddr(cfg.Listen)
	if err != nil {
		return nil, err
	}
	if len(cfg.Key) == 0 && !host.IsLoopback() {
		return nil, &NoKeyError{Addr: cfg.Listen}
	}
	if len(cfg.Seeds) > MaxSeeds {
		return nil, fmt.Errorf("%d seeds: more than %d", len(cfg.Seeds), MaxSeeds)
	}
	g := &Gossip{cfg: cfg, log: cfg.Log, self: cfg.Self, seeds: cfg.Seeds, live: map[string]Member{},
		ready: make(chan struct{}), dirty: make(chan struct{}, 1), changed: make(chan struct{})}
	g.self.Name = nameOf(&cfg.Self)
	g.self.Self, g.self.State, g.self.Since = true, Alive, time.Now().UTC()
	if err := g.announce(); err != nil {
		return nil, err
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	mc, err := g.config(host, port)
	if err != nil {
		g.cancel()
		return nil, err
	}
	if g.ml, err = memberlist.Create(mc); err != nil {
		g.cancel()
		return nil, errors.Join(&ListenError{cfg.Listen, err}, mc.Transport.Shutdown())
	}
	g.mu.Lock()
	g.self.Addr = g.ml.LocalNode().Address()
	g.updateLocked()
	g.mu.Unlock()
	g.loops.Go(g.joinLoop)
	g.loops.Go(g.keepLoop)
	return g, nil
}

// announce makes the metadata of self; memberlist asks for it.
func (g *Gossip) announce() error {
	meta, err := g.self.encode()
	if err == nil {
		g.meta.Store(&meta)
	}
	return err
}

// nameOf is the name of a member in memberlist.
func nameOf(m *Member) string {
	return strconv.FormatUint(uint64(m.Actors.First()), 10) + "@" + m.Boot
}

// splitAddr reads HOST:PORT with an address of a machine, or localhost.
func splitAddr(addr string) (netip.Addr, int, error) {
	host, p, err := net.SplitHostPort(addr)
	if host == "localhost" {
		host = "127.0.0.1"
	}
	ip, err2 := netip.ParseAddr(host)
	port, err3 := strconv.ParseUint(p, 10, 16)
	if err != nil || err2 != nil || err3 != nil {
		return ip, 0, fmt.Errorf("%q is not an address such as 10.0.0.5:7946", addr)
	}
	return ip, int(port), nil
}

// config is memberlist's LAN profile with our parts.
func (g *Gossip) config(host netip.Addr, port int) (*memberlist.Config, error) {
	mc := memberlist.DefaultLANConfig()
	logger := log.New(&logWriter{g.log.Sample(&zerolog.LevelSampler{
		WarnSampler: &zerolog.BurstSampler{Burst: complaintBurst, Period: complaintEvery},
	})}, "", 0)
	mc.Name, mc.Label = g.self.Name, cmp.Or(g.cfg.Cluster, "crdt-genome")
	mc.BindAddr, mc.BindPort, mc.AdvertisePort = host.String(), port, port
	mc.TCPTimeout, mc.PushPullInterval = streamTimeout, exchangeEvery
	mc.Logger, mc.SecretKey = logger, g.cfg.Key
	mc.Delegate, mc.Events, mc.Alive = &delegate{g}, &delegate{g}, &delegate{g}
	mc.DelegateProtocolVersion, mc.DelegateProtocolMin, mc.DelegateProtocolMax = metaVersion, metaVersion, metaVersion
	if g.cfg.Advertise != "" {
		ip, p, err := splitAddr(g.cfg.Advertise)
		if err != nil {
			return nil, err
		}
		mc.AdvertiseAddr, mc.AdvertisePort = ip.String(), p
	}
	mc.EnableCompression = g.cfg.tap == nil
	t, err := newTransport(g.ctx, mc.BindAddr, port, logger, g.cfg.tap)
	if err != nil {
		return nil, &ListenError{g.cfg.Listen, err}
	}
	if g.cfg.Advertise == "" {
		mc.AdvertisePort = t.port()
	}
	mc.BindPort, mc.Transport = t.port(), t
	return mc, nil
}

// joinLoop finds the others: until somebody answers with growing pauses, then
// every minute.
func (g *Gossip) joinLoop() {
	pause := backoff.ExponentialBackOff{InitialInterval: joinFirst / 2, RandomizationFactor: 1, Multiplier: 2, MaxInterval: joinMax / 2}
	for first := true; ; first = false {
		targets := g.targets(first)
		met := g.join(targets)
		wait := rejoinEvery
		switch {
		case met > 0 || len(targets) == 0:
			g.isReady.Do(func() { close(g.ready) })
			pause.Reset()
		case len(g.Members()) == 1:
			wait = pause.NextBackOff()
			g.log.Debug().Strs("seeds", targets).Int64("next_try_ms", wait.Milliseconds()).Msg("no member answers")
		}
		if !timing.Sleep(g.ctx, wait) {
			return
		}
	}
}

// targets are the addresses to be tried: seeds that are no members, at the
// start also who was known last, and later who has failed lately.
func (g *Gossip) targets(first bool) []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	have := map[string]bool{g.self.Addr: true}
	for _, m := range g.live {
		have[m.Addr] = true
	}
	all := slices.Clone(g.seeds)
	if first || len(g.live) == 0 {
		all = append(all, g.cfg.Known...)
	}
	for _, m := range g.gone {
		if m.State == Dead {
			all = append(all, m.Addr)
		}
	}
	var targets []string
	for _, a := range all {
		if !have[a] {
			have[a] = true
			targets = append(targets, a)
		}
	}
	return targets
}

// join exchanges states with targets, all at once, and returns how many
// answered. Names are looked up here, as memberlist would ask a name server
// for more than it needs to.
func (g *Gossip) join(targets []string) int {
	met := make([]int, len(targets))
	var all sync.WaitGroup
	limit := make(chan struct{}, 8)
	for i, t := range targets {
		limit <- struct{}{}
		all.Go(func() {
			defer func() { <-limit }()
			addrs, err := resolveAddr(g.ctx, t)
			if err == nil {
				met[i], err = g.ml.Join(addrs)
			}
			if err != nil && g.ctx.Err() == nil {
				g.log.Debug().Str("seed", t).Err(err).Msg("seed does not answer")
			}
		})
	}
	all.Wait()
	n := 0
	for _, m := range met {
		n += m
	}
	return n
}

func resolveAddr(ctx context.Context, addr string) ([]string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return []string{addr}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, streamTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var addrs []string
	for _, ip := range ips[:min(len(ips), MaxSeeds)] {
		addrs = append(addrs, net.JoinHostPort(ip.Unmap().String(), port))
	}
	return addrs, nil
}

// keepLoop hands the addresses of the members to whoever keeps them.
func (g *Gossip) keepLoop() {
	if g.cfg.Keep == nil {
		return
	}
	kept := slices.Sorted(slices.Values(g.cfg.Known))
	for {
		select {
		case <-g.dirty:
		case <-g.ctx.Done():
			return
		}
		known := g.known()
		// Nobody left is no reason to forget: that is when they are needed.
		if len(known) > 0 && !slices.Equal(known, kept) {
			if err := g.cfg.Keep(g.ctx, known); err != nil {
				g.log.Debug().Err(err).Msg("members not kept")
			} else {
				kept = known
			}
			if !timing.Sleep(g.ctx, keepEvery) {
				return
			}
		}
	}
}

// known returns the addresses of the others, sorted.
func (g *Gossip) known() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var known []string
	for _, name := range slices.Sorted(maps.Keys(g.live)) {
		if len(known) < MaxKnown {
			known = append(known, g.live[name].Addr)
		}
	}
	slices.Sort(known)
	return known
}

// updateLocked tells who waits that there are new lists. They are made when
// somebody looks: a thousand members that come at once are one change.
func (g *Gossip) updateLocked() {
	g.stale = true
	now := time.Now()
	g.gone = slices.DeleteFunc(g.gone, func(m Member) bool { return now.Sub(m.Since) > goneFor })
	g.gone = g.gone[:min(len(g.gone), maxGone)]
	close(g.changed)
	g.changed = make(chan struct{})
	select {
	case g.dirty <- struct{}{}:
	default:
	}
}

func (g *Gossip) resolveLocked() {
	if g.stale {
		g.members, g.rivals = resolve(g.self, slices.Collect(maps.Values(g.live)))
		g.stale = false
	}
}

// Members, Gone, Rivals, Changed and Ready are those of List.
func (g *Gossip) Members() []Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.resolveLocked()
	return g.members
}

func (g *Gossip) Gone() []Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.gone)
}

func (g *Gossip) Rivals() []Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.resolveLocked()
	return g.rivals
}

func (g *Gossip) Changed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

func (g *Gossip) Ready() <-chan struct{} { return g.ready }

// Close says goodbye, for at most half a second, and ends everything.
// memberlist does not tell those who stay whether somebody left or failed, so
// the metadata says it first.
func (g *Gossip) Close(ctx context.Context) error {
	g.closeOnce.Do(func() { g.closeErr = g.close(ctx) })
	return g.closeErr
}

func (g *Gossip) close(ctx context.Context) error {
	wait := leaveTimeout
	if d, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(d))
	}
	if wait > 0 && ctx.Err() == nil {
		g.mu.Lock() // members still come and go
		g.self.leaving = true
		g.mu.Unlock()
		err := g.announce()
		if err == nil {
			err = g.ml.UpdateNode(wait)
		}
		if err = errors.Join(err, g.ml.Leave(leaveTimeout/4)); err != nil {
			g.log.Debug().Err(err).Msg("left with half a goodbye")
		}
	}
	g.cancel() // ends exchanges under way
	err := g.ml.Shutdown()
	g.loops.Wait()
	return err
}

// A delegate is what memberlist calls. Most calls come with its locks held: it
// must not be called back.
type delegate struct{ g *Gossip }

// NodeMeta is all that we ever give to memberlist to carry.
func (d *delegate) NodeMeta(limit int) []byte {
	meta := *d.g.meta.Load()
	return meta[:min(len(meta), limit)] // limit is MaxMeta: all of it
}

// Nothing else is carried, and what others send is dropped unread.
func (d *delegate) NotifyMsg([]byte)                {}
func (d *delegate) GetBroadcasts(int, int) [][]byte { return nil }
func (d *delegate) LocalState(bool) []byte          { return nil }
func (d *delegate) MergeRemoteState([]byte, bool)   {}

// NotifyAlive refuses what is not one of ours.
func (d *delegate) NotifyAlive(n *memberlist.Node) error {
	if n.Name == d.g.self.Name {
		return nil
	}
	m, err := decode(n.Meta)
	if err != nil {
		return err
	}
	if n.Name != nameOf(&m) {
		return fmt.Errorf("a member that calls itself %.80q runs actors %v", n.Name, m.Actors)
	}
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	if _, known := d.g.live[n.Name]; !known && len(d.g.live) >= MaxMembers {
		return fmt.Errorf("more than %d members", MaxMembers)
	}
	return nil
}

func (d *delegate) NotifyJoin(n *memberlist.Node) { d.NotifyUpdate(n) }

func (d *delegate) NotifyUpdate(n *memberlist.Node) {
	g := d.g
	m, err := decode(n.Meta)
	if n.Name == g.self.Name || err != nil { // NotifyAlive has refused it
		return
	}
	if m.leaving {
		g.lost(n.Name, Left)
		return
	}
	m.Name, m.Addr, m.State, m.Since = n.Name, n.Address(), Alive, time.Now().UTC()
	g.mu.Lock()
	g.live[n.Name] = m
	g.gone = slices.DeleteFunc(g.gone, func(o Member) bool { return o.Name == n.Name })
	g.updateLocked()
	g.mu.Unlock()
	g.log.Info().Str("member", m.Name).Stringer("actors", m.Actors).Str("url", m.URL).Str("addr", m.Addr).Msg("member joined")
}

func (d *delegate) NotifyLeave(n *memberlist.Node) { d.g.lost(n.Name, Dead) }

// lost notes that a member is none any more, unless that is known.
func (g *Gossip) lost(name, state string) {
	g.mu.Lock()
	m, ok := g.live[name]
	if ok {
		delete(g.live, name)
		m.State, m.Since = state, time.Now().UTC()
		g.gone = slices.Insert(g.gone, 0, m)
		g.updateLocked()
	}
	g.mu.Unlock()
	switch {
	case !ok:
	case state == Left:
		g.log.Info().Str("member", m.Name).Stringer("actors", m.Actors).Msg("member left")
	default:
		g.log.Warn().Str("member", m.Name).Stringer("actors", m.Actors).Str("url", m.URL).Msg("member failed")
	}
}

// logWriter puts memberlist's lines, "[WARN] memberlist: …", into our log.
type logWriter struct{ log zerolog.Logger }

func (w *logWriter) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	level, rest, ok := strings.Cut(text, "] ")
	e := w.log.Debug()
	if ok && (level == "[WARN" || level == "[ERR") { // an error of memberlist is none of the actor's
		e = w.log.Warn()
	}
	if ok {
		text = rest
	}
	e.Str("detail", strings.TrimPrefix(text, "memberlist: ")).Msg("memberlist")
	return len(line), nil
}

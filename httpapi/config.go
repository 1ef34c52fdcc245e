package httpapi

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"crdt-genome/genome"
	"crdt-genome/httpapi/membership"
	"crdt-genome/httpapi/rings"
	"crdt-genome/httpapi/trust"
	"crdt-genome/store"
)

// A Peer is another actor, or another process with several, and where it is
// reached.
type Peer struct {
	Actor  genome.ActorID // of a process: the lowest
	URL    string         // "http://127.0.0.1:8001"; of a process: of that actor
	Actors membership.Set // all that the process runs; nil: just Actor
}

// actors returns all that p stands for.
func (p *Peer) actors() membership.Set {
	if len(p.Actors) == 0 {
		return membership.One(uint32(p.Actor))
	}
	return p.Actors
}

// A Config says how to run an actor. Store.Data and Listen are required.
type Config struct {
	Store     store.Config // Log is replaced by the field below
	Listen    string       // "127.0.0.1:8000"; port 0: any free one
	Listener  net.Listener // if set, taken over instead of listening on Listen; closed in any case
	Advertise string       // URL that others dial; default the address listened on, https with TLS
	Trust     *trust.Trust // TLS and who is let in; nil: plain HTTP, and everybody
	Insecure  bool         // allow an address that is not loopback without TLS or a token

	// AllowHosts are further values of the Host header that are served. On a
	// loopback address only names of this machine are, or a web page could
	// reach us by a name that it makes point here (DNS rebinding).
	AllowHosts []string

	Peers []Peer // the others; an entry for the actor itself is ignored

	// Fanout is how many members ops are sent to: FanoutAuto, FanoutAll, or a
	// number: above it members form rings (package rings) and pass ops on.
	// Pace is the least time between two POSTs to one member; default 5 ms, in
	// rings 200 ms.
	Fanout int
	Pace   time.Duration

	// Join, if set, lets members find each other by gossip, instead of Peers.
	Join *JoinConfig

	// Bus, if set, carries our ops to all others and theirs to us, in place of
	// POSTs. POST /genome is still served, and pull repairs what it loses.
	Bus Bus

	VerifyInterval time.Duration // default 5s
	PullInterval   time.Duration // ± 25 %; default 10s
	JoinTimeout    time.Duration // how long the first mint waits for peers' answers; default 1s

	Mutate MutateConfig

	StallTimeout time.Duration // how long the apply loop may stand still until Node.Stuck; default 30s

	Chaos bool // links can be cut by hand: PUT /v1/links/{actor}

	ReadyLag   uint64 // readyz fails when more ops than this are missing; default 1000
	ReadyAlone bool   // readyz does not wait for the first pull

	Log       zerolog.Logger      // the field "actor" is added
	SetLevel  func(zerolog.Level) // serves PUT /v1/log-level; default zerolog.SetGlobalLevel
	Version   string              // of the program
	Transport http.RoundTripper   // to the peers; default one of our own

	tune tuning // tests

	actors membership.Set // of the process; see StartProcess
}

// Values of Config.Fanout.
const (
	FanoutAuto = 0  // all, up to rings.Threshold members, then rings.Fanout
	FanoutAll  = -1 // a mesh whatever the number of members
)

// A JoinConfig says how to find the other members; see package membership.
type JoinConfig struct {
	Listen    string   // HOST:PORT, an IP address; TCP and UDP; port 0: any free one
	Advertise string   // HOST:PORT that others reach it at; default: Listen
	Key       []byte   // 16, 24 or 32 bytes that all members share; required off loopback
	Seeds     []string // HOST:PORT of members; one that answers is enough
}

// A MutateConfig says how the actor changes its genome by itself.
type MutateConfig struct {
	Off      bool          // start paused
	Min, Max time.Duration // pause before each mutation, uniformly random; default 0 … 20s
	MinLen   int           // below this many genes always insert; default 10
	Seed     uint64        // with Seeded: the choices repeat for the same seed, actor and genome
	Seeded   bool
	Ops      int // stop after this many mutations; 0: never
}

// Defaults of Config.
const (
	defaultVerifyInterval = 5 * time.Second
	defaultPullInterval   = 10 * time.Second
	defaultJoinTimeout    = time.Second
	defaultMutateMax      = 20 * time.Second
	defaultMinLen         = 10
	defaultReadyLag       = 1000
)

// tuning holds what only tests change.
type tuning struct {
	header, body, idle, grace, twinGrace, twinSilence, stall time.Duration
	conns                                                    int
}

func (c Config) withDefaults() (Config, error) {
	c.VerifyInterval = cmp.Or(c.VerifyInterval, defaultVerifyInterval)
	c.PullInterval = cmp.Or(c.PullInterval, defaultPullInterval)
	c.JoinTimeout = cmp.Or(c.JoinTimeout, defaultJoinTimeout)
	c.Mutate.MinLen = cmp.Or(c.Mutate.MinLen, defaultMinLen)
	c.ReadyLag = cmp.Or(c.ReadyLag, defaultReadyLag)
	c.StallTimeout = cmp.Or(c.StallTimeout, defaultStallTimeout)
	if c.Mutate.Min == 0 && c.Mutate.Max == 0 {
		c.Mutate.Max = defaultMutateMax
	}
	if c.SetLevel == nil {
		c.SetLevel = zerolog.SetGlobalLevel
	}
	t := &c.tune
	t.header, t.body = cmp.Or(t.header, headerTimeout), cmp.Or(t.body, bodyTimeout)
	t.idle, t.grace = cmp.Or(t.idle, idleTimeout), cmp.Or(t.grace, rings.PullGrace)
	t.twinGrace, t.conns = cmp.Or(t.twinGrace, twinGrace), cmp.Or(t.conns, maxConns)
	t.twinSilence = cmp.Or(t.twinSilence, twinSilence)
	t.stall = cmp.Or(t.stall, stallTimeout)
	c.Log = c.Log.With().Uint32("actor", uint32(c.Store.Actor)).Logger()
	c.Store.Log = c.Log
	if len(c.actors) == 0 {
		c.actors = membership.One(uint32(c.Store.Actor))
	}
	if c.Fanout < FanoutAll || c.Fanout > rings.MaxFanout || c.Pace < 0 {
		return c, fmt.Errorf("fanout %d, pace %v: want 1 … %d, and a pace that is not negative", c.Fanout, c.Pace, rings.MaxFanout)
	}
	if c.VerifyInterval < 0 || c.PullInterval < 0 || c.JoinTimeout < 0 || c.StallTimeout < 0 {
		return c, errors.New("an interval is negative")
	}
	if c.Mutate.Min < 0 || c.Mutate.Max < c.Mutate.Min {
		return c, fmt.Errorf("mutate between %v and %v: the first must not be above the second", c.Mutate.Min, c.Mutate.Max)
	}
	return c, errors.Join(c.checkPeers(), c.checkListen())
}

// checkPeers copies Peers without the actor itself, in the order of actors.
func (c *Config) checkPeers() error {
	var peers []Peer
	for _, p := range c.Peers {
		u, err := url.Parse(p.URL)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return fmt.Errorf("peer %d: %q is not an http URL", p.Actor, p.URL)
		}
		if !p.actors().Meets(c.actors) {
			peers = append(peers, Peer{p.Actor, strings.TrimSuffix(p.URL, "/"), p.Actors})
		}
	}
	slices.SortFunc(peers, func(a, b Peer) int { return cmp.Compare(a.Actor, b.Actor) })
	for i := 1; i < len(peers); i++ {
		if peers[i].Actor == peers[i-1].Actor {
			return fmt.Errorf("peer %d is given twice", peers[i].Actor)
		}
	}
	if len(peers) >= membership.MaxMembers {
		return fmt.Errorf("%d peers: at most %d members in all", len(peers), membership.MaxMembers)
	}
	c.Peers = peers
	return nil
}

// An UnsafeBindError refuses an address that others than this machine reach,
// with neither TLS nor a token. Set Config.Insecure on a closed network.
type UnsafeBindError struct{ Addr string }

func (e *UnsafeBindError) Error() string {
	return fmt.Sprintf("refusing to listen on %s without TLS or a token", e.Addr)
}

// An UnsafeTokenError refuses to send the token to whoever gossip names: who has
// the gossip key could name an address of its own, and would get it. A
// certificate of the group's authority shows who is a member. Set
// Config.Insecure on a closed network.
type UnsafeTokenError struct{ Addr string }

func (e *UnsafeTokenError) Error() string {
	return fmt.Sprintf("refusing to send the token to members that are found on %s, without an authority to know them by", e.Addr)
}

// A ListenError says why the address could not be had. Where the port is held
// by another actor, PID and Actor are what that one answered; else PID is 0.
type ListenError struct {
	Addr  string
	Err   error
	PID   int
	Actor genome.ActorID
}

func (e *ListenError) Error() string {
	if e.PID != 0 {
		return fmt.Sprintf("cannot listen on %s: in use by pid %d (crdt-genome, actor %d)", e.Addr, e.PID, e.Actor)
	}
	return fmt.Sprintf("cannot listen on %s: %v", e.Addr, e.Err)
}

func (e *ListenError) Unwrap() error { return e.Err }

func (c *Config) checkListen() error {
	if c.Listener != nil {
		c.Listen = c.Listener.Addr().String()
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("listen address %q: want host:port", c.Listen)
	}
	if !c.Insecure && !c.Trust.TLS() && !c.Trust.Closed() && !isLoopback(host) {
		return &UnsafeBindError{Addr: cmp.Or(host, "0.0.0.0")}
	}
	if c.Join == nil || c.Insecure || !c.Trust.HasToken() || c.Trust.TLS() && c.Trust.Authority() {
		return nil
	}
	if host, _, err := net.SplitHostPort(c.Join.Listen); err == nil && !isLoopback(host) {
		return &UnsafeTokenError{Addr: c.Join.Listen}
	}
	return nil
}

// isLoopback reports whether host can be reached from this machine only. A
// name other than localhost is not looked up: what it means may change.
func isLoopback(host string) bool {
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.IsLoopback()
}

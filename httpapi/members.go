package httpapi

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"crdt-genome/genome"
	"crdt-genome/httpapi/membership"
	"crdt-genome/httpapi/rings"
)

// A group is who the others are, at the moment. Its peers follow the list:
// who comes gets a sender, the sender of who goes ends. What a peer brought
// stays, and what it lacked it fetches when it is back.
type group struct {
	list  membership.List
	mu    sync.Mutex // one change at a time
	peers atomic.Pointer[[]*peer]
	relay atomic.Bool // only some of them have a sender; see link
}

// followShare and followRest bound what it costs to follow the list, which
// somebody with the gossip key can make change all the time: after each look a
// rest of followShare times what it took, at most followRest. How many members
// there may be is membership.MaxMembers: who comes later is refused.
const (
	followShare = 10
	followRest  = 2 * time.Second
)

// rivalEvery is how often processes that claim our actor are asked whether
// they live; see askRivals.
const rivalEvery = 2 * time.Second

// peers returns the others by actor. The slice is the caller's to read.
func (n *Node) peers() []*peer { return *n.group.peers.Load() }

// openGroup makes the list of members.
func (n *Node) openGroup() error {
	n.group.peers.Store(new([]*peer))
	self := membership.Member{Actors: n.cfg.actors, URL: n.url, Boot: string(n.boot), Protocol: protocolNumber}
	if n.cfg.Join == nil {
		var others []membership.Member
		for _, p := range n.cfg.Peers {
			others = append(others, membership.Member{Actors: p.actors(), URL: p.URL})
		}
		n.group.list = membership.Static(self, others)
		return nil
	}
	known, err := n.actor.Members()
	if err != nil {
		return err
	}
	j := n.cfg.Join
	n.group.list, err = membership.Join(membership.Config{
		Listen: j.Listen, Advertise: j.Advertise, Cluster: n.cluster, Key: j.Key, Seeds: j.Seeds, Self: self,
		Known: known, Keep: n.actor.KeepMembers, Log: n.log,
	})
	return err
}

// followLoop keeps the peers as the list says.
func (n *Node) followLoop(ctx context.Context) {
	tick := time.NewTicker(rivalEvery)
	defer tick.Stop()
	changed := n.group.list.Changed()
	n.follow()
	for {
		select {
		case <-changed:
			changed = n.group.list.Changed()
			start := time.Now()
			n.follow()
			sleep(ctx, min(followShare*time.Since(start), followRest))
		case <-tick.C:
			n.askRivals(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// follow makes the peers those of the list. A member that was started again is
// the same peer, as long as it is reached at the same place.
func (n *Node) follow() {
	n.group.mu.Lock()
	defer n.group.mu.Unlock()
	old := n.peers()
	var peers []*peer
	for _, m := range n.group.list.Members() {
		if m.Self || n.ctx.Err() != nil || n.cfg.Join != nil && !n.mayDial(m) {
			continue
		}
		actor := genome.ActorID(m.Actors.First())
		p := find(old, actor)
		if p == nil || p.URL() != m.URL || !slices.Equal(p.actors, m.Actors) {
			p = n.newPeer(Peer{actor, m.URL, m.Actors}, n.rt)
		}
		peers = append(peers, p)
	}
	slices.SortFunc(peers, func(a, b *peer) int { return cmp.Compare(a.actor, b.actor) })
	if slices.Equal(old, peers) {
		return
	}
	n.group.peers.Store(&peers)
	n.link(peers)
	for _, p := range old {
		now := find(peers, p.actor)
		if now != p {
			p.disconnect()
		}
		if now == nil {
			n.twins.forget(p.actor)
		}
	}
	n.watch.bump()
}

// mayDial keeps what is meant to be encrypted off a plain line, and the token
// from whoever names an address: the URL is what the member says of itself, and
// the token goes along with every request.
func (n *Node) mayDial(m membership.Member) bool {
	if n.safe(m) {
		return true
	}
	n.log.Warn().Str("member", m.Name).Str("url", m.URL).Str("hint", "give all members --tls-cert, --tls-key and --tls-ca").
		Msg("member left out: what goes to it, the token too, would not be safe")
	return false
}

// link gives a sender to each peer that we send to: all, or in rings our
// neighbours. The others are asked now and then; see pullTimer.
func (n *Node) link(peers []*peer) {
	members := 1 + len(peers)
	k := n.cfg.Fanout
	if k == FanoutAuto && members > rings.Threshold {
		k = rings.Fanout
	}
	relay := k > 0 && k < len(peers)
	if !n.group.relay.Swap(relay) && relay {
		n.log.Info().Int("members", members).Int("fanout", k).Str("hint", "--fanout all: a mesh, whatever their number").
			Msg("members form rings: each sends to a few, who pass it on")
	}
	var numbers []uint64
	for _, p := range peers {
		numbers = append(numbers, uint64(p.actor))
	}
	if relay {
		numbers = rings.Neighbours(uint64(n.cfg.actors.First()), numbers, k)
	}
	for _, p := range peers {
		if _, linked := slices.BinarySearch(numbers, uint64(p.actor)); linked { // both ascend
			p.connect(n)
		} else {
			p.disconnect()
		}
	}
}

// relaying reports whether ops of others are passed on: everybody then hears
// from a few, not from all.
func (n *Node) relaying() bool { return n.group.relay.Load() }

// linked returns the peers that have a sender.
func (n *Node) linked() []*peer {
	if !n.relaying() {
		return n.peers()
	}
	return slices.DeleteFunc(slices.Clone(n.peers()), func(p *peer) bool { return !p.connected() })
}

// pace is the least time between two POSTs to one member.
func (n *Node) pace() time.Duration {
	return cmp.Or(n.cfg.Pace, rings.Pace(n.relaying()))
}

// connect begins to exchange ops with p, unless that goes on already.
func (p *peer) connect(n *Node) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stop != nil {
		return
	}
	var ctx context.Context
	ctx, p.stop = context.WithCancel(n.ctx)
	n.loops.Go(func() { p.pushLoop(ctx) })
	n.loops.Go(func() { p.pullLoop(ctx) })
}

// disconnect ends it.
func (p *peer) disconnect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stop != nil {
		p.stop()
		p.stop = nil
	}
}

func (p *peer) connected() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stop != nil
}

// safe reports whether a call of m, which was found by gossip, is as well
// protected as calls of us are, and whether it may see our token: if it shows
// that it is a member, or lives on this machine as we do.
func (n *Node) safe(m membership.Member) bool {
	t, secure := n.cfg.Trust, strings.HasPrefix(m.URL, "https:")
	if t.TLS() && !secure {
		return false
	}
	if !t.HasToken() || n.cfg.Insecure || secure && t.Authority() {
		return true
	}
	u, err := url.Parse(m.URL)
	return err == nil && isLoopback(u.Hostname())
}

// askRivals looks whether an older process that claims our actor lives: the
// list may still name one that crashed. It is how twins find out about each
// other that no third member tells.
func (n *Node) askRivals(ctx context.Context) {
	for _, r := range n.group.list.Rivals() {
		if r.Boot >= string(n.boot) || !n.safe(r) {
			continue
		}
		v, err := newClient(r.URL, n.rt, n.cfg.Trust).Version(ctx)
		if err == nil && v.Boot == r.Boot {
			n.fenceTwin(bootID(r.Boot))
		}
	}
}

// A MembersReply answers GET /v1/members.
type MembersReply struct {
	Via     string              `json:"via"` // static or gossip
	Members []membership.Member `json:"members"`
	Gone    []membership.Member `json:"gone"`   // who left or failed lately, the latest first
	Rivals  []membership.Member `json:"rivals"` // other processes that claim an actor of this one
}

// How members are known; see MembersReply.
const (
	ViaStatic = "static"
	ViaGossip = "gossip"
)

func (n *Node) getMembers(w http.ResponseWriter, r *http.Request) error {
	return writeJSON(w, http.StatusOK, n.Members())
}

// Members returns the processes of the group. A static list never says that
// one is gone: there, the senders know whether it answers.
func (n *Node) Members() MembersReply {
	if n.proc != nil && n != n.proc.lead {
		return n.proc.lead.Members()
	}
	l := n.group.list
	reply := MembersReply{Via: ViaStatic, Members: slices.Clone(l.Members()), Gone: nonNil(l.Gone()), Rivals: nonNil(l.Rivals())}
	if n.cfg.Join != nil {
		reply.Via = ViaGossip
		return reply
	}
	for i := range reply.Members {
		m := &reply.Members[i]
		m.Since = n.started.UTC()
		if p := n.peer(genome.ActorID(m.Actors.First())); p != nil {
			p.describe(m)
		}
	}
	return reply
}

// describe puts what is known of p into a member of a static list.
func (p *peer) describe(m *membership.Member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m.Boot = string(p.boot)
	if !p.downSince.IsZero() {
		m.State, m.Since = membership.Dead, p.downSince.UTC()
	}
}

func nonNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

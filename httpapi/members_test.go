package httpapi

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"crdt-genome/httpapi/membership"
)

// gossiping makes the nodes of a lab find each other: the first is the seed.
// They reach each other at their own addresses, not by name.
func gossiping(t *testing.T, count int, adapt func(*Config)) *lab {
	t.Helper()
	var l *lab
	l = newLab(t, count, func(c *Config) {
		c.Peers, c.Transport = nil, nil
		c.Join = &JoinConfig{Listen: "127.0.0.1:0"}
		if l.nodes[0] != nil {
			c.Join.Seeds = []string{gossipAddr(l.nodes[0])}
		}
		if adapt != nil {
			adapt(c)
		}
	})
	return l
}

func gossipAddr(n *Node) string {
	for _, m := range n.Members().Members {
		if m.Self {
			return m.Addr
		}
	}
	return ""
}

// TestMembersComeAndGo: nodes that know one seed meet all others and become
// equal; whoever leaves is no peer any more and its sender ends; whoever comes
// back elsewhere is one again.
func TestMembersComeAndGo(t *testing.T) {
	l := gossiping(t, 3, nil)
	l.startAll()
	for i, n := range l.nodes {
		eventually(t, func() bool { return len(n.peers()) == 2 }, why("not all are peers"))
		mustInsert(t, n, 0, byte(i))
	}
	l.waitEqual()
	a := ask(t, l.nodes[0], "GET", "/v1/members", nil)
	var reply MembersReply
	if err := json.Unmarshal([]byte(a.body), &reply); err != nil || a.status != http.StatusOK {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	if m := reply.Members; reply.Via != ViaGossip || len(m) != 3 || !m[0].Self || m[1].URL != l.nodes[1].URL() || m[2].State != membership.Alive {
		t.Errorf("members: %+v", reply)
	}
	leaver := l.nodes[0].peer(1)
	l.stop(1)
	for _, i := range []int{0, 2} {
		n := l.nodes[i]
		eventually(t, func() bool { return len(n.peers()) == 1 && len(n.Members().Gone) == 1 }, why("who left is still a peer"))
		eventually(t, func() bool { return len(l.logs[i].lines(`"match count"`, `"peers":1`, `"match_count":1`)) > 0 }, why("verification does not follow the members"))
	}
	if gone := l.nodes[2].Members().Gone[0]; gone.State != membership.Left {
		t.Errorf("gone: %+v", gone)
	}
	posts := leaver.status().Posts + leaver.status().Failed
	mustInsert(t, l.nodes[0], 0, 7)
	eventually(t, func() bool { return l.nodes[2].actor.LSN() == 4 }, why("the op has not come"))
	if now := leaver.status().Posts + leaver.status().Failed; now != posts {
		t.Errorf("%d requests went to who had left", now-posts)
	}
	l.start(1)
	for _, n := range l.nodes {
		eventually(t, func() bool { return len(n.peers()) == 2 }, why("who came back is no peer"))
	}
	l.waitEqual()
	if n := l.nodes[1]; n.Counts().Panics+l.nodes[0].Counts().Panics > 0 || mustState(t, n).Ops != 4 {
		t.Errorf("the last has %d ops", mustState(t, n).Ops)
	}
}

// TestMembersRemembered: a node without seeds finds those that it knew before
// it was stopped; they stand in its log.
func TestMembersRemembered(t *testing.T) {
	l := gossiping(t, 2, nil)
	l.startAll()
	eventually(t, func() bool { return len(l.nodes[1].peers()) == 1 }, why("not met"))
	eventually(t, func() bool { known, err := l.nodes[1].actor.Members(); return err == nil && len(known) == 1 }, why("not kept"))
	l.stop(1)
	seedless := l.adapt
	l.adapt = func(c *Config) {
		seedless(c)
		c.Join.Seeds = nil
	}
	l.start(1)
	eventually(t, func() bool { return len(l.nodes[1].peers()) == 1 }, why("not found again"))
}

// TestGossipTwins: two processes with one actor find out about each other by
// gossip alone; the later one stops minting.
func TestGossipTwins(t *testing.T) {
	l := gossiping(t, 2, func(c *Config) { c.Store.Actor = 5 })
	l.startAll()
	later := l.nodes[1]
	if later.boot < l.nodes[0].boot {
		later = l.nodes[0] // started within one millisecond
	}
	eventually(t, func() bool { return later.fencedBy() != "" }, why("the later twin still mints"))
	if n := len(later.Members().Rivals); n != 1 {
		t.Errorf("%d rivals", n)
	}
}

// TestJoinWithoutKey: off loopback, nothing starts without one.
func TestJoinWithoutKey(t *testing.T) {
	l := newLab(t, 1, func(c *Config) { c.Join = &JoinConfig{Listen: "0.0.0.0:0"} })
	_, err := Start(ctx, l.config(0))
	if err == nil || !strings.Contains(err.Error(), "without a key") {
		t.Errorf("started with %v", err)
	}
	l.adapt = func(c *Config) {
		c.Join = &JoinConfig{Listen: "127.0.0.1:0", Key: bytes.Repeat([]byte{1}, 32)}
	}
	l.start(0)
}

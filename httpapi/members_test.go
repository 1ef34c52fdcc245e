package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"crdt-genome/genome"
	"crdt-genome/httpapi/membership"
	"crdt-genome/httpapi/rings"
	"crdt-genome/httpapi/trust"
	"crdt-genome/httpapi/trust/trusttest"
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

// invented are peers that nobody runs.
func invented(count int) (peers []Peer) {
	for i := range count {
		peers = append(peers, Peer{Actor: genome.ActorID(i + 1), URL: "http://127.0.0.1:1"})
	}
	return peers
}

// TestRingsAreTold: a list that is longer than a mesh is meant for makes rings,
// and the log says so, once.
func TestRingsAreTold(t *testing.T) {
	for count, lines := range map[int]int{rings.Threshold - 1: 0, rings.Threshold: 1} {
		l := newLab(t, 1, func(c *Config) { c.Peers = invented(count) })
		n := l.start(0)
		n.follow()
		if got := l.logs[0].lines(`"level":"info"`, "members form rings", fmt.Sprintf(`"members":%d,"fanout":6`, count+1), "--fanout all"); len(got) != lines {
			t.Errorf("%d members: %d lines, want %d", count+1, len(got), lines)
		}
		if k := len(n.linked()); lines > 0 && k > rings.Fanout || lines == 0 && k != count {
			t.Errorf("%d members: %d links", count+1, k)
		}
		l.stop(0)
	}
}

// TestTooManyPeers: the number of members is bounded, whoever names them.
func TestTooManyPeers(t *testing.T) {
	cfg := newLab(t, 1, nil).config(0)
	cfg.Peers = invented(membership.MaxMembers)
	if n, err := Start(ctx, cfg); err == nil || !strings.Contains(err.Error(), "at most 10000 members") {
		t.Errorf("started %v with %v", n, err)
	}
}

// TestTokenGoesToMembersOnly: who has the gossip key but not the token cannot
// get it by naming an address.
func TestTokenGoesToMembersOnly(t *testing.T) {
	dir := t.TempDir()
	ca := trusttest.NewAuthority(t, dir, "ca")
	cert := ca.Issue("n", trusttest.Options{})
	token := writeToken(t, "a-token-of-some-length")
	const (
		plainHere, plainFar   = "http://127.0.0.1:8000", "http://10.0.0.9:8000"
		secureHere, secureFar = "https://localhost:8000", "https://10.0.0.9:8000"
	)
	all := []string{plainHere, plainFar, secureHere, secureFar}
	for _, c := range []struct {
		what     string
		files    trust.Files
		insecure bool
		safe     []string
		starts   bool // off loopback
	}{
		{"nothing", trust.Files{}, true, all, true},
		{"token", trust.Files{Token: token}, false, []string{plainHere, secureHere}, false},
		{"token, insecure", trust.Files{Token: token}, true, all, true},
		{"token and any certificate", trust.Files{Token: token, Cert: cert.Cert, Key: cert.Key}, false, []string{secureHere}, false},
		{"token, certificate and authority", trust.Files{Token: token, Cert: cert.Cert, Key: cert.Key, CA: ca.Cert}, false, []string{secureHere, secureFar}, true},
		{"certificate and authority", trust.Files{Cert: cert.Cert, Key: cert.Key, CA: ca.Cert}, false, []string{secureHere, secureFar}, true},
	} {
		cfg := newLab(t, 1, nil).config(0)
		cfg.Trust, cfg.Insecure = loadTrust(t, c.files), c.insecure
		n := &Node{cfg: cfg}
		for _, url := range all {
			want := strings.Contains(strings.Join(c.safe, " "), url)
			if got := n.safe(membership.Member{URL: url}); got != want {
				t.Errorf("%s: %s is safe: %t", c.what, url, got)
			}
		}
		for listen, starts := range map[string]bool{"127.0.0.1:0": true, "10.0.0.9:7946": c.starts} {
			cfg.Join = &JoinConfig{Listen: listen, Key: bytes.Repeat([]byte{1}, 32)}
			_, err := cfg.withDefaults()
			if _, refused := errors.AsType[*UnsafeTokenError](err); refused == starts {
				t.Errorf("%s, gossip on %s: %v", c.what, listen, err)
			}
		}
	}
}

// TestFenceIsLifted: an older process of the same actor stops minting only as
// long as something is heard of it.
func TestFenceIsLifted(t *testing.T) {
	l := newLab(t, 1, func(c *Config) {
		c.tune.twinSilence = 300 * time.Millisecond
		c.Mutate = MutateConfig{Max: time.Millisecond}
	})
	n := l.start(0)
	older := newBootID(n.started.Add(-time.Hour))
	forge := func() answer {
		return ask(t, n, "GET", "/v1/vv", nil, headerActor, "0", headerBoot, string(older), headerProtocol, protocol, "Date", n.started.Add(time.Minute).UTC().Format(http.TimeFormat))
	}
	wantProblem(t, n, forge(), 409, codeActorInUse)
	if len(l.logs[0].lines(`"event":"actor_in_use"`, "300ms after the other was last heard of")) != 1 {
		t.Error("the log does not say how it ends")
	}
	eventually(t, func() bool { return n.fencedBy() == "" }, why("it mints nothing for ever"))
	if len(l.logs[0].lines("minting again")) != 1 {
		t.Error("the log does not say that it has ended")
	}
	before := n.actor.LSN()
	eventually(t, func() bool { return n.actor.LSN() > before+5 }, why("the mutations do not go on"))
	forge()
	if len(l.logs[0].lines(`"event":"actor_in_use"`)) != 2 {
		t.Error("a second time it is not told")
	}
}

// TestFullParking: somebody speaks as actor 1 and keeps its account full, for
// ever. What the true one passes on is held all the same, though no pull is due.
func TestFullParking(t *testing.T) {
	l := newLab(t, 2, quiet)
	l.startAll()
	eventually(t, func() bool { return l.nodes[0].pulled.Load() && l.nodes[1].pulled.Load() }, why("not connected"))
	n, junk := l.nodes[0], stranger(t, "9@5f3c1a2b")
	insert(t, junk, 0, 1) // never sent
	var ops []genome.Op
	for range genome.MaxParkedOps {
		ops = append(ops, insert(t, junk, 0, 2))
	}
	if a := ask(t, n, "POST", "/genome", blockOps(t, ops...), "Content-Type", genome.MediaType, headerActor, "1"); a.status != 202 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	l.setFaults(cut(1)) // so that node 0 misses what comes first
	other := stranger(t, "8@5f3c1a2b")
	wantReply(t, post(t, l.nodes[1], jsonOps(t, insert(t, other, 0, 3))), 200, PostReply{Applied: 1})
	l.setFaults(nil)
	mustInsert(t, l.nodes[1], 1, 4) // on the other's, which node 0 lacks
	eventually(t, func() bool { return n.actor.Version().Equal(l.nodes[1].actor.Version()) }, why("it waits for room"))
	if s := n.actor.Stats().Live; s.PendingOps != genome.MaxParkedOps || n.Counts().Rejected["pending_full"] == 0 {
		t.Errorf("the parking was not full: %d", s.PendingOps)
	}
}

// TestTurns: where all members but one are dead, that one is pulled from every
// other time. One that is not known yet has its turn too.
func TestTurns(t *testing.T) {
	const dead = 200
	n := alone(t, func(c *Config) { c.Peers, c.Fanout, c.PullInterval = invented(dead+1), 2, time.Hour })
	n.peer(7).signOfLife(newBootID(n.started)) // it has asked us something
	n.peer(8).signOfLife(newBootID(n.started))
	n.peer(8).failedNow(ctx, errLost)
	seen := map[genome.ActorID]int{}
	for round := range uint64(2000) {
		seen[n.turn(round).actor]++
	}
	if seen[7] < 1000 || seen[8] > 100 || len(seen) < dead/2 {
		t.Errorf("of 2000 turns %d are of the one that lives, %d of one that failed; %d have had one", seen[7], seen[8], len(seen))
	}
	if n := alone(t, nil); n.turn(0) != nil || n.turn(1) != nil {
		t.Error("somebody else has a turn in a group of one")
	}
}

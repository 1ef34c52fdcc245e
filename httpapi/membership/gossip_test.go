package membership

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/rs/zerolog"
)

// patience is how long a test waits for what must happen.
const patience = 60 * time.Second

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v for: %s", patience, what)
		}
	}
}

// join starts a member that runs one actor.
func join(t *testing.T, actor int, boot string, adapt func(*Config)) *Gossip {
	t.Helper()
	cfg := Config{
		Listen: "127.0.0.1:0", Cluster: "test", Log: zerolog.Nop(),
		Self: Member{Actors: One(uint32(actor)), URL: fmt.Sprintf("http://127.0.0.1:%d", 8000+actor), Boot: boot, Protocol: 1},
	}
	if adapt != nil {
		adapt(&cfg)
	}
	g, err := Join(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close(t.Context()) })
	return g
}

func addrOf(g *Gossip) string {
	for _, m := range g.Members() {
		if m.Self {
			return m.Addr
		}
	}
	return ""
}

func actors(members []Member) (all []string) {
	for _, m := range members {
		all = append(all, m.Actors.String())
	}
	return all
}

func seesJust(g *Gossip, want ...string) func() bool {
	return func() bool { return slices.Equal(actors(g.Members()), want) }
}

// TestJoinAndLeave: three find each other through one seed, with a key; one
// says goodbye, and is known to have left.
func TestJoinAndLeave(t *testing.T) {
	t.Parallel()
	key := bytes.Repeat([]byte{7}, 32)
	with := func(seeds ...string) func(*Config) {
		return func(c *Config) { c.Key, c.Seeds = key, seeds }
	}
	a := join(t, 0, "a", with())
	select {
	case <-a.Ready():
	case <-time.After(patience):
		t.Fatal("without seeds, not ready")
	}
	changed := a.Changed()
	b := join(t, 1, "b", with("127.0.0.1:1", addrOf(a))) // the first seed does not answer
	c := join(t, 2, "c", with(addrOf(a)))
	for _, g := range []*Gossip{a, b, c} {
		eventually(t, "all see all", seesJust(g, "0", "1", "2"))
	}
	<-changed
	<-b.Ready()
	if m := a.Members()[1]; m.URL != "http://127.0.0.1:8001" || m.Boot != "b" || m.State != Alive || m.Addr != addrOf(b) || m.Name != "1@b" {
		t.Errorf("b is seen as %+v", m)
	}
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, g := range []*Gossip{a, c} {
		eventually(t, "b is gone", seesJust(g, "0", "2"))
		if gone := g.Gone(); len(gone) != 1 || gone[0].State != Left {
			t.Errorf("gone: %+v", gone)
		}
	}
	// It is back as another process, elsewhere, at once.
	b = join(t, 1, "b2", with(addrOf(c)))
	for _, g := range []*Gossip{a, b, c} {
		eventually(t, "all see all again", seesJust(g, "0", "1", "2"))
	}
}

// TestStrangers: another group, another key and no key are not heard (M2, M3).
func TestStrangers(t *testing.T) {
	t.Parallel()
	key := bytes.Repeat([]byte{7}, 16)
	a := join(t, 0, "a", func(c *Config) { c.Key = key })
	var out sync.Map
	for i, adapt := range []func(*Config){
		func(c *Config) { c.Cluster, c.Key = "other", key },
		func(c *Config) { c.Key = bytes.Repeat([]byte{8}, 16) },
		func(c *Config) {},
	} {
		g := join(t, i+1, "b", adapt)
		if n := g.join([]string{addrOf(a)}); n != 0 {
			t.Errorf("stranger %d was answered", i)
		}
		out.Store(i, g)
		if len(g.Members()) != 1 || len(a.Members()) != 1 {
			t.Errorf("stranger %d: %v and %v are seen", i, g.Members(), a.Members())
		}
	}
}

// TestNoKey: not a byte leaves the machine without a key.
func TestNoKey(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", "[::]:0", "192.0.2.1:7946"} {
		_, err := Join(Config{Listen: addr, Self: Member{Actors: One(0), URL: "http://192.0.2.1:8000"}})
		if e := (*NoKeyError)(nil); !errors.As(err, &e) {
			t.Errorf("%s: %v", addr, err)
		}
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, err = Join(Config{Listen: taken.Addr().String(), Self: Member{Actors: One(0), URL: "http://127.0.0.1:8000"}})
	if e := (*ListenError)(nil); !errors.As(err, &e) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a port that is taken: %v", err)
	}
}

// TestKnown: who was known last is tried at the start, and is handed over to
// be kept.
func TestKnown(t *testing.T) {
	t.Parallel()
	kept := make(chan []string, 16)
	a := join(t, 0, "a", nil)
	b := join(t, 1, "b", func(c *Config) {
		c.Known = []string{"127.0.0.1:1", addrOf(a)}
		c.Keep = func(_ context.Context, known []string) error {
			kept <- known
			return nil
		}
	})
	eventually(t, "both see both", seesJust(b, "0", "1"))
	select {
	case known := <-kept:
		if !slices.Equal(known, []string{addrOf(a)}) {
			t.Errorf("kept: %q", known)
		}
	case <-time.After(patience):
		t.Error("nothing was kept")
	}
}

// TestRival: two processes with one actor: others take the later one, and each
// of the two knows of the other.
func TestRival(t *testing.T) {
	t.Parallel()
	a := join(t, 0, "a", nil)
	seed := func(c *Config) { c.Seeds = []string{addrOf(a)} }
	older, newer := join(t, 1, "1-older", seed), join(t, 1, "2-newer", seed)
	for _, c := range []struct{ g, rival *Gossip }{{older, newer}, {newer, older}} {
		eventually(t, "the rival is seen", func() bool {
			r := c.g.Rivals()
			return len(r) == 1 && r[0].Boot == c.rival.self.Boot
		})
		if !seesJust(c.g, "0", "1")() {
			t.Errorf("members: %v", c.g.Members())
		}
	}
	eventually(t, "the later one is taken", func() bool {
		m := a.Members()
		return len(m) == 2 && m[1].Boot == "2-newer"
	})
}

// hostile is a member of the group that says what it likes of itself.
type hostile struct{ meta []byte }

func (h hostile) NodeMeta(int) []byte             { return h.meta }
func (h hostile) NotifyMsg([]byte)                {}
func (h hostile) GetBroadcasts(int, int) [][]byte { return [][]byte{[]byte("ops of mine")} }
func (h hostile) LocalState(bool) []byte          { return bytes.Repeat([]byte("state "), 1000) }
func (h hostile) MergeRemoteState([]byte, bool)   {}

// TestHostile: whoever says nonsense is no member, and what is not metadata is
// dropped (M1).
func TestHostile(t *testing.T) {
	t.Parallel()
	a := join(t, 0, "a", nil)
	good := Member{Actors: One(9), URL: "http://127.0.0.1:8009", Boot: "x", Protocol: 1}
	meta, err := good.encode()
	if err != nil {
		t.Fatal(err)
	}
	for i, h := range []struct {
		name string
		meta []byte
	}{
		{"9@x", nil},
		{"9@x", bytes.Repeat([]byte{0xff}, MaxMeta)},
		{"9@x", []byte("g\x01\x00\x01\x00\x01\x00\xff\xff\xff\xff\x0f")},
		{"8@x", meta},
		{"9@x\n" + strings.Repeat("n", 200), meta},
		{"9@x", meta}, // the last one is good: the ones before were not refused for another reason
	} {
		mc := memberlist.DefaultLANConfig()
		mc.Name, mc.BindAddr, mc.BindPort, mc.AdvertisePort, mc.Label = h.name, "127.0.0.1", 0, 0, "test"
		mc.Logger = log.New(io.Discard, "", 0)
		mc.Delegate = hostile{h.meta}
		mc.DelegateProtocolMin, mc.DelegateProtocolMax, mc.DelegateProtocolVersion = 1, 1, 1
		ml, err := memberlist.Create(mc)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ml.Join([]string{addrOf(a)}); err != nil {
			t.Logf("join: %v", err)
		}
		if last := i == 5; last {
			eventually(t, "the good one is a member", seesJust(a, "0", "9"))
		} else if got := a.Members(); len(got) != 1 {
			t.Errorf("%q is a member: %+v", h.name, got[1])
		}
		if err := ml.Shutdown(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCarriesMetadataOnly: the delegate has nothing to say but who we are.
func TestCarriesMetadataOnly(t *testing.T) {
	a := join(t, 0, "a", nil)
	d := &delegate{a}
	if m, err := decode(d.NodeMeta(MaxMeta)); err != nil || m.Actors.First() != 0 {
		t.Errorf("metadata: %+v, %v", m, err)
	}
	if b, s := d.GetBroadcasts(0, 1400), d.LocalState(true); len(b) > 0 || len(s) > 0 {
		t.Errorf("broadcasts %q, state %q", b, s)
	}
}

// TestFifty tells how long it takes until all of fifty know of a crash, and
// until a late one knows all. It takes a while and asserts no times.
func TestFifty(t *testing.T) {
	if os.Getenv("CRDT_GENOME_MINUTES") == "" {
		t.Skip("a figure for the night; set CRDT_GENOME_MINUTES")
	}
	const count = 50
	var all []*Gossip
	for i := range count {
		all = append(all, join(t, i, "b", func(c *Config) {
			if i > 0 {
				c.Seeds = []string{addrOf(all[0])}
			}
		}))
	}
	know := func(members []*Gossip, n int) func() bool {
		return func() bool {
			return !slices.ContainsFunc(members, func(g *Gossip) bool { return len(g.Members()) != n })
		}
	}
	eventually(t, "all know all", know(all, count))
	start := time.Now()
	late := join(t, count, "b", func(c *Config) { c.Seeds = []string{addrOf(all[7])} })
	eventually(t, "the late one knows all", know([]*Gossip{late}, count+1))
	t.Logf("a late joiner knows all %d after %v", count, time.Since(start).Round(time.Millisecond))
	eventually(t, "all know the late one", know(all, count+1))
	t.Logf("all know the late joiner after %v", time.Since(start).Round(time.Millisecond))
	start = time.Now()
	late.cancel()
	if err := late.ml.Shutdown(); err != nil { // without a goodbye
		t.Fatal(err)
	}
	eventually(t, "all know of the crash", know(all, count))
	t.Logf("a crash is known by all after %v", time.Since(start).Round(time.Millisecond))
	for _, g := range all {
		if gone := g.Gone(); len(gone) != 1 || gone[0].State != Dead {
			t.Fatalf("gone: %+v", gone)
		}
	}
	var closing sync.WaitGroup
	for _, g := range all {
		closing.Go(func() { _ = g.Close(t.Context()) })
	}
	closing.Wait()
}

// TestCloseIsQuick: an exchange with somebody who does not answer does not
// keep a stop waiting.
func TestCloseIsQuick(t *testing.T) {
	t.Parallel()
	deaf, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		if c, err := deaf.Accept(); err == nil {
			accepted <- c
		}
	}()
	g := join(t, 0, "a", func(c *Config) { c.Seeds = []string{deaf.Addr().String()} })
	select {
	case c := <-accepted:
		defer c.Close()
	case <-time.After(patience):
		t.Fatal("the seed was not tried")
	}
	done := make(chan error, 1)
	go func() { done <- g.Close(t.Context()) }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Error("Close hangs")
	}
}

// TestManyAtOnce: members that somebody with the key invents are looked at
// together: not all of them again for each that comes.
func TestManyAtOnce(t *testing.T) {
	const count = 4000
	g := &Gossip{self: Member{Name: "self", Actors: One(0), Self: true}, live: map[string]Member{}, dirty: make(chan struct{}, 1), changed: make(chan struct{}), log: zerolog.Nop()}
	d := &delegate{g}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range count {
		m := Member{Actors: One(uint32(i + 1)), URL: "http://10.0.0.9:8000", Boot: "b"}
		meta, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		n := &memberlist.Node{Name: nameOf(&m), Meta: meta}
		if err := d.NotifyAlive(n); err != nil {
			t.Fatal(err)
		}
		d.NotifyJoin(n)
	}
	if got := len(g.Members()); got != count+1 {
		t.Fatalf("%d members", got)
	}
	runtime.ReadMemStats(&after)
	// Each time, all members would be copied twice.
	if each := (after.TotalAlloc - before.TotalAlloc) / count; each > 16<<10 {
		t.Errorf("%d bytes for each of %d members", each, count)
	}
}

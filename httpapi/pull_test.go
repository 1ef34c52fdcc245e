package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"crdt-genome/genome"
	"crdt-genome/store"
)

// quiet leaves a node only what a test does itself.
func quiet(c *Config) {
	c.VerifyInterval, c.PullInterval = time.Hour, time.Hour
}

// A pull does not end at a chunk of which nothing is taken: what lies behind
// it may be good.
func TestPullGoesOnBehindRefusedChunk(t *testing.T) {
	l := newLab(t, 2, quiet)
	n := l.start(0)
	// Two histories of one replica; that of actor 0 is longer, so that its
	// heads alone do not tell actor 1 of the fork.
	g, h := stranger(t, "9@5f3c1a2b"), stranger(t, "9@5f3c1a2b")
	var ops []genome.Op
	for range 2*maxBatchOps + 10 {
		ops = append(ops, insert(t, g, 0, 1))
	}
	for chunk := range slices.Chunk(ops, maxBatchOps) {
		if a := ask(t, n, "POST", "/genome", blockOps(t, chunk...), "Content-Type", genome.MediaType); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	good := insert(t, stranger(t, "8@5f3c1a2b"), 0, 0x77)
	wantReply(t, post(t, n, jsonOps(t, good)), 200, PostReply{Applied: 1})

	l.setFaults(cut(0))
	m := l.start(1)
	wantReply(t, post(t, m, jsonOps(t, insert(t, h, 0, 2))), 200, PostReply{Applied: 1})
	eventually(t, func() bool { p := m.peer(0); p.mu.Lock(); defer p.mu.Unlock(); return p.failures > 0 }, why("nothing was tried"))
	l.setFaults(nil)
	if err := m.peer(0).pull(ctx, true); err != nil {
		t.Fatal(err)
	}
	if !m.actor.Version().Includes(good.Dot) {
		t.Errorf("after one pull actor 1 holds %v: the good op is not among it", m.actor.Version())
	}
	if got := m.Counts(); got.Forks != 1 || got.Rejected["dot_conflict"] == 0 {
		t.Errorf("the fork is not named: %+v", got)
	}
	if got := m.actor.Version().Get(good.Dot.Replica); got != 1 {
		t.Errorf("seq %d", got)
	}
}

// A peer that always says that there is more does not keep us for ever.
func TestPullFromALiarEnds(t *testing.T) {
	var asked atomic.Int64
	l := newLab(t, 2, quiet)
	m := l.start(1)
	mustInsert(t, m, 0, 1, 2, 3)
	rt := newTransport()
	rt.DialContext = l.paths.dial
	rt.DisableKeepAlives = true
	l.setFaults(func(from, to int) fault {
		if from == 1 {
			return fault{lose: true}
		}
		return fault{instead: func(r *http.Request) (*http.Response, error) {
			if r.URL.Path != "/v1/ops" {
				return rt.RoundTrip(r)
			}
			asked.Add(1)
			h := http.Header{}
			m.identify(h)
			h.Set(headerMore, "true")
			return &http.Response{StatusCode: 200, Header: h, Request: r, Body: io.NopCloser(bytes.NewReader(blockOps(t)))}, nil
		}}
	})
	n := l.start(0)
	for range 3 {
		if err := n.peer(1).pull(ctx, true); err != nil {
			t.Fatal(err)
		}
	}
	if got := asked.Load(); got == 0 || got > 20 {
		t.Errorf("asked %d times for chunks of nothing", got)
	}
}

// Who lost the last op of all has nothing pending: the timer alone finds it.
// The clock is fake.
func TestPullWhenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 2, func(c *Config) { c.VerifyInterval, c.PullInterval = 24*time.Hour, 10*time.Second })
		l.mem = true
		l.startAll()
		time.Sleep(time.Minute)
		rt := newTransport()
		rt.DialContext = l.paths.dial
		rt.DisableKeepAlives = true
		l.setFaults(func(from, to int) fault { // POSTs get lost and their sender does not notice
			return fault{instead: func(r *http.Request) (*http.Response, error) {
				if r.Method != "POST" {
					return rt.RoundTrip(r)
				}
				h := http.Header{}
				l.nodes[to].identify(h)
				return &http.Response{StatusCode: 200, Header: h, Request: r, Body: io.NopCloser(strings.NewReader(`{"applied":1,"duplicate":0}`))}, nil
			}}
		})
		mustInsert(t, l.nodes[0], 0, 1)
		rounds := l.nodes[1].Counts().PullRounds
		time.Sleep(15 * time.Second) // one interval and a quarter, and the grace
		if got := l.nodes[1].actor.LSN(); got != 1 {
			t.Errorf("actor 1 holds %d ops, want 1", got)
		}
		time.Sleep(time.Hour)
		if got := l.nodes[1].Counts().PullRounds - rounds; got < 250 || got > 500 {
			t.Errorf("%d rounds in an hour, want about 360", got)
		}
		l.stop(0)
		l.stop(1)
	})
}

// An op that needs what is not here makes us ask its sender for that.
func TestGapMakesAPull(t *testing.T) {
	l := newLab(t, 2, quiet)
	l.startAll()
	eventually(t, func() bool { return l.nodes[0].pulled.Load() && l.nodes[1].pulled.Load() }, why("not connected"))
	l.setFaults(func(from, to int) fault { return fault{lose: from == 0} })
	mustInsert(t, l.nodes[0], 0, 1)
	mustInsert(t, l.nodes[0], 1, 2)
	last := mustInsert(t, l.nodes[0], 2, 3)
	a := ask(t, l.nodes[1], "POST", "/genome", jsonOps(t, last), "Content-Type", typeNDJSON, headerActor, "0")
	if a.status != 202 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	l.waitEqual()
}

// A wiped disk: a new epoch, all comes back, nothing is issued twice.
func TestWipedDisk(t *testing.T) {
	l := newLab(t, 3, nil)
	l.startAll()
	for i, n := range l.nodes {
		mustInsert(t, n, 0, byte(i), 9)
	}
	l.waitEqual()
	old := l.nodes[2].actor.Replica()
	l.stop(2)
	if err := os.RemoveAll(store.Dir(l.dirs[2], 2)); err != nil {
		t.Fatal(err)
	}
	n := l.start(2)
	if n.actor.Replica() == old {
		t.Errorf("the wiped actor goes on as %v", old)
	}
	mustInsert(t, n, 0, 7)
	l.waitEqual()
	if got := mustState(t, n); got.Ops != 7 || got.Version.Get(old) != 2 {
		t.Errorf("it holds %v", got.Version)
	}
}

// An unclean stop (no guard) goes on under a new epoch without asking anybody.
func TestUncleanStop(t *testing.T) {
	l := newLab(t, 2, nil)
	n := l.start(0) // actor 1 is away
	mustInsert(t, n, 0, 1)
	old := n.actor.Replica()
	l.stop(0)
	if err := os.Remove(filepath.Join(store.Dir(l.dirs[0], 0), "guard")); err != nil {
		t.Fatal(err)
	}
	n = l.start(0)
	if n.actor.Replica() == old {
		t.Error("the epoch is the same after an unclean stop")
	}
	op := mustInsert(t, n, 1, 2)
	if op.Dot.Seq != 1 || op.Dot.Replica != n.actor.Replica() {
		t.Errorf("the next op is %v", op.Dot)
	}
	l.start(1)
	l.waitEqual()
}

// An old copy of the log put back, guard and all: here it is the running
// process that meets peers who know more of its own epoch. It must mint
// nothing under that epoch any more, and gets its ops back.
func TestOldCopyPutBack(t *testing.T) {
	l := newLab(t, 3, nil)
	l.startAll()
	mustInsert(t, l.nodes[0], 0, 1)
	l.waitEqual()
	dir := store.Dir(l.dirs[0], 0)
	l.stop(0)
	copied := t.TempDir()
	if err := os.CopyFS(filepath.Join(copied, "x"), os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	n := l.start(0)
	mustInsert(t, n, 0, 2)
	lost := mustInsert(t, n, 0, 3)
	l.waitEqual()
	l.stop(0)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(copied, "x"))); err != nil {
		t.Fatal(err)
	}
	n = l.start(0)
	a := ask(t, n, "POST", "/v1/edit", `{"insert":{"at":0,"hex":"04"}}`, "Content-Type", typeJSON)
	if a.status == 201 && strings.Contains(a.body, lost.Dot.Replica.String()) {
		t.Errorf("minted under the old epoch: %s", a.body)
	}
	eventually(t, func() bool { return n.actor.Version().Includes(lost.Dot) }, why("its ops did not come back"))
	eventually(t, func() bool {
		return ask(t, n, "POST", "/v1/edit", `{"insert":{"at":0,"hex":"05"}}`, "Content-Type", typeJSON).status == 201
	}, why("edits are refused for ever"))
	l.waitEqual()
	for i, n := range l.nodes {
		if c := n.Counts(); c.Forks != 0 || c.Diverged != 0 {
			t.Errorf("actor %d: %+v", i, c)
		}
		if s := n.actor.Stats(); s.Live.Conflicts != 0 {
			t.Errorf("actor %d: %d conflicts: a dot was issued twice", i, s.Live.Conflicts)
		}
	}
}

// A peer that knows more of our own epoch fences us until we have rotated and
// pulled it back. The guard cannot tell here, since nothing was restored: the
// peer says so out of the blue.
func TestSelfAheadFences(t *testing.T) {
	l := newLab(t, 2, quiet)
	l.startAll()
	n := l.nodes[0]
	eventually(t, func() bool { return n.pulled.Load() && l.nodes[1].pulled.Load() }, why("not connected"))
	l.setFaults(cut(0))
	old := n.actor.Replica()
	shadow := genome.New(old) // what a later copy of this actor would have made
	ops := []genome.Op{insert(t, shadow, 0, 1), insert(t, shadow, 1, 2)}
	wantReply(t, post(t, l.nodes[1], jsonOps(t, ops...)), 200, PostReply{Applied: 2})
	a := ask(t, n, "POST", "/genome", jsonOps(t, ops[1]), "Content-Type", typeJSON, headerActor, "1")
	if a.status != 202 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if n.actor.Replica() == old {
		t.Error("it has not rotated")
	}
	a = ask(t, n, "POST", "/v1/edit", `{"insert":{"at":0,"hex":"04"}}`, "Content-Type", typeJSON)
	wantProblem(t, n, a, 503, "fenced")
	wantMetric(t, n, "genome_writer_fenced", 1)
	wantMetric(t, n, "genome_epoch", 2)
	l.setFaults(nil)
	n.peer(1).wakeNow()
	eventually(t, func() bool { return n.actor.Version().Get(old) == 2 }, why("its ops did not come back"))
	if a = ask(t, n, "POST", "/v1/edit", `{"insert":{"at":0,"hex":"04"}}`, "Content-Type", typeJSON); a.status != 201 {
		t.Errorf("after the pull: %d %s", a.status, a.body)
	}
	wantMetric(t, n, "genome_writer_fenced", 0)
	l.nodes[1].peer(0).wakeNow()
	l.waitEqual()
}

// wakeNow makes a peer's loops look now.
func (p *peer) wakeNow() {
	wake(p.wakePull)
	wake(p.wakePush)
}

// Two live processes with one actor number: the later one mints nothing more,
// whichever of the ways it learns of the other.
func TestTwins(t *testing.T) {
	for _, way := range []string{"through a peer", "directly"} {
		t.Run(way, func(t *testing.T) {
			l := newLab(t, 3, func(c *Config) { c.tune.twinGrace = time.Millisecond })
			older := l.start(0)
			third := l.start(2)
			l.waitRound(0, 1, 0, 1, 0)
			// The twin has a log and an address of its own.
			cfg := l.config(0)
			buf := &logBuffer{}
			cfg.Log = cfg.Log.Output(buf)
			cfg.Store.Data = t.TempDir()
			cfg.Peers = []Peer{{Actor: 2, URL: "http://" + name(2)}}
			if way == "directly" {
				cfg.Peers = []Peer{{Actor: 1, URL: "http://" + name(0)}} // it takes the older for actor 1
			}
			later, err := Start(ctx, cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer later.Close(ctx)
			eventually(t, func() bool { return later.fencedBy() != "" }, func() string { return "the later twin goes on\n" + buf.String() })
			a := ask(t, later, "POST", "/v1/edit", `{"insert":{"at":0,"hex":"04"}}`, "Content-Type", typeJSON)
			wantProblem(t, later, a, 409, "actor_in_use")
			wantMetric(t, later, "genome_writer_fenced", 1)
			if a := ask(t, later, "GET", "/genome", nil); a.status != 200 {
				t.Errorf("reads of the fenced one: %d", a.status)
			}
			if older.fencedBy() != "" || third.fencedBy() != "" {
				t.Error("the older or the third is fenced")
			}
			mustInsert(t, older, 0, 1)
			eventually(t, func() bool { return third.actor.Version().Covers(older.actor.Version()) }, why("the older one does not get through any more"))
			if len(buf.lines(`"event":"actor_in_use"`)) != 1 {
				t.Errorf("the log does not say so once:\n%s", buf)
			}
		})
	}
}

// A restart is no twin, and a clock that was set back makes none either.
func TestTwinsTable(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	id := func(started int) bootID { return newBootID(now.Add(time.Duration(started) * time.Second)) }
	older, newer := id(0), id(100)
	tw := twins{grace: time.Second, seen: map[genome.ActorID][]sighting{}}
	see := func(b bootID, sent, second int) bool {
		_, inUse := tw.see(1, b, now.Add(time.Duration(sent)*time.Second), now.Add(time.Duration(second)*time.Second))
		return inUse
	}
	for i, step := range []struct {
		boot         bootID
		sent, second int
		inUse        bool
	}{
		{older, 0, 0, false}, {newer, 100, 100, false}, {newer, 101, 101, false},
		{older, 99, 100, false}, // a late request, within the grace
		{newer, 102, 102, false},
		{older, 99, 103, false}, // a very late one: its packets got lost
		{newer, 103, 103, false},
		{older, -1 << 30, 103, false}, // one that does not say when
		{newer, 103, 103, false},
		{older, 103, 103, false}, // the older one itself is never told off
		{newer, 104, 104, true},  // but it lives, so the newer one is
		{newer, 200, 200, false}, // no longer heard of for a minute
		{"nonsense", 201, 201, false},
	} {
		if got := see(step.boot, step.sent, step.second); got != step.inUse {
			t.Errorf("step %d: in use %v, want %v", i, got, step.inUse)
		}
	}
	for i := range 100 {
		see(id(1000+i), 300+i, 300+i)
	}
	if got := len(tw.seen[1]); got > maxTwins {
		t.Errorf("%d processes are remembered", got)
	}
	for _, bad := range []bootID{"", "x", "00000000000g-0123456789abcdef", bootID(strings.Repeat("0", 29))} {
		if _, ok := bad.started(); ok {
			t.Errorf("%q passes for a boot id", bad)
		}
	}
	if at, ok := newer.started(); !ok || at.Unix() != 1_000_100 {
		t.Errorf("started: %v, %v", at, ok)
	}
}

// One actor is away for good: the others go on without it.
func TestUnreachableActor(t *testing.T) {
	l := newLab(t, 3, nil)
	l.start(0)
	l.start(1)
	for i := range 50 {
		mustInsert(t, l.nodes[i%2], 0, byte(i))
	}
	l.waitEqual()
	l.waitRound(0, 1, 0, 1, 0)
	if c, err := l.nodes[0].Cluster(ctx); err != nil || c.Verdict != StateUnreachable || c.Equal != 2 || c.Of != 3 {
		t.Errorf("%+v, %v", c, err)
	}
}

// What is under way when a node stops is not lost: it goes out first.
func TestStopFlushes(t *testing.T) {
	l := newLab(t, 2, quiet)
	l.startAll()
	eventually(t, func() bool { return l.nodes[0].pulled.Load() && l.nodes[1].pulled.Load() }, why("not connected"))
	for i := range 100 {
		mustInsert(t, l.nodes[0], 0, byte(i))
	}
	l.stop(0)
	if got := l.nodes[1].actor.LSN(); got != 100 {
		t.Errorf("%d of 100 ops went out before the stop", got)
	}
	if len(l.logs[0].lines(`"message":"stopped"`, `"unsent":0`, `"ops":100`)) != 1 {
		t.Errorf("the log does not say so: %s", l.logs[0].lines("stopped"))
	}
}

// A group of so many replicas that a vector of them is larger than any other
// body: its members still ask each other for what they lack.
func TestPullLongVector(t *testing.T) {
	l := newLab(t, 2, quiet)
	n := l.start(0)
	const each, batches = 4000, 13
	for k := range batches {
		var ops []genome.Op
		for i := range each {
			at := func(i int) genome.ReplicaID { return genome.NewReplicaID(genome.ActorID(1<<31+i), 0xffffffff) }
			parent := genome.Root
			if j := k*each + i; j > 0 { // not all at one place, which would be slow
				parent = genome.GeneID{Replica: at((j - 1) / 2)}
			}
			ops = append(ops, genome.Op{Kind: genome.Insert, Dot: genome.Dot{Replica: at(k*each + i), Seq: 1}, Ref: parent, Side: genome.Right, Genes: []byte{1}})
		}
		if rec, err := n.actor.Receive(ctx, store.Source{Via: store.ViaPost}, genome.Block{Ops: ops}); err != nil || rec.Applied != each {
			t.Fatal(rec, err)
		}
	}
	if v, err := json.Marshal(n.actor.Version()); err != nil || len(v) <= maxBody {
		t.Fatalf("a vector of %d bytes shows nothing", len(v))
	}
	l.start(1)
	l.waitEqual()
	if _, err := n.Cluster(ctx); err != nil {
		t.Error(err)
	}
}

// Only a few bodies of that size are read at a time, and none for other ends.
func TestLongBodies(t *testing.T) {
	n := alone(t, nil)
	long := append([]byte(`{"limit":1,"since":{}}`), bytes.Repeat([]byte(" "), maxBody)...)
	if a := ask(t, n, "POST", "/v1/ops/query", long, "Content-Type", typeJSON); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	wantProblem(t, n, ask(t, n, "POST", "/v1/edit", long, "Content-Type", typeJSON), 413, codeBodyTooLarge)
	for range maxVectors {
		n.vectors <- struct{}{}
	}
	// Not over a connection, which is closed while it still sends.
	err := n.queryOps(httptest.NewRecorder(), httptest.NewRequest("POST", "/v1/ops/query", bytes.NewReader(long)))
	if p, ok := errors.AsType[*Problem](err); !ok || p.Code != codeBusy {
		t.Errorf("one too many: %v", err)
	}
	if a := ask(t, n, "POST", "/v1/ops/query", `{"since":{}}`, "Content-Type", typeJSON); a.status != 200 {
		t.Errorf("a short one: %d %s", a.status, a.body)
	}
}

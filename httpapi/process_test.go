package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"crdt-genome/genome"
	"crdt-genome/httpapi/membership"
	"crdt-genome/store"
)

// hall is some processes with several actors each, in one group.
type hall struct {
	t     testing.TB
	dirs  []string
	sets  []membership.Set
	procs []*Process
	logs  []*logBuffer
	adapt func(*Config)
}

func newHall(t testing.TB, adapt func(*Config), sets ...string) *hall {
	h := &hall{t: t, adapt: adapt, procs: make([]*Process, len(sets))}
	for _, text := range sets {
		s, err := membership.ParseSet(text)
		if err != nil {
			t.Fatal(err)
		}
		h.sets, h.dirs, h.logs = append(h.sets, s), append(h.dirs, t.TempDir()), append(h.logs, &logBuffer{})
	}
	t.Cleanup(func() {
		for i := range h.procs {
			h.stop(i)
		}
	})
	return h
}

func (h *hall) start(i int) *Process {
	h.t.Helper()
	var cfgs []Config
	for a := range h.sets[i].All() {
		cfg := Config{
			Store: store.Config{Data: h.dirs[i], Actor: genome.ActorID(a)}, Listen: "127.0.0.1:0", Mutate: MutateConfig{Off: true},
			VerifyInterval: 200 * time.Millisecond, PullInterval: 300 * time.Millisecond, Version: "test",
			Log: zerolog.New(h.logs[i]).Level(zerolog.DebugLevel), SetLevel: func(zerolog.Level) {},
			Join: &JoinConfig{Listen: "127.0.0.1:0"}, tune: tuning{grace: 10 * time.Millisecond},
		}
		for _, p := range h.procs {
			if p != nil {
				cfg.Join.Seeds = append(cfg.Join.Seeds, gossipAddr(p.lead))
			}
		}
		if h.adapt != nil {
			h.adapt(&cfg)
		}
		cfgs = append(cfgs, cfg)
	}
	p, err := StartProcess(ctx, cfgs)
	if err != nil {
		h.t.Fatalf("StartProcess(%d): %v", i, err)
	}
	h.procs[i] = p
	return p
}

func (h *hall) stop(i int) {
	if h.procs[i] == nil {
		return
	}
	if err := h.procs[i].Close(ctx); err != nil {
		h.t.Errorf("Close(%d): %v", i, err)
	}
	h.procs[i] = nil
}

func (h *hall) nodes() (all []*Node) {
	for _, p := range h.procs {
		if p != nil {
			all = append(all, p.nodes...)
		}
	}
	return all
}

// waitEqual waits until all actors hold n ops and the same state.
func (h *hall) waitEqual(n uint64) {
	h.t.Helper()
	var what string
	eventually(h.t, func() bool {
		what = ""
		all := h.nodes()
		first := mustState(h.t, all[0])
		for _, m := range all {
			st := mustState(h.t, m)
			what += fmt.Sprintf(" %d:%d", m.cfg.Store.Actor, st.Ops)
			if st.Ops != n || st.Digest != first.Digest {
				return false
			}
		}
		return true
	}, func() string { return fmt.Sprintf("want %d ops everywhere:%s", n, what) })
}

// TestProcess: actors of two processes become equal, whoever mints and whoever
// is posted to; all hold the same after a restart; verification counts actors.
func TestProcess(t *testing.T) {
	h := newHall(t, nil, "0-3,9", "4-8")
	h.start(0)
	h.start(1)
	n := uint64(0)
	for i, m := range h.nodes() {
		mustInsert(t, m, 0, byte(i), 7)
		n += 2
	}
	h.waitEqual(n)
	// A stranger posts to an actor that does not lead.
	if a := post(t, h.procs[1].nodes[2], jsonOps(t, insert(t, stranger(t, "77@00000001"), 0, 1, 2, 3))); a.status != http.StatusOK {
		t.Fatalf("POST: %d %s", a.status, a.body)
	}
	n += 3
	h.waitEqual(n)
	for i, log := range h.logs {
		eventually(t, func() bool { return len(log.lines(`"match count"`, `"match_count":9`, `"peers":9`)) > 0 }, why(fmt.Sprintf("process %d does not match all", i)))
	}
	if m := h.procs[0].nodes[1].Members().Members; len(m) != 2 || m[0].Actors.String() != "0-3,9" || m[1].Actors.String() != "4-8" {
		t.Errorf("members: %+v", m)
	}
	reply, err := h.procs[0].nodes[1].Cluster(ctx)
	if err != nil || reply.Of != 6 || reply.Verdict != VerdictConverged {
		t.Errorf("cluster: %+v, %v", reply, err)
	}
	h.stop(1)
	mustInsert(t, h.procs[0].nodes[4], 0, 1)
	n++
	h.waitEqual(n)
	h.start(1)
	h.waitEqual(n)
	for _, m := range h.nodes() {
		if c := m.Counts(); c.Panics+c.Forks+c.Diverged+c.PostsFailed > 0 || len(c.Rejected) > 0 {
			t.Errorf("actor %d: %+v", m.cfg.Store.Actor, c)
		}
	}
}

// TestProcessPostIsDurableForAll: when a member's POST is answered, every
// actor's log has it.
func TestProcessPostIsDurableForAll(t *testing.T) {
	h := newHall(t, nil, "0-5")
	p := h.start(0)
	g := stranger(t, "77@00000001")
	c := NewClient(p.lead.URL())
	for i := range 20 {
		if _, err := c.Post(ctx, genome.Block{Ops: []genome.Op{insert(t, g, 0, byte(i))}}); err != nil {
			t.Fatal(err)
		}
		for _, m := range p.nodes {
			if got := m.actor.LSN(); got != uint64(i+1) {
				t.Fatalf("answered, but actor %d has %d ops of %d", m.cfg.Store.Actor, got, i+1)
			}
		}
	}
}

// TestProcessMeets: logs that do not hold the same are made equal before
// anybody is served, an actor that is new included.
func TestProcessMeets(t *testing.T) {
	h := newHall(t, nil, "0-2")
	p := h.start(0)
	mustInsert(t, p.nodes[1], 0, 1, 2, 3)
	h.waitEqual(3)
	h.stop(0)
	alone, err := store.Open(ctx, store.Config{Data: h.dirs[0], Actor: 2})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := alone.Insert(ctx, 0, []byte{9}); err != nil {
		t.Fatal(err)
	}
	if err := alone.Close(); err != nil {
		t.Fatal(err)
	}
	h.sets[0] = membership.Set{{First: 0, Last: 3}}
	h.start(0)
	for _, m := range h.nodes() {
		if got := mustState(t, m).Ops; got != 4 {
			t.Errorf("actor %d starts with %d ops", m.cfg.Store.Actor, got)
		}
	}
}

// TestProcessRepairs: an actor that missed what was shared gets it.
func TestProcessRepairs(t *testing.T) {
	h := newHall(t, nil, "0-2")
	p := h.start(0)
	p.rest[1].state.Store(behind) // as if it had failed to take something
	mustInsert(t, p.lead, 0, 1, 2)
	h.waitEqual(2)
	eventually(t, func() bool { return p.rest[1].state.Load() == inStep }, why("still behind"))
	mustInsert(t, p.nodes[2], 0, 3)
	h.waitEqual(3)
}

// A gate lets commits of an actor through one by one.
type gate struct {
	closed        atomic.Bool
	came, pass    chan struct{}
	openedForGood sync.Once
}

func newGate() *gate { return &gate{came: make(chan struct{}), pass: make(chan struct{})} }

// commit is store.Config.Committed.
func (g *gate) commit(time.Duration) {
	if !g.closed.Load() {
		return
	}
	select {
	case g.came <- struct{}{}:
	case <-g.pass:
	}
	<-g.pass
}

// wait waits until a commit waits.
func (g *gate) wait(t *testing.T) {
	t.Helper()
	select {
	case <-g.came:
	case <-time.After(patience):
		t.Fatal("no commit")
	}
}

func (g *gate) letOne() { g.pass <- struct{}{} }

func (g *gate) open() {
	g.closed.Store(false)
	g.openedForGood.Do(func() { close(g.pass) })
}

// TestProcessCatchingUp: while an actor that fell behind is given what it has
// missed, and has not got it all, no member's POST is answered 2xx.
func TestProcessCatchingUp(t *testing.T) {
	g := newGate()
	h := newHall(t, func(c *Config) {
		if c.Store.Actor == 2 {
			c.Store.Committed = g.commit
		}
	}, "0-2")
	p := h.start(0)
	t.Cleanup(g.open) // before the process is stopped, also if this fails
	f, c, made := p.rest[1], NewClient(p.lead.URL()), stranger(t, "77@00000001")
	f.state.Store(behind) // as if it had failed to take something
	g.closed.Store(true)
	mustInsert(t, p.lead, 0, 1)
	g.wait(t) // it is being given that one, and has not said that it has it
	block := genome.Block{Ops: []genome.Op{insert(t, made, 0, 2)}}
	refused := func(when string) {
		t.Helper()
		reply, err := c.Post(ctx, block)
		if prob, ok := errors.AsType[*Problem](err); !ok || prob.Code != codeStoreFull {
			t.Errorf("%s: %+v, %v; want %s", when, reply, err, codeStoreFull)
		}
	}
	refused("behind")
	g.letOne()
	g.wait(t) // it is being given what was shared meanwhile
	refused("catching up")
	g.open()
	eventually(t, func() bool { _, err := c.Post(ctx, block); return err == nil }, why("never in step again"))
	if !f.actor.Version().Includes(block.Ops[0].Dot) {
		t.Error("answered, but it lacks the op")
	}
}

// TestProcessParked: an op that an actor had parked, and that what the lead
// brought set free, reaches the lead and all others as well.
func TestProcessParked(t *testing.T) {
	h := newHall(t, nil, "0-2")
	p := h.start(0)
	g := stranger(t, "77@00000001")
	first, second := insert(t, g, 0, 1), insert(t, g, 1, 2)
	if a := post(t, p.nodes[1], jsonOps(t, second)); a.status != http.StatusAccepted {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := post(t, p.lead, jsonOps(t, first)); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	h.waitEqual(2)
}

// TestProcessFork: when actors of a process hold different histories of a
// replica, its ops are no longer answered 2xx; others' ops go on.
func TestProcessFork(t *testing.T) {
	h := newHall(t, nil, "0-2")
	one, other := stranger(t, "77@00000001"), stranger(t, "77@00000001")
	// Before they run: else what one has is brought to the other, who then
	// refuses its own, and there is no fork.
	for actor, g := range map[genome.ActorID]*genome.Genome{0: one, 2: other} {
		a, err := store.Open(ctx, store.Config{Data: h.dirs[0], Actor: actor})
		if err != nil {
			t.Fatal(err)
		}
		rec, err := a.Receive(ctx, store.Source{Via: store.ViaPost}, genome.Block{Ops: []genome.Op{insert(t, g, 0, byte(actor))}})
		if err = errors.Join(err, a.Close()); err != nil || rec.Applied != 1 {
			t.Fatalf("actor %d: %+v, %v", actor, rec, err)
		}
	}
	p := h.start(0)
	c := NewClient(p.lead.URL())
	var err error
	post := func(op genome.Op) error {
		_, err = c.Post(ctx, genome.Block{Ops: []genome.Op{op}})
		return err
	}
	last := func() string { return fmt.Sprintf("the last answer: %v", err) }
	second := insert(t, one, 1, 4) // on the lead's first: this is when it shows
	eventually(t, func() bool { return post(second) != nil && strings.Contains(err.Error(), "dot_conflict") }, last)
	third := insert(t, stranger(t, "78@00000001"), 0, 3)
	eventually(t, func() bool { return post(third) == nil }, last)
	if err := post(insert(t, one, 2, 5)); err == nil || !strings.Contains(err.Error(), "dot_conflict") {
		t.Errorf("one more op of the forked replica: %v", err)
	}
	if err := post(insert(t, stranger(t, "79@00000001"), 0, 6)); err != nil {
		t.Errorf("another's op after that: %v", err)
	}
	for _, n := range p.nodes {
		if !n.actor.Version().Includes(genome.Dot{Replica: genome.NewReplicaID(79, 1), Seq: 1}) {
			t.Errorf("actor %d lacks what was answered", n.cfg.Store.Actor)
		}
	}
}

// TestProcessFailsAsOne: when a log fails, the process ends and says why.
func TestProcessFailsAsOne(t *testing.T) {
	h := newHall(t, nil, "0-2")
	p := h.start(0)
	if err := p.nodes[1].actor.Close(); err != nil {
		t.Fatal(err)
	}
	h.procs[0] = nil
	select {
	case <-p.Done():
	case <-time.After(patience):
		t.Fatal("it goes on")
	}
	if p.Err() == nil {
		t.Error("no error")
	}
	if _, err := StartProcess(ctx, nil); err == nil {
		t.Error("a process without actors started")
	}
}

// TestProcessCloseStuck: a log that cannot be closed makes the process stuck
// also while it stops, and a second Close can hurry the first.
func TestProcessCloseStuck(t *testing.T) {
	g := newGate()
	h := newHall(t, func(c *Config) {
		c.StallTimeout = 500 * time.Millisecond
		if c.Store.Actor == 2 {
			c.Store.Committed = g.commit
		}
	}, "0-2")
	p := h.start(0)
	t.Cleanup(g.open)
	closed := make(chan error, 2)
	g.closed.Store(true)
	mustInsert(t, p.lead, 0, 1)
	g.wait(t) // from here on the log of actor 2 stands still
	go func() { closed <- p.Close(ctx) }()
	select {
	case <-p.Stuck():
	case <-time.After(patience):
		t.Fatal("it stands still, and nobody notices")
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	go func() { closed <- p.Close(over) }()
	eventually(t, func() bool {
		select {
		case <-p.rest[1].hurry:
			return true
		default:
			return false
		}
	}, why("the second Close waits for others"))
	g.open()
	for range 2 {
		if err := <-closed; err != nil {
			t.Error(err)
		}
	}
	h.procs[0] = nil
}

// TestStuckWhileStopping: the log stands still only when the node is stopping
// already, and nothing asks the apply loop any more.
func TestStuckWhileStopping(t *testing.T) {
	g := newGate()
	n := alone(t, func(c *Config) { c.StallTimeout, c.Store.Committed = 500*time.Millisecond, g.commit })
	t.Cleanup(g.open)
	n.cancel() // as a stop does, after which it closes the log
	g.closed.Store(true)
	go func() { _, _ = n.actor.Insert(ctx, 0, []byte{1}) }()
	g.wait(t)
	select {
	case <-n.Stuck():
	case <-time.After(patience):
		t.Fatal("it stands still, and nobody notices")
	}
}

// TestRings: above the threshold members form rings: each sends to a few and
// passes on what it gets, and all become equal; the digests that ride say so.
func TestRings(t *testing.T) {
	const count = 12
	l := gossiping(t, count, func(c *Config) { c.Fanout, c.Pace = 4, 20*time.Millisecond })
	l.startAll()
	for _, n := range l.nodes {
		eventually(t, func() bool { return len(n.peers()) == count-1 }, why("not all are members"))
	}
	for i, n := range l.nodes {
		if k := len(n.linked()); !n.relaying() || k < 2 || k > 4 {
			t.Errorf("node %d: %d links, relaying %t", i, k, n.relaying())
		}
		mustInsert(t, n, 0, byte(i))
	}
	l.waitEqual()
	for i, n := range l.nodes {
		log := l.logs[i]
		k := len(n.linked())
		eventually(t, func() bool {
			return len(log.lines(`"match count"`, fmt.Sprintf(`"members":%d`, count), fmt.Sprintf(`"match_count":%d,"peers":%d,`, k, k))) > 0
		}, why("its neighbours do not match"))
		var posts uint64
		for _, p := range n.peers() {
			if s := p.status(); s.Posts > 0 {
				posts++
			}
		}
		if int(posts) > k {
			t.Errorf("node %d has posted to %d members", i, posts)
		}
	}
	var all sync.WaitGroup
	for i := range l.nodes { // each takes its time to say goodbye
		all.Go(func() { l.stop(i) })
	}
	all.Wait()
}

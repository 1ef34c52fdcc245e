package store

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"crdt-genome/genome"
)

// TestFolder holds both kinds of folder and disk to one contract.
func TestFolder(t *testing.T) {
	onBackends(t, func(t *testing.T, f folder) {
		if ok, err := f.exists(); ok || err != nil {
			t.Fatalf("exists() of an empty folder = %v, %v", ok, err)
		}
		m := &meta{cluster: "c", self: 7, epochs: []genome.Epoch{5, 6}}
		if err := f.create(m.firstWrites()); err != nil {
			t.Fatal(err)
		}
		d, err := f.openWrite()
		if err != nil {
			t.Fatal(err)
		}
		got, err := readMeta(d)
		if err != nil || got.self != 7 || got.cluster != "c" || got.epoch() != 6 || got.major != formatMajor {
			t.Fatalf("readMeta = %+v, %v", got, err)
		}
		checkDisk(t, d)
		if err := d.close(); err != nil {
			t.Fatal(err)
		}
		r, notes, err := f.openRead()
		if err != nil || len(notes) != 0 {
			t.Fatal(err, notes)
		}
		if k, v, err := r.floor(bucketActors, lsnKey(99)); err != nil || string(k) != string(lsnKey(20)) || string(v) != "b" {
			t.Fatalf("after reopening, floor(99) = %x, %q, %v", k, v, err)
		}
		if err := r.commit([]write{{bucketActors, lsnKey(1), []byte("x")}}); err == nil {
			t.Error("a disk opened for reading commits")
		}
		if err := r.close(); err != nil {
			t.Fatal(err)
		}
		checkGuard(t, f)
	})
}

func checkDisk(t *testing.T, d disk) {
	t.Helper()
	err := d.commit([]write{{bucketActors, lsnKey(10), []byte("a")}, {bucketMeta, lsnKey(30), []byte("t")}, {bucketActors, lsnKey(300), []byte("c")}})
	if err == nil {
		err = d.commit([]write{{bucketActors, lsnKey(20), []byte("b")}, {bucketMeta, lsnKey(30), nil}, {bucketActors, lsnKey(300), nil}})
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		b    bucket
		key  uint64
		want string
	}{{bucketActors, 9, ""}, {bucketActors, 10, "a"}, {bucketActors, 19, "a"}, {bucketActors, 20, "b"}, {bucketActors, 1 << 60, "b"}, {bucketMeta, 99, ""}, {bucketCkpt, 5, ""}} {
		if _, v, err := d.floor(c.b, lsnKey(c.key)); err != nil || string(v) != c.want {
			t.Errorf("floor(%s, %d) = %q, %v, want %q", c.b, c.key, v, err, c.want)
		}
	}
	seen := ""
	stop := errors.New("stop")
	if err := d.ascend(bucketActors, func(_, v []byte) error { seen += string(v); return nil }); err != nil || seen != "ab" {
		t.Errorf("ascend = %q, %v", seen, err)
	}
	if err := d.ascendFrom(bucketActors, lsnKey(11), func(k, v []byte) error { seen += string(v); return nil }); err != nil || seen != "abb" {
		t.Errorf("ascendFrom = %q, %v", seen, err)
	}
	if err := d.ascend(bucketActors, func(_, _ []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("ascend with an error = %v", err)
	}
}

func checkGuard(t *testing.T, f folder) {
	t.Helper()
	if _, ok, err := f.readGuard(); ok || err != nil {
		t.Fatalf("guard is there before it was written: %v", err)
	}
	id, err := f.identity()
	if err != nil {
		t.Fatal(err)
	}
	want := guard{Token: "00ff", identity: id, LSN: 12}
	if err := f.writeGuard(want); err != nil {
		t.Fatal(err)
	}
	got, ok, err := f.readGuard()
	if got.Token != want.Token || got.identity != id || got.LSN != 12 || !ok || err != nil {
		t.Fatalf("readGuard = %+v, %v, %v", got, ok, err)
	}
	for range 2 {
		if err := f.removeGuard(); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok, _ := f.readGuard(); ok {
		t.Error("guard is there after it was removed")
	}
}

// A ledger is what the world knows of one actor, over all its lives: every
// event that was acknowledged to a caller or shown to anybody.
type ledger map[genome.Dot]genome.Event

// saw notes that ops were shown or acknowledged.
func (l ledger) saw(t *testing.T, where string, ops []genome.Op) {
	t.Helper()
	for _, d := range spread(ops) {
		if old, ok := l[d.dot]; ok && old != d.ev {
			t.Fatalf("%s: %v is %v, but was shown as %v before", where, d.dot, d.ev, old)
		}
		l[d.dot] = d.ev
	}
}

// covers fails unless everything in the ledger is held by a.
func (l ledger) covers(t *testing.T, where string, a *Actor) {
	t.Helper()
	held := events(all(t, a).Ops)
	for d, ev := range l {
		if held[d] != ev {
			t.Fatalf("%s: %v %v was shown or acknowledged, and is %v after the restart", where, d, ev, held[d])
		}
	}
}

// life runs an actor on f through everything it can do until something fails:
// sealing, packing and checkpoints too.
func (l ledger) life(t *testing.T, f *simFolder, seed uint64, foreign genome.Block) {
	cfg := smallConfig(t, 1)
	cfg.sealOps, cfg.packParts, cfg.CheckpointEvery = 4, 2, 6
	a, err := open(ctx, cfg, f)
	if err != nil {
		return
	}
	l.covers(t, "open", a)
	rng, k := rngOf(seed), &keeper{a: a}
	for i := range 12 {
		k.work(ctx)
		ops, err := edit(a, rng)
		if err == nil {
			l.saw(t, "Edit", ops)
		}
		if i == 2 {
			if rec, err := a.Receive(ctx, Source{Via: ViaPost}, foreign); err == nil && rec.Applied+rec.Duplicate == 4 {
				l.saw(t, "Receive", foreign.Ops)
			}
		}
		if i == 3 {
			_ = a.Rotate(ctx, "test")
		}
		if b, _, err := a.Since(ctx, nil, 0, 0); err == nil {
			l.saw(t, "Since", b.Ops)
		}
	}
	if rng.IntN(2) == 0 {
		_ = a.Close()
		return
	}
	f.mu.Lock()
	f.down = true // pulled out without a stop
	f.mu.Unlock()
	_ = a.Close()
}

// TestCrash pulls the plug before every step of a life, with different luck for
// what was not synced, and looks whether S1-S3 hold in the lives after it.
func TestCrash(t *testing.T) {
	other := mustOpenOn(t, newSimFolder(), 2)
	mustInsert(t, other, 0, 1, 2, 3)
	mustInsert(t, other, 1, 9)
	foreign := all(t, other)
	const steps = 110 // about as many as a life takes
	crashed := 0
	for step := 1; step <= steps; step++ {
		for seed := range uint64(5) {
			f, l := newSimFolder(), ledger{}
			rng := rngOf(seed)
			f.crashAt = step
			l.life(t, f, seed, foreign)
			if f.down {
				crashed++
			}
			f.crash(rng)
			f.crashAt = 1 + rng.IntN(steps) // and again, anywhere
			l.life(t, f, seed+100, foreign)
			f.crash(rng)
			a, err := openOn(f, 1)
			if err != nil {
				t.Fatalf("step %d seed %d: open after the crash: %v", step, seed, err)
			}
			l.covers(t, fmt.Sprintf("step %d seed %d", step, seed), a)
			ops, err := a.Insert(ctx, 0, []byte{0xee, byte(seed), byte(step)})
			if err != nil {
				t.Fatal(err)
			}
			l.saw(t, "the first op after the crash", ops)
			mustClose(t, a)
		}
	}
	if crashed < steps*5*9/10 {
		t.Errorf("only %d of %d lives crashed", crashed, steps*5)
	}
}

// TestNothingShownEarly looks, between all steps of a commit, at all that an
// actor shows.
func TestNothingShownEarly(t *testing.T) {
	f := newSimFolder()
	a := mustOpenOn(t, f, 1)
	mustInsert(t, a, 0, 1)
	self := a.Replica()
	var looked []string
	late := make(chan string, 100) // readers that had to wait
	f.before = func(step string) {
		looked = append(looked, step)
		if n := a.Version().Get(self); n != 1 {
			t.Errorf("%s: Version shows seq %d", step, n)
		}
		if h := a.Heads(); len(h) != 1 || h[0].Seq != 1 {
			t.Errorf("%s: Heads shows %v", step, h)
		}
		if n := a.LSN(); n != 1 {
			t.Errorf("%s: LSN = %d", step, n)
		}
		if b, _, err := a.Since(ctx, nil, 0, 0); err != nil || len(spread(b.Ops)) != 1 {
			t.Errorf("%s: Since shows %v, %v", step, b.Ops, err)
		}
		if b, next, err := a.SignedOwn(ctx, 0, nil, 0, 0); err != nil || len(spread(b.Ops)) != 1 || next != 1 {
			t.Errorf("%s: Own shows %v up to %d, %v", step, b.Ops, next, err)
		}
		if _, ok, _ := a.ChainAt(ctx, genome.Dot{Replica: self, Seq: 2}); ok {
			t.Errorf("%s: ChainAt shows seq 2", step)
		}
		for r := range a.Records(ctx, 2) {
			t.Errorf("%s: Records shows %+v", step, r)
		}
		if r := a.Replica(); r != self {
			t.Errorf("%s: Replica shows %v", step, r)
		}
		select {
		case <-a.Changed():
			t.Errorf("%s: Changed is closed", step)
		default:
		}
		go func() {
			st, err := a.State(ctx)
			if err == nil && st.Ops > 1 && a.LSN() < st.Ops {
				t.Errorf("%s: State shows %d ops, %d are durable", step, st.Ops, a.LSN())
			}
			late <- "State"
		}()
		go func() {
			n := uint64(0)
			if err := a.View(ctx, func(g *genome.Genome) { n = g.Ops() }); err == nil && a.LSN() < n {
				t.Errorf("%s: View shows %d ops, %d are durable", step, n, a.LSN())
			}
			late <- "View"
		}()
		go func() {
			if _, err := a.Insert(ctx, 99, []byte{1}); !errors.Is(err, genome.ErrIndex) || a.LSN() < 3 {
				t.Errorf("%s: an error that tells the length came at LSN %d: %v", step, a.LSN(), err)
			}
			late <- "error"
		}()
		time.Sleep(2 * time.Millisecond)
		select {
		case who := <-late:
			t.Errorf("%s: %s came before its commit", step, who)
		default:
		}
	}
	if _, err := a.Insert(ctx, 0, []byte{7, 8}); err != nil {
		t.Fatal(err)
	}
	f.before = nil
	if len(looked) < 5 {
		t.Errorf("looked at %q only", looked)
	}
	for range 3 * len(looked) {
		select {
		case <-late:
		case <-time.After(5 * time.Second):
			t.Fatal("a reader was never answered")
		}
	}
}

// TestFailStop makes each step of a commit fail without a crash: nothing may be
// acknowledged, and nothing is tried again.
func TestFailStop(t *testing.T) {
	for i := 1; i <= 5; i++ {
		f := newSimFolder()
		a := mustOpenOn(t, f, 1)
		mustInsert(t, a, 0, 1)
		f.failAt = len(f.steps) + i
		_, err := a.Insert(ctx, 1, []byte{2})
		if err == nil {
			t.Fatalf("step %d fails, and Insert does not", i)
		}
		within(t, "Done", a.Done())
		steps := len(f.steps)
		if _, err := a.Insert(ctx, 1, []byte{3}); err == nil || errors.Is(err, ErrClosed) {
			t.Errorf("step %d: after a failure, Insert = %v", i, err)
		}
		if _, err := a.State(ctx); err == nil {
			t.Errorf("step %d: after a failure, State answers", i)
		}
		if n := a.Version().Get(a.Replica()); n != 1 {
			t.Errorf("step %d: after a failure, Version shows seq %d", i, n)
		}
		for r, err := range a.Records(ctx, 1) {
			if err == nil {
				t.Errorf("step %d: after a failure, Records shows %+v", i, r)
			}
		}
		if a.Err() == nil || len(f.steps) != steps {
			t.Errorf("step %d: Err() = %v, steps after it: %q", i, a.Err(), f.steps[steps:])
		}
		_ = a.Close()
		if f.guard.hasNow {
			t.Errorf("step %d: an actor that failed left a guard", i)
		}
	}
}

package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"crdt-genome/genome"
)

// TestLockTimeout opens a folder that is held: the second waits as long as it
// was told, says who holds it, and changes nothing.
func TestLockTimeout(t *testing.T) {
	dir := t.TempDir()
	a := mustOpen(t, dir, 1, nil)
	must(t, a.SetAddr("http://127.0.0.1:8000"))
	mustInsert(t, a, 0, 7)
	before := mustState(t, a)

	const wait = 50 * time.Millisecond
	start := time.Now()
	_, err := Open(ctx, Config{Data: dir, Actor: 1, LockTimeout: wait})
	locked, ok := errors.AsType[*LockedError](err)
	if !ok || locked.PID != os.Getpid() || locked.Addr != "http://127.0.0.1:8000" {
		t.Fatalf("error %v, %+v", err, locked)
	}
	if took := time.Since(start); took < wait {
		t.Errorf("gave up after %v, not %v", took, wait)
	}
	given, giveUp := context.WithCancel(ctx)
	giveUp()
	if _, err := Open(given, Config{Data: dir, Actor: 1, LockTimeout: time.Hour}); !errors.Is(err, context.Canceled) {
		t.Errorf("opened with a context that has ended: %v", err)
	}
	sameState(t, mustState(t, a), before)

	mustClose(t, a)
	if err := a.SetAddr("http://127.0.0.1:8001"); !errors.Is(err, ErrClosed) {
		t.Errorf("SetAddr after Close: %v", err)
	}
	if b := mustOpen(t, dir, 1, nil); b.Opening().EpochReason != ReasonClean {
		t.Errorf("after the refusals: %q", b.Opening().EpochReason)
	}
}

// openHeld opens an actor below dir and holds its writer up, after the commit of
// one gene, until release is called.
func openHeld(t *testing.T, dir string) (a *Actor, release func()) {
	t.Helper()
	began, on := make(chan struct{}), make(chan struct{})
	release = sync.OnceFunc(func() { close(on) })
	var once sync.Once
	a, err := Open(ctx, Config{Data: dir, Actor: 1, noKeeper: true, Committed: func(time.Duration) {
		once.Do(func() { close(began) })
		<-on
	}})
	must(t, err)
	t.Cleanup(func() { a.Close() })
	t.Cleanup(release)
	go a.Insert(ctx, 0, []byte{1})
	within(t, "the commit that holds the writer up", began)
	return a, release
}

// queued waits until so many ops wait in a's queue.
func queued(t *testing.T, a *Actor, ops int) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); a.queue.len() < ops; {
		if time.Now().After(end) {
			t.Fatalf("%d ops are queued, not %d", a.queue.len(), ops)
		}
		runtime.Gosched()
	}
}

// TestQueueFull fills the queue of a writer that is held up: what does not fit
// is refused at once and leaves no trace, what was taken is done.
func TestQueueFull(t *testing.T) {
	a, release := openHeld(t, t.TempDir())
	var group sync.WaitGroup
	errs := make([]error, MaxQueuedOps/genome.MaxBatchOps)
	ops := newPast(1).ops(t, MaxQueuedOps).Ops[:MaxQueuedOps]
	for i := range errs {
		b := genome.Block{Ops: ops[i*genome.MaxBatchOps:][:genome.MaxBatchOps]}
		group.Go(func() { _, errs[i] = a.Receive(ctx, Source{Via: ViaPost}, b) })
		queued(t, a, (i+1)*genome.MaxBatchOps)
	}
	if _, err := a.Insert(ctx, 0, []byte{9}); !errors.Is(err, ErrFull) {
		t.Errorf("one op too many: %v", err)
	}
	given, giveUp := context.WithCancel(ctx)
	giveUp()
	if _, err := a.Insert(given, 0, []byte{9}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	release()
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if st := mustState(t, a); st.Ops != eventsOf(ops)+1 {
		t.Errorf("%d events after %d were taken", st.Ops, eventsOf(ops)+1)
	}
	if n := a.queue.len(); n != 0 {
		t.Errorf("%d ops are left in the queue", n)
	}
}

// TestCloseWaits closes an actor while edits wait for its writer: those that
// were accepted are done and durable, those that come after are refused.
func TestCloseWaits(t *testing.T) {
	dir := t.TempDir()
	a, release := openHeld(t, dir)
	const edits = 100
	errs := make([]error, edits)
	var group sync.WaitGroup
	for i := range errs {
		group.Go(func() { _, errs[i] = a.Insert(ctx, 0, []byte{byte(i)}) })
	}
	queued(t, a, edits)
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		if err := a.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}()
	for end := time.Now().Add(30 * time.Second); ; { // until Close has shut the queue
		given, giveUp := context.WithTimeout(ctx, time.Millisecond)
		_, err := a.Insert(given, 0, []byte{200})
		giveUp()
		if errors.Is(err, ErrClosed) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("still taken while closing: %v", err)
		}
	}
	select {
	case <-closed:
		t.Error("Close did not wait for the writer")
	default:
	}
	release()
	within(t, "the end of Close", closed)
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if err := a.Err(); !errors.Is(err, ErrClosed) {
		t.Errorf("Err is %v", err)
	}
	st := mustState(t, mustOpen(t, dir, 1, nil))
	for i := range edits {
		if !slices.Contains(st.Genes, byte(i)) {
			t.Errorf("edit %d was accepted and is lost", i)
		}
	}
}

// TestCallsGivenUp calls everything that takes a context with one that has
// ended, and everything once more after the end of the actor.
func TestCallsGivenUp(t *testing.T) {
	a := mustOpen(t, t.TempDir(), 1, nil)
	mustInsert(t, a, 0, 1, 2, 3)
	id := a.Replica()
	calls := map[string]func(context.Context) error{
		"Insert":  func(c context.Context) error { _, err := a.Insert(c, 0, []byte{1}); return err },
		"Delete":  func(c context.Context) error { _, err := a.Delete(c, 0, 1); return err },
		"Receive": func(c context.Context) error { _, err := a.Receive(c, Source{}, genome.Block{}); return err },
		"Rotate":  func(c context.Context) error { return a.Rotate(c, "a test") },
		"ChainAt": func(c context.Context) error {
			_, _, err := a.ChainAt(c, genome.Dot{Replica: id, Seq: 1})
			return err
		},
		"NotePeer": func(c context.Context) error {
			_, err := a.NotePeer(c, []genome.Head{{Replica: id, Seq: 9}})
			return err
		},
		"Records": func(c context.Context) error {
			for _, err := range a.Records(c, 1) {
				return err
			}
			return nil
		},
	}
	given, giveUp := context.WithCancel(ctx)
	giveUp()
	for name, call := range calls {
		if err := call(given); !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a context that has ended: %v", name, err)
		}
	}
	if st := mustState(t, a); st.Ops != 3 {
		t.Errorf("%d ops: a call that was given up before it began did something", st.Ops)
	}
	calls["State"] = func(c context.Context) error { _, err := a.State(c); return err }
	calls["View"] = func(c context.Context) error { return a.View(c, func(*genome.Genome) {}) }
	calls["Since"] = func(c context.Context) error { _, _, err := a.Since(c, nil, 0, 0); return err }
	calls["SignedOwn"] = func(c context.Context) error { _, _, err := a.SignedOwn(c, 0, nil, 0, 0); return err }
	calls["Writable"] = func(context.Context) error { return a.Writable() }
	mustClose(t, a)
	within(t, "Done", a.Done())
	for name, call := range calls {
		if err := call(ctx); !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
	if err := a.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}

// TestStateGivenUp gives up a look at what is not durable yet.
func TestStateGivenUp(t *testing.T) {
	a := mustOpen(t, t.TempDir(), 1, nil)
	given, giveUp := context.WithCancel(ctx)
	giveUp()
	a.mu.Lock()
	a.applied++ // as if a commit were on its way
	a.mu.Unlock()
	if _, err := a.State(given); !errors.Is(err, context.Canceled) {
		t.Errorf("State: %v", err)
	}
	if err := a.View(given, func(*genome.Genome) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("View: %v", err)
	}
	a.mu.Lock()
	a.applied--
	a.mu.Unlock()
}

// TestProgress opens a long log: the progress rises, and ends at the end.
func TestProgress(t *testing.T) {
	dir := t.TempDir()
	a := mustOpen(t, dir, 1, nil)
	run := make([]byte, genome.MaxRun)
	for a.LSN() <= 3*progressEvery {
		mustInsert(t, a, 0, run...)
	}
	end := a.LSN()
	mustClose(t, a)
	var told []uint64
	b, err := Open(ctx, Config{Data: dir, Actor: 1, Rebuild: true, Progress: func(done, total uint64) {
		if total != end || len(told) > 0 && done < told[len(told)-1] {
			t.Errorf("%d of %d, after %v of %d", done, total, told, end)
		}
		told = append(told, done)
	}})
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, b)
	if len(told) < 4 || told[len(told)-1] != end {
		t.Errorf("told %v of %d", told, end)
	}
}

// TestOpenGivenUp gives up an opening while the log is replayed.
func TestOpenGivenUp(t *testing.T) {
	dir := t.TempDir()
	a := mustOpen(t, dir, 1, nil)
	run := make([]byte, genome.MaxRun)
	for a.LSN() <= 3*progressEvery {
		mustInsert(t, a, 0, run...)
	}
	mustClose(t, a)
	given, giveUp := context.WithCancel(ctx)
	_, err := Open(given, Config{Data: dir, Actor: 1, Rebuild: true, Progress: func(uint64, uint64) { giveUp() }})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("Open: %v", err)
	}
	if b := mustOpen(t, dir, 1, nil); b.Opening().EpochReason != ReasonClean || len(b.Opening().Problems) > 0 {
		t.Errorf("after that: %+v", b.Opening())
	}
}

// TestEditPanics: a caller's function that panics is its own trouble.
func TestEditPanics(t *testing.T) {
	a := mustOpen(t, t.TempDir(), 1, nil)
	_, err := a.Edit(ctx, func(*genome.Genome) (Edit, error) { panic("no") })
	if err == nil || !strings.Contains(err.Error(), "no") {
		t.Errorf("error %v", err)
	}
	refused := errors.New("not today")
	if _, err := a.Edit(ctx, func(*genome.Genome) (Edit, error) { return Edit{}, refused }); err != refused {
		t.Errorf("error %v", err)
	}
	if op := mustInsert(t, a, 0, 1); op.Dot.Seq != 1 {
		t.Errorf("%v: an edit that failed took an id", op.Dot)
	}
}

// TestWriterPanics: a panic in the writer ends the actor, and every caller is
// told.
func TestWriterPanics(t *testing.T) {
	a := mustOpen(t, t.TempDir(), 1, nil)
	err := a.submit(ctx, 1, opBytes, func() { panic("a bug") })
	if err == nil || !strings.Contains(err.Error(), "a bug") || a.Err() == nil {
		t.Fatalf("submit: %v, Err: %v", err, a.Err())
	}
	within(t, "Done", a.Done())
	if _, err := a.Insert(ctx, 0, []byte{1}); err == nil || errors.Is(err, ErrClosed) {
		t.Errorf("Insert after that: %v", err)
	}
	if err := a.Writable(); err == nil {
		t.Error("it says that it can be written to")
	}
	if err := a.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// TestConfig: what cannot be is refused before anything is touched.
func TestConfig(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	for _, cfg := range []Config{
		{},
		{Data: dir, LockTimeout: -1},
		{Data: dir, Cluster: strings.Repeat("x", maxCluster+1)},
	} {
		if a, err := Open(ctx, cfg); err == nil {
			a.Close()
			t.Errorf("opened %+v", cfg)
		}
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the folder was made")
	}
}

// noise is a source of randomness that ends.
type noise struct{ left int }

func (n *noise) Read(p []byte) (int, error) {
	if n.left -= len(p); n.left < 0 {
		return 0, errors.New("out of noise")
	}
	for i := range p {
		p[i] = byte(n.left + i + 1)
	}
	return len(p), nil
}

// TestNoRandomness takes the randomness away at each point where some is drawn:
// no epoch without it, and no token.
func TestNoRandomness(t *testing.T) {
	const uuid, epoch = 16, 4
	for _, have := range []int{0, uuid - 1, uuid, uuid + epoch - 1} {
		if a, err := Open(ctx, Config{Data: t.TempDir(), Rand: &noise{left: have}}); err == nil {
			a.Close()
			t.Errorf("opened with %d random bytes", have)
		}
	}
	dir := t.TempDir()
	n := &noise{left: uuid + epoch}
	a, err := Open(ctx, Config{Data: dir, Rand: n})
	must(t, err)
	mustInsert(t, a, 0, 1)
	if err := a.Close(); err == nil {
		t.Error("closed cleanly without a token")
	}
	if b := mustOpen(t, dir, 0, nil); b.Opening().EpochReason == ReasonClean || mustState(t, b).Ops != 1 {
		t.Errorf("after a stop without a token: %+v", b.Opening())
	}

	a, err = Open(ctx, Config{Data: t.TempDir(), Rand: &noise{left: uuid + epoch}})
	must(t, err)
	if err := a.Rotate(ctx, "a test"); err == nil || a.Err() == nil {
		t.Errorf("rotated without an epoch: %v", err)
	}
	a.Close()
}

// TestNames: what is said to people has a word for everything.
func TestNames(t *testing.T) {
	for v, want := range map[Via]string{ViaLocal: "local", ViaPost: "post", ViaPull: "pull", 9: "via(9)"} {
		if v.String() != want {
			t.Errorf("%v, want %v", v, want)
		}
	}
	for s, want := range map[string]string{Source{}.String(): "a peer", Source{From: 3, Known: true}.String(): "actor 3"} {
		if s != want {
			t.Errorf("%q, want %q", s, want)
		}
	}
	corrupt := &CorruptError{Path: "p", LSN: 3, Detail: "d"}
	for _, err := range []error{corrupt, &FormatError{Part: "x", Format: 2, Program: 1}, &NotLogError{Why: "w"}, &LockedError{PID: 3}, &WrongOwnerError{}} {
		err = withPath(err, "elsewhere")
		if s := fmt.Sprint(err); s == "" || strings.Contains(s, "%!") {
			t.Errorf("%T says %q", err, s)
		}
	}
	if corrupt.Path != "p" {
		t.Errorf("the path %q was replaced", corrupt.Path)
	}
}

// TestErrorTexts: what each error says names what it is about.
func TestErrorTexts(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)
	for want, err := range map[string]error{
		"log p is open in another process":                                           &LockedError{Path: "p"},
		"log p is open in pid 3 since " + at.Local().Format("15:04") + " (http://x)": &LockedError{Path: "p", PID: 3, Since: at, Addr: "http://x"},
		"of actor 1 (epoch":                           &WrongOwnerError{Path: "p", Actor: 1, Want: 2},
		`of cluster "a", not of "b"`:                  &WrongOwnerError{Path: "p", Cluster: "a", WantCluster: "b"},
		"p: cut":                                      &CorruptError{Path: "p", Detail: "cut"},
		"op 4 in p is damaged: cut":                   &CorruptError{Path: "p", LSN: 4, Detail: "cut"},
		"log format 9 is newer than this program (1)": &FormatError{Path: "p", Part: "log format", Format: 9, Program: 1},
		"p is empty (0 bytes)":                        &NotLogError{Path: "p"},
		`first bytes "GIF8"`:                          &NotLogError{Path: "p", First: []byte("GIF8")},
		"(of another kind)":                           &NotLogError{Path: "p", Why: "of another kind"},
		"this edit takes 5 bytes":                     &editSizeError{5},
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
}

// TestDecodingPanics: whatever the decoder does with bytes that nobody encoded
// ends in an error that names the place.
func TestDecodingPanics(t *testing.T) {
	s := &slot{part: part{lsn: 5}} // without a value to decode to
	s.decode(nil)
	if corrupt, ok := errors.AsType[*CorruptError](s.err); !ok || corrupt.LSN != 5 {
		t.Errorf("error %v", s.err)
	}
}

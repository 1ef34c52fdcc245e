package httpapi

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"crdt-genome/genome"
)

// hold makes the writer of the node stand still after its next commit, until
// the function returned is called.
type hold struct {
	mu      sync.Mutex
	entered chan struct{} // nil: let it pass
	release chan struct{}
}

func (h *hold) committed(time.Duration) {
	h.mu.Lock()
	entered, release := h.entered, h.release
	h.entered = nil
	h.mu.Unlock()
	if entered != nil {
		close(entered)
		<-release
	}
}

// next stops the next commit; at is closed when it stands still.
func (h *hold) next() (at <-chan struct{}, release func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.entered, h.release = make(chan struct{}), make(chan struct{})
	return h.entered, sync.OnceFunc(func() { close(h.release) })
}

// An apply loop that stands still is counted, its goroutines are logged, /livez
// fails, and in the end the node says that it is stuck. The clock is fake.
func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h hold
		l := newLab(t, 1, func(c *Config) { c.Store.Committed = h.committed })
		l.mem = true
		n := l.start(0)
		time.Sleep(time.Hour)
		if got := n.Counts().Stalls; got != 0 {
			t.Errorf("%d stalls in an hour without any", got)
		}
		at, release := h.next()
		defer release()
		wait := make(chan struct{})
		go func() {
			defer close(wait)
			mustInsert(t, n, 0, 1)
		}()
		<-at
		start := time.Now()
		time.Sleep(stallAfter - 3*time.Second)
		if check := n.checkApply(); !check.ok || n.Counts().Stalls != 0 {
			t.Errorf("after %v: %+v, %d stalls", time.Since(start), check, n.Counts().Stalls)
		}
		time.Sleep(6 * time.Second)
		if check := n.checkApply(); check.ok || n.Counts().Stalls != 1 {
			t.Errorf("after %v: %+v, %d stalls", time.Since(start), check, n.Counts().Stalls)
		}
		if lines := l.logs[0].lines(`"event":"apply_stalled"`, "goroutine ", "committed"); len(lines) != 1 {
			t.Errorf("%d lines with the goroutines", len(lines))
		}
		<-n.Stuck()
		if took := time.Since(start); took < defaultStallTimeout-2*time.Second || took > defaultStallTimeout+4*time.Second {
			t.Errorf("stuck after %v, want %v", took, defaultStallTimeout)
		}
		release()
		<-wait
		l.stop(0)
	})
}

// More writes than may wait are refused with 429 while the writer is busy, and
// nothing of them is taken; those that were let in are durable afterwards.
func TestQueueFull(t *testing.T) {
	var h hold
	n := alone(t, func(c *Config) { c.Store.Committed = h.committed })
	at, release := h.next()
	defer release()
	var wg sync.WaitGroup
	wg.Go(func() { mustInsert(t, n, 0, 1) })
	<-at
	const posts = 24 // of 4,096 ops; 16 of them may wait
	answers := make([]answer, posts)
	bodies := make([][]byte, posts)
	for i := range posts {
		g := genome.New(genome.NewReplicaID(genome.ActorID(700+i), 1))
		var ops []genome.Op
		for j := range maxBatchOps {
			ops = append(ops, insert(t, g, 0, byte(j)))
		}
		bodies[i] = blockOps(t, ops...)
	}
	refused := make(chan struct{}, posts)
	for i := range posts {
		wg.Go(func() {
			answers[i] = ask(t, n, "POST", "/genome", bodies[i], "Content-Type", genome.MediaType)
			if answers[i].status == http.StatusTooManyRequests {
				refused <- struct{}{}
			}
		})
	}
	select {
	case <-refused: // before any is let in: the writer stands still
	case <-time.After(patience):
		t.Error("nothing is refused")
	}
	if a := ask(t, n, "GET", "/livez", nil); a.status != 200 {
		t.Errorf("livez meanwhile: %d", a.status)
	}
	release()
	wg.Wait()
	taken := 0
	for _, a := range answers {
		switch a.status {
		case 200:
			taken++
		case 429:
			if p := problemIn(t, a); p.Code != "queue_full" || a.header.Get("Retry-After") == "" {
				t.Errorf("%+v, Retry-After %q", p, a.header.Get("Retry-After"))
			}
		default:
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	if taken == 0 || taken == posts {
		t.Errorf("%d of %d taken", taken, posts)
	}
	if got, want := mustState(t, n).Ops, uint64(1+taken*maxBatchOps); got != want {
		t.Errorf("%d ops, want %d: those of the posts answered 200", got, want)
	}
	if got := n.Counts().Rejected["queue_full"]; got != uint64(posts-taken) {
		t.Errorf("%d are counted as refused, want %d", got, posts-taken)
	}
	if a := ask(t, n, "POST", "/genome", bodies[0], "Content-Type", genome.MediaType); a.status != 200 || !strings.Contains(a.body, `"applied"`) {
		t.Errorf("afterwards: %d %s", a.status, a.body)
	}
}

package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"crdt-genome/genome"
)

// narrow is a disk that has room for commits up to a limit, in bytes.
type narrow struct {
	disk
	limit atomic.Int64
}

func (d *narrow) reserve(n int64) error {
	if n > d.limit.Load() {
		return &NotWritableError{Dir: "here", Free: -1, Err: syscall.ENOSPC}
	}
	return d.disk.reserve(n)
}

// onNarrow opens an actor whose disk has unlimited room at first. Its clock goes
// on by a second each time that it is looked at.
func onNarrow(t *testing.T) (*Actor, *narrow) {
	t.Helper()
	var seconds atomic.Int64
	cfg, err := Config{Data: "unused", Actor: 1, noKeeper: true, Now: func() time.Time { return time.Unix(seconds.Add(1), 0) }}.withDefaults()
	must(t, err)
	a, err := open(ctx, cfg, newSimFolder())
	must(t, err)
	t.Cleanup(func() { a.Close() })
	d := &narrow{disk: a.disk}
	d.limit.Store(1 << 40)
	a.disk = d // the writer looks at it when there is something to do
	return a, d
}

// TestNoRoomForMore: ops that come while others are worked on, and that the
// disk has no room for, are refused by themselves; the others are stored.
func TestNoRoomForMore(t *testing.T) {
	a, d := onNarrow(t)
	late := &request{ops: 1, bytes: opBytes, run: func() { t.Error("it was run") }, done: make(chan struct{})}
	_, err := a.Edit(ctx, func(*genome.Genome) (Edit, error) {
		must(t, a.queue.put(late))
		d.limit.Store(0)
		return Edit{Genes: []byte{1}}, nil
	})
	must(t, err)
	within(t, "the answer to the second", late.done)
	if !errors.Is(late.err, ErrStoreFull) || a.LSN() != 1 {
		t.Errorf("error %v, %d ops", late.err, a.LSN())
	}
	if err := a.Writable(); !errors.Is(err, ErrStoreFull) {
		t.Errorf("Writable: %v", err)
	}
	if err := a.Ping(ctx); err != nil {
		t.Errorf("Ping on a full disk: %v", err)
	}
	d.limit.Store(1 << 40)
	must(t, a.Writable())
	mustInsert(t, a, 0, 2)
}

// TestRoomForSome: of ops that wait together, as many are stored in one commit
// as there is room for, and the others in the next ones: none is refused, and
// they keep their order.
func TestRoomForSome(t *testing.T) {
	a, d := onNarrow(t)
	const edits = 32
	var group sync.WaitGroup
	var order []int
	errs := make([]error, edits)
	begin := &request{ops: 1, run: func() {
		for i := range edits {
			r := &request{ops: 1, bytes: opBytes, done: make(chan struct{})}
			r.run = func() {
				order = append(order, i)
				_, err := a.edit(func(*genome.Genome) (Edit, error) { return Edit{Genes: []byte{byte(i)}}, nil }, editBytes)
				must(t, err)
			}
			must(t, a.queue.put(r))
			group.Go(func() { <-r.done; errs[i] = r.err })
		}
		d.limit.Store(room(5 * (roomPerOp + opBytes))) // of all that is not sealed: it gets less and less
	}, done: make(chan struct{})}
	must(t, a.queue.put(begin))
	within(t, "the first commit", begin.done)
	group.Wait()
	stored := 0
	for i, err := range errs {
		if err == nil {
			stored++
			continue
		}
		if !errors.Is(err, ErrStoreFull) || i == 0 {
			t.Errorf("edit %d: %v", i, err)
		}
	}
	if stored == 0 || stored == edits || a.LSN() != uint64(stored) || len(order) != stored {
		t.Errorf("%d of %d edits were answered as stored, %d ops are, %d were run", stored, edits, a.LSN(), len(order))
	}
	for i, n := range order {
		if i != n {
			t.Fatalf("run in the order %v", order)
		}
	}
}

// TestSeenWhileGathering: who looks while a commit is being gathered waits until
// all that can be seen then is durable, also what was added after the first look.
func TestSeenWhileGathering(t *testing.T) {
	a := mustOpen(t, t.TempDir(), 1, nil)
	const callers, each = 16, 40
	stop := make(chan struct{})
	var looking sync.WaitGroup
	for range 4 {
		looking.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				st, err := a.State(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				if durable := a.LSN(); st.LSN > durable {
					t.Errorf("shown %d ops of which %d are durable", st.LSN, durable)
				}
				if st.Ops != uint64(len(st.Genes)) {
					t.Errorf("%d ops, %d genes", st.Ops, len(st.Genes))
				}
			}
		})
	}
	var writing sync.WaitGroup
	for i := range callers {
		writing.Go(func() {
			for range each {
				if _, err := a.Insert(context.Background(), 0, []byte{byte(i)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writing.Wait()
	close(stop)
	looking.Wait()
	if st := mustState(t, a); st.Ops != callers*each || fmt.Sprint(len(st.Genes)) != fmt.Sprint(callers*each) {
		t.Errorf("%d ops at the end", st.Ops)
	}
}

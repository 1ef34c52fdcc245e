package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"crdt-genome/cmd/internal/fleet"
	"crdt-genome/httpapi"
)

// TestStallEndsTheProcess: an apply loop that stands still for longer than is
// allowed, here for less than a commit takes, ends the process with exit code
// 70; what was acknowledged is there after a restart.
func TestStallEndsTheProcess(t *testing.T) {
	t.Parallel()
	f := newGroup(t, fleet.Config{Count: 1, Args: []string{"--no-mutate"}})
	a := f.Actor(0)
	if err := a.Start(t.Context(), "--stall-timeout", "500us"); err != nil {
		if _, ok := errors.AsType[*fleet.ExitError](err); !ok {
			t.Fatal(err)
		}
	}
	const genes = 32 << 10
	rng := rand.New(rand.NewPCG(1, 1))
	acked := uint64(0)
	poll(func() bool {
		hex := make([]byte, 2*genes)
		for i := range hex {
			hex[i] = "0123456789abcdef"[rng.IntN(16)]
		}
		if _, err := a.Client().Edit(t.Context(), httpapi.EditRequest{Insert: &httpapi.InsertRequest{Hex: string(hex)}}); err == nil {
			acked += genes
		}
		return !a.Running()
	})
	e, ok := errors.AsType[*fleet.ExitError](a.Ended())
	if !ok || e.Code != exitInternal || !strings.Contains(e.Text, "apply loop stalled 500") {
		t.Fatalf("ended with %v, want exit code %d", a.Ended(), exitInternal)
	}
	if log, err := os.ReadFile(a.LogPath); err != nil || !strings.Contains(string(log), `"event":"apply_stalled"`) {
		t.Errorf("the goroutines are not in the log (%v)", err)
	}
	start(t, a)
	waitOps(t, a, acked)
}

// TestFreezeIsNoStall: a process that was stopped for longer than its apply loop
// may stand still has not been stuck.
func TestFreezeIsNoStall(t *testing.T) {
	t.Parallel()
	f := newGroup(t, fleet.Config{Count: 1, Args: []string{"--no-mutate"}})
	a := f.Actor(0)
	if err := a.Start(t.Context(), "--stall-timeout", "3s"); err != nil {
		t.Fatal(err)
	}
	edit(t, a)
	for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGCONT} {
		if err := a.Signal(sig); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * time.Second) // frozen, and then long enough to find out
	}
	edit(t, a)
	if log, err := os.ReadFile(a.LogPath); err != nil || strings.Contains(string(log), "apply_stalled") {
		t.Errorf("it says that it stood still (%v):\n%s", err, log)
	}
}

// hung is a process whose log never closes.
type hung struct{ stuck chan struct{} }

func (h hung) Close(context.Context) error { select {} }
func (h hung) Stuck() <-chan struct{}      { return h.stuck }

// TestStallWhileStopping: also a stop that does not end makes exit code 70.
func TestStallWhileStopping(t *testing.T) {
	h := hung{make(chan struct{})}
	close(h.stuck)
	if e := classify(closeOrStall(t.Context(), h, time.Minute)); e.exit != exitInternal || e.code != "apply_stalled" {
		t.Errorf("exit %d, %s: %v", e.exit, e.code, e)
	}
}

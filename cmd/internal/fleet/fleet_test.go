package fleet_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"crdt-genome/cmd/internal/fleet"
)

func newFleet(t *testing.T, cfg fleet.Config) *fleet.Fleet {
	t.Helper()
	if testing.Short() {
		t.Skip("builds the program")
	}
	binary, err := fleet.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cfg.Binary, cfg.Data = binary, t.TempDir()
	f, err := fleet.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// TestLife starts, kills, restarts and stops actors, and sees that the kernel
// agrees.
func TestLife(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	f := newFleet(t, fleet.Config{Count: 2, Args: []string{"--no-mutate"}})
	if err := f.StartAll(ctx); err != nil {
		t.Fatal(err)
	}
	a := f.Actor(1)
	v, err := a.Client().Version(ctx)
	if err != nil || v.Actor != 1 || v.PID != a.PID() {
		t.Fatalf("%s answers as actor %d, pid %d (%v); want 1, %d", a.URL(), v.Actor, v.PID, err, a.PID())
	}
	if err := a.Start(ctx); err == nil {
		t.Error("a running actor was started again")
	}
	if err := a.Kill(); err != nil || a.Running() {
		t.Fatalf("Kill: %v, running %v", err, a.Running())
	}
	if _, err := net.DialTimeout("tcp", a.Addr, 10*time.Second); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the port of a dead actor: %v, want %v", err, syscall.ECONNREFUSED)
	}
	if err := a.Ended(); err != nil {
		t.Errorf("Ended after Kill: %v, want nil", err)
	}
	if err := a.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if again, err := a.Client().Version(ctx); err != nil || again.Actor != 1 || again.PID == v.PID {
		t.Errorf("after a restart at the same address: %+v, %v", again, err)
	}
	if err := f.StopAll(ctx); err != nil {
		t.Error(err)
	}
	if log, err := os.ReadFile(a.LogPath); err != nil || strings.Count(string(log), `"listening"`) != 2 || strings.Count(string(log), `"stopped"`) != 1 {
		t.Errorf("log of two runs, one of them killed (%v):\n%s", err, log)
	}
}

// TestEndsByItself shows what a start that fails and a death unasked for say.
func TestEndsByItself(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	f := newFleet(t, fleet.Config{Count: 1, Args: []string{"--no-mutate"}})
	a := f.Actor(0)
	err := a.Start(ctx, "--min-len", "0")
	e, ok := errors.AsType[*fleet.ExitError](err)
	if !ok || e.Code != 64 || e.Text != "--min-len 0: must be at least 1" {
		t.Fatalf("Start with a bad flag: %#v", err)
	}
	if err := a.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(a.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code, err := a.Wait(ctx); code != -1 || err != nil {
		t.Errorf("Wait = %d, %v; want -1, nil", code, err)
	}
	if e, ok := errors.AsType[*fleet.ExitError](a.Ended()); !ok || e.Code != -1 {
		t.Errorf("Ended = %v, want that it was killed", a.Ended())
	}
}

// TestPortsStayOurs shows F2: a reserved port is given to nobody else.
func TestPortsStayOurs(t *testing.T) {
	f, err := fleet.New(fleet.Config{Binary: "unused", Count: 3, Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ours := map[string]bool{}
	for _, a := range f.Actors() {
		ours[a.Addr] = true
		if _, err := http.Get(a.URL()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a port that only waits: %v, want %v", err, syscall.ECONNREFUSED)
		}
	}
	if len(ours) != 3 {
		t.Fatalf("addresses %v are not distinct", ours)
	}
	for range 200 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		if ours[ln.Addr().String()] {
			t.Fatalf("%v was given to somebody else", ln.Addr())
		}
	}
	ln, err := net.Listen("tcp", f.Actor(0).Addr)
	if err != nil {
		t.Fatalf("a child could not listen: %v", err)
	}
	ln.Close()
}

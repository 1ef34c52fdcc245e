package store

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"crdt-genome/genome"
)

var ctx = context.Background()

// backends are the folders that every test of an actor's behaviour runs on.
var backends = []struct {
	name string
	make func(t testing.TB) folder
}{
	{"bolt", func(t testing.TB) folder { return newOSFolder(t.TempDir()) }},
	{"sim", func(testing.TB) folder { return newSimFolder() }},
}

// onBackends runs a test on each kind of folder.
func onBackends(t *testing.T, test func(t *testing.T, f folder)) {
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) { test(t, b.make(t)) })
	}
}

// mustOpenOn opens actor n on f and closes it at the end of the test.
func mustOpenOn(t testing.TB, f folder, n genome.ActorID) *Actor {
	t.Helper()
	a, err := openOn(f, n)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

func openOn(f folder, n genome.ActorID) (*Actor, error) {
	cfg, err := Config{Data: "unused", Actor: n}.withDefaults()
	if err != nil {
		return nil, err
	}
	return open(ctx, cfg, f)
}

// mustOpen opens actor n below dir, with a log in buf if that is not nil.
func mustOpen(t testing.TB, dir string, n genome.ActorID, buf io.Writer) *Actor {
	t.Helper()
	cfg := Config{Data: dir, Actor: n}
	if buf != nil {
		cfg.Log = zerolog.New(buf)
	}
	a, err := Open(ctx, cfg)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

func mustClose(t testing.TB, a *Actor) {
	t.Helper()
	if err := a.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

func mustState(t testing.TB, a *Actor) *State {
	t.Helper()
	st, err := a.State(ctx)
	if err != nil {
		t.Fatalf("State: %v", err)
	}
	return st
}

func mustInsert(t testing.TB, a *Actor, at int, genes ...byte) genome.Op {
	t.Helper()
	ops, err := a.Insert(ctx, at, genes)
	if err != nil {
		t.Fatalf("Insert: %v", err)
	}
	return ops[0]
}

func mustReceive(t testing.TB, a *Actor, b genome.Block) Receipt {
	t.Helper()
	r, err := a.Receive(ctx, Source{Via: ViaPull, From: 9, Known: true}, b)
	if err != nil {
		t.Fatalf("Receive: %v", err)
	}
	return r
}

// all returns everything that a holds.
func all(t testing.TB, a *Actor) (b genome.Block) {
	t.Helper()
	var v genome.Version
	for {
		part, more, err := a.Since(ctx, v, 0, 0)
		if err != nil {
			t.Fatalf("Since: %v", err)
		}
		b.Ops = append(b.Ops, part.Ops...)
		for _, h := range part.Heads {
			v = v.With(genome.Dot{Replica: h.Replica, Seq: h.Seq})
		}
		if !more {
			b.Heads = a.Heads()
			return b
		}
	}
}

// events spreads ops into a map from dot to event.
func events(ops []genome.Op) map[genome.Dot]genome.Event {
	m := make(map[genome.Dot]genome.Event)
	addEvents(m, ops)
	return m
}

func addEvents(m map[genome.Dot]genome.Event, ops []genome.Op) {
	for i := range ops {
		for j := range ops[i].Len() {
			m[genome.Dot{Replica: ops[i].Dot.Replica, Seq: ops[i].Dot.Seq + uint64(j)}] = ops[i].Event(j)
		}
	}
}

// dotted is an event with its dot, in an order.
type dotted struct {
	dot genome.Dot
	ev  genome.Event
}

func spread(ops []genome.Op) (out []dotted) {
	for i := range ops {
		for j := range ops[i].Len() {
			out = append(out, dotted{genome.Dot{Replica: ops[i].Dot.Replica, Seq: ops[i].Dot.Seq + uint64(j)}, ops[i].Event(j)})
		}
	}
	return out
}

// edit does a random edit.
func edit(a *Actor, rng *rand.Rand) ([]genome.Op, error) {
	return a.Edit(ctx, func(g *genome.Genome) (Edit, error) {
		n := g.Len()
		if n > 10 && rng.IntN(3) == 0 {
			at := rng.IntN(n - 3)
			return Edit{Delete: true, At: at, N: 1 + rng.IntN(3)}, nil
		}
		genes := make([]byte, 1+rng.IntN(4))
		for i := range genes {
			genes[i] = byte(rng.Uint32())
		}
		return Edit{At: rng.IntN(n + 1), Genes: genes}, nil
	})
}

// sameState fails unless a and b are equal in every respect.
func sameState(t testing.TB, got, want *State) {
	t.Helper()
	if got.Hex != want.Hex || got.Digest != want.Digest || !got.Version.Equal(want.Version) ||
		!slices.Equal(got.Heads, want.Heads) || got.Ops != want.Ops || got.Tombstones != want.Tombstones {
		t.Fatalf("state is %d ops %s %v %v\nwant %d ops %s %v %v", got.Ops, got.Digest, got.Version, got.Heads, want.Ops, want.Digest, want.Version, want.Heads)
	}
}

// lockedBuffer is a log that many goroutines write to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// copyTree copies the files of a folder while nobody minds.
func copyTree(t testing.TB, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

func rngOf(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// within fails the test if done does not come in good time.
func within(t testing.TB, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal(what + " did not come within 30 s")
	}
}

func seedName(seed uint64) string { return fmt.Sprintf("seed=%d", seed) }

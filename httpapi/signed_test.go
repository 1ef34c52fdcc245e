package httpapi

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rs/zerolog"

	"crdt-genome/genome"
	"crdt-genome/store"
	"crdt-genome/store/signed"
	"crdt-genome/store/signed/signedtest"
)

// A keyring is the keys of some actors, and their roster.
type keyring struct{ signedtest.Keyring }

func newKeyring(t testing.TB, n int) *keyring {
	t.Helper()
	return &keyring{signedtest.New(t, n)}
}

// sign makes an actor sign.
func (k *keyring) sign(c *Config) {
	c.Store.Sign = &store.Signing{Key: k.Keys[c.Store.Actor], Roster: k.Roster}
}

// point signs all of ops, which are one replica's from its first on.
func (k *keyring) point(actor int, ops ...genome.Op) signed.Point {
	c := signed.NewChain(defaultCluster, ops[0].Dot.Replica)
	for i := range ops {
		c.Extend(&ops[i])
	}
	return c.Sign(k.Keys[actor])
}

// forgery changes a gene of the last insert of each author in an encoded batch,
// or a target, and leaves the points as they are.
func forgery(t testing.TB, data []byte) []byte {
	t.Helper()
	b, err := signed.DecodeBatch(data, maxBatchOps)
	if err != nil {
		t.Error(err)
		return data
	}
	met := map[genome.ReplicaID]bool{}
	for i := range slices.Backward(b.Ops) {
		op := &b.Ops[i]
		if met[op.Dot.Replica] {
			continue
		}
		met[op.Dot.Replica] = true
		if op.Kind == genome.Insert {
			op.Genes = slices.Clone(op.Genes)
			op.Genes[0] ^= 1
		} else if op.Ref.Gene ^= 1; op.Count > 1 {
			op.Ref.Gene = 0
		}
	}
	b.Heads = nil
	out, err := signed.AppendBatch(nil, b)
	if err != nil {
		t.Error(err)
	}
	return out
}

// forger is a way on which somebody changes what is carried, both ways, and
// counts it.
func (l *lab) forger(count *atomic.Int64) func(r *http.Request) (*http.Response, error) {
	rt := newTransport()
	rt.DialContext = l.paths.dial
	l.t.Cleanup(rt.CloseIdleConnections)
	return func(r *http.Request) (*http.Response, error) {
		if r.Method == http.MethodPost && r.URL.Path == "/genome" {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return nil, err
			}
			count.Add(1)
			body = forgery(l.t, body)
			r = r.Clone(r.Context())
			r.Body, r.ContentLength, r.GetBody = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
		}
		resp, err := rt.RoundTrip(r)
		if err != nil || !strings.HasPrefix(r.URL.Path, "/v1/ops") || resp.StatusCode != http.StatusOK {
			return resp, err
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			return nil, err
		}
		if b, err := signed.DecodeBatch(body, maxBatchOps); err == nil && len(b.Ops) > 0 {
			count.Add(1)
			body = forgery(l.t, body)
		}
		resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		resp.Header.Set("Content-Length", strconv.Itoa(len(body)))
		return resp, nil
	}
}

// TestSignedRelay: who stands between two members can carry their ops, or keep
// them back, but not change them: neither on the way of a POST nor on that of a
// pull. Nothing is lost by the attempt.
func TestSignedRelay(t *testing.T) {
	k := newKeyring(t, 3)
	l := newLab(t, 3, k.sign)
	l.startAll()
	var changed atomic.Int64
	forger := l.forger(&changed)
	l.setFaults(func(from, to int) fault {
		switch {
		case from+to == 2: // author and reader do not meet
			return fault{lose: true}
		case from == 2 || to == 2: // whatever reaches the reader is changed
			return fault{instead: forger}
		}
		return fault{}
	})
	for i := range 20 {
		mutateFor(t, l.nodes[0], uint64(i), 10)
		mutateFor(t, l.nodes[1], uint64(100+i), 3)
	}
	reader := l.nodes[2]
	eventually(t, func() bool {
		c := reader.Counts()
		return changed.Load() > 3 && c.Rejected[string(store.CodeSignatureInvalid)] > 3
	}, func() string { return fmt.Sprintf("%d messages were changed, %v", changed.Load(), reader.Counts()) })
	if st := mustState(t, reader); st.Ops != 0 {
		t.Errorf("the reader has taken %v", st.Version)
	}
	if got := reader.actor.Replica(); got.Epoch() != reader.actor.Opening().Epoch {
		t.Errorf("it goes on as %v: for what somebody made up", got)
	}
	l.setFaults(func(from, to int) fault { return fault{lose: from+to == 2} }) // an honest relay
	eventually(t, func() bool { return mustState(t, reader).Digest == mustState(t, l.nodes[1]).Digest }, why("the reader does not get what the relay has"))
	if v := mustState(t, reader).Version; v.Get(l.nodes[0].actor.Replica()) == 0 {
		t.Errorf("the reader has nothing of the author: %v", v)
	}
	l.setFaults(nil)
	l.waitEqual()
}

// TestSignedGroup: actors that sign become equal when POSTs are lost, when they
// are restarted, by a clean stop or not, and when they come late.
func TestSignedGroup(t *testing.T) {
	k := newKeyring(t, 4)
	l := newLab(t, 4, func(c *Config) { k.sign(c); c.Store.CheckpointEvery = 50 })
	for i := range 3 {
		l.start(i)
	}
	l.setFaults(func(from, to int) fault {
		return fault{instead: nil, lose: (from+to)%2 == 1} // 0 and 2 meet through nobody, 1 meets nobody
	})
	for i := range 3 {
		mutateFor(t, l.nodes[i], uint64(i), 40)
	}
	l.setFaults(nil)
	l.waitEqual()
	l.stop(0)
	mutateFor(t, l.nodes[1], 7, 20)
	l.start(0)
	mutateFor(t, l.nodes[0], 8, 20) // goes on with its chain
	l.waitEqual()
	l.setFaults(cut(0, 1)) // the late joiner has only one to ask
	l.start(3)
	eventually(t, func() bool { return mustState(t, l.nodes[3]).Digest == mustState(t, l.nodes[2]).Digest }, why("the late joiner lacks something"))
	l.setFaults(nil)
	l.waitEqual()
	for i, n := range l.nodes {
		if c := n.Counts(); c.Forks+c.Diverged+c.Panics > 0 || len(c.Rejected) > 0 {
			t.Errorf("actor %d: %+v", i, c)
		}
	}
}

// TestSignedPost: what a POST is answered, by kind of op and of signature.
func TestSignedPost(t *testing.T) {
	k := newKeyring(t, 9)
	n := alone(t, func(c *Config) { c.Store.Sign = &store.Signing{Key: k.Keys[0], Roster: k.Without(t, 8)} })
	c := NewClient(n.URL())
	g, h := stranger(t, "7@5f3c1a2b"), stranger(t, "8@5f3c1a2b")
	one, two, other := insert(t, g, 0, 1), insert(t, g, 1, 2), insert(t, h, 0, 9)
	refused := func(what string, status int, code genome.Code, points []signed.Point, ops ...genome.Op) {
		t.Helper()
		_, err := c.Post(ctx, genome.Block{Ops: ops}, points...)
		if p, ok := err.(*Problem); !ok || p.Status != status || p.Code != string(code) || p.PostReply == nil || p.Op != ops[0].Dot.String() {
			t.Errorf("%s: %v, want %d %s", what, err, status, code)
		}
	}
	refused("no signature", 403, store.CodeSignatureRequired, nil, one)
	refused("by another member", 403, store.CodeSignatureInvalid, []signed.Point{k.point(3, one)}, one)
	refused("of other ops", 403, store.CodeSignatureInvalid, []signed.Point{k.point(7, func() genome.Op { o := one; o.Genes = []byte{5}; return o }())}, one)
	refused("not in the roster", 403, store.CodeNotInRoster, []signed.Point{k.point(8, other)}, other)
	if a := post(t, n, jsonOps(t, one)); problemIn(t, a).Code != string(store.CodeSignatureRequired) {
		t.Errorf("JSON: %d %s", a.status, a.body)
	}
	if n.actor.LSN() != 0 {
		t.Fatalf("something was taken: %v", n.actor.Version())
	}
	if r, err := c.Post(ctx, genome.Block{Ops: []genome.Op{two}}, k.point(7, one, two)); err != nil || r.Pending != 1 || len(r.Missing) != 1 {
		t.Errorf("too early: %+v, %v", r, err)
	}
	// Of a batch, what is signed is taken.
	_, err := c.Post(ctx, genome.Block{Ops: []genome.Op{other, one}}, k.point(7, one), k.point(8, other))
	if p, ok := err.(*Problem); !ok || p.Code != string(store.CodeNotInRoster) || p.PostReply == nil || p.Applied != 1 || len(p.Refused) != 1 {
		t.Errorf("one of two: %v", err)
	}
	if r, err := c.Post(ctx, genome.Block{Ops: []genome.Op{one, two}}, k.point(7, one, two)); err != nil || r.Applied != 1 || r.Duplicate != 1 {
		t.Errorf("signed: %+v, %v", r, err)
	}
	if r, err := c.Post(ctx, genome.Block{Ops: []genome.Op{one, two}}); err != nil || r.Duplicate != 2 {
		t.Errorf("known: %+v, %v", r, err)
	}
	// The other way round the points come only to who asks for them.
	plain, _, err := c.Since(ctx, nil)
	if err != nil || len(plain.Ops) != 2 {
		t.Errorf("%+v, %v", plain, err)
	}
	if b, _, err := c.SignedSince(ctx, nil); err != nil || len(b.Points) != 1 || b.Points[0] != k.point(7, one, two) {
		t.Errorf("%+v, %v", b, err)
	}
	if a := ask(t, n, "GET", "/v1/ops", nil, "Accept", genome.MediaType); a.body[0] != 1 {
		t.Errorf("a block of version %d for who does not know of points", a.body[0])
	}
}

// TestSignedImport: an export of a log is JSON and has no signatures. Whoever
// holds its ops says so; others take nothing of it, and pull.
func TestSignedImport(t *testing.T) {
	k := newKeyring(t, 2)
	l := newLab(t, 2, k.sign)
	a := l.start(0)
	mutateFor(t, a, 1, 30)
	export := ask(t, a, "GET", "/v1/ops?since=", nil).body
	ops := int(a.actor.LSN())
	wantReply(t, ask(t, a, "POST", "/genome", export, "Content-Type", typeNDJSON), 200, PostReply{Duplicate: ops})
	l.setFaults(func(int, int) fault { return fault{lose: true} })
	b := l.start(1)
	if p := problemIn(t, ask(t, b, "POST", "/genome", export, "Content-Type", typeNDJSON)); p.Code != string(store.CodeSignatureRequired) || p.Applied != 0 {
		t.Errorf("%+v", p)
	}
	l.setFaults(nil)
	l.waitEqual()
}

// TestSignedRosterReload: a member that the roster does not know is heard as
// soon as it does.
func TestSignedRosterReload(t *testing.T) {
	k := newKeyring(t, 3)
	rosters := []*signed.Roster{k.Without(t, 2), k.Roster, k.Roster}
	l := newLab(t, 3, func(c *Config) {
		c.Store.Sign = &store.Signing{Key: k.Keys[c.Store.Actor], Roster: rosters[c.Store.Actor]}
	})
	l.startAll()
	mustInsert(t, l.nodes[2], 0, 1, 2, 3)
	mustInsert(t, l.nodes[1], 0, 4)
	eventually(t, func() bool { return l.nodes[0].Counts().Rejected[string(store.CodeNotInRoster)] > 0 }, why("nothing is refused"))
	if v := l.nodes[0].actor.Version(); v.Get(l.nodes[2].actor.Replica()) != 0 {
		t.Fatalf("it has %v", v)
	}
	k.Without(t)
	if err := rosters[0].Reload(); err != nil {
		t.Fatal(err)
	}
	l.waitEqual()
}

// TestSignedUnsignedPeer: one that does not sign is not heard, and hears.
func TestSignedUnsignedPeer(t *testing.T) {
	k := newKeyring(t, 3)
	l := newLab(t, 3, func(c *Config) {
		if c.Store.Actor != 1 {
			k.sign(c)
		}
	})
	l.startAll()
	mustInsert(t, l.nodes[0], 0, 1, 2)
	mustInsert(t, l.nodes[2], 0, 3)
	eventually(t, func() bool { return mustState(t, l.nodes[1]).Ops == 3 }, why("it does not hear"))
	mustInsert(t, l.nodes[1], 0, 9)
	for _, i := range []int{0, 2} {
		eventually(t, func() bool { return l.nodes[i].Counts().Rejected[string(store.CodeSignatureRequired)] > 0 }, why("its op is not refused"))
		if st := mustState(t, l.nodes[i]); st.Ops != 3 {
			t.Errorf("actor %d has %v", i, st.Version)
		}
	}
}

// TestSignedProcesses: several actors in a process sign each with its own key,
// and believe each other; other processes check.
func TestSignedProcesses(t *testing.T) {
	k := newKeyring(t, 8)
	h := newHall(t, k.sign, "0-3", "4-7")
	h.start(0)
	h.start(1)
	for i, n := range h.nodes() {
		mutateFor(t, n, uint64(i), 20)
	}
	var ops uint64
	for _, n := range h.nodes() {
		ops += n.actor.Version().Get(n.actor.Replica())
	}
	h.waitEqual(ops)
	h.stop(1)
	mustInsert(t, h.procs[0].nodes[2], 0, 1)
	h.start(1)
	h.waitEqual(ops + 1)
	for _, n := range h.nodes() {
		if c := n.Counts(); c.Forks+c.Diverged > 0 || len(c.Rejected) > 0 {
			t.Errorf("actor %d: %+v", n.cfg.Store.Actor, c)
		}
	}
}

// TestSignedRings: members that pass on what others have made pass on the
// signatures too.
func TestSignedRings(t *testing.T) {
	const count = 8
	k := newKeyring(t, count)
	l := newLab(t, count, func(c *Config) { k.sign(c); c.Fanout, c.PullInterval = 2, never })
	l.startAll()
	for i, n := range l.nodes {
		if links := len(n.linked()); !n.relaying() || links > 2 {
			t.Errorf("actor %d has %d links, relaying %t", i, links, n.relaying())
		}
		mutateFor(t, n, uint64(i), 10)
	}
	l.waitEqual()
	for i, n := range l.nodes {
		if c := n.Counts(); c.Forks+c.Diverged > 0 || len(c.Rejected) > 0 {
			t.Errorf("actor %d: %+v", i, c)
		}
	}
	var all sync.WaitGroup
	for i := range l.nodes { // each takes its time to say goodbye
		all.Go(func() { l.stop(i) })
	}
	all.Wait()
}

// TestSignedBus: the bus carries points as a POST does.
func TestSignedBus(t *testing.T) {
	b := newBroker(t, 1)
	k := newKeyring(t, 3)
	l := newLab(t, 3, func(c *Config) {
		k.sign(c)
		c.Bus, c.PullInterval, c.VerifyInterval = b.connect(1), never, never
	})
	l.startAll()
	listening(t, l, b)
	edits(t, l, 1, 30)
	l.waitEqual()
	for i, n := range l.nodes {
		if c := n.Counts(); c.Posts+c.PostsFailed != 0 || c.BusTaken == 0 || n.actor.Stats().Live.Post == 0 || len(c.Rejected) > 0 {
			t.Errorf("actor %d: %+v", i, c)
		}
	}
}

// BenchmarkSigned is what signatures cost an op on the ways that ops really go,
// both ends in this process: an edit that is POSTed to one peer before the next
// one is made, so that each has a commit, a signature, a POST and a check of its
// own; and 100,000 ops of one author that a late joiner pulls.
func BenchmarkSigned(b *testing.B) {
	k := newKeyring(b, 2)
	for _, signs := range []bool{false, true} {
		name, adapt := "unsigned", func(*Config) {}
		if signs {
			name, adapt = "signed", k.sign
		}
		quiet := func(c *Config) {
			adapt(c)
			c.PullInterval, c.VerifyInterval, c.Log = never, never, zerolog.Nop()
		}
		b.Run("post/"+name, func(b *testing.B) {
			l := newLab(b, 2, quiet)
			l.startAll()
			for _, n := range l.nodes {
				eventually(b, func() bool { return n.pulled.Load() }, why("they have not met"))
			}
			start, ops := cpuTime(), 0
			for b.Loop() {
				changed := l.nodes[1].actor.Changed()
				mustInsert(b, l.nodes[0], ops, byte(ops))
				<-changed
				ops++
			}
			b.ReportMetric(float64((cpuTime()-start).Microseconds())/float64(ops), "cpu-µs/op")
			l.waitEqual()
		})
		b.Run("pull/"+name, func(b *testing.B) {
			const ops = 100_000
			l := newLab(b, 2, quiet)
			l.start(0)
			// In batches, as an author that is typed at by many would: a commit for each.
			rng := rand.New(rand.NewPCG(5, 5))
			for made := 0; made < ops; {
				var all sync.WaitGroup
				there := made
				for range 500 {
					at := rng.IntN(there + 1)
					all.Go(func() { mustInsert(b, l.nodes[0], at, byte(at)) })
					made++
				}
				all.Wait()
			}
			for b.Loop() {
				start := cpuTime()
				l.start(1)
				eventually(b, func() bool { return l.nodes[1].actor.LSN() == ops }, why("not all has come"))
				b.ReportMetric(float64((cpuTime()-start).Nanoseconds())/1000/ops, "cpu-µs/op")
				b.StopTimer()
				if mustState(b, l.nodes[1]).Digest != mustState(b, l.nodes[0]).Digest {
					b.Fatal("another genome")
				}
				l.stop(1)
				l.dirs[1] = b.TempDir()
				b.StartTimer()
			}
		})
	}
}

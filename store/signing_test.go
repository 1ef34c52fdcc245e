package store

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"crdt-genome/genome"
	"crdt-genome/store/signed"
	"crdt-genome/store/signed/signedtest"
)

// A group is the keys of some actors, and their roster.
type group struct{ signedtest.Keyring }

func newGroup(t testing.TB, n int) *group {
	t.Helper()
	return &group{signedtest.New(t, n)}
}

func (g *group) signing(n genome.ActorID) *Signing {
	if g == nil {
		return nil
	}
	return &Signing{Key: g.Keys[n], Roster: g.Roster}
}

// open opens actor n of the group on f, and closes it at the end of the test.
func (g *group) open(t testing.TB, f folder, n genome.ActorID, adapt ...func(*Config)) *Actor {
	t.Helper()
	cfg := Config{Data: "unused", Actor: n, Sign: g.signing(n)}
	for _, change := range adapt {
		change(&cfg)
	}
	cfg, err := cfg.withDefaults()
	must(t, err)
	a, err := open(ctx, cfg, f)
	must(t, err)
	t.Cleanup(func() { a.Close() })
	return a
}

func unsigned(c *Config) { c.Sign = nil }

func small(c *Config) { c.sealOps, c.packParts, c.CheckpointEvery, c.noKeeper = 8, 2, 20, true }

// signedAll is all that a has.
func signedAll(t testing.TB, a *Actor) signed.Batch {
	t.Helper()
	b, more, err := a.SignedSince(ctx, nil, 0, 0)
	if err != nil || more {
		t.Fatalf("SignedSince: more %t, %v", more, err)
	}
	return b
}

func take(t testing.TB, a *Actor, b signed.Batch) Receipt {
	t.Helper()
	rec, err := a.Receive(ctx, Source{Via: ViaPull, From: 9, Known: true}, b.Block, b.Points...)
	must(t, err)
	return rec
}

// pullAll brings all that from has to to, in answers of at most limit ops, each
// of which must be taken as a whole.
func pullAll(t testing.TB, from, to *Actor, limit int) (answers int) {
	t.Helper()
	for more := true; more; answers++ {
		var b signed.Batch
		var err error
		b, more, err = from.SignedSince(ctx, to.Version(), limit, 0)
		must(t, err)
		if rec := take(t, to, b); len(rec.Refused)+rec.Pending+rec.Duplicate > 0 || more && rec.Applied == 0 {
			t.Fatalf("of %d ops with %d points, after %d answers: %+v", len(b.Ops), len(b.Points), answers, rec)
		}
	}
	sameState(t, mustState(t, to), mustState(t, from))
	return answers
}

func codes(rec Receipt) (all []string) {
	for _, e := range rec.Refused {
		all = append(all, string(e.Code))
	}
	return all
}

func parked(a *Actor) int {
	n, _ := a.g.Parked()
	return n
}

// forgeNewest changes something in the newest event of each author of b, and whatever
// follows from it.
func forgeNewest(rng *rand.Rand, b genome.Block) genome.Block {
	b.Ops, b.Heads = slices.Clone(b.Ops), nil
	met := make(map[genome.ReplicaID]bool)
	for i := range slices.Backward(b.Ops) {
		op := &b.Ops[i]
		if met[op.Dot.Replica] {
			continue
		}
		met[op.Dot.Replica] = true
		switch {
		case op.Kind == genome.Insert:
			op.Genes = slices.Clone(op.Genes)
			op.Genes[len(op.Genes)-1] ^= 1 << rng.IntN(8)
		case op.Ref.Gene > 0:
			op.Ref.Gene--
		default:
			op.Ref.Gene++
		}
	}
	return b
}

// TestSignedOps: what its author has signed is taken from whoever brings it, and
// nothing else is.
func TestSignedOps(t *testing.T) {
	g := newGroup(t, 4)
	author, relay := g.open(t, newSimFolder(), 0), g.open(t, newSimFolder(), 1)
	mustInsert(t, author, 0, 'a', 'b', 'c')
	old := signedAll(t, author)
	mustInsert(t, author, 1, 'x')
	_, err := author.Delete(ctx, 0, 2)
	must(t, err)
	pullAll(t, author, relay, 0)
	mustInsert(t, relay, 2, 'r')
	true_ := signedAll(t, relay) // of both
	wrong := *g
	wrong.Keys = slices.Clone(g.Keys)
	wrong.Keys[0] = g.Keys[3]

	last := func(b signed.Batch, r genome.ReplicaID) *genome.Op {
		b.Ops = slices.Clone(b.Ops)
		for i := range slices.Backward(b.Ops) {
			if b.Ops[i].Dot.Replica == r {
				return &b.Ops[i]
			}
		}
		return nil
	}
	invent := genome.Op{Dot: genome.Dot{Replica: author.Replica(), Seq: last(true_, author.Replica()).Last() + 1}, Gene: 4,
		Ref: genome.GeneID{Replica: author.Replica(), Gene: 0}, Genes: []byte("!")}
	signAs := func(key ed25519.PrivateKey, b genome.Block, r genome.ReplicaID) signed.Point {
		c := signed.NewChain(defaultCluster, r)
		for i := range b.Ops {
			c.Extend(&b.Ops[i])
		}
		return c.Sign(key)
	}
	clone := func() signed.Batch {
		return signed.Batch{Block: genome.Block{Ops: slices.Clone(true_.Ops)}, Points: slices.Clone(true_.Points)}
	}
	setPoint := func(b *signed.Batch, p signed.Point) { q, _ := b.Point(p.Replica); *q = p }

	for _, c := range []struct {
		what string
		b    func() signed.Batch
		code genome.Code // of the author's ops
	}{
		{"an op changed", func() signed.Batch { b := clone(); b.Ops[0].Genes = []byte("abd"); return b }, CodeSignatureInvalid},
		{"an op elsewhere", func() signed.Batch { b := clone(); b.Ops[1].Ref.Gene++; return b }, CodeSignatureInvalid},
		{"two ops in another order", func() signed.Batch {
			b := clone()
			b.Ops[1].Genes, b.Ops[0].Genes = []byte("a"), []byte("xbc")
			return b
		}, CodeSignatureInvalid},
		{"an op invented at the end, under the point of what came before", func() signed.Batch {
			b := clone()
			b.Ops = append(b.Ops, invent)
			p, _ := b.Point(invent.Dot.Replica)
			p.Seq++
			return b
		}, CodeSignatureInvalid},
		{"an old point that says that it is new", func() signed.Batch {
			b := clone()
			p := old.Points[0]
			p.Seq = last(true_, p.Replica).Last()
			setPoint(&b, p)
			return b
		}, CodeSignatureInvalid},
		{"an old point with other ops", func() signed.Batch {
			b := signed.Batch{Points: old.Points}
			b.Ops = []genome.Op{{Dot: old.Ops[0].Dot, Genes: []byte("xyz")}}
			return b
		}, CodeSignatureInvalid},
		{"signed by somebody else of the roster", func() signed.Batch {
			b := clone()
			setPoint(&b, signAs(g.Keys[2], b.Block, author.Replica()))
			return b
		}, CodeSignatureInvalid},
		{"signed by a stranger", func() signed.Batch {
			b := clone()
			_, key, _ := ed25519.GenerateKey(nil)
			setPoint(&b, signAs(key, b.Block, author.Replica()))
			return b
		}, CodeSignatureInvalid},
		{"the point of another replica", func() signed.Batch {
			b := clone()
			b.Points[0].Sig, b.Points[1].Sig = b.Points[1].Sig, b.Points[0].Sig
			return b
		}, CodeSignatureInvalid},
		{"no point", func() signed.Batch { b := clone(); b.Points = nil; return b }, CodeSignatureRequired},
		{"a point that goes further than the ops", func() signed.Batch {
			b := clone()
			b.Ops = b.Ops[:2]
			return b
		}, CodeSignatureRequired},
	} {
		t.Run(c.what, func(t *testing.T) {
			b := c.b()
			a := g.open(t, newSimFolder(), 2)
			rec := take(t, a, b)
			if rec.Applied != 0 || len(rec.Refused) == 0 || !slices.Contains(codes(rec), string(c.code)) {
				t.Fatalf("%+v, want %s", rec, c.code)
			}
			if a.LSN() != 0 || parked(a) != 0 {
				t.Fatalf("%d events are here", a.LSN())
			}
			// Nothing is lost by it: the true ones are taken.
			pullAll(t, relay, a, 0)
		})
	}

	t.Run("an op invented behind the point", func(t *testing.T) {
		a, b := g.open(t, newSimFolder(), 2), clone()
		b.Ops = append(b.Ops, invent)
		rec := take(t, a, b)
		if !slices.Equal(codes(rec), []string{string(CodeSignatureRequired)}) || rec.Refused[0].Dot != invent.Dot {
			t.Errorf("%+v", rec)
		}
		sameState(t, mustState(t, a), mustState(t, relay))
	})
	t.Run("an author who is not in the roster", func(t *testing.T) {
		a := g.open(t, newSimFolder(), 2)
		g.Without(t, 0)
		must(t, g.Roster.Reload())
		rec := take(t, a, true_)
		if !slices.Contains(codes(rec), string(CodeNotInRoster)) || rec.Applied != 0 || rec.Pending != 1 {
			t.Errorf("%+v: the relay's own op needs what is refused", rec)
		}
		g.Without(t)
		must(t, g.Roster.Reload())
		pullAll(t, relay, a, 0)
	})
	t.Run("another group", func(t *testing.T) {
		a := g.open(t, newSimFolder(), 2, func(c *Config) { c.Cluster = "other" })
		if rec := take(t, a, true_); rec.Applied != 0 || !slices.Contains(codes(rec), string(CodeSignatureInvalid)) {
			t.Errorf("%+v", rec)
		}
	})
	t.Run("twice, and in parts", func(t *testing.T) {
		a := g.open(t, newSimFolder(), 2)
		if rec := take(t, a, old); rec.Applied != 3 {
			t.Fatalf("%+v", rec)
		}
		for i, want := range []Receipt{{Applied: 4, Duplicate: 3}, {Duplicate: 7}} {
			if rec := take(t, a, true_); rec.Applied != want.Applied || rec.Duplicate != want.Duplicate || len(rec.Refused) != 0 {
				t.Errorf("%d: %+v, want %+v", i, rec, want)
			}
		}
		// What is held already is compared, not believed.
		if rec := take(t, a, signed.Batch{Block: forgeNewest(rngOf(1), true_.Block)}); rec.Applied != 0 || rec.SelfAhead || !slices.Contains(codes(rec), string(CodeSignatureInvalid)) || a.counts.conflicts != 0 {
			t.Errorf("%+v", rec)
		}
		sameState(t, mustState(t, a), mustState(t, relay))
	})
	t.Run("wrong chains with it", func(t *testing.T) { // nobody signs those
		a, b := g.open(t, newSimFolder(), 2), clone()
		for _, p := range b.Points {
			b.Heads = append(b.Heads, genome.Head{Replica: p.Replica, Seq: p.Seq, Chain: 1})
		}
		if rec := take(t, a, b); rec.Applied != 7 || len(rec.Refused) != 0 {
			t.Errorf("%+v", rec)
		}
	})
	t.Run("too early", func(t *testing.T) {
		a, b := g.open(t, newSimFolder(), 2), clone()
		b.Ops = slices.DeleteFunc(b.Ops, func(op genome.Op) bool { return op.Dot == old.Ops[0].Dot })
		rec := take(t, a, b)
		if rec.Pending != 4 || rec.Applied != 0 || len(rec.Missing) != 2 || parked(a) != 0 {
			t.Errorf("%+v, %d parked", rec, parked(a))
		}
	})
	t.Run("by one who may sign for itself only", func(t *testing.T) { // a member as a forger
		a, b := g.open(t, newSimFolder(), 2), clone()
		b.Ops[0].Genes = []byte("abd")
		for _, r := range []genome.ReplicaID{author.Replica(), relay.Replica()} {
			setPoint(&b, signAs(g.Keys[1], b.Block, r))
		}
		if rec := take(t, a, b); rec.Applied != 0 || !slices.Contains(codes(rec), string(CodeSignatureInvalid)) {
			t.Errorf("%+v", rec)
		}
	})
}

// TestOwnForged: what somebody makes up under an actor's own replica does not
// make it go on under a new epoch.
func TestOwnForged(t *testing.T) {
	g := newGroup(t, 2)
	a := g.open(t, newSimFolder(), 0)
	mustInsert(t, a, 0, 'a')
	self := a.Replica()
	for _, op := range []genome.Op{
		{Dot: genome.Dot{Replica: self, Seq: 2}, Gene: 1, Ref: genome.GeneID{Replica: self}, Genes: []byte("b")},
		{Dot: genome.Dot{Replica: self, Seq: 1}, Genes: []byte("b")},
		{Dot: genome.Dot{Replica: 1<<32 | 5, Seq: 1}, Ref: genome.GeneID{Replica: self, Gene: 7}, Genes: []byte("b")},
	} {
		b := signed.Batch{Block: genome.Block{Ops: []genome.Op{op}, Heads: []genome.Head{{Replica: op.Dot.Replica, Seq: op.Last(), Chain: 1}}}}
		c := signed.NewChain(defaultCluster, op.Dot.Replica)
		c.Extend(&op)
		b.Points = []signed.Point{c.Sign(g.Keys[1])}
		rec := take(t, a, b)
		real := op.Dot.Replica.Actor() == 1 // has signed, and names what this actor has never made
		if rec.Applied != 0 || rec.SelfAhead != real || a.Replica() != self && !real {
			t.Errorf("%v: %+v, now %v", op.Dot, rec, a.Replica())
		}
	}
}

// TestSignedLateJoiner: an actor that was not there gets all from any other, in
// answers that it can check one by one, also when the log has been sealed, packed
// and read again.
func TestSignedLateJoiner(t *testing.T) {
	onBackends(t, func(t *testing.T, f folder) {
		g, rng := newGroup(t, 5), rngOf(7)
		a, b, c := g.open(t, newSimFolder(), 0, small), g.open(t, f, 1, small), g.open(t, newSimFolder(), 2, small)
		k := &keeper{a: b}
		for i := range 400 {
			_, err := edit([]*Actor{a, b, c}[rng.IntN(3)], rng)
			must(t, err)
			switch {
			case i%7 == 0:
				pullOnly(t, a, b)
			case i%11 == 0:
				for _, from := range []*Actor{a, c} {
					batch, _, err := from.SignedSince(ctx, b.Version(), 0, 0)
					must(t, err)
					take(t, b, batch)
				}
				k.work(ctx)
				pullOnly(t, b, a)
				pullOnly(t, b, c)
			}
		}
		pullOnly(t, a, b)
		pullOnly(t, c, b)
		pullAll(t, b, g.open(t, newSimFolder(), 3, small), 1)
		pullAll(t, b, g.open(t, newSimFolder(), 4), 0)
		mustClose(t, b)
		b = g.open(t, f, 1, small)
		if b.Opening().EpochReason != ReasonClean || b.Opening().Checkpoint == 0 {
			t.Errorf("opened with %+v", b.Opening())
		}
		last := g.open(t, newSimFolder(), 4)
		pullAll(t, b, last, 5)
		mustInsert(t, b, 0, 'x') // goes on with the chain that it had
		pullAll(t, b, last, 5)
		if kept := len(pointsIn(t, b)); kept > int(b.x.end())/4 {
			t.Errorf("%d points are kept of %d events", kept, b.LSN())
		}
	})
}

// pullOnly is pullAll where to has more.
func pullOnly(t testing.TB, from, to *Actor) {
	t.Helper()
	for more := true; more; {
		var b signed.Batch
		var err error
		b, more, err = from.SignedSince(ctx, to.Version(), 5, 0)
		must(t, err)
		if rec := take(t, to, b); len(rec.Refused)+rec.Pending > 0 {
			t.Fatalf("%+v", rec)
		}
	}
}

// pointsIn returns all points on the disk of a.
func pointsIn(t testing.TB, a *Actor) (all []point) {
	t.Helper()
	must(t, a.pointsFrom(0, a.LSN(), func(p point) { all = append(all, p) }))
	return all
}

// TestCutsAreNear: whatever comes at once, no two cuts in a log are further
// apart than an answer can hold.
func TestCutsAreNear(t *testing.T) {
	if testing.Short() {
		t.Skip("many ops")
	}
	g := newGroup(t, 4)
	a, b := g.open(t, newOSFolder(t.TempDir()), 0), g.open(t, newOSFolder(t.TempDir()), 1)
	check := func(a *Actor) {
		t.Helper()
		joiner := g.open(t, newSimFolder(), 3)
		if answers := pullAll(t, a, joiner, 0); answers < 3 {
			t.Errorf("%d answers for %d events", answers, a.x.end())
		}
		mustClose(t, joiner)
	}
	// Typing from many places: each a commit of its own, or with others.
	errs := make(chan error, 64)
	for i := range cap(errs) {
		go func() {
			var err error
			for range 150 {
				if err == nil {
					_, err = a.Insert(ctx, 0, []byte{byte(i)})
				}
			}
			errs <- err
		}()
	}
	for range cap(errs) {
		must(t, <-errs)
	}
	check(a)
	pullAll(t, a, b, 0)
	// One edit that makes many ops: the genes' ids are not neighbours.
	_, err := b.Delete(ctx, 100, 9000)
	must(t, err)
	check(b)
	// Long runs.
	for range 40 {
		_, err := b.Insert(ctx, 5, bytes.Repeat([]byte{7}, 60_000))
		must(t, err)
	}
	check(b)
	pullAll(t, b, a, 0)
	check(a)
}

// TestSignedOutbox: what a sender reads ends at its own points, or at cuts, goes
// on behind, and is all taken.
func TestSignedOutbox(t *testing.T) {
	g, rng := newGroup(t, 3), rngOf(3)
	a, b, c := g.open(t, newSimFolder(), 0, small), g.open(t, newSimFolder(), 1, small), g.open(t, newSimFolder(), 2)
	for i := range 120 {
		_, err := edit(a, rng)
		must(t, err)
		_, err = edit(b, rng)
		must(t, err)
		if i%10 == 9 {
			pullOnly(t, a, b)
			pullOnly(t, b, a)
		}
	}
	for at, own := uint64(0), a.Version().Get(a.Replica()); at < a.LSN(); {
		batch, next, err := a.SignedOwn(ctx, at, nil, 7, 0)
		must(t, err)
		if next <= at || len(batch.Points) != min(1, len(batch.Ops)) || len(batch.Ops) > 0 && batch.Ops[len(batch.Ops)-1].Last() != batch.Points[0].Seq {
			t.Fatalf("from %d to %d: %d ops, points %v of %d", at, next, len(batch.Ops), batch.Points, own)
		}
		at = next
	}
	for at := uint64(0); at < b.LSN(); {
		batch, next, err := b.SignedNews(ctx, at, nil, nil, 7, 0)
		must(t, err)
		if rec := take(t, c, batch); next <= at || len(rec.Refused)+rec.Pending > 0 {
			t.Fatalf("from %d to %d: %+v", at, next, rec)
		}
		at = next
	}
	sameState(t, mustState(t, c), mustState(t, b))
}

// TestSigningLater: an actor that has not signed so far vouches for what it has
// minted itself. Others who hold that cannot pass it on.
func TestSigningLater(t *testing.T) {
	onBackends(t, func(t *testing.T, f folder) {
		g, rng := newGroup(t, 4), rngOf(11)
		a, b := g.open(t, f, 0, small, unsigned), g.open(t, newSimFolder(), 1, small, unsigned)
		for i := range 60 {
			_, err := edit(a, rng)
			must(t, err)
			if i == 30 {
				must(t, a.Rotate(ctx, "test"))
			}
		}
		part, _, err := a.Since(ctx, nil, 20, 0)
		must(t, err)
		mustReceive(t, b, part)
		mustInsert(t, b, b.g.Len(), 'b')
		rest, _, err := b.Since(ctx, a.Version(), 0, 0)
		must(t, err)
		mustReceive(t, a, rest)
		mustClose(t, a)
		for range 2 { // the second time nothing is left to do
			a = g.open(t, f, 0, small)
			joiner := g.open(t, newSimFolder(), 2)
			for i, want := range []Receipt{{Applied: int(a.ownEvents())}, {Refused: []*genome.OpError{{Dot: genome.Dot{Replica: b.Replica(), Seq: 1}}}}} {
				batch, _, err := a.SignedSince(ctx, joiner.Version(), 0, 0)
				must(t, err)
				rec := take(t, joiner, batch)
				if rec.Applied != want.Applied || rec.Pending != 0 || len(rec.Refused) != len(want.Refused) || len(rec.Refused) > 0 && rec.Refused[0].Dot != want.Refused[0].Dot {
					t.Errorf("%d: %+v, want %+v", i, rec, want)
				}
			}
			mustClose(t, joiner)
			mustClose(t, a)
		}
	})
}

// TestSignaturesDamaged: a log whose signatures are damaged is as good as
// before, and its actor signs again.
func TestSignaturesDamaged(t *testing.T) {
	for _, bucket := range []bucket{bucketSigned, bucketChains} {
		g, f, rng := newGroup(t, 3), newSimFolder(), rngOf(2)
		a := g.open(t, f, 0, small)
		for range 50 {
			_, err := edit(a, rng)
			must(t, err)
		}
		var bad []write
		must(t, a.disk.ascend(bucket, func(k, v []byte) error {
			bad = append(bad, write{bucket, slices.Clone(k), slices.Clone(v)})
			return nil
		}))
		for i := range bad {
			bad[i].value[rng.IntN(len(bad[i].value))] ^= 1
		}
		must(t, a.disk.commit(bad))
		mustClose(t, a)
		a = g.open(t, f, 0, small)
		mustInsert(t, a, 0, 'x')
		pullAll(t, a, g.open(t, newSimFolder(), 1), 0)
	}
}

// TestNoKeyInRoster: an actor that nobody would believe does not start.
func TestNoKeyInRoster(t *testing.T) {
	g := newGroup(t, 2)
	_, err := Open(ctx, Config{Data: t.TempDir(), Actor: 0, Sign: &Signing{Key: g.Keys[1], Roster: g.Roster}})
	if e, ok := err.(*NotInRosterError); !ok || !strings.HasPrefix(e.Line, "0 ed25519 ") {
		t.Errorf("%v", err)
	}
}

// TestNothingSigned: without Sign nothing of signatures is on the disk, and what
// comes with points is taken as without.
func TestNothingSigned(t *testing.T) {
	g := newGroup(t, 2)
	a, b := g.open(t, newSimFolder(), 0), g.open(t, newSimFolder(), 1, unsigned)
	mustInsert(t, a, 0, 'a', 'b')
	if rec := take(t, b, signedAll(t, a)); rec.Applied != 2 {
		t.Errorf("%+v", rec)
	}
	mustInsert(t, b, 0, 'c')
	for _, name := range optional {
		must(t, b.disk.ascend(name, func(k, v []byte) error { return fmt.Errorf("%s holds %x", name, k) }))
	}
	if batch, _, err := b.SignedSince(ctx, nil, 0, 0); err != nil || batch.Points != nil || len(batch.Ops) != 2 {
		t.Errorf("%+v, %v", batch, err)
	}
}

// TestGoldenSignedRecords: what is on the disk is what signing.go draws.
func TestGoldenSignedRecords(t *testing.T) {
	g := newGroup(t, 1)
	op := genome.Op{Dot: genome.Dot{Replica: genome.NewReplicaID(3, 0x5f3c1a2b), Seq: 1}, Genes: []byte("GATTACA")}
	c := signed.NewChain("group", op.Dot.Replica)
	c.Extend(&op)
	p := point{lsn: 258, cut: true, Point: c.Sign(g.Keys[0])}
	var text strings.Builder
	for _, w := range []write{p.put(), putChain(op.Dot.Replica, c)} {
		fmt.Fprintf(&text, "%s %x %x\n", w.bucket, w.key, w.value)
	}
	want, err := os.ReadFile("testdata/signed-v1.golden")
	if *update {
		must(t, os.WriteFile("testdata/signed-v1.golden", []byte(text.String()), 0o600))
		return
	}
	must(t, err)
	if text.String() != string(want) {
		t.Errorf("\n%s, want\n%s", text.String(), want)
	}
	if got, ok := decodePoint(p.put().key, p.put().value); !ok || got != p {
		t.Errorf("%+v, %t", got, ok)
	}
	for i := range p.put().value {
		bad := p.put().value
		bad[i] ^= 1
		if _, ok := decodePoint(p.put().key, bad); ok {
			t.Errorf("byte %d changed: %s", i, hex.EncodeToString(bad))
		}
	}
}

package httpapi

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"crdt-genome/genome"
	"crdt-genome/store"
)

// badNetwork loses three requests in ten, half of them only after they have
// arrived, repeats one in ten, and delays the rest unequally, so that they
// overtake each other.
func badNetwork(seed uint64) func(from, to int) fault {
	rng := rand.New(rand.NewPCG(seed, 0))
	return func(from, to int) fault {
		f := fault{delay: rand.N(20 * time.Millisecond)}
		switch p := rng.Float64(); {
		case p < .15:
			f.lose = true
		case p < .30:
			f.deaf = true
		case p < .40:
			f.repeat = true
		}
		return f
	}
}

// mutateFor makes k random edits on n.
func mutateFor(t testing.TB, n *Node, seed uint64, k int) {
	rng := rand.New(rand.NewPCG(seed, 1))
	for range k {
		_, err := n.actor.Edit(ctx, func(g *genome.Genome) (store.Edit, error) {
			if g.Len() > 10 && rng.IntN(2) == 0 {
				return store.Edit{Delete: true, At: rng.IntN(g.Len()), N: 1}, nil
			}
			return store.Edit{At: rng.IntN(g.Len() + 1), Genes: []byte{byte(rng.Uint32())}}, nil
		})
		if err != nil {
			t.Errorf("edit: %v", err)
			return
		}
	}
}

// Five actors over a network that loses, repeats and reorders. One joins late,
// one restarts, one is wiped, an island forms and heals. All end up equal, no
// dot is issued twice, and nothing is taken for a fork.
func TestBadNetwork(t *testing.T) {
	l := newLab(t, 5, nil)
	l.setFaults(badNetwork(1))
	for i := range 4 {
		l.start(i)
	}
	round := func(seed uint64) {
		var wg sync.WaitGroup
		for i, n := range l.nodes {
			if n != nil {
				wg.Go(func() { mutateFor(t, n, seed+uint64(i), 30) })
			}
		}
		wg.Wait()
	}
	round(10)
	l.start(4) // late
	round(20)
	l.stop(1)
	round(30)
	l.start(1) // again
	l.waitEqual()

	bad, island := badNetwork(2), cut(0, 1)
	l.setFaults(func(from, to int) fault {
		if island(from, to).lose {
			return fault{lose: true}
		}
		return bad(from, to)
	})
	round(40)
	l.setFaults(badNetwork(3))
	l.waitEqual()
	var ops uint64
	for i, n := range l.nodes {
		c, s := n.Counts(), n.actor.Stats()
		if c.Forks != 0 || c.Diverged != 0 || c.Panics != 0 || s.Live.Conflicts != 0 {
			t.Errorf("actor %d: %+v, %d conflicts", i, c, s.Live.Conflicts)
		}
		ops = s.Ops
	}
	if want := uint64(30 * (4 + 5 + 4 + 5)); ops != want {
		t.Errorf("%d ops, want %d", ops, want)
	}
	l.setFaults(nil)
	for i := range l.nodes {
		l.waitRound(i, 4, 0, 0, 0)
	}
}

// A late joiner gets 100,000 ops that were made one gene at a time.
func TestLateJoiner(t *testing.T) {
	const ops = 100_000
	l := newLab(t, 2, nil)
	n := l.start(0)
	fill(t, n, ops)
	start := time.Now()
	l.start(1)
	l.waitEqual()
	took := time.Since(start)
	t.Logf("a late joiner has %d ops after %v: %.0f ops/s", ops, took.Round(time.Millisecond), ops/took.Seconds())
	if got := l.nodes[1].actor.LSN(); got != ops {
		t.Errorf("%d ops, want %d", got, ops)
	}
	if s := l.nodes[1].actor.Stats(); s.Live.Pull != ops {
		t.Errorf("%d ops were pulled, want all", s.Live.Pull)
	}
}

// fill gives n that many ops by five authors, of one event each, at random
// places.
func fill(t testing.TB, n *Node, ops int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(5, 5))
	g := genome.New(genome.NewReplicaID(100, 1))
	for made := 0; made < ops; {
		var b genome.Block
		if err := g.SetSelf(genome.NewReplicaID(genome.ActorID(100+made/maxBatchOps%5), 1)); err != nil {
			t.Fatal(err)
		}
		for ; made < ops && len(b.Ops) < maxBatchOps; made++ {
			if g.Len() > 10 && rng.IntN(4) == 0 {
				del, err := g.Delete(rng.IntN(g.Len()), 1)
				if err != nil {
					t.Fatal(err)
				}
				b.Ops = append(b.Ops, del...)
				continue
			}
			op, err := g.Insert(rng.IntN(g.Len()+1), []byte{byte(made)})
			if err != nil {
				t.Fatal(err)
			}
			b.Ops = append(b.Ops, op)
		}
		rec, err := n.actor.Receive(ctx, store.Source{Via: store.ViaPost}, b)
		if err != nil || rec.Applied != len(b.Ops) {
			t.Fatalf("fill: %+v, %v", rec, err)
		}
	}
}

// Ten actors, 200 edits each as fast as they can: no delivery fails. The speed
// is for `crdt-genome bench http`; here it is the count that matters.
func TestTenActors(t *testing.T) {
	if testing.Short() {
		t.Skip("not with -short")
	}
	const actors, edits = 10, 200
	l := newLab(t, actors, func(c *Config) { c.VerifyInterval, c.PullInterval = 5*time.Second, 10*time.Second })
	l.startAll()
	for i := range l.nodes {
		eventually(t, func() bool {
			for _, p := range l.nodes[i].peers() {
				p.mu.Lock()
				up := p.answered && p.failures == 0
				p.mu.Unlock()
				if !up {
					return false
				}
			}
			return true
		}, why("not connected"))
	}
	before := make([]uint64, actors)
	for i, n := range l.nodes {
		before[i] = n.Counts().PostsFailed
	}
	start := time.Now()
	var wg sync.WaitGroup
	for i, n := range l.nodes {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(7, uint64(i)))
			for range edits { // at random places, paced to 200/s for each
				mutateFor(t, n, rng.Uint64(), 1)
				time.Sleep(time.Millisecond)
			}
		})
	}
	wg.Wait()
	made := time.Since(start)
	l.waitEqual()
	all := time.Since(start)
	t.Logf("%d ops by %d actors: made in %v (%.0f/s), everywhere after %v", actors*edits, actors, made.Round(time.Millisecond),
		actors*edits/made.Seconds(), all.Round(time.Millisecond))
	for i, n := range l.nodes {
		if failed := n.Counts().PostsFailed - before[i]; failed != 0 {
			t.Errorf("actor %d: %d deliveries failed", i, failed)
		}
		if got := n.actor.LSN(); got != actors*edits {
			t.Errorf("actor %d holds %d ops, want %d", i, got, actors*edits)
		}
	}
}

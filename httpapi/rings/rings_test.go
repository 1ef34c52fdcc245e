package rings

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// members returns n numbers: 0 … n-1, or anything.
func members(n int, rng *rand.Rand) []uint64 {
	var all []uint64
	for i := range n {
		m := uint64(i)
		if rng != nil {
			m = rng.Uint64()
		}
		all = append(all, m)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func graph(all []uint64, k int) map[uint64][]uint64 {
	g := map[uint64][]uint64{}
	for _, m := range all {
		g[m] = Neighbours(m, all, k)
	}
	return g
}

// reach returns how many members hear what from sends, and after how many steps.
func reach(g map[uint64][]uint64, from uint64) (heard, steps int) {
	seen := map[uint64]bool{from: true}
	for now := []uint64{from}; ; steps++ {
		var next []uint64
		for _, m := range now {
			for _, to := range g[m] {
				if !seen[to] {
					seen[to] = true
					next = append(next, to)
				}
			}
		}
		if len(next) == 0 {
			return len(seen), steps
		}
		now = next
	}
}

// TestNeighbours: everybody is reached from everybody, in few steps, and
// nobody has more neighbours than it may (R1, R2).
func TestNeighbours(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 2, 3, 7, 65, 300, 1000} {
		for _, k := range []int{1, 2, 5, Fanout} {
			for _, from := range []*rand.Rand{nil, rng} {
				all := members(n, from)
				g := graph(all, k)
				for m, to := range g {
					if len(to) > k || slices.Contains(to, m) || !slices.IsSorted(to) {
						t.Fatalf("%d members, fanout %d: neighbours of %d: %d", n, k, m, to)
					}
					for _, x := range to {
						if k%2 == 0 && !slices.Contains(g[x], m) {
							t.Fatalf("%d members, fanout %d: %d sends to %d but not back", n, k, m, x)
						}
					}
				}
				heard, steps := reach(g, all[0])
				if heard != n {
					t.Errorf("%d members, fanout %d: %d are reached", n, k, heard)
				}
				if k == Fanout && steps > 9 {
					t.Errorf("%d members, fanout %d: %d steps", n, k, steps)
				}
			}
		}
	}
}

// TestDegree: two rings seldom agree, so a large group has nearly the fanout.
func TestDegree(t *testing.T) {
	all := members(1000, nil)
	links := 0
	for _, to := range graph(all, Fanout) {
		links += len(to)
	}
	if mean := float64(links) / 1000; mean < 5.9 || mean > Fanout {
		t.Errorf("%.2f neighbours on average", mean)
	}
}

// TestChurn: one member that comes or goes changes the links of its own
// neighbours and of nobody else (R3); the rest stays connected.
func TestChurn(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	all := members(500, rng)
	before := graph(all, Fanout)
	for range 20 {
		gone := all[rng.IntN(len(all))]
		rest := slices.DeleteFunc(slices.Clone(all), func(m uint64) bool { return m == gone })
		after := graph(rest, Fanout)
		changed := 0
		for _, m := range rest {
			if !slices.Equal(before[m], after[m]) {
				changed++
				if !slices.Contains(before[gone], m) {
					t.Errorf("%d was no neighbour of %d, and its links changed", m, gone)
				}
			}
		}
		if changed == 0 || changed > Fanout {
			t.Errorf("%d members have other links", changed)
		}
		if heard, _ := reach(after, rest[0]); heard != len(rest) {
			t.Errorf("without %d, %d of %d are reached", gone, heard, len(rest))
		}
	}
}

// TestLossOfMany: with a third of the members dead and nobody knowing yet, the
// others still reach nearly all of each other; pull has to mend the rest.
func TestLossOfMany(t *testing.T) {
	all := members(999, nil)
	g := graph(all, Fanout)
	for _, m := range all {
		if m%3 == 0 {
			delete(g, m)
		}
	}
	live := 0
	for m := range g {
		g[m] = slices.DeleteFunc(g[m], func(x uint64) bool { return x%3 == 0 })
		live++
	}
	if heard, _ := reach(g, 1); heard < live*98/100 {
		t.Errorf("%d of %d are reached", heard, live)
	}
}

// TestLink: the order of a sender's steps.
func TestLink(t *testing.T) {
	at := time.Unix(1000, 0)
	l := Link{Pace: 200 * time.Millisecond, ProbeAfter: 2}
	expect := func(what string, something bool, want Step, wait time.Duration) {
		t.Helper()
		step, until := l.Next(at, something)
		if step != want || want == Wait && wait > 0 && !until.Equal(at.Add(wait)) || want == Wait && wait == 0 && !until.IsZero() {
			t.Errorf("%s: step %d until %v, want %d for %v", what, step, until.Sub(at), want, wait)
		}
	}
	expect("new", true, Ask, 0)
	l.Asked()
	l.Answered()
	expect("idle", false, Wait, 0)
	expect("first", true, Post, 0)
	l.Posting(at)
	expect("too soon", true, Wait, 200*time.Millisecond)
	at = at.Add(200 * time.Millisecond)
	expect("in time", true, Post, 0)
	l.Failed(at, time.Second)
	expect("after a failure", true, Wait, time.Second)
	l.Woken()
	expect("after a sign of life", true, Post, 0)
	l.Failed(at, time.Second)
	at = at.Add(time.Second)
	expect("after two", true, Probe, 0)
	expect("after two, idle", false, Probe, 0)
	l.Answered()
	expect("after an answer", true, Post, 0)
	l.Restarted()
	expect("another process", false, Ask, 0)
}

// TestCarries: an op is passed on, but not back.
func TestCarries(t *testing.T) {
	for _, c := range []struct {
		relay, ours, known bool
		from, to           uint64
		want               bool
	}{
		{false, true, false, 0, 2, true},
		{false, false, true, 1, 2, false},
		{true, true, false, 0, 2, true},
		{true, false, true, 1, 2, true},
		{true, false, true, 2, 2, false},
		{true, false, false, 2, 2, true},
	} {
		if got := Carries(c.relay, c.ours, c.from, c.known, c.to); got != c.want {
			t.Errorf("%+v: %t", c, got)
		}
	}
}

func BenchmarkNeighbours(b *testing.B) {
	all := members(10000, nil)
	for b.Loop() {
		Neighbours(17, all, Fanout)
	}
}

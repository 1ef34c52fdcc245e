package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"crdt-genome/genome"
	"crdt-genome/httpapi"
	"crdt-genome/store"
	logbench "crdt-genome/store/bench"
)

// Goals of a fleet of 100 actors at 1,000 edits a second.
const (
	goalCPU    = 0.6  // ms for an edit, over all actors
	goalMemory = 120  // MiB resident
	goalP99    = 1000 // ms until every actor has an edit
)

// lookEvery is how often the logs are looked at, which is how exactly times
// are known.
const lookEvery = 20 * time.Millisecond

// lookClosely is the same where there are few logs.
const lookClosely = 2 * time.Millisecond

// Fleet lets actors of one process edit for a while, at rate edits a second in
// all.
func Fleet(ctx context.Context, dir string, actors, rate int, long time.Duration) (figures []logbench.Figure, err error) {
	if dir, err = os.MkdirTemp(dir, "bench-fleet-*"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var cfgs []httpapi.Config
	for i := range actors {
		cfgs = append(cfgs, httpapi.Config{Store: store.Config{Data: dir, Actor: genome.ActorID(i)}, Listen: "127.0.0.1:0",
			Mutate: httpapi.MutateConfig{Off: true}})
	}
	p, err := httpapi.StartProcess(ctx, cfgs)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.Close(context.Background())) }()
	each := max(1, int(float64(rate)*long.Seconds()/float64(actors)))
	every := long / time.Duration(each)
	w := newArrivals(p.Nodes(), lookEvery)
	cpu, start := processTime(), time.Now()
	eg, ectx := errgroup.WithContext(ctx)
	for i, n := range p.Nodes() {
		// Spread over the interval, as actors that know nothing of each other are.
		from := start.Add(every * time.Duration(i) / time.Duration(actors))
		eg.Go(func() error {
			return edit(ectx, n, uint64(i), each, every, from, func(d genome.Dot, _ time.Duration) { w.note(d, time.Now()) })
		})
	}
	stop := w.watch(ctx)
	err = eg.Wait()
	made := time.Since(start)
	if err == nil {
		g := &group{nodes: p.Nodes()}
		err = g.equal(ctx, uint64(actors*each))
	}
	all := time.Since(start)
	cpu = processTime() - cpu
	if err == nil {
		err = w.wait(ctx, actors*each)
	}
	stop()
	if err != nil {
		return nil, err
	}
	resident, anon := MemoryOf(os.Getpid())
	name := fmt.Sprintf("%d actors in a process, %d edits/s", actors, rate)
	edits := float64(actors * each)
	figure := func(name2 string, value float64, unit string, goal float64) {
		figures = append(figures, logbench.Figure{Group: name, Name: name2, Value: value, Unit: unit, Goal: goal, Most: goal > 0})
	}
	figure("edits", edits, "ops", 0)
	figure("rate reached", edits/made.Seconds(), "ops/s", 0)
	figure("CPU for an edit", cpu.Seconds()*1000/edits, "ms", goalCPU)
	figure("resident memory", resident, "MiB", goalMemory)
	figure("of it not of files", anon, "MiB", 0)
	figure("equal after the last edit", (all-made).Seconds()*1000, "ms", 0)
	figure("until all have it, p50", w.took.quantile(0.5), "ms", 0)
	figure("until all have it, p99", w.took.quantile(0.99), "ms", goalP99)
	figure("until all have it, most", w.took.quantile(1), "ms", 0)
	return figures, nil
}

// arrivals knows when each edit was minted, and when all had it.
type arrivals struct {
	nodes []*httpapi.Node
	every time.Duration
	took  times // until all had it

	mu     sync.Mutex
	minted map[genome.ReplicaID][]time.Time // by seq, from 1
	seen   map[genome.ReplicaID]uint64      // by all
}

func newArrivals(nodes []*httpapi.Node, every time.Duration) *arrivals {
	return &arrivals{nodes: nodes, every: every, minted: map[genome.ReplicaID][]time.Time{}, seen: map[genome.ReplicaID]uint64{}}
}

func (a *arrivals) note(d genome.Dot, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.minted[d.Replica] = append(a.minted[d.Replica], at)
}

// watch looks again and again until it is stopped.
func (a *arrivals) watch(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(a.every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				a.look()
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		cancel()
		watching.Wait()
	}
}

// look sees what all have now: of each replica, what that one has which has
// least of it.
func (a *arrivals) look() {
	var least genome.Version
	for i, n := range a.nodes {
		v := n.Actor().Version()
		if i == 0 {
			least = v
			continue
		}
		j := 0
		for k := range least { // both ascend
			for j < len(v) && v[j].Replica < least[k].Replica {
				j++
			}
			if j == len(v) || v[j].Replica != least[k].Replica {
				least[k].Seq = 0
			} else {
				least[k].Seq = min(least[k].Seq, v[j].Seq)
			}
		}
	}
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range least {
		for s := a.seen[e.Replica]; s < min(e.Seq, uint64(len(a.minted[e.Replica]))); s++ {
			a.took.note(now.Sub(a.minted[e.Replica][s]))
			a.seen[e.Replica] = s + 1
		}
	}
}

// wait waits until all edits have been seen everywhere.
func (a *arrivals) wait(ctx context.Context, edits int) error {
	for end := time.Now().Add(settle); ; {
		n := a.took.len()
		if n >= edits {
			return ctx.Err()
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("%d of %d edits were seen everywhere", n, edits)
		}
		time.Sleep(lookEvery)
	}
}

// times are durations that several goroutines note.
type times struct {
	mu  sync.Mutex
	all []time.Duration
}

func (t *times) note(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = append(t.all, d)
}

func (t *times) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.all)
}

// quantile returns what the share q of the times took at most, in ms.
func (t *times) quantile(q float64) float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	slices.Sort(t.all)
	return t.all[int(q*float64(len(t.all)-1))].Seconds() * 1000
}

// processTime is the CPU time that this process has used.
func processTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// MemoryOf returns the resident memory of a process in MiB, and how much of it
// is not of mapped files, as Linux tells; elsewhere 0.
func MemoryOf(pid int) (resident, anon float64) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(data)) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
		switch {
		case err != nil:
		case name == "VmRSS":
			resident = kib / 1024
		case name == "RssAnon":
			anon = kib / 1024
		}
	}
	return resident, anon
}

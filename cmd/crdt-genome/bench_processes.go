package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"crdt-genome/cmd/internal/fleet"
	"crdt-genome/httpapi"
	httpbench "crdt-genome/httpapi/bench"
	logbench "crdt-genome/store/bench"
)

// Bounds and goals of bench fleet with processes of their own.
const (
	maxBenchProcesses = 100
	processesWait     = 3 * time.Minute // for all to be members, and for all to be equal
	processesAsked    = 16              // actors that are asked at a time
	processesPoll     = 100 * time.Millisecond
	goalEqual         = 30 // s after the last edit
)

// benchProcesses are processes of this program with several actors each, which
// find each other by gossip on loopback and edit as they do by themselves.
type benchProcesses struct {
	processes, actors int
	long, mutateMax   time.Duration
	fanout            string
	bus               busOptions

	fleet *fleet.Fleet
	all   []*httpapi.Client // of every actor
	leads []*httpapi.Client // of the first of each process
}

func (b *benchProcesses) addFlags(f *pflag.FlagSet) {
	f.IntVar(&b.processes, "processes", 0, "run so many processes of --actors each (0 = all actors in this one); --rate is left out, and --runs is 1 by default")
	f.DurationVar(&b.mutateMax, "mutate-max", 20*time.Second, "longest pause of an actor before an edit, with --processes")
	f.StringVar(&b.fanout, "fanout", "auto", "members that ops are sent to, as of serve, with --processes")
	b.bus.addFlags(f)
}

func (b *benchProcesses) check() error {
	switch {
	case b.processes < 1 || b.processes > maxBenchProcesses:
		return usageError("", "--processes %d: must be 0 to %d", b.processes, maxBenchProcesses)
	case b.mutateMax <= 0:
		return usageError("", "--mutate-max %v: must be above 0", b.mutateMax)
	}
	return nil
}

func (b *benchProcesses) run(ctx context.Context, dir string) (figures []logbench.Figure, err error) {
	binary, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if dir, err = os.MkdirTemp(dir, "bench-fleet-*"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	args := []string{"--no-mutate", "--mutate-max", b.mutateMax.String(), "--fanout", b.fanout, "--log-format", "json"}
	b.all, b.leads = nil, nil
	b.fleet, err = fleet.New(fleet.Config{Binary: binary, Count: b.processes, Each: b.actors, Join: true, Data: dir,
		Args: append(args, b.bus.args()...), Env: b.bus.env(), ReadyTimeout: processesWait})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.fleet.Close()) }()
	start := time.Now()
	if err := b.fleet.StartAll(ctx); err != nil {
		return nil, startError(err)
	}
	if err := b.meet(ctx); err != nil {
		return nil, err
	}
	met := time.Since(start)
	before := b.usage()
	start = time.Now()
	if err := b.mutate(ctx, true); err != nil {
		return nil, err
	}
	select {
	case <-time.After(b.long):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := b.mutate(ctx, false); err != nil {
		return nil, err
	}
	last := time.Now()
	if err := b.equal(ctx); err != nil {
		return nil, err
	}
	took, equal := time.Since(start), time.Since(last)
	after := b.usage()
	state, err := b.same(ctx)
	if err != nil {
		return nil, err
	}
	if after.posts, after.failed, err = b.posted(ctx); err != nil {
		return nil, err
	}
	return b.figures(state, met, took, equal, before, after), nil
}

// meet waits until every process knows all others.
func (b *benchProcesses) meet(ctx context.Context) error {
	for _, a := range b.fleet.Actors() {
		addrs := []string{a.Addr}
		if b.actors > 1 {
			var err error
			if addrs, err = a.Addrs(); err != nil {
				return err
			}
		}
		for i, addr := range addrs {
			c := httpapi.NewClient("http://" + addr)
			if b.all = append(b.all, c); i == 0 {
				b.leads = append(b.leads, c)
			}
		}
	}
	return b.until(ctx, "not all have met", func(ctx context.Context) (bool, error) {
		for _, c := range b.leads {
			if r, err := c.Members(ctx); err != nil || len(r.Members) != b.processes {
				return false, err
			}
		}
		return true, nil
	})
}

// until asks again and again until ok. An error, of an actor that is too busy
// to answer, say, is told when the time is up.
func (b *benchProcesses) until(ctx context.Context, what string, ok func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, processesWait)
	defer cancel()
	for {
		done, err := ok(ctx)
		if done {
			return nil
		}
		for _, a := range b.fleet.Actors() {
			if err := a.Ended(); err != nil {
				return startError(err)
			}
		}
		select {
		case <-time.After(processesPoll):
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%s after %v", what, processesWait), err)
		}
	}
}

// each asks every actor, some at a time.
func (b *benchProcesses) each(ctx context.Context, ask func(ctx context.Context, i int, c *httpapi.Client) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(processesAsked)
	for i, c := range b.all {
		g.Go(func() error { return ask(ctx, i, c) })
	}
	return g.Wait()
}

// mutate lets every actor edit, or stops it. One that is slow is asked again.
func (b *benchProcesses) mutate(ctx context.Context, on bool) error {
	done := make([]bool, len(b.all))
	return b.until(ctx, "not every actor could be told", func(ctx context.Context) (bool, error) {
		err := b.each(ctx, func(ctx context.Context, i int, c *httpapi.Client) error {
			if done[i] {
				return nil
			}
			err := c.Mutator(ctx, !on)
			done[i] = err == nil
			return err
		})
		return err == nil, err
	})
}

// equal waits until all processes, and all actors of each, hold the same.
func (b *benchProcesses) equal(ctx context.Context) error {
	return b.until(ctx, "not all are equal", func(ctx context.Context) (bool, error) {
		var first httpapi.GenomeReply
		for i, c := range b.leads {
			r, err := c.GenomeIfNot(ctx, first.Digest)
			if i == 0 {
				first = r
			}
			if err != nil || r.VVHash != first.VVHash || r.Digest != first.Digest || r.Same != b.actors {
				return false, err
			}
		}
		return true, nil
	})
}

// same asks every single actor, and fails unless all answer the same.
func (b *benchProcesses) same(ctx context.Context) (httpapi.DigestReply, error) {
	states := make([]httpapi.DigestReply, len(b.all))
	err := b.each(ctx, func(ctx context.Context, i int, c *httpapi.Client) (err error) {
		states[i], err = c.Digest(ctx)
		return err
	})
	if err != nil {
		return httpapi.DigestReply{}, err
	}
	for i, s := range states {
		if s.State != states[0].State || s.VVHash != states[0].VVHash || int(s.Actor) != i {
			return s, fmt.Errorf("actor %d (asked as %d) has state %v of vector %s, actor 0 %v of %s", s.Actor, i, s.State, s.VVHash, states[0].State, states[0].VVHash)
		}
	}
	return states[0], nil
}

// posted counts the batches that processes have sent each other, and those of
// them that failed.
func (b *benchProcesses) posted(ctx context.Context) (posts, failed uint64, err error) {
	for _, c := range b.leads {
		r, err := c.Cluster(ctx)
		if err != nil {
			return 0, 0, err
		}
		for _, a := range r.Actors {
			posts, failed = posts+a.Posts, failed+a.Failed
		}
	}
	return posts, failed, nil
}

// A usage is what processes have used until now.
type usage struct {
	posts, failed        uint64 // batches
	cpu                  time.Duration
	resident, most, anon float64 // MiB, of all, of the largest, and not of files
}

// usage sums up what all processes have used, as Linux tells; elsewhere it is 0.
func (b *benchProcesses) usage() (u usage) {
	for _, a := range b.fleet.Actors() {
		u.cpu += cpuOf(a.PID())
		resident, anon := httpbench.MemoryOf(a.PID())
		u.resident, u.anon, u.most = u.resident+resident, u.anon+anon, max(u.most, resident)
	}
	return u
}

// cpuOf returns the CPU time of a process: fields 14 and 15 of proc(5), in
// hundredths of a second, which is what every Linux shows to programs.
func cpuOf(pid int) time.Duration {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, ok := strings.Cut(string(data), ") ") // the name may have anything in it
	f := strings.Fields(rest)
	if err != nil || !ok || len(f) < 13 {
		return 0
	}
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	if err1 != nil || err2 != nil {
		return 0
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

func (b *benchProcesses) figures(state httpapi.DigestReply, met, took, equal time.Duration, before, after usage) (figures []logbench.Figure) {
	via := "mesh"
	switch {
	case b.bus.url != "":
		via = "bus"
	case b.fanout != "auto" && b.fanout != "all":
		via = "rings"
	}
	group := fmt.Sprintf("%d processes of %d actors, %s", b.processes, b.actors, via)
	add := func(name string, value float64, unit string, goal float64) {
		figures = append(figures, logbench.Figure{Group: group, Name: name, Value: value, Unit: unit, Goal: goal, Most: goal > 0})
	}
	cpu := after.cpu - before.cpu
	ops := float64(state.Ops)
	add("edits", ops, "ops", 0)
	add("all started and met", met.Seconds(), "s", 0)
	add("equal after the last edit", equal.Seconds(), "s", goalEqual)
	add("CPU of all", cpu.Seconds(), "s", 0)
	add("… for each second", cpu.Seconds()/took.Seconds(), "cores", 0)
	add("… for an edit", cpu.Seconds()*1000/max(ops, 1), "ms", 0)
	add("… for an edit and actor", cpu.Seconds()*1e6/max(ops, 1)/float64(len(b.all)), "µs", 0)
	add("POSTs", float64(after.posts), "", 0)
	add("… that failed", float64(after.failed), "", 0)
	add("resident memory of all", after.resident, "MiB", 0)
	add("… of the largest process", after.most, "MiB", 0)
	add("… of all, not of files", after.anon, "MiB", 0)
	return figures
}

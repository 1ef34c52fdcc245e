package main

import (
	"context"
	"errors"
	"runtime/debug"
	"sync"
	"time"

	"crdt-genome/cmd/internal/report"
	logbench "crdt-genome/store/bench"
)

// A benchPart is one thing to measure, again and again.
type benchPart struct {
	open   func(ctx context.Context) (benchLoad, error)
	opens  time.Duration // about what open takes
	takes  time.Duration // about what one run takes
	warmUp bool          // the first run is not counted
}

// A benchLoad is what a part has opened.
type benchLoad interface {
	// Run measures once. The same figures come of every run.
	Run(ctx context.Context) ([]logbench.Figure, error)
	// Close checks what the runs have left, and removes it.
	Close() error
}

// each is a part of which each run stands for itself: it opens, checks and
// removes all that it needs.
func each(takes time.Duration, run func(ctx context.Context) ([]logbench.Figure, error)) benchPart {
	return benchPart{takes: takes, open: func(context.Context) (benchLoad, error) { return runLoad(run), nil }}
}

type runLoad func(ctx context.Context) ([]logbench.Figure, error)

func (l runLoad) Run(ctx context.Context) ([]logbench.Figure, error) {
	debug.FreeOSMemory() // what an earlier run held is not this one's
	return l(ctx)
}

func (l runLoad) Close() error { return nil }

// measure measures the parts one after the other, and notes what comes of it
// in the report.
func (b *benchRun) measure(ctx context.Context, parts ...benchPart) error {
	c := &benchClock{tell: b.a.progress("measuring, second")}
	for _, p := range parts {
		c.total += p.opens + time.Duration(p.runs(b.opts.runs))*p.takes
	}
	for _, p := range parts {
		if err := b.measurePart(ctx, p, c); err != nil {
			return err
		}
	}
	return nil
}

func (p *benchPart) runs(counted int) int {
	if p.warmUp {
		return counted + 1
	}
	return counted
}

func (b *benchRun) measurePart(ctx context.Context, p benchPart, c *benchClock) (err error) {
	var load benchLoad
	if err := c.during(p.opens, func() error { load, err = p.open(ctx); return err }); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, load.Close()) }()
	for i := range p.runs(b.opts.runs) {
		var figures []logbench.Figure
		err := c.during(p.takes, func() error { figures, err = load.Run(ctx); return err })
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		if p.warmUp && i == 0 {
			continue
		}
		for _, f := range figures {
			b.observe(f)
		}
	}
	return nil
}

// observe notes a figure of one run.
func (b *benchRun) observe(f logbench.Figure) {
	b.report.Observe(report.Row{Group: f.Group, Name: f.Name, Unit: f.Unit, Better: better(f), Baseline: f.Baseline, Goal: f.Goal}, f.Value)
}

// better returns which direction is the better one: what the goal says, or else
// the unit.
func better(f logbench.Figure) string {
	switch {
	case f.Most:
		return report.Less
	case f.Goal > 0:
		return report.More
	}
	switch f.Unit {
	case "ops/s":
		return report.More
	case "ms", "µs", "MiB", "B", "B/op", "posts":
		return report.Less
	}
	return ""
}

// A benchClock tells the progress of work of which only the time that it takes
// is known, and that about.
type benchClock struct {
	done, total time.Duration
	tell        func(done, total uint64)
}

// clockTick is how often progress is told.
const clockTick = 200 * time.Millisecond

// during does something that takes about d.
func (c *benchClock) during(d time.Duration, work func() error) error {
	start, stop := time.Now(), make(chan struct{})
	var telling sync.WaitGroup
	telling.Go(func() {
		tick := time.NewTicker(clockTick)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				c.tell(seconds(c.done+min(d, time.Since(start))), seconds(c.total))
			case <-stop:
				return
			}
		}
	})
	err := work()
	close(stop)
	telling.Wait()
	c.done += d
	c.tell(seconds(c.done), seconds(c.total))
	return err
}

func seconds(d time.Duration) uint64 { return uint64(d.Seconds() + 0.5) }

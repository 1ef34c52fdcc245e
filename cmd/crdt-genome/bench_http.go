package main

import (
	"context"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	httpbench "crdt-genome/httpapi/bench"
	"crdt-genome/httpapi/membership"
	logbench "crdt-genome/store/bench"
)

// Bounds on what bench http and bench sync are asked for.
const (
	maxBenchActors = 64
	maxBenchRate   = 1_000_000
	maxBenchOps    = 100_000_000
)

func newBenchHTTPCmd(a *app) *cobra.Command {
	o := nodesOptions{actors: 10, rate: 2000, long: 5 * time.Second, most: maxBenchActors}
	cmd := &cobra.Command{
		Use:   "http",
		Short: "Measure actors that edit and post to each other",
		Long: `Runs actors on this machine that edit at random places at a given rate in all,
and post what they do to each other over HTTP. It measures how long an edit takes
until it is durable, how long until all actors have it, deliveries that failed,
and how long it takes until all are equal. Each run has new actors, and ends with
a comparison of what each one serves.`,
		Example: "  crdt-genome bench http\n  crdt-genome bench http --actors 5 --rate 5000 --time 10s --html report.html",
		Args:    wantArgs(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.benchActors(cmd.Context(), "http", o, func(ctx context.Context) ([]logbench.Figure, error) {
				return httpbench.Edits(ctx, o.dir, o.actors, o.rate, o.long)
			})
		},
	}
	o.addFlags(cmd.Flags(), 5)
	return cmd
}

func newBenchFleetCmd(a *app) *cobra.Command {
	o := nodesOptions{actors: 100, rate: 1000, long: 10 * time.Second, most: membership.MaxActors}
	b := benchProcesses{}
	cmd := &cobra.Command{
		Use:   "fleet",
		Short: "Measure many actors in one process, or in several",
		Long: `Runs actors in this process, as serve --actors does, that edit at random places
at a given rate in all, and measures what an edit costs, what memory they take,
and how long it takes until an edit is durable in every actor's log.

With --processes it starts processes of --actors actors each, which find each
other by gossip and edit by themselves, each actor every 0 to --mutate-max, and
measures their CPU and memory, and the time from the last edit until every actor
holds the same. Their ops go from process to process by POST, or with --bus over
a NATS server that runs already.`,
		Example: `  crdt-genome bench fleet
  crdt-genome bench fleet --actors 50 --rate 500 --time 20s
  crdt-genome bench fleet --processes 20 --actors 50 --time 30s
  crdt-genome bench fleet --processes 20 --actors 50 --bus nats://127.0.0.1:4222`,
		Args: wantArgs(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if b.processes == 0 {
				return a.benchActors(cmd.Context(), "fleet", o, func(ctx context.Context) ([]logbench.Figure, error) {
					return httpbench.Fleet(ctx, o.dir, o.actors, o.rate, o.long)
				})
			}
			if err := b.check(); err != nil {
				return err
			}
			if !cmd.Flags().Changed("runs") {
				o.runs = 1
			}
			b.actors, b.long = o.actors, o.long
			return a.benchActors(cmd.Context(), "fleet", o, func(ctx context.Context) ([]logbench.Figure, error) { return b.run(ctx, o.dir) })
		},
	}
	o.addFlags(cmd.Flags(), 3)
	b.addFlags(cmd.Flags())
	return cmd
}

// nodesOptions are the flags of benchmarks whose actors edit for a while.
type nodesOptions struct {
	benchOptions
	dir          string
	actors, rate int
	long         time.Duration
	most         int // actors
}

func (o *nodesOptions) addFlags(f *pflag.FlagSet, runs int) {
	o.benchOptions.addFlags(f, runs)
	benchDirFlag(f, &o.dir)
	f.IntVar(&o.actors, "actors", o.actors, "number of actors")
	f.IntVar(&o.rate, "rate", o.rate, "edits a second in all")
	f.DurationVar(&o.long, "time", o.long, "how long they edit in a run")
}

func benchDirFlag(f *pflag.FlagSet, dir *string) {
	f.StringVar(dir, "dir", ".", "folder for the logs; what is made there is removed again")
}

func (o *nodesOptions) check() error {
	switch {
	case o.actors < 1 || o.actors > o.most:
		return usageError("", "--actors %d: must be 1 to %d", o.actors, o.most)
	case o.rate < 1 || o.rate > maxBenchRate:
		return usageError("", "--rate %d: must be 1 to %d", o.rate, maxBenchRate)
	case o.long < 10*time.Millisecond || o.long > maxBenchTime:
		return usageError("", "--time %v: must be 10ms to %v", o.long, maxBenchTime)
	}
	return nil
}

// benchActors measures actors that edit for a while.
func (a *app) benchActors(ctx context.Context, name string, o nodesOptions, run runLoad) error {
	if err := o.check(); err != nil {
		return err
	}
	return a.benchNodes(ctx, name, o.benchOptions, o.dir, each(o.long, run))
}

func newBenchSyncCmd(a *app) *cobra.Command {
	var o benchOptions
	var dir string
	var ops int
	cmd := &cobra.Command{
		Use:   "sync",
		Short: "Measure how fast a late joiner catches up",
		Long: `Gives an actor a log of single genes at random places, starts another one that
has nothing, and measures how long that takes to hold the same, durable. Each run
has a new late joiner, and ends with a comparison of the two.`,
		Example: "  crdt-genome bench sync\n  crdt-genome bench sync --ops 1000000 --html report.html",
		Args:    wantArgs(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if ops < 1 || ops > maxBenchOps {
				return usageError("", "--ops %d: must be 1 to %d", ops, maxBenchOps)
			}
			about := time.Duration(ops) * syncTakes
			return a.benchNodes(cmd.Context(), "sync", o, dir, each(about, func(ctx context.Context) ([]logbench.Figure, error) {
				return httpbench.Joiner(ctx, dir, ops)
			}))
		},
	}
	o.addFlags(cmd.Flags(), 5)
	benchDirFlag(cmd.Flags(), &dir)
	cmd.Flags().IntVar(&ops, "ops", 100_000, "single-gene ops that it lacks")
	return cmd
}

// syncTakes is about what bench sync takes for an op, with the making of it.
const syncTakes = 5 * time.Microsecond

// benchNodes measures parts that need a folder.
func (a *app) benchNodes(ctx context.Context, name string, o benchOptions, dir string, parts ...benchPart) error {
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return usageError("", "--dir %s: no such folder", dir)
	}
	b, err := a.startBench(name, o)
	if err != nil {
		return err
	}
	return b.end(b.measure(ctx, parts...))
}

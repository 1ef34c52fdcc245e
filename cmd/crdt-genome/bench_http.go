package main

import (
	"os"
	"time"

	"github.com/spf13/cobra"

	"crdt-genome/genome/bench"
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
	var dir string
	var actors, rate int
	var long time.Duration
	cmd := &cobra.Command{
		Use:     "http",
		Short:   "Measure actors that edit and post to each other",
		Long:    "Runs actors on this machine that edit at random places at a given rate in all,\nand counts deliveries that failed and how long it takes until all are equal.",
		Example: "  crdt-genome bench http\n  crdt-genome bench http --actors 5 --rate 5000 --time 10s",
		Args:    wantArgs(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case actors < 1 || actors > maxBenchActors:
				return usageError("", "--actors %d: must be 1 to %d", actors, maxBenchActors)
			case rate < 1 || rate > maxBenchRate:
				return usageError("", "--rate %d: must be 1 to %d", rate, maxBenchRate)
			case long < 10*time.Millisecond || long > maxBenchTime:
				return usageError("", "--time %v: must be 10ms to %v", long, maxBenchTime)
			}
			return a.benchNodes(dir, func() ([]logbench.Figure, error) { return httpbench.Edits(cmd.Context(), dir, actors, rate, long) })
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "folder for the logs; what is made there is removed again")
	cmd.Flags().IntVar(&actors, "actors", 10, "number of actors")
	cmd.Flags().IntVar(&rate, "rate", 2000, "edits a second in all")
	cmd.Flags().DurationVar(&long, "time", 5*time.Second, "how long they edit")
	return cmd
}

func newBenchSyncCmd(a *app) *cobra.Command {
	var dir string
	var ops int
	cmd := &cobra.Command{
		Use:     "sync",
		Short:   "Measure how fast a late joiner catches up",
		Example: "  crdt-genome bench sync\n  crdt-genome bench sync --ops 1000000",
		Args:    wantArgs(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if ops < 1 || ops > maxBenchOps {
				return usageError("", "--ops %d: must be 1 to %d", ops, maxBenchOps)
			}
			return a.benchNodes(dir, func() ([]logbench.Figure, error) { return httpbench.Joiner(cmd.Context(), dir, ops) })
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "folder for the logs; what is made there is removed again")
	cmd.Flags().IntVar(&ops, "ops", 100_000, "single-gene ops that it lacks")
	return cmd
}

func newBenchFleetCmd(a *app) *cobra.Command {
	var dir string
	var actors, rate int
	var long time.Duration
	cmd := &cobra.Command{
		Use:   "fleet",
		Short: "Measure many actors in one process",
		Long: `Runs actors in this process, as serve --actors does, that edit at random places
at a given rate in all, and measures what an edit costs, what memory they take,
and how long it takes until an edit is durable in every actor's log.`,
		Example: "  crdt-genome bench fleet\n  crdt-genome bench fleet --actors 50 --rate 500 --time 20s",
		Args:    wantArgs(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case actors < 1 || actors > membership.MaxActors:
				return usageError("", "--actors %d: must be 1 to %d", actors, membership.MaxActors)
			case rate < 1 || rate > maxBenchRate:
				return usageError("", "--rate %d: must be 1 to %d", rate, maxBenchRate)
			case long < 10*time.Millisecond || long > maxBenchTime:
				return usageError("", "--time %v: must be 10ms to %v", long, maxBenchTime)
			}
			return a.benchNodes(dir, func() ([]logbench.Figure, error) { return httpbench.Fleet(cmd.Context(), dir, actors, rate, long) })
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "folder for the logs; what is made there is removed again")
	cmd.Flags().IntVar(&actors, "actors", 100, "number of actors")
	cmd.Flags().IntVar(&rate, "rate", 1000, "edits a second in all")
	cmd.Flags().DurationVar(&long, "time", 10*time.Second, "how long they edit")
	return cmd
}

// benchNodes runs a benchmark and prints its figures.
func (a *app) benchNodes(dir string, run func() ([]logbench.Figure, error)) error {
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return usageError("", "--dir %s: no such folder", dir)
	}
	figures, err := run()
	if err != nil {
		return benchError(err)
	}
	reply := benchLogReply{Machine: bench.ThisMachine(), Figures: figures}
	if a.opts.json {
		return a.printJSON(reply)
	}
	return a.printLogFigures(reply)
}

package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	logbench "crdt-genome/store/bench"
)

type benchLogOptions struct {
	benchOptions
	dir       string
	only      []string
	appenders []int
	long      time.Duration
	ops       []string
	mib       int
}

// What bench log can measure, in this order.
const (
	partAppends    = "appends"
	partBatches    = "batches"
	partStarts     = "starts"
	partCheckpoint = "checkpoint"
)

// Bounds on what bench log is asked for: beyond, it takes hours or gigabytes.
const (
	maxAppenders     = 1 << 14
	maxBenchTime     = time.Hour
	maxCheckpointMiB = 1024
)

func newBenchLogCmd(a *app) *cobra.Command {
	var opts benchLogOptions
	parts := []string{partAppends, partBatches, partStarts, partCheckpoint}
	cmd := &cobra.Command{
		Use:   "log",
		Short: "Measure the op log on this disk",
		Long: `Measures durable appends, received batches, the size of the log, cold starts and
what a checkpoint costs those who append meanwhile.

Appends are compared with two writers that only write, in turns with them: one
that appends to a preallocated file and syncs once a commit, the limit of the
disk, and one that syncs twice, the limit of bbolt. The ratios are the figures
to trust; run it when nothing else uses the disk. A first run of each is not
counted; at the end each log is opened again and compared.`,
		Example: `  crdt-genome bench log
  crdt-genome bench log --only appends --appenders 64 --time 2s --html report.html
  crdt-genome bench log --only starts --ops 1e6,1e7`,
		Args: wantArgs(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, p := range opts.only {
				if err := oneOf("only", p, parts...); err != nil {
					return err
				}
			}
			if len(opts.only) == 0 {
				opts.only = parts
			}
			return a.benchLog(cmd.Context(), opts)
		},
	}
	f := cmd.Flags()
	opts.addFlags(f, 5)
	f.StringVar(&opts.dir, "dir", ".", "folder on the disk to measure; what is made there is removed again")
	f.StringSliceVar(&opts.only, "only", nil, "measure only these: appends, batches, starts, checkpoint")
	f.IntSliceVar(&opts.appenders, "appenders", []int{1, 8, 64, 512}, "how many append at once")
	f.DurationVar(&opts.long, "time", 600*time.Millisecond, "how long each writer appends in a run")
	f.StringSliceVar(&opts.ops, "ops", []string{"1e6"}, "ops in the logs to start from, up to 1e7")
	f.IntVar(&opts.mib, "checkpoint-mib", 64, "size of the checkpoint")
	return cmd
}

func (o *benchLogOptions) check() error {
	for _, n := range o.appenders {
		if n < 1 || n > maxAppenders {
			return usageError("", "--appenders %d: must be 1 to %d", n, maxAppenders)
		}
	}
	if o.long < 10*time.Millisecond || o.long > maxBenchTime {
		return usageError("", "--time %v: must be 10ms to %v", o.long, maxBenchTime)
	}
	if o.mib < 1 || o.mib > maxCheckpointMiB {
		return usageError("", "--checkpoint-mib %d: must be 1 to %d", o.mib, maxCheckpointMiB)
	}
	return nil
}

func (a *app) benchLog(ctx context.Context, o benchLogOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	counts, err := geneCounts(o.ops)
	if err != nil {
		return err
	}
	return a.benchNodes(ctx, "log", o.benchOptions, o.dir, logParts(o, counts)...)
}

// About what the preparation of bench log takes.
const (
	preparesRaw  = time.Second           // files of zeros
	buildsOp     = 4 * time.Microsecond  // of a log
	startsOp     = 1 * time.Microsecond  // four readings of it
	fillsMiB     = 20 * time.Millisecond // of a checkpoint
	takesBatches = 500 * time.Millisecond
)

// logParts lists what is to be measured.
func logParts(o benchLogOptions, counts []int) (parts []benchPart) {
	wanted := func(part string) bool { return slices.Contains(o.only, part) }
	if wanted(partAppends) {
		for _, n := range o.appenders {
			parts = append(parts, benchPart{opens: preparesRaw, takes: 3 * o.long, warmUp: true,
				open: func(ctx context.Context) (benchLoad, error) { return logbench.OpenAppends(ctx, o.dir, n, o.long) }})
		}
	}
	if wanted(partBatches) {
		parts = append(parts, benchPart{opens: preparesRaw, takes: takesBatches, warmUp: true,
			open: func(ctx context.Context) (benchLoad, error) { return logbench.OpenBatches(ctx, o.dir) }})
	}
	if wanted(partStarts) {
		for _, n := range counts {
			for _, typing := range []bool{false, true} {
				parts = append(parts, benchPart{opens: time.Duration(n) * buildsOp, takes: time.Duration(n) * startsOp, warmUp: true,
					open: func(ctx context.Context) (benchLoad, error) { return logbench.OpenStarts(ctx, o.dir, n, typing) }})
			}
		}
	}
	if wanted(partCheckpoint) {
		parts = append(parts, benchPart{opens: time.Duration(o.mib) * fillsMiB, takes: 2 * o.long, warmUp: true,
			open: func(ctx context.Context) (benchLoad, error) {
				return logbench.OpenCheckpoints(ctx, o.dir, o.mib, o.long)
			}})
	}
	return parts
}

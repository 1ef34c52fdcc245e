package main

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"crdt-genome/cmd/internal/report"
	"crdt-genome/genome/bench"
)

type benchListOptions struct {
	benchOptions
	traceFiles []string
	traceDir   string
	sizes      []string
}

// randomReplicas is how many replicas write the random genes in turns.
const randomReplicas = 16

// maxBenchGenes bounds --sizes: 10 million genes take about a gigabyte.
const maxBenchGenes = 10_000_000

func newBenchListCmd(a *app) *cobra.Command {
	var opts benchListOptions
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Measure the list: traces, random edits, concurrency, latency",
		Long: `Measures the list and the genome around it on public editing traces (from
github.com/josephg/editing-traces, .json or .json.gz), on single genes inserted
and deleted at random places, and on shapes of concurrency that hurt.

Times are CPU time of the thread. Each case is run once uncounted to warm up and
then --runs times, in turns with the others of its load, and its final bytes are
checked. "× ROPE" compares the fastest run, and the median, with those of a rope
without a CRDT in the same run: the figure to trust on a shared machine. What the
rows of "genome" cost more than those of "list" is version vectors, chains and
checks.`,
		Example: `  crdt-genome bench list --trace automerge-paper.json.gz
  crdt-genome bench list --traces ./editing-traces --json > before.json
  crdt-genome bench list --traces ./editing-traces --against before.json
  crdt-genome bench list --sizes 1e5,1e6,1e7 --runs 3`,
		Args: wantArgs(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.benchList(cmd.Context(), opts) },
	}
	opts.addFlags(cmd.Flags(), 5)
	cmd.Flags().StringArrayVar(&opts.traceFiles, "trace", nil, "editing trace; may be given more than once")
	cmd.Flags().StringVar(&opts.traceDir, "traces", "", "folder with traces in sequential/ and concurrent/; all are run")
	cmd.Flags().StringSliceVar(&opts.sizes, "sizes", []string{"1e5", "1e6"}, "genes of the made-up loads, up to 1e7; 0 leaves these loads out")
	return cmd
}

func (a *app) benchList(ctx context.Context, o benchListOptions) error {
	sizes, err := geneCounts(o.sizes)
	if err != nil {
		return err
	}
	paths, err := o.paths()
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		a.note("no traces: --trace FILE or --traces DIR adds some")
	}
	groups, err := listGroups(paths, sizes)
	if err != nil {
		return err
	}
	if len(groups) == 0 {
		return usageError("", "nothing to measure: no traces, and --sizes 0")
	}
	b, err := a.startBench("list", o.benchOptions)
	if err != nil {
		return err
	}
	return b.end(b.measureList(ctx, groups))
}

// geneCounts reads --sizes: whole numbers, 1e6 being one too.
func geneCounts(sizes []string) (counts []int, err error) {
	for _, s := range sizes {
		x, err := strconv.ParseFloat(s, 64)
		n := int(x)
		if err != nil || x != float64(n) || n != 0 && n < 100 || n > maxBenchGenes {
			return nil, usageError("for example: --sizes 1e5,1e6", "--sizes %s: must be 0, or a number of genes from 100 to %d", s, maxBenchGenes)
		}
		if n > 0 {
			counts = append(counts, n)
		}
	}
	return counts, nil
}

// paths returns the files of all traces asked for.
func (o *benchListOptions) paths() (paths []string, err error) {
	paths = o.traceFiles
	if o.traceDir == "" {
		return paths, nil
	}
	found := 0
	for _, folder := range []string{"sequential", "concurrent"} {
		for _, ext := range []string{"*.json", "*.json.gz"} {
			in, err := filepath.Glob(filepath.Join(o.traceDir, folder, ext))
			if err != nil {
				return nil, usageError("", "--traces %s: %v", o.traceDir, err)
			}
			paths, found = append(paths, in...), found+len(in)
		}
	}
	if found == 0 {
		return nil, usageError("it is the folder with sequential/ and concurrent/ in it", "--traces %s: no traces there", o.traceDir)
	}
	return paths, nil
}

// listGroups returns the cases that are measured in turns with each other.
func listGroups(paths []string, sizes []int) (groups [][]bench.Case, err error) {
	for _, p := range paths {
		cases, err := bench.FileCases(p)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, usageError("", "no trace at %s", p)
		}
		if errors.Is(err, bench.ErrWrong) {
			return nil, benchError(err)
		}
		if err != nil {
			return nil, usageError("traces are those of github.com/josephg/editing-traces", "%v", err)
		}
		groups = append(groups, cases)
	}
	for _, n := range sizes {
		groups = append(groups, bench.RandomCases(n, randomReplicas), bench.LatencyCases(n))
	}
	if len(sizes) > 0 {
		groups = append(groups, bench.ConcurrentCases())
	}
	return groups, nil
}

// measureList measures the groups one after the other.
func (b *benchRun) measureList(ctx context.Context, groups [][]bench.Case) error {
	var done, total uint64
	for _, g := range groups {
		total += uint64(len(g) * (b.opts.runs + 1))
	}
	progress := b.a.progress("measuring")
	for _, g := range groups {
		figures, err := bench.Measure(ctx, g, b.opts.runs, func(bench.Case) {
			done++
			progress(done, total)
		})
		for i := range figures {
			b.addListRows(&figures[i])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// The kinds of rows of bench list.
const (
	kindTime    = "time"
	kindSize    = "size"
	kindLatency = "latency"
)

// addListRows adds what was measured of a case: its times, sizes or latencies.
func (b *benchRun) addListRows(f *bench.Figure) {
	row := report.Row{Group: f.Group, Name: f.Name, Ops: f.Ops, Better: report.Less, Baseline: f.Baseline}
	if len(f.Times) > 0 {
		r := row
		r.Kind, r.Unit, r.Values = kindTime, "ms", f.Times
		r.More = []report.Extra{{Name: "ns/op", Value: f.NSPerOp}, {Name: "ops/s", Value: f.OpsPerS}, {Name: "× rope", Value: f.Rope},
			{Name: "× median", Value: f.RopeMedian}, {Name: "alloc B/op", Value: f.AllocBytes}}
		b.report.Add(r)
	}
	if n := f.Bytes + f.HeapBytes; n > 0 {
		r := row
		r.Kind, r.Unit, r.Values = kindSize, "B", []float64{float64(n)}
		r.More = []report.Extra{{Name: "bytes each", Value: float64(n) / float64(f.Ops)}}
		b.report.Add(r)
	}
	for _, p := range []struct {
		name string
		of   func(bench.Latency) int64
	}{
		{"p50", func(l bench.Latency) int64 { return l.P50 }},
		{"p99", func(l bench.Latency) int64 { return l.P99 }},
		{"p99.9", func(l bench.Latency) int64 { return l.P999 }},
		{"most", func(l bench.Latency) int64 { return l.Max }},
	} {
		r := row
		r.Kind, r.Name, r.Unit = kindLatency, f.Name+", "+p.name, "µs"
		for _, l := range f.Latencies {
			r.Values = append(r.Values, float64(p.of(l))/1e3)
		}
		if len(r.Values) > 0 {
			b.report.Add(r)
		}
	}
}

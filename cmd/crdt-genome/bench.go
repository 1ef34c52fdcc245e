package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"crdt-genome/genome/bench"
)

// newBenchCmd is the parent of the benchmarks: one file, and one line here, for
// each. They share what follows: the options, the report, and its two forms.
func newBenchCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure speed and size on this machine",
		Args:  wantArgs(1, 1, "what to measure"),
		Example: `  crdt-genome bench list
  crdt-genome bench list --json > before.json
  crdt-genome bench list --against before.json`,
		RunE: func(cmd *cobra.Command, args []string) error { return unknownCommand(cmd, args[0]) },
	}
	cmd.AddCommand(newBenchListCmd(a), newBenchLogCmd(a), newBenchHTTPCmd(a), newBenchSyncCmd(a), newBenchFleetCmd(a), newBenchRingsCmd(a))
	return cmd
}

// benchOptions are the flags that all benchmarks share.
type benchOptions struct {
	runs    int
	against string
}

// maxBenchRuns bounds --runs: beyond, nothing new is learned.
const maxBenchRuns = 1000

func (o *benchOptions) addFlags(f *pflag.FlagSet) {
	f.IntVar(&o.runs, "runs", 5, "how often each is measured, after a first time that is not counted")
	f.StringVar(&o.against, "against", "", "compare with a run whose --json output is in this file")
}

func (o *benchOptions) check() error {
	if o.runs < 1 || o.runs > maxBenchRuns {
		return usageError("", "--runs %d: must be 1 to %d", o.runs, maxBenchRuns)
	}
	return nil
}

// before reads the report to compare with, nil if none is asked for. It is
// called before anything is measured: a wrong name should not cost minutes.
func (o *benchOptions) before() (*bench.Report, error) {
	if o.against == "" {
		return nil, nil
	}
	f, err := os.Open(o.against)
	if err != nil {
		return nil, usageError("--against takes what bench --json printed", "--against: %v", err)
	}
	defer f.Close()
	rep, err := bench.ReadReport(f)
	if err != nil {
		return nil, usageError("--against takes what bench --json printed", "--against %s: %v", o.against, err)
	}
	return &rep, nil
}

// benchReply is the JSON of every benchmark.
type benchReply struct {
	bench.Report
	Before  *bench.Machine `json:"before_machine,omitempty"` // with --against
	Changes []bench.Change `json:"changes,omitempty"`
}

// printBench prints a report, and what has changed since another, if there is
// one.
func (a *app) printBench(r bench.Report, before *bench.Report) error {
	var changes []bench.Change
	if before != nil {
		changes = r.Against(*before)
	}
	if a.opts.json {
		reply := benchReply{Report: r, Changes: changes}
		if before != nil {
			reply.Before = &before.Machine
		}
		return a.printJSON(reply)
	}
	fmt.Fprintln(a.stdout, r.Machine)
	for _, t := range []*table{timeTable(r.Figures), sizeTable(r.Figures), latencyTable(r.Figures)} {
		if t == nil {
			continue
		}
		fmt.Fprintln(a.stdout)
		if err := t.print(a.stdout); err != nil {
			return err
		}
	}
	if before == nil {
		return nil
	}
	return a.printChanges(changes, before)
}

func (a *app) printChanges(changes []bench.Change, before *bench.Report) error {
	fmt.Fprintf(a.stdout, "\nagainst %s\n\n", before.Machine)
	t := newTable("LOAD", "WHAT", "UNIT", "BEFORE", "NOW", "RATIO", "±", "VERDICT")
	for _, c := range changes {
		spread := ""
		if c.Spread > 0 {
			spread = fmt.Sprintf("%.2f", c.Spread)
		}
		t.row(c.Group, c.Name, c.Unit, figure(c.Before), figure(c.Now), fmt.Sprintf("%.2f", c.Ratio), spread, c.Verdict)
	}
	if len(changes) == 0 {
		a.note("nothing was measured in both runs")
	}
	return t.print(a.stdout)
}

// timeTable lists what has times, nil if nothing has.
func timeTable(figures []bench.Figure) *table {
	t := newTable("LOAD", "WHAT", "OPS", "MIN MS", "MEDIAN", "MAX", "NS/OP", "OPS/S", "× ROPE", "× MEDIAN", "ALLOC B/OP", "BYTES", "BYTES/OP")
	some := false
	for _, f := range figures {
		if f.MinMS == 0 {
			continue
		}
		some = true
		t.row(f.Group, f.Name, thousands(uint64(f.Ops)), figure(f.MinMS), figure(f.MedianMS), figure(f.MaxMS), figure(f.NSPerOp),
			thousands(uint64(f.OpsPerS)), ratio(f.Rope), ratio(f.RopeMedian), figure(f.AllocBytes), whole(f.Bytes), figure(f.PerOp))
	}
	if !some {
		return nil
	}
	return t
}

func sizeTable(figures []bench.Figure) *table {
	t := newTable("LOAD", "SIZE", "OPS OR GENES", "BYTES", "BYTES EACH")
	some := false
	for _, f := range figures {
		if n := f.Bytes + f.HeapBytes; n > 0 && f.MinMS == 0 {
			some = true
			t.row(f.Group, f.Name, thousands(uint64(f.Ops)), whole(n), figure(float64(n)/float64(f.Ops)))
		}
	}
	if !some {
		return nil
	}
	return t
}

func latencyTable(figures []bench.Figure) *table {
	t := newTable("LOAD", "LATENCY", "OPS", "P50 µs", "P99", "P99.9", "MAX")
	some := false
	us := func(ns int64) string { return figure(float64(ns) / 1e3) }
	for _, f := range figures {
		if l := f.Latency; l != nil {
			some = true
			t.row(f.Group, f.Name, thousands(uint64(f.Ops)), us(l.P50), us(l.P99), us(l.P999), us(l.Max))
		}
	}
	if !some {
		return nil
	}
	return t
}

// figure writes three digits, "" for nothing.
func figure(x float64) string {
	switch {
	case x == 0:
		return ""
	case x < 0.005:
		return fmt.Sprintf("%.4f", x)
	case x < 10:
		return fmt.Sprintf("%.2f", x)
	case x < 100:
		return fmt.Sprintf("%.1f", x)
	}
	return thousands(uint64(x + 0.5))
}

func ratio(x float64) string {
	if x == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", x)
}

func whole(n int) string {
	if n == 0 {
		return ""
	}
	return thousands(uint64(n))
}

// benchError says what a failed benchmark means.
func benchError(err error) error {
	if errors.Is(err, bench.ErrWrong) {
		return &cliError{exit: exitNo, code: "wrong_result", msg: err.Error(), cause: err,
			hint: "the list or the trace is wrong; please report it with the trace"}
	}
	return err
}

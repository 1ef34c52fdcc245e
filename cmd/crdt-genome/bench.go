package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"crdt-genome/cmd/internal/report"
	"crdt-genome/genome/bench"
	logbench "crdt-genome/store/bench"
)

// newBenchCmd is the parent of the benchmarks: one file, and one line here, for
// each. They share what follows: the options, the report, and its forms.
func newBenchCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure speed and size on this machine",
		Long: `Measures speed and size on this machine. Each bench checks what its runs end
with: a fast wrong answer ends with 1.

Every row has the least, the median and the greatest value of --runs runs.
--json prints the same for programs, --html FILE writes a page with plots, and
--against FILE compares with what --json printed before. Ctrl-C ends a bench
early: what has been measured until then is printed, and the exit code is 130.`,
		Args: wantArgs(1, 1, "what to measure"),
		Example: `  crdt-genome bench list
  crdt-genome bench http --html report.html
  crdt-genome bench log --json > before.json
  crdt-genome bench log --against before.json`,
		RunE: func(cmd *cobra.Command, args []string) error { return unknownCommand(cmd, args[0]) },
	}
	cmd.AddCommand(newBenchListCmd(a), newBenchLogCmd(a), newBenchHTTPCmd(a), newBenchSyncCmd(a), newBenchFleetCmd(a), newBenchRingsCmd(a))
	return cmd
}

// benchOptions are the flags that all benchmarks share.
type benchOptions struct {
	runs          int
	against, html string
}

// maxBenchRuns bounds --runs: beyond, nothing new is learned.
const maxBenchRuns = 1000

func (o *benchOptions) addFlags(f *pflag.FlagSet, runs int) {
	f.IntVar(&o.runs, "runs", runs, "how often each is measured")
	f.StringVar(&o.against, "against", "", "compare with a run whose --json output is in this file")
	f.StringVar(&o.html, "html", "", "write a page with plots to this file as well")
}

// A benchRun is a bench on its way to its report.
type benchRun struct {
	a      *app
	opts   benchOptions
	report report.Report
	before *report.Report // nil: none
	page   *os.File       // nil: none
	isNew  bool           // the page's file was not there before
}

// startBench checks all that can be checked before anything is measured: a
// wrong name should not cost minutes.
func (a *app) startBench(name string, o benchOptions) (*benchRun, error) {
	if o.runs < 1 || o.runs > maxBenchRuns {
		return nil, usageError("", "--runs %d: must be 1 to %d", o.runs, maxBenchRuns)
	}
	b := &benchRun{a: a, opts: o, report: report.Report{Origin: report.Origin{Format: report.Format, Bench: name,
		Command: "crdt-genome " + strings.Join(a.args, " "), Version: version,
		Time: time.Now().UTC().Truncate(time.Second), Machine: bench.ThisMachine(), Runs: o.runs}}}
	if err := b.readBefore(); err != nil {
		return nil, err
	}
	return b, b.openPage()
}

func (b *benchRun) readBefore() error {
	if b.opts.against == "" {
		return nil
	}
	name := b.report.Bench
	hint := fmt.Sprintf("--against takes what bench %s --json printed", name)
	f, err := os.Open(b.opts.against)
	if err != nil {
		return usageError(hint, "--against: %v", err)
	}
	defer f.Close()
	if b.before, err = report.Read(f, name); err != nil {
		return usageError(hint, "--against %s: %v", b.opts.against, err)
	}
	return nil
}

// openPage opens the file of the page. What is in it is replaced at the end
// only, so that a bench that fails leaves an older page alone.
func (b *benchRun) openPage() (err error) {
	path := b.opts.html
	if path == "" {
		return nil
	}
	_, err = os.Stat(path)
	b.isNew = errors.Is(err, fs.ErrNotExist)
	b.page, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o666)
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.ENOSPC):
		return &cliError{exit: exitDisk, code: "not_writable", msg: fmt.Sprintf("--html: %v", err), hint: "nothing was measured; name a file in a folder of your own", cause: err}
	case err != nil:
		return usageError("nothing was measured; --html takes the name of a file in a folder that exists", "--html: %v", err)
	}
	return nil
}

// end ends a bench that ended with err: it prints the report, also of what has
// been measured until an interruption.
func (b *benchRun) end(err error) error {
	interrupted := errors.Is(err, context.Canceled)
	if err != nil && !(interrupted && len(b.report.Rows) > 0) {
		b.dropPage()
		return benchError(err)
	}
	b.report.Interrupted = interrupted
	if b.before != nil {
		b.report.Against(b.before)
	}
	if printErr := errors.Join(b.a.printBench(&b.report), b.writePage()); printErr != nil {
		return printErr
	}
	return err
}

// dropPage closes the page, and removes it if it was not there before.
func (b *benchRun) dropPage() {
	if b.page == nil {
		return
	}
	_ = b.page.Close() // nothing was written
	if b.isNew {
		_ = os.Remove(b.page.Name()) // an empty file left behind harms nobody
	}
}

func (b *benchRun) writePage() error {
	if b.page == nil {
		return nil
	}
	if err := errors.Join(b.page.Truncate(0), b.report.HTML(b.page), b.page.Close()); err != nil {
		return fmt.Errorf("--html: %w", err)
	}
	b.a.note("page: %s", b.opts.html)
	return nil
}

// printBench prints a report, and what has changed since another, if there is
// one.
func (a *app) printBench(r *report.Report) error {
	if a.opts.json {
		return a.printJSON(r)
	}
	fmt.Fprintln(a.stdout, r.Line())
	for _, t := range r.Tables() {
		fmt.Fprintln(a.stdout)
		if err := a.printCells(t); err != nil {
			return err
		}
	}
	if r.Before == nil {
		return nil
	}
	fmt.Fprintf(a.stdout, "\nagainst %s\n\n", r.Before.Line())
	if len(r.Changes) == 0 {
		a.note("nothing was measured in both runs")
	}
	return a.printCells(r.ChangeTable())
}

func (a *app) printCells(cells report.Table) error {
	t := newTable(cells.Head...)
	for _, row := range cells.Cells {
		t.row(row...)
	}
	return t.print(a.stdout)
}

// benchError says what a failed benchmark means.
func benchError(err error) error {
	if errors.Is(err, bench.ErrWrong) || errors.Is(err, logbench.ErrWrong) {
		return &cliError{exit: exitNo, code: "wrong_result", msg: err.Error(), cause: err,
			hint: "what was measured ended with a wrong result; please report it with the command"}
	}
	return err
}

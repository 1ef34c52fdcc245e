package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crdt-genome/cmd/internal/report"
	logbench "crdt-genome/store/bench"
)

const benchTrace = `{"startContent":"ac","endContent":"abd","txns":[{"patches":[[1,0,"b"],[2,1,"d"]]}]}`

// wantBench runs the program and wants the exit code.
func wantBench(t *testing.T, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	t.Setenv("CRDT_GENOME_TRACES", "") // only what the test names
	var out, errs bytes.Buffer
	if code := mainWithCode(t.Context(), args, strings.NewReader(""), &out, &errs); code != want {
		t.Fatalf("%q exits with %d, want %d\n%s", args, code, want, errs.String())
	}
	return out.String(), errs.String()
}

func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestBenchList measures a tiny trace twice and compares the two runs.
func TestBenchList(t *testing.T) {
	trace := writeFile(t, "tiny.json", benchTrace)
	out, errs := wantBench(t, exitOK, "bench", "list", "--json", "--quiet", "--runs", "1", "--sizes", "0", "--trace", trace)
	if errs != "" {
		t.Errorf("--quiet says %q", errs)
	}
	var reply report.Report
	if err := json.Unmarshal([]byte(out), &reply); err != nil {
		t.Fatal(err)
	}
	if reply.Machine.Go == "" || len(reply.Rows) == 0 || reply.Rows[0].Group != "tiny" || reply.Rows[0].Min <= 0 {
		t.Fatalf("reply %s", out)
	}
	before := writeFile(t, "before.json", out)
	out, _ = wantBench(t, exitOK, "bench", "list", "--runs", "1", "--sizes", "0", "--trace", trace, "--against", before)
	for _, want := range []string{reply.Machine.Go, "rope, no CRDT", "× ROPE", "BYTES EACH", "against ", "VERDICT"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	out, _ = wantBench(t, exitOK, "bench", "list", "--json", "--runs", "1", "--sizes", "0", "--trace", trace, "--against", before)
	if err := json.Unmarshal([]byte(out), &reply); err != nil || len(reply.Changes) == 0 || reply.Before == nil {
		t.Errorf("changes %v of %v: %v", reply.Changes, reply.Before, err)
	}
}

// TestBenchListLoads measures the made-up loads, small.
func TestBenchListLoads(t *testing.T) {
	out, errs := wantBench(t, exitOK, "bench", "list", "--runs", "1", "--sizes", "1e3")
	for _, want := range []string{"1000 random genes, 16 replicas", "list, remote", "p99.9", "prepend"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if !strings.Contains(errs, "no traces") {
		t.Errorf("stderr %q does not say that there are no traces", errs)
	}
}

func TestBenchListRefuses(t *testing.T) {
	trace := writeFile(t, "tiny.json", benchTrace)
	wrong := writeFile(t, "wrong.json", strings.Replace(benchTrace, "abd", "abx", 1))
	other := writeFile(t, "other.json", `{"format":1,"bench":"log","rows":[{"name":"x","values":[1]}]}`)
	for _, tc := range []struct {
		exit int
		want string
		args []string
	}{
		{exitUsage, "bench list", []string{"bench"}},
		{exitUsage, "did you mean list", []string{"bench", "lits"}},
		{exitUsage, "--runs 0", []string{"bench", "list", "--runs", "0"}},
		{exitUsage, "--sizes 1.5", []string{"bench", "list", "--sizes", "1.5"}},
		{exitUsage, "--sizes 1e9", []string{"bench", "list", "--sizes", "1e9"}},
		{exitUsage, "nothing to measure", []string{"bench", "list", "--sizes", "0"}},
		{exitUsage, "no trace at", []string{"bench", "list", "--trace", "absent.json"}},
		{exitUsage, "no traces there", []string{"bench", "list", "--traces", t.TempDir()}},
		{exitUsage, "not a report", []string{"bench", "list", "--trace", trace, "--against", trace}},
		{exitUsage, "of bench log, not of bench http", []string{"bench", "http", "--against", other}},
		{exitUsage, "--html: open", []string{"bench", "http", "--html", "absent/report.html"}},
		{exitUsage, "is a directory", []string{"bench", "sync", "--html", t.TempDir()}},
		{exitUsage, "no such folder", []string{"bench", "fleet", "--dir", "absent"}},
		{exitUsage, "--actors 65", []string{"bench", "http", "--actors", "65"}},
		{exitUsage, "--ops 0", []string{"bench", "sync", "--ops", "0"}},
		{exitUsage, "--against", []string{"bench", "list", "--trace", trace, "--against", "absent.json"}},
		{exitUsage, "takes no argument", []string{"bench", "list", "more"}},
		{exitNo, "final text is wrong", []string{"bench", "list", "--sizes", "0", "--trace", wrong}},
	} {
		_, errs := wantBench(t, tc.exit, tc.args...)
		if !strings.Contains(errs, tc.want) {
			t.Errorf("%q says %q, want %q", tc.args, errs, tc.want)
		}
	}
}

// TestBenchText prints the report that the golden JSON of package report holds.
func TestBenchText(t *testing.T) {
	f, err := os.Open("../internal/report/testdata/report.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rep, err := report.Read(f, "log")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := (&app{stdout: &out, stderr: &out}).printBench(rep); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/bench.golden")
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("printed\n%swant\n%s", out.String(), want)
	}
}

// TestBenches runs each bench, small, as a person does: printed as JSON with a
// page, then compared with that.
func TestBenches(t *testing.T) {
	for name, args := range map[string][]string{
		"log":   {"--only", "appends", "--appenders", "2", "--time", "10ms"},
		"http":  {"--actors", "3", "--rate", "300", "--time", "100ms"},
		"sync":  {"--ops", "2000"},
		"fleet": {"--actors", "3", "--rate", "300", "--time", "100ms"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			page := filepath.Join(dir, "page.html")
			args := append([]string{"bench", name, "--quiet", "--runs", "2", "--dir", dir}, args...)
			out, errs := wantBench(t, exitOK, append(args, "--json", "--html", page)...)
			if errs != "" {
				t.Errorf("--quiet says %q", errs)
			}
			rep, err := report.Read(strings.NewReader(out), name)
			if err != nil {
				t.Fatal(err)
			}
			if rep.Machine.Go == "" || rep.Runs != 2 || rep.Time.IsZero() || !strings.Contains(rep.Command, "bench "+name) {
				t.Errorf("%+v", rep.Origin)
			}
			for _, r := range rep.Rows {
				if len(r.Values) != 2 || r.Min > r.Median || r.Median > r.Max {
					t.Errorf("row %+v, want one value for each run", r)
				}
			}
			html, err := os.ReadFile(page)
			if err != nil || !bytes.Contains(html, []byte("</html>")) || !bytes.Contains(html, []byte(rep.Rows[0].Name)) {
				t.Errorf("%v, page %.200s", err, html)
			}
			before := writeFile(t, "before.json", out)
			out, _ = wantBench(t, exitOK, append(args, "--against", before)...)
			for _, want := range []string{rep.Rows[0].Group, rep.Rows[0].Name, "against ", report.TooFew} {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) != 1 { // the page
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// TestBenchInterrupted wants what was measured before an interruption printed,
// as text, JSON and page, and exit code 130.
func TestBenchInterrupted(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.html")
	ctx, cancel := context.WithCancel(t.Context())
	a := &app{stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}, env: os.LookupEnv}
	a.opts.quiet = true
	b, err := a.startBench("test", benchOptions{runs: 5, html: page})
	if err != nil {
		t.Fatal(err)
	}
	runs := 0
	err = b.end(b.measure(ctx, each(0, func(context.Context) ([]logbench.Figure, error) {
		if runs++; runs == 3 {
			cancel()
			return nil, ctx.Err()
		}
		return []logbench.Figure{{Group: "g", Name: "n", Value: float64(runs), Unit: "ms"}}, nil
	})))
	if code := a.report(err); code != exitInterrupted {
		t.Errorf("exit code %d after %v, want %d", code, err, exitInterrupted)
	}
	if r := b.report.Rows; len(r) != 1 || len(r[0].Values) != 2 || r[0].Max != 2 {
		t.Errorf("rows %+v, want the first two runs", r)
	}
	html, err := os.ReadFile(page)
	if err != nil || !bytes.Contains(html, []byte("5 runs, interrupted")) {
		t.Errorf("%v, page %.300s", err, html)
	}
	if out := a.stdout.(*bytes.Buffer).String(); !strings.Contains(out, "5 runs, interrupted") || !strings.Contains(out, "1.50") {
		t.Errorf("printed %s", out)
	}
}

// TestBenchWrong wants a run with a wrong result to end with 1, without
// figures, and to leave no page, or the one from before.
func TestBenchWrong(t *testing.T) {
	dir := t.TempDir()
	old := writeFile(t, "old.html", "older")
	for page, left := range map[string]string{filepath.Join(dir, "page.html"): "", old: "older"} {
		a := &app{stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}, env: os.LookupEnv}
		b, err := a.startBench("test", benchOptions{runs: 2, html: page})
		if err != nil {
			t.Fatal(err)
		}
		runs := 0
		err = b.end(b.measure(t.Context(), each(0, func(context.Context) ([]logbench.Figure, error) {
			if runs++; runs == 2 {
				return nil, logbench.ErrWrong
			}
			return []logbench.Figure{{Group: "g", Name: "n", Value: 1}}, nil
		})))
		if code := a.report(err); code != exitNo || a.stdout.(*bytes.Buffer).Len() > 0 {
			t.Errorf("exit code %d after %v, want %d; printed %s", code, err, exitNo, a.stdout)
		}
		if got, _ := os.ReadFile(page); string(got) != left {
			t.Errorf("the page is now %q, want %q", got, left)
		}
		if _, err := os.Stat(page); left == "" && !os.IsNotExist(err) {
			t.Errorf("a page was left behind: %v", err)
		}
	}
}

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crdt-genome/cmd/internal/report"
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

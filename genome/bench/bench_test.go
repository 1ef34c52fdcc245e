package bench_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crdt-genome/genome/bench"
	"crdt-genome/genome/internal/list"
)

// traceFiles returns the public editing traces of a folder below
// $CRDT_GENOME_TRACES; without it, trace benchmarks are left out.
func traceFiles(tb testing.TB, folder string) []string {
	dir := os.Getenv("CRDT_GENOME_TRACES")
	if dir == "" {
		tb.Log("no editing traces: set CRDT_GENOME_TRACES to a folder with sequential/ and concurrent/")
		return nil
	}
	paths, err := filepath.Glob(filepath.Join(dir, folder, "*.json.gz"))
	if err != nil || len(paths) == 0 {
		tb.Fatalf("no traces in %s/%s: %v", dir, folder, err)
	}
	return paths
}

func traceCases(tb testing.TB, path string) []bench.Case {
	cases, err := bench.FileCases(path)
	if err != nil {
		tb.Fatal(err)
	}
	return cases
}

// run runs cases as sub-benchmarks: GROUP/CASE.
func run(b *testing.B, cases []bench.Case) {
	for _, c := range cases {
		b.Run(c.Group+"/"+c.Name, func(b *testing.B) {
			var best, last bench.Figure
			for b.Loop() {
				figures, err := bench.Measure(b.Context(), []bench.Case{c}, 1, nil)
				if err != nil {
					b.Fatal(err)
				}
				last = figures[0]
				if best.MinMS == 0 || last.MinMS < best.MinMS {
					best = last
				}
			}
			b.ReportMetric(0, "ns/op") // of the wall's clock, preparation included: of no use
			report(b, best.NSPerOp, "cpu-ns/edit")
			report(b, best.OpsPerS, "edits/s")
			report(b, last.AllocBytes, "B/edit")
			report(b, last.PerOp, "bytes/edit")
			report(b, last.PerGene, "heap-B/gene")
			if l := last.Latency; l != nil {
				report(b, float64(l.P50), "p50-ns")
				report(b, float64(l.P99), "p99-ns")
				report(b, float64(l.P999), "p99.9-ns")
				report(b, float64(l.Max), "max-ns")
			}
		})
	}
}

// report reports a metric that the case has.
func report(b *testing.B, value float64, unit string) {
	if value > 0 {
		b.ReportMetric(value, unit)
	}
}

func BenchmarkTraces(b *testing.B) {
	for _, folder := range []string{"sequential", "concurrent"} {
		for _, path := range traceFiles(b, folder) {
			run(b, traceCases(b, path))
		}
	}
}

func BenchmarkRandom(b *testing.B) {
	for _, n := range []int{1e5, 1e6, 1e7} {
		if n > 1e6 && testing.Short() {
			continue
		}
		run(b, bench.RandomCases(n, 16))
	}
}

func BenchmarkConcurrent(b *testing.B) { run(b, bench.ConcurrentCases()) }

func BenchmarkLatency(b *testing.B) { run(b, bench.LatencyCases(1e6)) }

// TestCases runs each case once, small: a benchmark whose check fails is of no
// use.
func TestCases(t *testing.T) {
	cases := append(bench.RandomCases(2000, 5), bench.LatencyCases(2000)...)
	cases = append(cases, bench.ConcurrentCases()...)
	for _, folder := range []string{"sequential", "concurrent"} {
		for _, path := range traceFiles(t, folder) {
			if folder == "concurrent" || strings.HasPrefix(filepath.Base(path), "sveltecomponent") {
				cases = append(cases, traceCases(t, path)...)
			}
		}
	}
	for _, c := range cases {
		t.Run(c.Group+"/"+c.Name, func(t *testing.T) {
			runs := 0
			figures, err := bench.Measure(t.Context(), []bench.Case{c}, 1, func(bench.Case) { runs++ })
			if err != nil {
				t.Fatal(err)
			}
			f := figures[0]
			if runs != 2 || f.Runs != 1 || f.Ops != c.Ops {
				t.Errorf("%d runs, figure %+v; want a warm-up and one run of %d ops", runs, f, c.Ops)
			}
			switch {
			case f.Latency != nil:
				if l := f.Latency; l.P50 <= 0 || l.P50 > l.P99 || l.P99 > l.P999 || l.P999 > l.Max {
					t.Errorf("latency %+v does not ascend", l)
				}
			case c.Kind == bench.Heap:
				if f.HeapBytes <= 0 {
					t.Errorf("heap %d", f.HeapBytes)
				}
			case c.Kind == bench.Size:
				if f.Bytes <= 0 || f.MinMS != 0 {
					t.Errorf("figure %+v, want a size and no time", f)
				}
			default:
				if f.MinMS <= 0 || f.MinMS > f.MaxMS || f.OpsPerS <= 0 {
					t.Errorf("figure %+v, want times", f)
				}
			}
		})
	}
}

const smallTrace = `{"startContent":"ac","endContent":"abd","txns":[{"patches":[[1,0,"b"],[2,1,"d"]]}]}`

// TestWrongEnd wants a trace whose end is not what the edits lead to refused.
func TestWrongEnd(t *testing.T) {
	good, err := bench.ReadTrace("small", strings.NewReader(smallTrace))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bench.TraceCases(good); err != nil {
		t.Fatal(err)
	}
	good.End = []byte("abx")
	if _, err := bench.TraceCases(good); err == nil {
		t.Error("a wrong end is not noticed")
	}
}

// TestWrongOutcome wants a run with a wrong outcome to end in an error.
func TestWrongOutcome(t *testing.T) {
	for _, c := range bench.RandomCases(100, 2) {
		if c.Kind != bench.Timed {
			continue
		}
		prepare := c.Prepare
		c.Prepare = func() (func() any, error) {
			run, err := prepare()
			return func() any {
				l := run().(interface {
					DeleteAt(int, int, func(list.Ref, uint32, bool))
				})
				l.DeleteAt(0, 1, func(list.Ref, uint32, bool) {})
				return l
			}, err
		}
		if _, err := bench.Measure(t.Context(), []bench.Case{c}, 1, nil); err == nil {
			t.Errorf("%s: a missing gene is not noticed", c.Name)
		}
	}
}

// TestMeasureEnds wants a measurement to end with its context, and to return
// what it has.
func TestMeasureEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cases := bench.RandomCases(10, 1)
	ran := 0
	figures, err := bench.Measure(ctx, cases, 1000, func(bench.Case) {
		if ran++; ran == len(cases)+2 { // two after the warm-up
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v, want canceled", err)
	}
	if len(figures) != 2 || figures[1].Runs != 1 || figures[1].Name != cases[1].Name {
		t.Errorf("%d figures %+v, want those of the first two cases", len(figures), figures)
	}
}

// TestReadTrace wants what is no trace refused, with a reason.
func TestReadTrace(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{`{`, "unexpected end"},
		{`{"txns":[]}`, "no edits"},
		{`{"txns":[{"patches":[[0,0,7]]}]}`, "a patch is"},
		{`{"txns":[{"patches":[[-1,0,"a"]]}]}`, "a patch is"},
		{`{"txns":[{"patches":[[0,0,"é"]]}]}`, "more than one byte"},
	} {
		_, err := bench.ReadTrace("x", strings.NewReader(tc.in))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("ReadTrace(%s) = %v, want %q", tc.in, err, tc.want)
		}
	}
}

// smallLive: agent 0 writes "ab", then each appends without the other's.
const smallLive = `{"kind":"concurrent","endContent":"Xab!","numAgents":2,"txns":[
	{"parents":[],"agent":0,"patches":[[0,0,"ab"]]},
	{"parents":[0],"agent":1,"patches":[[2,0,"!"]]},
	{"parents":[0],"agent":0,"patches":[[0,0,"X"]]}]}`

func TestReadLive(t *testing.T) {
	l, err := bench.ReadLive("small", strings.NewReader(smallLive))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bench.Measure(t.Context(), bench.LiveCases(l), 1, nil); err != nil {
		t.Error(err)
	}
	l.End = []byte("abX!")
	if _, err := bench.Measure(t.Context(), bench.LiveCases(l), 1, nil); err == nil {
		t.Error("a wrong end is not noticed")
	}
	for _, tc := range []struct{ in, want string }{
		{`{`, "unexpected end"},
		{smallTrace, "not a concurrent trace"},
		{strings.Replace(smallLive, `"agent":1`, `"agent":2`, 1), "no agent 2"},
		{strings.Replace(smallLive, `"parents":[0],"agent":1`, `"parents":[1],"agent":1`, 1), "not before it"},
		{strings.Replace(smallLive, `"parents":[0],"agent":0`, `"parents":[],"agent":0`, 1), "had heard of more"},
		{strings.Replace(smallLive, `[2,0,"!"]`, `[2,0,null]`, 1), "a patch is"},
	} {
		_, err := bench.ReadLive("x", strings.NewReader(tc.in))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("ReadLive(%s) = %v, want %q", tc.in, err, tc.want)
		}
	}
}

func TestFileCases(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"seq.json": smallTrace, "live.json": smallLive} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		cases, err := bench.FileCases(path)
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.TrimSuffix(name, ".json"); len(cases) == 0 || cases[0].Group != want {
			t.Errorf("%s: cases %v, want group %s", name, cases, want)
		}
	}
	if _, err := bench.FileCases(filepath.Join(dir, "absent.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
}

func TestMachine(t *testing.T) {
	m := bench.ThisMachine()
	if m.Cores < 1 || m.Go == "" || !strings.Contains(m.String(), m.Go) {
		t.Errorf("machine %+v: %s", m, m)
	}
}

package bench_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"crdt-genome/genome/bench"
)

// traceDir is where the public editing traces are, if they are anywhere.
func traceDir() string {
	if dir := os.Getenv("CRDT_GENOME_TRACES"); dir != "" {
		return dir
	}
	return "../../../shared/traces"
}

func traces(tb testing.TB) (out []*bench.Trace) {
	paths, err := filepath.Glob(filepath.Join(traceDir(), "sequential", "*.json.gz"))
	if err != nil || len(paths) == 0 {
		tb.Logf("no traces in %s: trace benchmarks left out; set CRDT_GENOME_TRACES", traceDir())
	}
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			tb.Fatal(err)
		}
		t, err := bench.ReadTrace(bench.TraceName(path), f)
		f.Close()
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, t)
	}
	return out
}

// run runs cases as sub-benchmarks: GROUP/CASE.
func run(b *testing.B, cases []bench.Case) {
	for _, c := range cases {
		b.Run(c.Group+"/"+c.Name, func(b *testing.B) {
			var bytes int
			var total float64
			for b.Loop() {
				f, err := bench.Measure(c, 1)
				if err != nil {
					b.Fatal(err)
				}
				bytes = f.Bytes
				total += f.MinMS
			}
			perOp := total * 1e6 / float64(b.N) / float64(c.Ops)
			b.ReportMetric(perOp, "cpu-ns/edit")
			b.ReportMetric(1e9/perOp, "edits/s")
			if bytes > 0 {
				b.ReportMetric(float64(bytes)/float64(c.Ops), "bytes/edit")
			}
		})
	}
}

func BenchmarkTraces(b *testing.B) {
	for _, t := range traces(b) {
		cases, err := bench.TraceCases(t)
		if err != nil {
			b.Fatal(err)
		}
		run(b, cases)
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

// TestCases runs each case once, small: a benchmark whose check fails is of no
// use, and one whose check cannot fail neither.
func TestCases(t *testing.T) {
	cases := bench.RandomCases(2000, 5)
	cases = append(cases, bench.ConcurrentCases()...)
	for _, trace := range traces(t) {
		if trace.Name != "sveltecomponent" {
			continue
		}
		more, err := bench.TraceCases(trace)
		if err != nil {
			t.Fatal(err)
		}
		cases = append(cases, more...)
	}
	for _, c := range cases {
		t.Run(fmt.Sprintf("%s/%s", c.Group, c.Name), func(t *testing.T) {
			f, err := bench.Measure(c, 1)
			if err != nil {
				t.Fatal(err)
			}
			if f.MinMS <= 0 {
				t.Errorf("took %v ms", f.MinMS)
			}
		})
	}
}

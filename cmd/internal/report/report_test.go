package report

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"crdt-genome/genome/bench"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is out of date; go test ./cmd/internal/report -update, and look at what has changed\n%s", name, got)
	}
}

// sample has what there can be in a report: goals reached and missed, what is
// measured for comparison, one value and several, extras, a wide range, markup.
func sample(factor float64) *Report {
	rep := &Report{Origin: Origin{Format: Format, Bench: "log", Command: "crdt-genome bench log --only <all>", Version: "0.1.0",
		Time:    time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC),
		Machine: bench.Machine{CPU: "A CPU", Cores: 2, OS: "linux/amd64", Go: "go1.26", Load: "0.35"}, Runs: 3}}
	for i := range 3 {
		x := float64(i+1) * factor
		rep.Observe(Row{Group: "append, alone", Name: "log", Unit: "ops/s", Better: More, Goal: 2000}, 1000*x)
		rep.Observe(Row{Group: "append, alone", Name: "raw & bare", Unit: "ops/s", Better: More, Baseline: true}, 5000+x)
		rep.Observe(Row{Group: "append, alone", Name: "p99", Unit: "µs", Better: Less, Goal: 30}, 20*x)
		rep.Observe(Row{Group: "append, alone", Name: "log ÷ raw", Unit: "×"}, 0.2*x)
		rep.Observe(Row{Group: "checkpoints", Name: "p50", Unit: "ms", Better: Less}, 0.03*x)
		rep.Observe(Row{Group: "checkpoints", Name: "most", Unit: "ms", Better: Less}, 4000*x)
		rep.Observe(Row{Group: "checkpoints", Name: "failed", Unit: "posts", Better: Less}, 0)
	}
	rep.Add(Row{Kind: "size", Group: "a trace", Name: "snapshot", Unit: "B", Better: Less, Ops: 1000, Values: []float64{1234567},
		More: []Extra{{"bytes each", 1234.567}, {"× rope", 0}}})
	rep.Add(Row{Kind: "size", Group: "a trace", Name: "log", Unit: "B", Better: Less, Ops: 1000, Values: []float64{99},
		More: []Extra{{"bytes each", 0.099}, {"× rope", 1.5}}})
	return rep
}

func TestGolden(t *testing.T) {
	rep := sample(1)
	rep.Against(sample(0.25))
	data, err := json.MarshalIndent(rep, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "report.json", append(data, '\n'))
	var page bytes.Buffer
	if err := rep.HTML(&page); err != nil {
		t.Fatal(err)
	}
	golden(t, "report.html", page.Bytes())
}

// TestPageAlone wants the page to ask nobody for anything, and what it is told
// to be text.
func TestPageAlone(t *testing.T) {
	var page bytes.Buffer
	if err := sample(1).HTML(&page); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"http:", "https:", "url(", "@import", "<script", "src=", "<all>", "NaN", "Inf"} {
		if strings.Contains(page.String(), bad) {
			t.Errorf("the page has %q", bad)
		}
	}
}

// TestRead wants a report to be read as it was written.
func TestRead(t *testing.T) {
	data, err := json.Marshal(sample(1))
	if err != nil {
		t.Fatal(err)
	}
	rep, err := Read(bytes.NewReader(data), "log")
	if err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(rep)
	if err != nil || !bytes.Equal(again, data) {
		t.Errorf("read and written again: %v\n%s\n%s", err, again, data)
	}
	for _, tc := range []struct{ in, want string }{
		{"", "not a report in JSON"},
		{"[]", "not a report in JSON"},
		{"{}", "no rows"},
		{`{"format":1,"bench":"log","rows":[]}`, "no rows"},
		{`{"format":1,"bench":"log","rows":[{"name":"x","values":[]}]}`, "no values"},
		{`{"format":2,"bench":"log","rows":[{"name":"x","values":[1]}]}`, "format 2"},
		{`{"format":1,"bench":"http","rows":[{"name":"x","values":[1]}]}`, "bench http, not of bench log"},
	} {
		if _, err := Read(strings.NewReader(tc.in), "log"); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("Read(%s) = %v, want %q", tc.in, err, tc.want)
		}
	}
}

func TestObserve(t *testing.T) {
	var rep Report
	for _, v := range []float64{3, 1, 2, 10} {
		rep.Observe(Row{Group: "g", Name: "n", Unit: "ms", Better: Less, Goal: 2.5}, v)
		rep.Observe(Row{Group: "g", Name: "n", Unit: "µs"}, 1)
	}
	if len(rep.Rows) != 2 {
		t.Fatalf("%d rows, want 2", len(rep.Rows))
	}
	if r := rep.Rows[0]; r.Min != 1 || r.Median != 2.5 || r.Max != 10 || r.Verdict != OK || r.Values[0] != 3 {
		t.Errorf("%+v", r)
	}
	rep.Observe(Row{Group: "g", Name: "n", Unit: "ms"}, 3)
	if r := rep.Rows[0]; r.Median != 3 || r.Verdict != Missed {
		t.Errorf("%+v", r)
	}
}

func TestAgainst(t *testing.T) {
	of := func(better, unit string, values ...float64) *Report {
		var rep Report
		rep.Add(Row{Group: "g", Name: "n", Unit: unit, Better: better, Values: values})
		return &rep
	}
	for _, tc := range []struct {
		name        string
		before, now *Report
		want        string
		ratio       float64
	}{
		{"faster", of(Less, "ms", 4, 5, 6), of(Less, "ms", 1, 2, 3), Better, 0.4},
		{"slower", of(Less, "ms", 1, 2, 3), of(Less, "ms", 4, 5, 6), Worse, 2.5},
		{"more", of(More, "ops/s", 1, 2, 3), of(More, "ops/s", 4, 5, 6), Better, 2.5},
		{"fewer", of(More, "ops/s", 4, 5, 6), of(More, "ops/s", 1, 2, 3), Worse, 0.4},
		{"other", of("", "×", 4, 5, 6), of("", "×", 1, 2, 3), Changed, 0.4},
		{"overlap", of(Less, "ms", 1, 2, 4), of(Less, "ms", 3, 4, 5), Unclear, 2},
		{"two runs", of(Less, "ms", 1, 2, 3), of(Less, "ms", 4, 6), TooFew, 2.5},
		{"smaller", of(Less, "B", 10), of(Less, "B", 9), Better, 0.9},
		{"larger", of(Less, "B", 10), of(Less, "B", 11), Worse, 1.1},
		{"same size", of(Less, "B", 7), of(Less, "B", 7), Same, 1},
		{"none before", of(Less, "posts", 0, 0, 0), of(Less, "posts", 1, 1, 1), Worse, 0},
	} {
		tc.now.Against(tc.before)
		if c := tc.now.Changes; len(c) != 1 || c[0].Verdict != tc.want || c[0].Ratio != tc.ratio {
			t.Errorf("%s: %+v, want %s %v", tc.name, c, tc.want, tc.ratio)
		}
	}
	other := of(Less, "ms", 1, 2, 3)
	other.Rows[0].Ops = 2
	if other.Against(of(Less, "ms", 1, 2, 3)); other.Changes != nil {
		t.Errorf("rows of different loads compared: %+v", other.Changes)
	}
}

func TestFigure(t *testing.T) {
	for x, want := range map[float64]string{0: "0", 0.0012: "0.0012", 0.5: "0.50", 9.994: "9.99", 9.996: "10.0", 12.34: "12.3", 99.96: "100",
		1234.5: "1,234", 1234567: "1,234,567", -1234: "-1,234", -123: "-123"} {
		if got := Figure(x); got != want {
			t.Errorf("Figure(%v) = %q, want %q", x, got, want)
		}
	}
}

func TestScale(t *testing.T) {
	lin := scaleOf([]*Row{{Values: []float64{1, 40}}}, nil)
	if lin.log || lin.at(0) != 0 || lin.at(40) < 90 || lin.at(40) > 100 || len(lin.ticks) < 3 {
		t.Errorf("linear: %+v", lin)
	}
	log := scaleOf([]*Row{{Values: []float64{0.2, 0, 40}}}, nil)
	if !log.log || log.at(0) != 0 || log.at(0.1) != 0 || log.at(100) != 100 || log.at(1) < 33 || log.at(1) > 34 {
		t.Errorf("logarithmic: %+v, 1 at %v", log, log.at(1))
	}
	before := &Row{Name: "x", Median: 80}
	if s := scaleOf([]*Row{{Name: "x", Values: []float64{40}}}, map[key]*Row{before.key(): before}); s.at(80) > 100 {
		t.Errorf("what was before is at %v", s.at(80))
	}
}

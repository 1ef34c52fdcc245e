package bench

import (
	"encoding/json"
	"fmt"
	"io"
)

// A Report is what a run of benchmarks found. Its JSON is what a later run is
// compared with.
type Report struct {
	Machine Machine  `json:"machine"`
	Figures []Figure `json:"figures"`
}

// maxReportBytes bounds a report read from a file.
const maxReportBytes = 1 << 24

// ReadReport reads the JSON of a report.
func ReadReport(r io.Reader) (Report, error) {
	var rep Report
	data, err := io.ReadAll(io.LimitReader(r, maxReportBytes))
	if err != nil {
		return rep, err
	}
	if err := json.Unmarshal(data, &rep); err != nil {
		return rep, fmt.Errorf("not a report in JSON: %w", err)
	}
	if len(rep.Figures) == 0 {
		return rep, fmt.Errorf("not a report: no figures")
	}
	return rep, nil
}

// A Change is what became of a figure between two reports.
type Change struct {
	Group   string  `json:"group"`
	Name    string  `json:"name"`
	Unit    string  `json:"unit"`   // ms, or bytes
	Before  float64 `json:"before"` // median, or size
	Now     float64 `json:"now"`
	Ratio   float64 `json:"ratio"`  // Now / Before
	Spread  float64 `json:"spread"` // half the range of both runs' times, as a part of the median: what is not surely a change
	Verdict string  `json:"verdict"`
}

// The verdicts of a change. Times differ only if the slowest run of one was
// faster than the fastest of the other.
const (
	Better  = "better"
	Worse   = "worse"
	Unclear = "no clear difference"
	Same    = "same"
)

// Against returns what changed from an earlier report to r, for what both have
// measured on the same number of ops.
func (r Report) Against(before Report) (changes []Change) {
	type key struct {
		group, name string
		ops         int
	}
	old := map[key]Figure{}
	for _, f := range before.Figures {
		old[key{f.Group, f.Name, f.Ops}] = f
	}
	for _, f := range r.Figures {
		if o, ok := old[key{f.Group, f.Name, f.Ops}]; ok {
			changes = append(changes, f.against(o)...)
		}
	}
	return changes
}

func (f Figure) against(o Figure) (changes []Change) {
	add := func(unit string, before, now, spread float64, better, worse bool) {
		c := Change{f.Group, f.Name, unit, before, now, now / before, spread, Unclear}
		switch {
		case better:
			c.Verdict = Better
		case worse:
			c.Verdict = Worse
		case spread == 0:
			c.Verdict = Same
		}
		changes = append(changes, c)
	}
	if f.MinMS > 0 && o.MinMS > 0 {
		spread := max((f.MaxMS-f.MinMS)/f.MedianMS, (o.MaxMS-o.MinMS)/o.MedianMS) / 2
		add("ms", o.MedianMS, f.MedianMS, spread, f.MaxMS < o.MinMS, f.MinMS > o.MaxMS)
	}
	for _, size := range [][2]int{{o.Bytes, f.Bytes}, {o.HeapBytes, f.HeapBytes}} {
		if b, n := size[0], size[1]; b > 0 && n > 0 {
			add("bytes", float64(b), float64(n), 0, n < b, n > b)
		}
	}
	return changes
}

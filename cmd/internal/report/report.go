package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"crdt-genome/genome/bench"
)

// Format is the number of the JSON's format.
const Format = 1

// Which direction of a row's values is the better one.
const (
	Less = "less"
	More = "more"
)

// The verdicts on a row with a goal.
const (
	OK     = "ok"
	Missed = "missed"
)

// An Origin says where a report comes from.
type Origin struct {
	Format      int           `json:"format"`
	Bench       string        `json:"bench"`
	Command     string        `json:"command,omitempty"`
	Version     string        `json:"version,omitempty"`
	Time        time.Time     `json:"time"`
	Machine     bench.Machine `json:"machine"`
	Runs        int           `json:"runs"`
	Interrupted bool          `json:"interrupted,omitempty"`
}

// A Report is what a run of a bench found.
type Report struct {
	Origin
	Rows    []Row    `json:"rows"`
	Before  *Origin  `json:"before,omitempty"`
	Changes []Change `json:"changes,omitempty"`

	old []Row // of the report compared with
}

// A Row is one measured thing, over all runs. What its fields mean stands in
// the package's doc.
type Row struct {
	Kind     string    `json:"kind,omitempty"`
	Group    string    `json:"group"`
	Name     string    `json:"name"`
	Unit     string    `json:"unit"`
	Values   []float64 `json:"values"`
	Min      float64   `json:"min"`
	Median   float64   `json:"median"`
	Max      float64   `json:"max"`
	Better   string    `json:"better,omitempty"`
	Baseline bool      `json:"baseline,omitempty"`
	Goal     float64   `json:"goal,omitempty"`
	Verdict  string    `json:"verdict,omitempty"`
	Ops      int       `json:"ops,omitempty"`
	More     []Extra   `json:"more,omitempty"`
}

// An Extra is a number that goes with a row and follows from it, or from it and
// others.
type Extra struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"` // 0: none, so that a table's rows have the same extras
}

// Observe adds a value to the row that r describes, which is begun if it is not
// there yet.
func (rep *Report) Observe(r Row, value float64) {
	i := slices.IndexFunc(rep.Rows, func(o Row) bool { return o.key() == r.key() })
	if i < 0 {
		i = len(rep.Rows)
		r.Values = nil
		rep.Rows = append(rep.Rows, r)
	}
	row := &rep.Rows[i]
	row.Values = append(row.Values, value)
	row.sum()
}

// Add adds a row whose values are all there.
func (rep *Report) Add(r Row) {
	r.sum()
	rep.Rows = append(rep.Rows, r)
}

// sum computes what follows from the values.
func (r *Row) sum() {
	sorted := slices.Sorted(slices.Values(r.Values))
	n := len(sorted)
	r.Min, r.Median, r.Max = sorted[0], (sorted[(n-1)/2]+sorted[n/2])/2, sorted[n-1]
	switch {
	case r.Goal == 0:
		r.Verdict = ""
	case r.Better == Less && r.Median <= r.Goal, r.Better == More && r.Median >= r.Goal:
		r.Verdict = OK
	default:
		r.Verdict = Missed
	}
}

// spread is half the range, as a part of the median.
func (r *Row) spread() float64 {
	if r.Median == 0 {
		return 0
	}
	return (r.Max - r.Min) / r.Median / 2
}

type key struct{ group, name, unit string }

func (r *Row) key() key { return key{r.Group, r.Name, r.Unit} }

// maxReportBytes bounds a report read from a file.
const maxReportBytes = 1 << 24

// Read reads the JSON of a report of the given bench.
func Read(r io.Reader, name string) (*Report, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxReportBytes))
	if err != nil {
		return nil, err
	}
	var rep Report
	if err := json.Unmarshal(data, &rep); err != nil {
		return nil, fmt.Errorf("not a report in JSON: %w", err)
	}
	switch {
	case rep.Format == 0 || len(rep.Rows) == 0:
		return nil, errors.New("not a report: no rows")
	case rep.Format > Format:
		return nil, fmt.Errorf("a report of format %d; this program knows %d", rep.Format, Format)
	case rep.Bench != name:
		return nil, fmt.Errorf("a report of bench %s, not of bench %s", rep.Bench, name)
	}
	for i := range rep.Rows {
		if r := &rep.Rows[i]; len(r.Values) == 0 {
			return nil, fmt.Errorf("not a report: no values of %q, %q", r.Group, r.Name)
		}
		rep.Rows[i].sum() // what the file says of it is not needed
	}
	return &rep, nil
}

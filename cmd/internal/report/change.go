package report

// A Change is what became of a row between two reports.
type Change struct {
	Group   string  `json:"group"`
	Name    string  `json:"name"`
	Unit    string  `json:"unit"`
	Before  float64 `json:"before"`
	Now     float64 `json:"now"`
	Ratio   float64 `json:"ratio"`
	Spread  float64 `json:"spread"`
	Verdict string  `json:"verdict"`
}

// The verdicts on a change. Two rows differ only if the worst run of one was
// better than the best of the other.
const (
	Better  = "better"
	Worse   = "worse"
	Changed = "changed" // and neither is the better direction
	Same    = "same"
	Unclear = "no clear difference"
	TooFew  = "too few runs"
)

// leastRuns is how many values a row must have to differ from another one: the
// ranges of one or two runs seldom overlap, and that says nothing.
const leastRuns = 3

// unitBytes is the unit of what comes out the same in every run.
const unitBytes = "B"

// Against notes what has changed since an earlier report, of what both have
// measured on the same number of ops.
func (rep *Report) Against(before *Report) {
	old := map[key]*Row{}
	for i := range before.Rows {
		old[before.Rows[i].key()] = &before.Rows[i]
	}
	rep.Before, rep.old, rep.Changes = &before.Origin, before.Rows, nil
	for i := range rep.Rows {
		r := &rep.Rows[i]
		if o := old[r.key()]; o != nil && o.Ops == r.Ops {
			rep.Changes = append(rep.Changes, r.since(o))
		}
	}
}

func (r *Row) since(o *Row) Change {
	c := Change{Group: r.Group, Name: r.Name, Unit: r.Unit, Before: o.Median, Now: r.Median, Spread: max(r.spread(), o.spread())}
	if o.Median != 0 {
		c.Ratio = r.Median / o.Median
	}
	c.Verdict = r.compared(o)
	return c
}

func (r *Row) compared(o *Row) string {
	less, more := r.Max < o.Min, r.Min > o.Max
	switch {
	case r.Min == o.Min && r.Max == o.Max && r.Median == o.Median:
		return Same
	case r.Unit != unitBytes && min(len(r.Values), len(o.Values)) < leastRuns:
		return TooFew
	case !less && !more:
		return Unclear
	case r.Better == "":
		return Changed
	case less == (r.Better == Less):
		return Better
	}
	return Worse
}

package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// A Table is cells under a header. An empty cell says that there is nothing to
// say.
type Table struct {
	Head  []string
	Cells [][]string
}

// Tables returns the rows, a table for each kind of them, without the columns
// that are empty.
func (rep *Report) Tables() (tables []Table) {
	for _, kind := range rep.kinds() {
		tables = append(tables, rep.table(kind))
	}
	return tables
}

// kinds returns the kinds of rows, in the order of their first ones.
func (rep *Report) kinds() (kinds []string) {
	for i := range rep.Rows {
		if k := rep.Rows[i].Kind; !slices.Contains(kinds, k) {
			kinds = append(kinds, k)
		}
	}
	return kinds
}

func (rep *Report) table(kind string) Table {
	t := Table{Head: []string{"LOAD", "WHAT", "OPS", "UNIT", "MIN", "MEDIAN", "MAX"}}
	steady, first := true, true
	for i := range rep.Rows {
		r := &rep.Rows[i]
		if r.Kind != kind {
			continue
		}
		steady = steady && r.Min == r.Max
		if first {
			for _, e := range r.More {
				t.Head = append(t.Head, strings.ToUpper(e.Name))
			}
			t.Head = append(t.Head, "GOAL", "VERDICT")
			first = false
		}
		cells := []string{r.Group, r.Name, count(r.Ops), r.Unit, Figure(r.Min), Figure(r.Median), Figure(r.Max)}
		for _, e := range r.More {
			cells = append(cells, present(e.Value))
		}
		t.Cells = append(t.Cells, append(cells, r.goal(), r.Verdict))
	}
	if steady { // then three columns say the same
		t.drop("MIN", "MAX")
		t.Head[slices.Index(t.Head, "MEDIAN")] = "VALUE"
	}
	t.dropEmpty()
	return t
}

// ChangeTable returns what has changed.
func (rep *Report) ChangeTable() Table {
	t := Table{Head: []string{"LOAD", "WHAT", "UNIT", "BEFORE", "NOW", "RATIO", "±", "VERDICT"}}
	for _, c := range rep.Changes {
		ratio, spread := "", ""
		if c.Ratio != 0 {
			ratio = strconv.FormatFloat(c.Ratio, 'f', 2, 64)
		}
		if c.Spread != 0 {
			spread = strconv.FormatFloat(c.Spread, 'f', 2, 64)
		}
		t.Cells = append(t.Cells, []string{c.Group, c.Name, c.Unit, Figure(c.Before), Figure(c.Now), ratio, spread, c.Verdict})
	}
	return t
}

// goal is the goal with its direction.
func (r *Row) goal() string {
	switch {
	case r.Goal == 0:
		return ""
	case r.Better == Less:
		return "≤ " + Figure(r.Goal)
	}
	return "≥ " + Figure(r.Goal)
}

func (t *Table) drop(names ...string) {
	for _, name := range names {
		i := slices.Index(t.Head, name)
		t.Head = slices.Delete(t.Head, i, i+1)
		for j := range t.Cells {
			t.Cells[j] = slices.Delete(t.Cells[j], i, i+1)
		}
	}
}

func (t *Table) dropEmpty() {
	for i := len(t.Head) - 1; i >= 0; i-- {
		if !slices.ContainsFunc(t.Cells, func(row []string) bool { return row[i] != "" }) {
			t.drop(t.Head[i])
		}
	}
}

// Figure writes a number with three digits, whole from a hundred on.
func Figure(x float64) string {
	switch a := math.Abs(x); {
	case x == 0:
		return "0"
	case a < 0.005:
		return fmt.Sprintf("%.4f", x)
	case a < 9.995:
		return fmt.Sprintf("%.2f", x)
	case a < 99.95:
		return fmt.Sprintf("%.1f", x)
	}
	return grouped(strconv.FormatFloat(x, 'f', 0, 64))
}

// present is Figure, with nothing for 0.
func present(x float64) string {
	if x == 0 {
		return ""
	}
	return Figure(x)
}

func count(n int) string {
	if n == 0 {
		return ""
	}
	return grouped(strconv.Itoa(n))
}

// grouped writes "1234567" as "1,234,567".
func grouped(digits string) string {
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// Line is where the report comes from, in one line.
func (o *Origin) Line() string {
	runs := fmt.Sprintf("%d runs", o.Runs)
	if o.Runs == 1 {
		runs = "1 run"
	}
	if o.Interrupted {
		runs += ", interrupted"
	}
	return o.Machine.String() + " · " + runs
}

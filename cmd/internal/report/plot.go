package report

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strconv"
	"strings"
)

// A plot shows rows of one group and unit on a common scale: for each a line
// from its least to its greatest value, a dot for each run, and its median.
type plot struct {
	unit, better string
	rows         []*Row
	scale        scale
}

// A card holds the plots of a group.
type card struct {
	group string
	plots []*plot
}

// unitOps is the unit of what was asked for, not measured.
const unitOps = "ops"

// cards returns what can be drawn, in the order of the rows.
func (rep *Report) cards(before map[key]*Row) (all []*card) {
	for i := range rep.Rows {
		r := &rep.Rows[i]
		if r.Unit == "" || r.Unit == unitOps || r.Max == 0 {
			continue
		}
		c := find(&all, func(c *card) bool { return c.group == r.Group })
		c.group = r.Group
		p := find(&c.plots, func(p *plot) bool { return p.unit == r.Unit })
		if p.unit == "" {
			p.unit, p.better = r.Unit, r.Better
		}
		if p.better != r.Better {
			p.better = ""
		}
		p.rows = append(p.rows, r)
	}
	for _, c := range all {
		for _, p := range c.plots {
			p.scale = scaleOf(p.rows, before)
		}
	}
	return all
}

// find returns the first of all that is wanted, or a new one at their end.
func find[T any](all *[]*T, wanted func(*T) bool) *T {
	if i := slices.IndexFunc(*all, wanted); i >= 0 {
		return (*all)[i]
	}
	*all = append(*all, new(T))
	return (*all)[len(*all)-1]
}

// A scale maps values to a place between 0 and 100 percent.
type scale struct {
	lo, hi float64
	log    bool
	ticks  []float64
}

// logFrom is how far apart values are from which on a scale is logarithmic: on
// a linear one the least would be a smear at 0.
const logFrom = 50

// maxDecades bounds how far a logarithmic scale reaches below its greatest
// value; what is less is drawn at its edge.
const maxDecades = 9

func scaleOf(rows []*Row, before map[key]*Row) scale {
	least, most := math.Inf(1), 0.0
	for _, r := range rows {
		shown := append(slices.Clone(r.Values), r.Goal)
		if b := before[r.key()]; b != nil {
			shown = append(shown, b.Median)
		}
		for _, v := range shown {
			most = max(most, v)
			if v > 0 {
				least = min(least, v)
			}
		}
	}
	if most/least < logFrom {
		return linear(most)
	}
	s := scale{log: true}
	from, to := math.Floor(math.Log10(least)), math.Ceil(math.Log10(most))
	from = max(from, to-maxDecades)
	s.lo, s.hi = math.Pow(10, from), math.Pow(10, to)
	step := math.Ceil((to - from) / 4)
	for d := from; d <= to; d += step {
		s.ticks = append(s.ticks, math.Pow(10, d))
	}
	return s
}

// linear is a scale from 0 to most or a little more, with round ticks.
func linear(most float64) scale {
	unit := math.Pow(10, math.Floor(math.Log10(most/4)))
	step := unit
	for _, m := range []float64{1, 2, 2.5, 5, 10} {
		if step = m * unit; step*4 >= most {
			break
		}
	}
	s := scale{hi: most * 1.03}
	for i := 0.0; i*step <= s.hi; i++ {
		s.ticks = append(s.ticks, i*step)
	}
	return s
}

// at is the place of a value, in percent.
func (s scale) at(v float64) float64 {
	if s.log {
		v = max(v, s.lo)
		return 100 * math.Log10(v/s.lo) / math.Log10(s.hi/s.lo)
	}
	return 100 * v / s.hi
}

// percent writes a place as SVG and CSS want it.
func percent(x float64) string { return strconv.FormatFloat(x, 'f', 2, 64) + "%" }

// html writes the plots of a group; before has the rows to compare with.
func (c *card) html(w *strings.Builder, before map[key]*Row) {
	fmt.Fprintf(w, "<figure><figcaption>%s</figcaption>\n", html.EscapeString(c.group))
	for _, p := range c.plots {
		fmt.Fprintf(w, "<p>%s</p>\n", html.EscapeString(p.caption()))
		for _, r := range p.rows {
			p.row(w, r, before[r.key()])
		}
		p.axis(w)
	}
	w.WriteString("</figure>\n")
}

// caption says what the numbers are.
func (p *plot) caption() string {
	s := p.unit
	if p.better != "" {
		s += ", " + p.better + " is better"
	}
	if p.scale.log {
		s += ", logarithmic"
	}
	return s
}

func (p *plot) axis(w *strings.Builder) {
	w.WriteString(`<div class="row axis" aria-hidden="true"><span></span><div>`)
	for _, t := range p.scale.ticks {
		fmt.Fprintf(w, `<i style="left:%s">%s</i>`, percent(p.scale.at(t)), tick(t))
	}
	w.WriteString("</div><span></span></div>\n")
}

// tick is the label of a round number.
func tick(v float64) string {
	switch {
	case v >= 1e6:
		return strconv.FormatFloat(v/1e6, 'g', 6, 64) + "M"
	case v >= 1e4:
		return strconv.FormatFloat(v/1e3, 'g', 6, 64) + "k"
	}
	return strconv.FormatFloat(v, 'g', 6, 64)
}

func (p *plot) row(w *strings.Builder, r, before *Row) {
	class := "row"
	if r.Baseline {
		class += " base"
	}
	name := html.EscapeString(r.Name)
	fmt.Fprintf(w, `<div class="%s"><span>%s</span><svg role="img" aria-label="%s: %s">`, class, name, name, html.EscapeString(r.inWords()))
	for _, t := range p.scale.ticks {
		x := percent(p.scale.at(t))
		fmt.Fprintf(w, `<line class="grid" x1="%s" x2="%s" y1="0" y2="100%%"/>`, x, x)
	}
	lo, hi, mid := p.scale.at(r.Min), p.scale.at(r.Max), p.scale.at(r.Median)
	fmt.Fprintf(w, `<rect class="bar" width="%s" height="6"/>`, percent(mid))
	fmt.Fprintf(w, `<rect class="range" x="%s" width="%s" height="12" rx="3"/>`, percent(lo), percent(hi-lo))
	for i, v := range r.Values {
		fmt.Fprintf(w, `<circle cx="%s" cy="50%%" r="3"><title>run %d: %s %s</title></circle>`, percent(p.scale.at(v)), i+1, Figure(v), html.EscapeString(r.Unit))
	}
	fmt.Fprintf(w, `<line class="mid" x1="%s" x2="%s" y1="15%%" y2="85%%"/>`, percent(mid), percent(mid))
	if r.Goal > 0 {
		x := percent(p.scale.at(r.Goal))
		fmt.Fprintf(w, `<line class="goal" x1="%s" x2="%s" y1="0" y2="100%%"><title>goal %s</title></line>`, x, x, r.goal())
	}
	if before != nil {
		fmt.Fprintf(w, `<circle class="before" cx="%s" cy="50%%" r="6"><title>before: %s</title></circle>`, percent(p.scale.at(before.Median)), Figure(before.Median))
	}
	fmt.Fprintf(w, `</svg><span class="num"><b>%s</b>%s</span></div>`+"\n", Figure(r.Median), r.mark())
}

// inWords is what the picture of a row shows.
func (r *Row) inWords() string {
	s := fmt.Sprintf("median %s %s", Figure(r.Median), r.Unit)
	if r.Min != r.Max {
		s += fmt.Sprintf(", from %s to %s", Figure(r.Min), Figure(r.Max))
	}
	if r.Goal > 0 {
		s += fmt.Sprintf(", goal %s: %s", r.goal(), r.Verdict)
	}
	return s
}

// mark says beside the number whether the goal was reached.
func (r *Row) mark() string {
	if r.Verdict == "" {
		return ""
	}
	return fmt.Sprintf(` <em class="%s">%s</em>`, r.Verdict, r.Verdict)
}

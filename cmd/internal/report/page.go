package report

import (
	_ "embed"
	"fmt"
	"html"
	"io"
	"strings"
)

//go:embed page.css
var pageCSS string

// HTML writes the report as a page that needs nothing else.
func (rep *Report) HTML(out io.Writer) error {
	w := &strings.Builder{}
	title := "crdt-genome bench " + html.EscapeString(rep.Bench)
	fmt.Fprintf(w, `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>%s</title>
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,"><style>
%s</style></head><body>
<header><h1>%s</h1>
<p>%s</p>
<p>%s · crdt-genome %s</p>
<p><code>%s</code></p>
`, title, pageCSS, title, html.EscapeString(rep.Line()), rep.Time.UTC().Format("2006-01-02 15:04:05 UTC"),
		html.EscapeString(rep.Version), html.EscapeString(rep.Command))
	if rep.Before != nil {
		fmt.Fprintf(w, "<p>compared with %s · %s</p>\n", rep.Before.Time.UTC().Format("2006-01-02 15:04:05 UTC"), html.EscapeString(rep.Before.Line()))
	}
	w.WriteString("</header>\n<main>\n")
	rep.writePlots(w)
	if rep.Before != nil {
		w.WriteString("<section><h2>What has changed</h2>\n")
		rep.ChangeTable().html(w)
		w.WriteString("</section>\n")
	}
	w.WriteString("<section><h2>All figures</h2>\n")
	for _, t := range rep.Tables() {
		t.html(w)
	}
	w.WriteString("<details><summary>Every run</summary>\n")
	rep.runTable().html(w)
	w.WriteString("</details></section>\n</main></body></html>\n")
	_, err := io.WriteString(out, w.String())
	return err
}

// writePlots draws the plots, and says how to read them.
func (rep *Report) writePlots(w *strings.Builder) {
	old := map[key]*Row{}
	for i := range rep.old {
		old[rep.old[i].key()] = &rep.old[i]
	}
	w.WriteString(`<ul class="legend"><li><svg><circle cx="8" cy="8" r="3"/></svg>a run</li>` +
		`<li><svg><line class="mid" x1="8" x2="8" y1="0" y2="16"/></svg>median</li>` +
		`<li><svg><rect class="range" width="16" height="12" rx="3"/></svg>least to greatest</li>` +
		`<li><svg><line class="goal" x1="8" x2="8" y1="0" y2="16"/></svg>goal</li>` +
		`<li class="base"><svg><rect class="bar" width="16" height="6"/></svg>for comparison</li>`)
	if rep.Before != nil {
		w.WriteString(`<li><svg><circle class="before" cx="8" cy="8" r="6"/></svg>before</li>`)
	}
	w.WriteString("</ul>\n<div class=\"plots\">\n")
	for _, c := range rep.cards(old) {
		c.html(w, old)
	}
	w.WriteString("</div>\n")
}

// runTable lists the values of every run.
func (rep *Report) runTable() Table {
	t := Table{Head: []string{"LOAD", "WHAT", "UNIT"}}
	runs := 0
	for i := range rep.Rows {
		runs = max(runs, len(rep.Rows[i].Values))
	}
	for i := range runs {
		t.Head = append(t.Head, fmt.Sprint("RUN ", i+1))
	}
	for i := range rep.Rows {
		r := &rep.Rows[i]
		cells := make([]string, len(t.Head))
		copy(cells, []string{r.Group, r.Name, r.Unit})
		for j, v := range r.Values {
			cells[3+j] = Figure(v)
		}
		t.Cells = append(t.Cells, cells)
	}
	return t
}

// html writes the table. What stands in the columns of a text is text.
func (t Table) html(w *strings.Builder) {
	w.WriteString("<div class=\"scroll\" tabindex=\"0\"><table><thead><tr>")
	for _, h := range t.Head {
		fmt.Fprintf(w, `<th scope="col"%s>%s</th>`, cellClass(h, ""), html.EscapeString(h))
	}
	w.WriteString("</tr></thead><tbody>\n")
	for _, row := range t.Cells {
		w.WriteString("<tr>")
		for i, c := range row {
			text := html.EscapeString(c)
			if c == "" {
				text = "–"
			}
			fmt.Fprintf(w, `<td%s>%s</td>`, cellClass(t.Head[i], c), text)
		}
		w.WriteString("</tr>\n")
	}
	w.WriteString("</tbody></table></div>\n")
}

// cellClass is how a cell of a column is set.
func cellClass(head, cell string) string {
	switch head {
	case "LOAD", "WHAT", "UNIT":
		return ""
	case "VERDICT":
		switch cell {
		case OK, Better:
			return ` class="ok"`
		case Missed, Worse:
			return ` class="missed"`
		}
		return ""
	}
	return ` class="num"`
}

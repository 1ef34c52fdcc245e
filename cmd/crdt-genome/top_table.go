package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"charm.land/lipgloss/v2"

	"crdt-genome/genome"
	"crdt-genome/httpapi"
)

// strips draws the genomes of the actors, one a line below a header that
// explains the marks; rows of them fit.
func (m *topModel) strips(t *topTheme, actors []httpapi.ActorStatus, rows int) []string {
	e := m.last.elements
	if e == nil {
		return []string{t.head.Render("GENOMES"), t.dim.Render(cutTo("not read yet", m.width))}
	}
	var moments []topMoment
	var names []string
	if m.past {
		moments, names = append(moments, topMoment{past: true, lsn: m.at}), append(names, "@"+fmt.Sprint(m.at))
		rows--
	}
	for _, s := range actors[:min(len(actors), max(rows, 0))] {
		moments, names = append(moments, topMoment{v: s.VV}), append(names, fmt.Sprint(uint32(s.Actor)))
	}
	var all [][]topMark
	label := 0
	for i, at := range moments {
		all = append(all, e.marks(at))
		label = max(label, len(names[i]))
	}
	columns := shownRows(all)
	counts := make([]string, len(all))
	for i, marks := range all {
		counts[i] = m.geneCount(marks, moments[i])
	}
	wide := 0
	for _, c := range counts {
		wide = max(wide, len(c))
	}
	width := m.width - label - wide - 4
	lines := []string{m.stripHead(t, actors, len(columns), width)}
	for i, marks := range all {
		lines = append(lines, fmt.Sprintf("%*s  %s  %*s", label, names[i], m.strip(t, columns, marks, width), wide, counts[i]))
	}
	return lines
}

// geneCount says how many genes a row shows; + how many of its ops this server
// has not got, which therefore are not drawn.
func (m *topModel) geneCount(marks []topMark, at topMoment) string {
	e, genes := m.last.elements, 0
	for _, k := range marks {
		if k.shown() {
			genes++
		}
	}
	text := thousands(uint64(genes))
	if !at.past {
		if beyond := countOps(e.VV.Lacks(at.v)); beyond > 0 {
			text += "+" + thousands(beyond)
		}
	}
	return text
}

// stripHead explains the strips, with as many words as there is room for.
func (m *topModel) stripHead(t *topTheme, actors []httpapi.ActorStatus, columns, width int) string {
	title := "GENOMES"
	e := m.last.elements
	if e.Total > len(e.Author) {
		title += fmt.Sprintf(" (first %s)", thousands(uint64(len(e.Author))))
	} else if per := (columns + max(width, 1) - 1) / max(width, 1); per > 1 && !m.hex {
		title += fmt.Sprintf(" (up to %d a mark)", per)
	}
	legend := "░ not here yet  ▒ deleted elsewhere"
	if !m.color {
		legend = ". not here yet  * deleted elsewhere"
	}
	if m.hex {
		legend = "·· not here yet  ~ deleted elsewhere"
	}
	left := m.width - len(title) - 2
	out := t.head.Render(cutTo(title, m.width))
	if n := len([]rune(legend)); n <= left {
		out += "  " + t.dim.Render(legend)
		left -= n + 2
	}
	by := "  authors"
	for _, s := range actors[:min(len(actors), len(t.authors))] {
		by += fmt.Sprintf(" %d", s.Actor)
	}
	if !m.color {
		by = "  digit = author"
	}
	if len(by) > left {
		return out
	}
	if !m.color {
		return out + t.dim.Render(by)
	}
	out += t.dim.Render("  authors")
	for _, s := range actors[:min(len(actors), len(t.authors))] {
		out += " " + t.author(s.Actor).Bold(true).Render(fmt.Sprint(uint32(s.Actor)))
	}
	return out
}

// strip draws one row into width columns, filled up with spaces.
func (m *topModel) strip(t *topTheme, columns []int, marks []topMark, width int) string {
	e, each := m.last.elements, 1
	if m.hex {
		each = 3
		columns = columns[:min(len(columns), max(width/each, 0))]
	}
	cells := e.cells(columns, marks, width/each)
	var b strings.Builder
	for i := 0; i < len(cells); { // neighbours of one look are one piece
		style, text := m.cell(t, cells[i])
		k := i + 1
		for ; k < len(cells) && cells[k].mark == cells[i].mark && cells[k].author == cells[i].author; k++ {
			_, more := m.cell(t, cells[k])
			text += more
		}
		b.WriteString(style.Render(text))
		i = k
	}
	b.WriteString(strings.Repeat(" ", max(width-each*len(cells), 0)))
	return b.String()
}

// cell draws one cell.
func (m *topModel) cell(t *topTheme, c topCell) (lipgloss.Style, string) {
	style := t.plain
	if m.color && c.mark.shown() {
		style = t.author(c.author)
	} else if c.mark == markMissing {
		style = t.dim
	}
	if m.hex {
		switch c.mark {
		case markHas:
			return style, fmt.Sprintf("%02x ", c.val)
		case markStale:
			return style, fmt.Sprintf("%02x~", c.val)
		case markMissing:
			return style, "·· "
		}
		return style, "   "
	}
	switch c.mark {
	case markMissing:
		return style, pickMark(m.color, "░", ".")
	case markStale:
		return style, pickMark(m.color, "▒", "*")
	case markHas:
		return style, pickMark(m.color, "▇", fmt.Sprint(uint32(c.author)%10))
	}
	return style, " "
}

func pickMark(color bool, with, without string) string {
	if color {
		return with
	}
	return without
}

// A topColumn is one column of the table.
type topColumn struct {
	head  string
	right bool
	drop  int // of those that do not fit the highest go first; 0 stays
	cells []string
	style func(i int) lipgloss.Style // nil: plain
}

func (c *topColumn) width() int {
	w := len([]rune(c.head))
	for _, s := range c.cells {
		w = max(w, len([]rune(s)))
	}
	return w
}

// topChart is the width of the charts in the table.
const topChart = 12

// table says of each actor what it lacks of whom.
func (m *topModel) table(t *topTheme, actors []httpapi.ActorStatus, rows int) []string {
	hidden := len(actors) - rows
	if hidden > 0 {
		rows-- // for the line that says so
		hidden++
	}
	actors = actors[:max(rows, 0)]
	columns := m.columns(t, actors)
	for tableWidth(columns) > m.width {
		worst := 0
		for i, c := range columns {
			if c.drop >= columns[worst].drop {
				worst = i
			}
		}
		if columns[worst].drop == 0 {
			break
		}
		columns = slices.Delete(columns, worst, worst+1)
	}
	lines := []string{t.head.Render(cutTo(tableLine(columns, -1, nil), m.width))}
	for i := range actors {
		plain := tableLine(columns, i, nil)
		if len([]rune(plain)) > m.width { // a terminal too narrow for any colour
			lines = append(lines, cutTo(plain, m.width))
			continue
		}
		lines = append(lines, tableLine(columns, i, t))
	}
	if hidden > 0 {
		lines = append(lines, t.dim.Render(cutTo(fmt.Sprintf("… %d more; s shows those that lack most first", hidden), m.width)))
	}
	return lines
}

func tableWidth(columns []topColumn) int {
	w := 2 * (len(columns) - 1)
	for _, c := range columns {
		w += c.width()
	}
	return w
}

// tableLine writes row i, -1 for the header, in colour if there is a theme.
func tableLine(columns []topColumn, i int, t *topTheme) string {
	var out []string
	for k, c := range columns {
		text := c.head
		if i >= 0 {
			text = c.cells[i]
		}
		pad := strings.Repeat(" ", c.width()-len([]rune(text)))
		if t != nil && c.style != nil {
			text = c.style(i).Render(text)
		}
		switch {
		case c.right:
			text = pad + text
		case k < len(columns)-1:
			text += pad
		}
		out = append(out, text)
	}
	return strings.TrimRight(strings.Join(out, "  "), " ")
}

// columns are all that there is to say, for a terminal as wide as one likes.
func (m *topModel) columns(t *topTheme, actors []httpapi.ActorStatus) []topColumn {
	col := func(head string, right bool, drop int, cell func(s httpapi.ActorStatus) string) topColumn {
		c := topColumn{head: head, right: right, drop: drop}
		for _, s := range actors {
			text := cell(s)
			if text == "" {
				text = "–"
			}
			c.cells = append(c.cells, printable(text))
		}
		return c
	}
	ms := func(n int64) string { return ago(time.Duration(n) * time.Millisecond) }
	state := col("STATE", false, 0, func(s httpapi.ActorStatus) string { return s.State })
	state.style = func(i int) lipgloss.Style { return t.state(actors[i].State) }
	lacks := col("LACKS", true, 0, func(s httpapi.ActorStatus) string {
		if !known(s) {
			return "?"
		}
		return thousands(s.LacksOps)
	})
	lacks.style = func(i int) lipgloss.Style { return loud(t, lacksOf(actors[i])) }
	chart := func(head string, drop int, values func(*topTrack) []uint64) topColumn {
		return col(head, false, drop, func(s httpapi.ActorStatus) string {
			return fmt.Sprintf("%*s", topChart, sparkline(keepLast(values(m.byActor[s.Actor]), topChart)))
		})
	}
	columns := []topColumn{col("ACTOR", false, 0, func(s httpapi.ActorStatus) string { return fmt.Sprint(uint32(s.Actor)) }), state}
	columns = append(columns, m.matrix(t, actors)...)
	return append(columns, lacks,
		col("OLDEST", true, 3, func(s httpapi.ActorStatus) string {
			if s.State == httpapi.StateUnreachable {
				return ms(s.SinceMS)
			}
			return ms(s.OldestMS)
		}),
		chart("LAG", 2, func(k *topTrack) []uint64 { return k.lacks }),
		col("OPS", true, 4, func(s httpapi.ActorStatus) string {
			if s.State == httpapi.StateUnreachable {
				return thousands(s.Ops) + "?"
			}
			return thousands(s.Ops)
		}),
		chart("OPS/S", 6, func(k *topTrack) []uint64 { return steps(k.ops) }),
		col("RTT", true, 5, func(s httpapi.ActorStatus) string {
			if s.RTTMS <= 0 || s.State == httpapi.StateUnreachable {
				return ""
			}
			return fmt.Sprintf("%.1f ms", s.RTTMS)
		}),
		col("LOG", true, 7, func(s httpapi.ActorStatus) string {
			if s.LogBytes <= 0 {
				return ""
			}
			return size(s.LogBytes)
		}),
		col("UPTIME", true, 8, func(s httpapi.ActorStatus) string { return ms(s.UptimeMS) }),
	)
}

// loud is the style of a number that should be 0.
func loud(t *topTheme, n uint64) lipgloss.Style {
	if n > 0 {
		return t.warn.Bold(true)
	}
	return t.dim
}

// topMatrix is the number of authors that the table has a column for; the
// column LACKS counts the others too.
const topMatrix = 16

// matrix has a column for each author: how many of its ops each row lacks. Of
// more authors than there is room for it has those of whom anything is lacking.
func (m *topModel) matrix(t *topTheme, actors []httpapi.ActorStatus) (columns []topColumn) {
	all := allOf(m.last.cluster)
	lacks := make([]map[genome.ActorID]uint64, len(actors))
	lacking := map[genome.ActorID]bool{}
	for i, s := range actors {
		lacks[i] = map[genome.ActorID]uint64{}
		if !known(s) {
			continue
		}
		for _, r := range s.VV.Lacks(all) {
			lacks[i][r.Replica.Actor()] += r.Len()
			lacking[r.Replica.Actor()] = true
		}
	}
	var authors []genome.ActorID
	for _, s := range m.last.cluster.Actors {
		if len(m.last.cluster.Actors) <= topMatrix || lacking[s.Actor] {
			authors = append(authors, s.Actor)
		}
	}
	slices.Sort(authors)
	for _, author := range authors[:min(len(authors), topMatrix)] {
		c := topColumn{head: fmt.Sprintf("a%d", author), right: true, drop: 1}
		for i, s := range actors {
			text := "·"
			if n := lacks[i][author]; n > 0 {
				text = thousands(n)
			} else if !known(s) {
				text = "?"
			}
			c.cells = append(c.cells, text)
		}
		c.style = func(i int) lipgloss.Style { return loud(t, lacks[i][author]) }
		columns = append(columns, c)
	}
	return columns
}

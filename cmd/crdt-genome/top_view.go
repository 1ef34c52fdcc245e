package main

import (
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"

	"crdt-genome/genome"
	"crdt-genome/httpapi"
)

// A topTheme is the colours of a screen. The colours only help the eye: every
// word and mark can be told without them.
type topTheme struct {
	authors                []lipgloss.Style
	good, warn, cut, bad   lipgloss.Style // of states
	chip                   map[string]lipgloss.Style
	bold, dim, plain, head lipgloss.Style
}

// The colours of Okabe and Ito, which the colour-blind can tell apart. On a
// light background those that would drown are darker.
var (
	huesOnDark  = []string{"#e69f00", "#56b4e9", "#009e73", "#f0e442", "#3b8fd9", "#d55e00", "#cc79a7", "#b0b0b0"}
	huesOnLight = []string{"#c27f00", "#2f95d0", "#008a64", "#a39400", "#0072b2", "#d55e00", "#b8578c", "#707070"}
)

func newTopTheme(dark bool) *topTheme {
	pick := lipgloss.LightDark(dark)
	color := func(light, dark string) lipgloss.Style {
		return lipgloss.NewStyle().Foreground(pick(lipgloss.Color(light), lipgloss.Color(dark)))
	}
	t := &topTheme{good: color("#00784f", "#2bc48a"), warn: color("#8a5a00", "#f0b429"), cut: color("#8a3ca8", "#d58cf0"), bad: color("#b3001b", "#ff6b6b"),
		bold: lipgloss.NewStyle().Bold(true), dim: color("#606060", "#a0a0a0")}
	t.head = t.dim.Bold(true)
	for i := range huesOnDark {
		t.authors = append(t.authors, color(huesOnLight[i], huesOnDark[i]))
	}
	chip := func(s lipgloss.Style) lipgloss.Style { return s.Bold(true).Reverse(true) }
	t.chip = map[string]lipgloss.Style{wordConverged: chip(t.good), wordBehind: chip(t.warn), wordPartitioned: chip(t.cut),
		wordUnreachable: chip(t.cut), wordDiverged: chip(t.bad), wordStale: chip(t.dim)}
	return t
}

func (t *topTheme) author(a genome.ActorID) lipgloss.Style { return t.authors[int(a)%len(t.authors)] }

func (t *topTheme) state(s string) lipgloss.Style {
	switch s {
	case httpapi.StateEqual:
		return t.good
	case httpapi.StateBehind:
		return t.warn
	case httpapi.StateUnreachable:
		return t.cut
	case httpapi.StateDiverged:
		return t.bad
	}
	return t.plain
}

func (m *topModel) View() tea.View {
	v := tea.NewView(strings.Join(m.frame(), "\n"))
	v.AltScreen = true
	v.WindowTitle = "crdt-genome top"
	return v
}

// topTooSmall is what nothing can be shown in.
const topTooSmallWidth, topTooSmallHeight = 24, 6

// frame returns the lines of the screen, at most as many as it has, none wider.
func (m *topModel) frame() []string {
	if m.width < topTooSmallWidth || m.height < topTooSmallHeight {
		word, _, _ := topVerdict(m.last.cluster)
		if m.stale() > 0 {
			word = wordStale
		}
		return []string{cutTo(word, m.width)}
	}
	t := newTopTheme(m.dark)
	lines := append([]string{m.title(t)}, m.verdictLines(t)...)
	lines = append(lines, "")
	room := m.height - len(lines) - 1 // the last line is that of the keys
	if m.help {
		lines = append(lines, m.helpLines(room)...)
	} else {
		lines = append(lines, m.body(t, room)...)
	}
	for len(lines) < m.height-1 {
		lines = append(lines, "")
	}
	return append(lines[:m.height-1], m.keyLine(t))
}

// body is the strips, the table and the last ops, as much of each as room
// allows: the table counts most.
func (m *topModel) body(t *topTheme, room int) (lines []string) {
	actors := m.sorted()
	n := len(actors)
	want := n // strips: one more for the past
	if m.past {
		want++
	}
	rows := min(n, max(room-1, 0)) // of the table, below its header
	strips := 0
	if rest := room - (n + 1); rest >= 4 {
		strips = min(want, rest-2) // a header, and a line between
	} else if room >= 9 {
		strips = min(want, (room-3)/2)
		rows = min(n, room-3-strips)
	}
	if strips > 0 {
		lines = append(append(lines, m.strips(t, actors, strips)...), "")
	}
	lines = append(lines, m.table(t, actors, rows)...)
	if rest := room - len(lines) - 2; rest > 0 && m.last.elements != nil {
		lines = append(append(lines, ""), m.lastOps(t, rest)...)
	}
	return lines[:min(len(lines), room)]
}

func (m *topModel) title(t *topTheme) string {
	left := "crdt-genome top  " + printable(m.url)
	for _, s := range m.last.cluster.Actors {
		if s.Self {
			left += fmt.Sprintf("  actor %d", s.Actor)
		}
	}
	clock := m.last.at.Local().Format(time.TimeOnly)
	if m.paused {
		clock = "PAUSED at " + clock
	}
	left = cutTo(left, m.width-len(clock)-2)
	gap := strings.Repeat(" ", max(m.width-len([]rune(left))-len(clock), 1))
	if m.paused {
		return t.dim.Render(left) + gap + t.bold.Reverse(true).Render(clock)
	}
	return t.dim.Render(left + gap + clock)
}

// verdictLines are the word, the figures, and who lacks what.
func (m *topModel) verdictLines(t *topTheme) []string {
	c := m.last.cluster
	word, near, far := topVerdict(c)
	if age := m.stale(); age > 0 {
		reason := "it has not answered yet"
		if m.err != nil {
			reason = why(m.err)
		}
		return []string{
			t.chip[wordStale].Render(" "+wordStale+" "+ago(age)+" ") + cutTo("  last seen: "+strings.ToLower(word), m.width-16),
			cutTo(fmt.Sprintf("no answer from %s: %s; asked again every %v", printable(m.url), printable(reason), m.every), m.width),
		}
	}
	rest := ""
	if word == wordPartitioned {
		rest = fmt.Sprintf(" {%s} {%s}", actorNames(near, ","), actorNames(far, ","))
	}
	var genes int
	var digest string
	for _, s := range c.Actors {
		if s.Self {
			genes, digest = s.Genes, s.Digest
		}
	}
	rest += fmt.Sprintf("  %d of %d equal  %s %+.1f/s  %s", c.Equal, c.Of, plural(last(m.ops), "op"), rate(m.ops, m.times), plural(uint64(max(genes, 0)), "gene"))
	if word == wordConverged {
		rest += "  digest " + printable(digest)
	}
	used := len(word) + 2
	first := t.chip[word].Render(" " + word + " ")
	spark := "  worst lag " + sparkline(m.lag)
	if used+len([]rune(rest))+len([]rune(spark)) <= m.width {
		rest += spark
	}
	return append([]string{first + cutTo(rest, m.width-used)}, m.wrap(m.sentence(word))...)
}

// wrap breaks text into lines between words: two if the screen is high.
func (m *topModel) wrap(text string) []string {
	r := []rune(text)
	if len(r) <= m.width || m.height < 20 {
		return []string{cutTo(text, m.width)}
	}
	at := m.width
	for at > m.width/2 && r[at] != ' ' {
		at--
	}
	return []string{string(r[:at]), cutTo(strings.TrimPrefix(string(r[at:]), " "), m.width)}
}

// sentence says what is missing where, exactly.
func (m *topModel) sentence(word string) string {
	c := m.last.cluster
	if c.Fenced != "" {
		return "this actor mints nothing: " + printable(c.Fenced)
	}
	if parts := statusParts(c); len(parts) > 0 {
		return strings.Join(parts, "; ")
	}
	if word == wordConverged && c.Of == 1 {
		return "this actor is alone"
	}
	if word == wordConverged {
		return "all hold the same genes in the same order"
	}
	return "some ops are still on their way"
}

func (m *topModel) keyLine(t *topTheme) string {
	keys := "q quit  p pause  s sort  g genes  ←→ time  ? help"
	if m.paused {
		keys = strings.Replace(keys, "p pause", "p go on", 1)
	}
	if m.help {
		keys = "q quit  ? back"
	}
	return t.dim.Render(cutTo(keys, m.width))
}

// topHelp explains the screen.
var topHelp = []string{
	"q, Ctrl-C    quit",
	"p, Space     stop the screen, and go on",
	"s            those that lack most first, and back",
	"g            the first genes in hex, or all genes as marks",
	"← →          the genome one op ago, one op later",
	"PgUp PgDn    the same by a tenth of the log",
	"Home End     the beginning, the present",
	"?            this help, and back",
	"",
	"CONVERGED    all answer and hold the same",
	"BEHIND       all answer, ops are on their way",
	"PARTITIONED  {reached} {not reached}, and they differ",
	"UNREACHABLE  some do not answer; nothing is known to be missing",
	"DIVERGED     the same ops, other genes: a bug or damage",
	"STALE        this server does not answer: all shown is old",
	"a0 a1 …      ops by that author that the row lacks",
}

func (m *topModel) helpLines(room int) (lines []string) {
	for _, l := range topHelp[:min(len(topHelp), max(room, 0))] {
		lines = append(lines, cutTo(l, m.width))
	}
	return lines
}

// lastOps tells the newest ops that the server has, one a line, and whom they
// have not reached.
func (m *topModel) lastOps(t *topTheme, room int) []string {
	e := m.last.elements
	lsn := e.Pos
	title := "LAST OPS"
	if m.past {
		lsn, title = m.at, fmt.Sprintf("LAST OPS UP TO %s", thousands(m.at))
	}
	if e.Total > len(e.Author) {
		title += fmt.Sprintf(" (of the first %s elements)", thousands(uint64(len(e.Author))))
	}
	lines := []string{t.head.Render(cutTo(title, m.width))}
	n := newNames(e.VV)
	for _, op := range e.lastOps(lsn, room) {
		what := "delete"
		if op.insert {
			what = "insert"
		}
		text := fmt.Sprintf("%8s  %-9s %s %02x", thousands(op.lsn), n.dot(op.dot), what, op.val)
		style := t.plain
		var lack []genome.ActorID
		for _, s := range m.last.cluster.Actors {
			if known(s) && !s.VV.Includes(op.dot) && len(lack) < 16 {
				lack = append(lack, s.Actor)
			}
		}
		if len(lack) > 0 {
			text, style = text+"  not yet on "+actorNames(lack, " "), t.warn
		}
		lines = append(lines, style.Render(cutTo(text, m.width)))
	}
	return lines
}

// cutTo shortens plain text to a number of columns.
func cutTo(s string, width int) string {
	r := []rune(s)
	if len(r) <= width {
		return s
	}
	if width <= 0 {
		return ""
	}
	return string(r[:width-1]) + "…"
}

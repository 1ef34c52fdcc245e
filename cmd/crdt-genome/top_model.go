package main

import (
	"cmp"
	"context"
	"slices"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"

	"crdt-genome/genome"
	"crdt-genome/httpapi"
)

// topHistory is the number of looks that the little charts show.
const topHistory = 60

// topClock is how often the screen is drawn again without any news, so that
// ages go on.
const topClock = time.Second

// topTick is the message that the clock has moved.
type topTick time.Time

// A topModel is the state of the screen; bubbletea calls it from one goroutine.
type topModel struct {
	ctx   context.Context
	eye   *topEye
	url   string
	every time.Duration
	color bool // else authors are told by digits

	last    topLook // that succeeded
	err     error   // of the latest look, if it failed; last is older then
	now     time.Time
	ops     []uint64 // of all actors together, oldest first
	times   []time.Time
	lag     []uint64 // most ops that an actor lacked
	byActor map[genome.ActorID]*topTrack

	paused bool
	byLack bool // sorted by what is lacking, not by actor
	hex    bool // genes in hex, from the beginning, instead of all of them
	help   bool
	past   bool   // the genome as it was …
	at     uint64 // … after so many unit events of the server's log
	width  int
	height int
	dark   bool // the background of the terminal
}

// A topTrack is the history of one actor.
type topTrack struct{ ops, lacks []uint64 }

func newTopModel(ctx context.Context, eye *topEye, url string, every time.Duration, color bool) *topModel {
	return &topModel{ctx: ctx, eye: eye, url: url, every: every, color: color, byActor: map[genome.ActorID]*topTrack{},
		width: 80, height: 24, dark: true}
}

// take puts a look into the history.
func (m *topModel) take(l topLook) {
	m.now = l.at
	if m.err = l.err; l.err != nil {
		m.now = time.Now()
		return
	}
	m.last = l
	var worst uint64
	for _, s := range l.cluster.Actors {
		t := m.byActor[s.Actor]
		if t == nil {
			t = &topTrack{}
			m.byActor[s.Actor] = t
		}
		worst = max(worst, lacksOf(s))
		t.ops, t.lacks = keepLast(append(t.ops, s.Ops), topHistory), keepLast(append(t.lacks, lacksOf(s)), topHistory)
	}
	m.ops = keepLast(append(m.ops, allOf(l.cluster).Ops()), topHistory)
	m.times = keepLast(append(m.times, l.at), topHistory)
	m.lag = keepLast(append(m.lag, worst), topHistory)
}

// known reports whether anything was ever heard of an actor.
func known(s httpapi.ActorStatus) bool { return s.Self || s.Boot != "" || len(s.VV) > 0 }

// lacksOf is what an actor is known to lack.
func lacksOf(s httpapi.ActorStatus) uint64 {
	if !known(s) {
		return 0
	}
	return s.LacksOps
}

// allOf is what any actor is known to hold.
func allOf(c httpapi.ClusterReply) (all genome.Version) {
	for _, s := range c.Actors {
		all = all.Merge(s.VV)
	}
	return all
}

func keepLast[T any](s []T, n int) []T { return s[max(len(s)-n, 0):] }

func (m *topModel) Init() tea.Cmd {
	return tea.Batch(tea.RequestBackgroundColor, m.next(), tick())
}

func tick() tea.Cmd { return tea.Tick(topClock, func(t time.Time) tea.Msg { return topTick(t) }) }

// next looks again after a pause.
func (m *topModel) next() tea.Cmd {
	k := topKnown{m.last.elements, m.last.notUntil}
	return tea.Tick(m.every, func(time.Time) tea.Msg { return m.eye.look(m.ctx, k) })
}

func (m *topModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case topLook:
		if !m.paused {
			m.take(msg)
		}
		return m, m.next()
	case topTick:
		m.now = time.Time(msg)
		return m, tick()
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.BackgroundColorMsg:
		m.dark = msg.IsDark()
	case tea.ColorProfileMsg:
		m.color = m.color && msg.Profile > colorprofile.ASCII
	case tea.KeyPressMsg:
		return m, m.press(msg.String())
	}
	return m, nil
}

// press does what a key asks for.
func (m *topModel) press(key string) tea.Cmd {
	switch key {
	case "q", "ctrl+c":
		return tea.Quit
	case "esc":
		if !m.help {
			return tea.Quit
		}
		m.help = false
	case "ctrl+z":
		return tea.Suspend
	case "p", "space":
		m.paused = !m.paused
	case "s":
		m.byLack = !m.byLack
	case "g":
		m.hex = !m.hex
	case "?", "h":
		m.help = !m.help
	default:
		m.travel(key)
	}
	return nil
}

// travel moves the moment that is shown above the present.
func (m *topModel) travel(key string) {
	e := m.last.elements
	if e == nil {
		return
	}
	at := e.Pos
	if m.past {
		at = min(m.at, e.Pos)
	}
	step := max(e.Pos/10, 1)
	switch key {
	case "left":
		at -= min(at, 1)
	case "right":
		at++
	case "pgup":
		at -= min(at, step)
	case "pgdown":
		at += step
	case "home":
		at = 0
	case "end":
		at = e.Pos
	default:
		return
	}
	m.past, m.at = at < e.Pos, at
}

// sorted returns the actors in the order of the screen.
func (m *topModel) sorted() []httpapi.ActorStatus {
	actors := slices.Clone(m.last.cluster.Actors)
	if m.byLack {
		slices.SortStableFunc(actors, func(a, b httpapi.ActorStatus) int { return cmp.Compare(lacksOf(b), lacksOf(a)) })
	}
	return actors
}

// stale returns for how long the server has not answered, 0 if it does. An
// answer that takes its time is one after some looks only.
func (m *topModel) stale() time.Duration {
	age := m.now.Sub(m.last.at)
	if m.paused || m.err == nil && age < 2*m.every+3*time.Second {
		return 0
	}
	return max(age, time.Millisecond)
}

const (
	wordUnreachable = "UNREACHABLE"
	wordStale       = "STALE"
)

// topVerdict is the word over all, and who is reached and who is not where that
// divides them.
func topVerdict(c httpapi.ClusterReply) (word string, near, far []genome.ActorID) {
	lacking := false
	for _, s := range c.Actors {
		lacking = lacking || lacksOf(s) > 0
		if s.State == httpapi.StateUnreachable {
			far = append(far, s.Actor)
		} else {
			near = append(near, s.Actor)
		}
	}
	switch {
	case c.Verdict == httpapi.StateDiverged:
		word = wordDiverged
	case len(far) > 0 && lacking:
		word = wordPartitioned
	case len(far) > 0:
		word = wordUnreachable
	case c.Verdict == httpapi.VerdictConverged:
		word = wordConverged
	default:
		word = wordBehind
	}
	return word, near, far
}

func last(s []uint64) uint64 {
	if len(s) == 0 {
		return 0
	}
	return s[len(s)-1]
}

// rate is the number of ops a second over the history.
func rate(ops []uint64, times []time.Time) float64 {
	if len(ops) < 2 {
		return 0
	}
	seconds := times[len(times)-1].Sub(times[0]).Seconds()
	if seconds <= 0 {
		return 0
	}
	return (float64(ops[len(ops)-1]) - float64(ops[0])) / seconds
}

// steps returns how much a counter grew from look to look; where it fell, since
// an actor lost its disk, say, 0.
func steps(s []uint64) (out []uint64) {
	for i := 1; i < len(s); i++ {
		out = append(out, s[i]-min(s[i], s[i-1]))
	}
	return out
}

// sparkline draws values as bars of eight heights; 0 is the lowest.
func sparkline(values []uint64) string {
	bars := []rune("▁▂▃▄▅▆▇█")
	var most uint64
	for _, v := range values {
		most = max(most, v)
	}
	out := make([]rune, len(values))
	for i, v := range values {
		out[i] = bars[0]
		if v > 0 {
			out[i] = bars[1+int(float64(v)/float64(most)*float64(len(bars)-2))]
		}
	}
	return string(out)
}

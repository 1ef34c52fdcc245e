package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/lipgloss"
	"github.com/muesli/termenv"
	"github.com/spf13/cobra"

	"crdt-genome/genome"
	"crdt-genome/httpapi"
	"crdt-genome/httpapi/trust"
)

type topOptions struct {
	server string
	every  time.Duration
	once   bool
}

func newTopCmd(a *app) *cobra.Command {
	var o topOptions
	cmd := &cobra.Command{
		Use:   "top [SERVER]",
		Short: "The same table, live, in the terminal",
		Long: `Shows how one server sees itself and all others, again and again: the verdict,
what each actor lacks of whom, how fast ops come in, and the beginning of each
genome. Where the output is no terminal it prints the table of status once.`,
		Example: `  crdt-genome top
  crdt-genome top http://127.0.0.1:8002 --every 500ms
  crdt-genome top --once`,
		Args: wantArgs(0, 1, "at most one server"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				o.server = args[0]
			}
			return a.top(cmd.Context(), o)
		},
	}
	cmd.Flags().StringVar(&o.server, "server", defaultServer, "URL of any one actor")
	cmd.Flags().DurationVar(&o.every, "every", time.Second, "time between two looks")
	cmd.Flags().BoolVar(&o.once, "once", false, "print the table of status once")
	return cmd
}

func (a *app) top(ctx context.Context, o topOptions) error {
	if o.every <= 0 {
		return usageError("", "--every %v: must be above 0", o.every)
	}
	if o.once || a.opts.json || !a.isTerminal(a.stdout) {
		return a.status(ctx, a.serverURL(o.server))
	}
	url := a.serverURL(o.server)
	if !isURL(url) {
		return usageError("", "%s is not the URL of a server", url)
	}
	if !a.colored(a.stdout) {
		lipgloss.SetColorProfile(termenv.Ascii)
	}
	m := &topModel{ctx: ctx, trust: a.trust, url: url, every: o.every, timeout: a.opts.timeout}
	first := m.look()
	if first.err != nil {
		return serverError(url, first.err)
	}
	m.take(first)
	_, err := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(a.stdin), tea.WithOutput(a.stdout), tea.WithAltScreen(), tea.WithoutSignalHandler()).Run()
	if ctx.Err() != nil {
		return nil // Ctrl-C is how one leaves
	}
	return err
}

const (
	// topHistory is the number of looks that the little charts show.
	topHistory = 24
	// topGenomes is the number of actors whose genomes are fetched at each look.
	topGenomes = 16
)

// A topLook is what one look at the actors found.
type topLook struct {
	at      time.Time
	cluster httpapi.ClusterReply
	genomes map[genome.ActorID]string // hex; of those that answered
	err     error                     // the server did not
}

// A topModel is the state of the screen; bubbletea calls it from one goroutine.
type topModel struct {
	ctx            context.Context
	trust          *trust.Trust
	url            string
	every, timeout time.Duration

	last    topLook
	err     error    // of the latest look, if it failed; last is older then
	ops     []uint64 // of all actors together, oldest first
	times   []time.Time
	lag     []uint64 // most ops that an actor lacked
	byActor map[genome.ActorID][]uint64
	paused  bool
	byLack  bool // sorted by what is lacking, not by actor
	width   int
}

// look asks the server, and the actors that it knows for their genomes.
func (m *topModel) look() topLook {
	ctx, cancel := context.WithTimeout(m.ctx, m.timeout)
	defer cancel()
	l := topLook{at: time.Now(), genomes: map[genome.ActorID]string{}}
	if l.cluster, l.err = httpapi.NewTrustedClient(m.url, m.trust).Cluster(ctx); l.err != nil {
		return l
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, s := range l.cluster.Actors[:min(len(l.cluster.Actors), topGenomes)] {
		if s.State == httpapi.StateUnreachable {
			continue
		}
		wg.Go(func() {
			hex, err := httpapi.NewTrustedClient(s.URL, m.trust).Genome(ctx)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				l.genomes[s.Actor] = hex
			}
		})
	}
	wg.Wait()
	return l
}

// take puts a look into the history.
func (m *topModel) take(l topLook) {
	if m.err = l.err; l.err != nil {
		return
	}
	m.last = l
	var all genome.Version
	var worst uint64
	if m.byActor == nil {
		m.byActor = map[genome.ActorID][]uint64{}
	}
	for _, s := range l.cluster.Actors {
		all = all.Merge(s.VV)
		worst = max(worst, s.LacksOps)
		m.byActor[s.Actor] = keepLast(append(m.byActor[s.Actor], s.Ops), topHistory)
	}
	m.ops = keepLast(append(m.ops, all.Ops()), topHistory)
	m.times = keepLast(append(m.times, l.at), topHistory)
	m.lag = keepLast(append(m.lag, worst), topHistory)
}

func keepLast[T any](s []T, n int) []T { return s[max(len(s)-n, 0):] }

func (m *topModel) Init() tea.Cmd { return m.next() }

// next looks again after a pause.
func (m *topModel) next() tea.Cmd {
	return tea.Tick(m.every, func(time.Time) tea.Msg { return m.look() })
}

func (m *topModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case topLook:
		if !m.paused {
			m.take(msg)
		}
		return m, m.next()
	case tea.WindowSizeMsg:
		m.width = msg.Width
	case tea.KeyMsg:
		switch msg.String() {
		case "q", "esc", "ctrl+c":
			return m, tea.Quit
		case "p", " ":
			m.paused = !m.paused
		case "s":
			m.byLack = !m.byLack
		}
	}
	return m, nil
}

var stateStyles = map[string]lipgloss.Style{
	httpapi.StateEqual:       lipgloss.NewStyle().Foreground(lipgloss.Color("2")),
	httpapi.StateBehind:      lipgloss.NewStyle().Foreground(lipgloss.Color("3")),
	httpapi.StateUnreachable: lipgloss.NewStyle().Foreground(lipgloss.Color("3")),
	httpapi.StateDiverged:    lipgloss.NewStyle().Foreground(lipgloss.Color("1")).Bold(true),
	httpapi.VerdictConverged: lipgloss.NewStyle().Foreground(lipgloss.Color("2")).Bold(true),
}

func (m *topModel) View() string {
	c := m.last.cluster
	var b strings.Builder
	mode := ""
	if m.paused {
		mode = "   PAUSED"
	}
	fmt.Fprintf(&b, "crdt-genome top   %s · %s · %s   %s%s   q quit  p pause  s sort\n", m.url,
		plural(uint64(len(c.Actors)), "actor"), m.every, m.last.at.Local().Format(time.TimeOnly), mode)
	if m.err != nil {
		fmt.Fprintf(&b, "STALE since %s: %s\n", m.last.at.Local().Format(time.TimeOnly), why(m.err))
	} else {
		fmt.Fprintf(&b, "%s %d/%d   ops %s (%+.1f/s)   worst lag %s\n", stateStyles[c.Verdict].Render(strings.ToUpper(c.Verdict)), c.Equal, c.Of,
			thousands(last(m.ops)), rate(m.ops, m.times), sparkline(m.lag))
	}
	fmt.Fprintf(&b, "\n  %-4s %-11s %6s %-8s %-8s %-*s  GENOME\n", "A", "STATE", "LACKS", "OLDEST", "RTT", topHistory/2, "OPS")
	for _, s := range m.sorted() {
		b.WriteString(m.line(s))
	}
	b.WriteString("\n" + m.matrix())
	return m.clip(b.String())
}

func (m *topModel) sorted() []httpapi.ActorStatus {
	actors := slices.Clone(m.last.cluster.Actors)
	if m.byLack {
		slices.SortStableFunc(actors, func(a, b httpapi.ActorStatus) int { return int(b.LacksOps) - int(a.LacksOps) })
	}
	return actors
}

func (m *topModel) line(s httpapi.ActorStatus) string {
	oldest, rtt := ago(time.Duration(s.OldestMS)*time.Millisecond), "–"
	if s.State == httpapi.StateUnreachable {
		oldest = ago(time.Duration(s.SinceMS) * time.Millisecond)
	} else if s.RTTMS > 0 {
		rtt = fmt.Sprintf("%.1f ms", s.RTTMS)
	}
	if oldest == "" {
		oldest = "–"
	}
	strip := "not shown"
	if hex, ok := m.last.genomes[s.Actor]; ok {
		strip = spaced(hex, 24)
	} else if s.State == httpapi.StateUnreachable {
		strip = "–"
	}
	state := stateStyles[s.State].Render(fmt.Sprintf("%-11s", s.State))
	return fmt.Sprintf("  %-4d %s %6s %-8s %-8s %-*s  %s\n", s.Actor, state, thousands(s.LacksOps), oldest, rtt,
		topHistory/2, sparkline(keepLast(steps(m.byActor[s.Actor]), topHistory/2)), strip)
}

// matrix says how many ops of each author each actor lacks.
func (m *topModel) matrix() string {
	lacks := map[genome.ActorID]map[genome.ActorID]uint64{}
	var all genome.Version
	for _, s := range m.last.cluster.Actors {
		all = all.Merge(s.VV)
	}
	var b strings.Builder
	b.WriteString("LACKS by author ")
	for _, s := range m.last.cluster.Actors {
		fmt.Fprintf(&b, "%6d", s.Actor)
		lacks[s.Actor] = map[genome.ActorID]uint64{}
		for _, r := range s.VV.Lacks(all) {
			lacks[s.Actor][r.Replica.Actor()] += r.Len()
		}
	}
	for _, s := range m.last.cluster.Actors {
		fmt.Fprintf(&b, "\n%15d ", s.Actor)
		for _, author := range m.last.cluster.Actors {
			cell := "·"
			if n := lacks[s.Actor][author.Actor]; n > 0 {
				cell = fmt.Sprint(n)
			}
			fmt.Fprintf(&b, "%6s", cell)
		}
	}
	return b.String() + "\n"
}

// clip keeps lines within the width of the terminal, once that is known.
func (m *topModel) clip(text string) string {
	if m.width <= 0 {
		return text
	}
	return lipgloss.NewStyle().MaxWidth(m.width).Render(text)
}

// spaced writes the first n genes of a genome in hex with spaces between.
func spaced(hex string, n int) string {
	var out []string
	for i := 0; i+2 <= len(hex) && len(out) < n; i += 2 {
		out = append(out, hex[i:i+2])
	}
	if len(hex) > 2*n {
		out = append(out, "…")
	}
	return strings.Join(out, " ")
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

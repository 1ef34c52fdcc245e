//go:build linux

package netlab_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

// A matchLine is what a verification of one actor logged. The round that it
// tells of began after the line before it was logged, at since: rounds of one
// actor do not overlap.
type matchLine struct {
	Time                                        time.Time
	Message                                     string
	Actor, Peers, Behind, Unreachable, Diverged int
	MatchCount                                  int `json:"match_count"`
	Genes                                       int
	Digest                                      string

	since time.Time
}

// matchLines reads the lines of one actor's log, over all its runs.
func matchLines(log string) (lines []matchLine) {
	var since time.Time
	for text := range strings.Lines(log) {
		var l matchLine
		if !strings.Contains(text, `"match count"`) || json.Unmarshal([]byte(text), &l) != nil {
			continue // the last one may be cut off by a kill
		}
		l.since, since = since, l.Time
		lines = append(lines, l)
	}
	return lines
}

// A sample is what an actor showed of its genome, at some instant between
// asked and answered.
type sample struct {
	asked, answered time.Time
	genes           int
	digest          string
}

// A spell is a time during which two actors, or all and a dead one, could not
// exchange a word.
type spell struct {
	a, b     int
	from, to time.Time // to is zero while it lasts
}

// A ledger is what the test knows of all actors, so that it can tell whether
// what they log is true. All edits are insertions: a genome only grows, so who
// has shown fewer genes later, or more earlier, cannot have had that many in
// between.
type ledger struct {
	samples [][]sample // of each actor, in the order of time
	spells  []spell
}

// around returns the last sample that was over at from and the first one begun
// at to or later: what is between them has happened between these states.
func (g *ledger) around(actor int, from, to time.Time) (before, after sample) {
	after.genes = math.MaxInt
	for _, s := range g.samples[actor] {
		if !s.answered.After(from) {
			before = s
		}
		if !s.asked.Before(to) {
			return before, s
		}
	}
	return before, after
}

// apart reports whether a and b were apart from from to to, all the time.
func (g *ledger) apart(a, b int, from, to time.Time) bool {
	for _, s := range g.spells {
		pair := s.a == a && s.b == b || s.a == b && s.b == a
		if pair && !s.from.After(from) && (s.to.IsZero() || !s.to.Before(to)) {
			return true
		}
	}
	return false
}

// check returns what of a line cannot be true, "" if all may be.
func (g *ledger) check(l matchLine) string {
	to := l.Time.Add(time.Millisecond) // the log leaves fractions out
	silent, mayMatch, mayLag := 0, 0, 0
	for p := range g.samples {
		if p == l.Actor {
			continue
		}
		if g.apart(l.Actor, p, l.since, to) {
			silent++
			continue
		}
		before, after := g.around(p, l.since, to)
		if before.genes <= l.Genes && l.Genes <= after.genes {
			mayMatch++
		}
		if before.digest != l.Digest || after.digest != l.Digest {
			mayLag++
		}
	}
	switch {
	case l.Peers != len(g.samples)-1:
		return fmt.Sprintf("peers, want %d", len(g.samples)-1)
	case l.MatchCount+l.Behind+l.Unreachable+l.Diverged != l.Peers:
		return "the four numbers do not add up to the peers"
	case l.Diverged > 0:
		return "nobody has diverged"
	case l.Unreachable < silent:
		return fmt.Sprintf("%d peers could not be reached all that time", silent)
	case l.MatchCount > mayMatch:
		return fmt.Sprintf("only %d peers can have had that genome then", mayMatch)
	case l.Behind > mayLag:
		return fmt.Sprintf("only %d peers can have had another genome then", mayLag)
	}
	return ""
}

// TestTruth: the checker lets true lines pass, and finds each kind of lie.
func TestTruth(t *testing.T) {
	at := func(s int) time.Time { return time.Date(2026, 1, 1, 0, 0, s, 0, time.UTC) }
	grows := func(genes ...int) (all []sample) { // one sample a second, each a genome of its own length
		for i, k := range genes {
			all = append(all, sample{at(i), at(i), k, fmt.Sprint("d", k)})
		}
		return all
	}
	g := &ledger{
		samples: [][]sample{grows(1, 2, 3, 3, 3, 3), grows(1, 1, 1, 3, 3, 3), grows(2, 2, 2, 2, 2, 2)},
		spells:  []spell{{2, 0, at(1), at(4)}, {1, 2, at(3), time.Time{}}},
	}
	line := func(actor, since, when, genes, match, behind, unreachable, diverged int) matchLine {
		return matchLine{Time: at(when).Add(-time.Millisecond), since: at(since), Actor: actor, Peers: 2, Genes: genes, Digest: fmt.Sprint("d", genes),
			MatchCount: match, Behind: behind, Unreachable: unreachable, Diverged: diverged}
	}
	for _, c := range []struct {
		name string
		line matchLine
		want string
	}{
		{"both answered while 1 caught up", line(0, 2, 3, 3, 1, 0, 1, 0), ""},
		{"1 was still behind", line(0, 2, 3, 3, 0, 1, 1, 0), ""},
		{"2 does not answer, though it might", line(0, 0, 2, 2, 0, 1, 1, 0), ""},
		{"2 is behind, and was apart for a part of the time", line(0, 3, 5, 3, 1, 1, 0, 0), ""},
		{"nobody matches after a spell began that lasts", line(1, 4, 5, 3, 1, 0, 1, 0), ""},
		{"sum", line(0, 2, 3, 3, 1, 1, 1, 0), "add up"},
		{"diverged", line(0, 4, 5, 3, 1, 0, 0, 1), "diverged"},
		{"a match with a peer that is apart", line(0, 2, 3, 3, 2, 0, 0, 0), "could not be reached"},
		{"only behind a peer that is apart", line(0, 2, 3, 3, 1, 1, 0, 0), "could not be reached"},
		{"a match with a shorter one", line(0, 4, 5, 3, 2, 0, 0, 0), "only 1 peers can have had that genome"},
		{"a match with a longer one", line(2, 4, 5, 2, 1, 0, 1, 0), "only 0 peers can have had that genome"},
		{"behind, though equal", line(0, 4, 5, 3, 0, 2, 0, 0), "only 1 peers can have had another genome"},
	} {
		got := g.check(c.line)
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	log := `{"time":"2026-01-01T00:00:01Z","message":"match count","actor":1,"match_count":2,"peers":2,"genes":7,"digest":"d7"}
{"time":"2026-01-01T00:00:02Z","message":"something else"}
{"time":"2026-01-01T00:00:03Z","message":"match count","actor":1,"behind":2,"peers":2}
{"time":"2026-01-01T00:00:04Z","message":"match count","act`
	lines := matchLines(log)
	if len(lines) != 2 || lines[0].MatchCount != 2 || lines[0].Genes != 7 || lines[1].Behind != 2 || !lines[1].since.Equal(at(1)) || !lines[0].since.IsZero() {
		t.Errorf("lines read: %+v", lines)
	}
}

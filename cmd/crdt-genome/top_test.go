package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	tea "github.com/charmbracelet/bubbletea"

	"crdt-genome/genome"
	"crdt-genome/httpapi"
)

func TestTopScreen(t *testing.T) {
	r0, r1 := genome.ReplicaID(7), genome.ReplicaID(1<<32|9)
	full := genome.Version{}.With(genome.Dot{Replica: r0, Seq: 5}).With(genome.Dot{Replica: r1, Seq: 4})
	part := genome.Version{}.With(genome.Dot{Replica: r0, Seq: 5}).With(genome.Dot{Replica: r1, Seq: 1})
	look := func(state, verdict string, v genome.Version, lacks uint64, at int) topLook {
		return topLook{at: time.Unix(int64(at), 0), genomes: map[genome.ActorID]string{0: "2a7fc0", 1: "2a"},
			cluster: httpapi.ClusterReply{Verdict: verdict, Equal: 1, Of: 2, Actors: []httpapi.ActorStatus{
				{Actor: 0, State: "equal", VV: full, Ops: 9}, {Actor: 1, State: state, VV: v, Ops: v.Ops(), LacksOps: lacks}}}}
	}
	m := &topModel{url: "http://x", every: time.Second}
	m.take(look("behind", "behind", part, 3, 100))
	want := func(parts ...string) {
		t.Helper()
		for _, p := range parts {
			if !strings.Contains(m.View(), p) {
				t.Errorf("the screen has no %q:\n%s", p, m.View())
			}
		}
	}
	want("BEHIND 1/2   ops 9 (+0.0/s)   worst lag █", "2a 7f c0", "  1    behind           3", "              1      ·     3\n")
	m.Update(look("equal", "converged", full, 0, 102))
	want("CONVERGED 1/2", "worst lag █▁", "              1      ·     ·\n")

	// While it is paused nothing moves; afterwards it does.
	m.Update(tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune("p")})
	m.Update(look("behind", "behind", part, 3, 103))
	want("CONVERGED 1/2", "PAUSED")
	m.Update(tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune("p")})
	m.Update(look("behind", "behind", part, 3, 104))
	want("BEHIND 1/2")

	// The one that lacks most comes first when that is asked for.
	m.Update(tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune("s")})
	if s := m.View(); strings.Index(s, "\n  1    behind") > strings.Index(s, "\n  0    equal") {
		t.Errorf("not sorted by what is lacking:\n%s", s)
	}

	// A server that is gone leaves no verdict on the screen.
	m.Update(topLook{err: errors.New("connection refused")})
	want("STALE since ", "connection refused")
	if strings.Contains(m.View(), "CONVERGED") || strings.Contains(m.View(), "BEHIND") {
		t.Errorf("a verdict although the server is gone:\n%s", m.View())
	}
	if _, cmd := m.Update(tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune("q")}); cmd == nil || cmd() != tea.Quit() {
		t.Error("q does not quit")
	}
}

func TestSparkline(t *testing.T) {
	if got, want := sparkline([]uint64{0, 1, 7, 14}), "▁▂▅█"; got != want {
		t.Errorf("sparkline = %s, want %s", got, want)
	}
	if got := steps([]uint64{3, 5, 1}); len(got) != 2 || got[0] != 2 || got[1] != 0 {
		t.Errorf("steps = %v, want [2 0]", got)
	}
}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/color"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"

	"crdt-genome/genome"
	"crdt-genome/httpapi"
	"crdt-genome/httpapi/trust"
)

// sgr matches the sequences that set colours.
var sgr = regexp.MustCompile("\x1b\\[[0-9;:]*m")

// topTestLooks are three looks at two groups of actors that a cut divides, and
// then at their being one again.
func topTestLooks(t *testing.T) (cut, behind, healed topLook) {
	t.Helper()
	r := []genome.ReplicaID{7, 1<<32 | 9, 2<<32 | 4}
	at := func(seqs ...uint64) (v genome.Version) {
		for i, seq := range seqs {
			if seq > 0 {
				v = v.With(genome.Dot{Replica: r[i], Seq: seq})
			}
		}
		return v
	}
	full := at(5, 4, 2)
	// Nine insertions of which two are deleted, in the order of the list.
	reply := &httpapi.ElementsReply{Replica: r[0], Digest: 0xabc, Pos: 11, VV: full, Total: 9, Replicas: r,
		Author: []int{0, 1, 1, 0, 2, 0, 1, 0, 2}, Seq: []uint64{1, 1, 2, 2, 1, 3, 3, 4, 2}, LSN: []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9},
		Val:     "2a7fc00911223344f0",
		Deleted: httpapi.Deletions{Of: []int{1, 3}, Author: []int{0, 1}, Seq: []uint64{5, 4}, LSN: []uint64{10, 11}}}
	e, err := newTopElements(reply)
	if err != nil {
		t.Fatal(err)
	}
	status := func(actor genome.ActorID, state string, v genome.Version) httpapi.ActorStatus {
		s := httpapi.ActorStatus{Actor: actor, Self: actor == 0, State: state, VV: v, Ops: v.Ops(), Boot: "b", Genes: 7, Digest: "51c09e77aa10d3f2",
			LacksOps: countOps(v.Lacks(full)), RTTMS: 0.4 * float64(actor), LogBytes: 280 << 10, UptimeMS: 90_000}
		if state == httpapi.StateUnreachable {
			s.SinceMS, s.Error = 7600, `Get "http://127.0.0.1:8002/genome": link cut by hand`
		}
		if state == httpapi.StateBehind {
			s.OldestMS = 2100
		}
		return s
	}
	look := func(second, equal int, verdict string, actors ...httpapi.ActorStatus) topLook {
		return topLook{at: time.Date(2026, 11, 22, 22, 10, second, 0, time.Local), elements: e,
			cluster: httpapi.ClusterReply{Verdict: verdict, Equal: equal, Of: len(actors), Rounds: 9, Actors: actors}}
	}
	old := at(2, 1, 2)
	cut = look(5, 2, httpapi.StateUnreachable, status(0, "equal", full), status(1, "equal", full),
		status(2, "unreachable", old), status(3, "unreachable", old))
	behind = look(7, 3, "behind", status(0, "equal", full), status(1, "equal", full), status(2, "behind", at(5, 2, 2)), status(3, "equal", full))
	healed = look(9, 4, "converged", status(0, "equal", full), status(1, "equal", full), status(2, "equal", full), status(3, "equal", full))
	return cut, behind, healed
}

func newTestTop(color bool) *topModel {
	return newTopModel(context.Background(), nil, "http://127.0.0.1:8000", time.Second, color)
}

func press(m *topModel, keys ...string) {
	for _, k := range keys {
		msg := tea.KeyPressMsg{Code: rune(k[0]), Text: k}
		if code, ok := map[string]rune{"left": tea.KeyLeft, "right": tea.KeyRight, "pgup": tea.KeyPgUp, "home": tea.KeyHome, "end": tea.KeyEnd, "esc": tea.KeyEscape}[k]; ok {
			msg = tea.KeyPressMsg{Code: code}
		}
		m.Update(msg)
	}
}

// TestTopFrames compares whole screens with golden files: -update writes them
// anew. Each must fit the terminal, whatever its size.
func TestTopFrames(t *testing.T) {
	cut, behind, healed := topTestLooks(t)
	for _, c := range []struct {
		name          string
		width, height int
		color         bool
		do            func(m *topModel)
	}{
		{"cut-60x20", 60, 20, true, func(m *topModel) {}},
		{"cut-100x30", 100, 30, true, func(m *topModel) {}},
		{"cut-nocolor", 80, 24, false, func(m *topModel) {}},
		{"cut-hex", 80, 24, false, func(m *topModel) { press(m, "g") }},
		{"past", 80, 24, true, func(m *topModel) { press(m, "left", "left", "left") }},
		{"behind", 80, 24, true, func(m *topModel) { m.Update(behind) }},
		{"converged", 120, 30, true, func(m *topModel) { m.Update(behind); m.Update(healed) }},
		{"low", 80, 12, true, func(m *topModel) {}},
		{"narrow", 40, 16, true, func(m *topModel) {}},
		{"stale", 80, 24, true, func(m *topModel) {
			m.Update(topLook{err: errors.New("connection refused")})
			m.Update(topTick(cut.at.Add(12 * time.Second)))
		}},
		{"help", 80, 24, true, func(m *topModel) { press(m, "?") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newTestTop(c.color)
			m.Update(tea.WindowSizeMsg{Width: c.width, Height: c.height})
			m.Update(cut)
			c.do(m)
			frame := m.View().Content
			fits(t, frame, c.width, c.height)
			golden := filepath.Join("testdata", "top", c.name+".golden")
			got := []byte(sgr.ReplaceAllString(frame, "") + "\n")
			if *updateGolden {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("the screen is\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func fits(t *testing.T, frame string, width, height int) {
	t.Helper()
	lines := strings.Split(frame, "\n")
	if len(lines) > height {
		t.Errorf("%d lines on a screen of %d", len(lines), height)
	}
	for _, l := range lines {
		if n := utf8.RuneCountInString(sgr.ReplaceAllString(l, "")); n > width {
			t.Errorf("%d columns on a screen of %d: %s", n, width, l)
		}
	}
}

// TestTopFits tries sizes that nobody has thought of, with more actors than
// any screen has lines, and what a server may send to harm a terminal.
func TestTopFits(t *testing.T) {
	cut, _, _ := topTestLooks(t)
	for i := range 80 {
		s := cut.cluster.Actors[2]
		s.Actor, s.Error = genome.ActorID(100+i), "evil \x1b]0;title\x07 \x1b[2J"
		cut.cluster.Actors = append(cut.cluster.Actors, s)
	}
	cut.cluster.Actors[0].Digest = "\x1b[31m"
	for _, few := range []bool{true, false} {
		l := cut
		if few {
			l.cluster.Actors = l.cluster.Actors[:4]
		}
		for _, color := range []bool{true, false} {
			m := newTestTop(color)
			m.Update(l)
			for width := 1; width < 220; width += 7 {
				for height := 1; height < 60; height += 3 {
					m.Update(tea.WindowSizeMsg{Width: width, Height: height})
					frame := m.View().Content
					fits(t, frame, width, height)
					if i := strings.IndexFunc(sgr.ReplaceAllString(frame, ""), func(r rune) bool { return r < ' ' && r != '\n' }); i >= 0 {
						t.Fatalf("a control character on the screen: %q", frame)
					}
					press(m, []string{"g", "s", "left", "?", "p"}[(width+height)%5])
				}
			}
		}
	}
}

func TestTopKeys(t *testing.T) {
	cut, behind, healed := topTestLooks(t)
	m := newTestTop(true)
	m.Update(tea.WindowSizeMsg{Width: 120, Height: 30})
	has := func(parts ...string) {
		t.Helper()
		frame := sgr.ReplaceAllString(m.View().Content, "")
		for _, p := range parts {
			if !strings.Contains(frame, p) {
				t.Errorf("the screen has no %q:\n%s", p, frame)
			}
		}
	}
	m.Update(cut)
	has(" PARTITIONED  {0,1} {2,3}  2 of 4 equal", "actors 2, 3 unreachable for 7.6 s (link cut by hand), as far as known lacking 6 ops (0.3-5 1.2-4)")

	// While it is paused nothing moves; afterwards it does.
	press(m, "p")
	m.Update(healed)
	m.Update(topTick(cut.at.Add(time.Hour)))
	has("PAUSED", "PARTITIONED")
	press(m, "p")
	m.Update(behind)
	has(" BEHIND   3 of 4 equal", "actor 2 lacks 2 ops (1.3-4)")

	// The one that lacks most comes first when that is asked for.
	press(m, "s")
	if frame := m.View().Content; strings.Index(frame, "\n2      ") > strings.Index(frame, "\n0      ") {
		t.Errorf("not sorted by what is lacking:\n%s", frame)
	}
	press(m, "s")

	// Through the log and back.
	press(m, "home")
	has("@0 ", "LAST OPS UP TO 0")
	press(m, "right")
	has("@1 ", "LAST OPS UP TO 1", "  0.1       insert 2a")
	press(m, "end")
	if strings.Contains(m.View().Content, "@") {
		t.Error("the past is shown in the present")
	}

	// A server that is gone leaves no verdict on the screen, and comes back.
	m.Update(topLook{err: errors.New("connection refused")})
	m.Update(topTick(behind.at.Add(41 * time.Second)))
	has(" STALE 41 s ", "no answer from http://127.0.0.1:8000: connection refused; asked again every 1s")
	m.Update(healed)
	has(" CONVERGED   4 of 4 equal", "all hold the same genes in the same order")
	// One that takes very long is as good as gone.
	m.Update(topTick(healed.at.Add(9 * time.Second)))
	has(" STALE 9.0 s ", "it has not answered yet")

	// The colours that the terminal has.
	m.Update(tea.BackgroundColorMsg{Color: color.White})
	if m.dark {
		t.Error("a white background is dark")
	}
	m.Update(tea.ColorProfileMsg{Profile: colorprofile.ASCII})
	has("digit = author")

	press(m, "?")
	has("CONVERGED    all answer")
	press(m, "esc")
	if m.help {
		t.Error("Esc does not leave the help")
	}
	for _, msg := range []tea.KeyPressMsg{{Code: 'q', Text: "q"}, {Code: tea.KeyEscape}, {Code: 'c', Mod: tea.ModCtrl}} {
		if _, cmd := m.Update(msg); cmd == nil || cmd() != tea.Quit() {
			t.Errorf("%v does not quit", msg)
		}
	}
}

// TestTopElements: what a server sends is checked before it is used.
func TestTopElements(t *testing.T) {
	cut, _, _ := topTestLooks(t)
	for what, spoil := range map[string]func(r *httpapi.ElementsReply){
		"a column too short":  func(r *httpapi.ElementsReply) { r.Seq = r.Seq[1:] },
		"an author too high":  func(r *httpapi.ElementsReply) { r.Author = append([]int{3}, r.Author[1:]...) },
		"an author too low":   func(r *httpapi.ElementsReply) { r.Deleted.Author = []int{0, -1} },
		"a row too high":      func(r *httpapi.ElementsReply) { r.Deleted.Of = []int{0, 9} },
		"a row too low":       func(r *httpapi.ElementsReply) { r.Deleted.Of = []int{-1, 0} },
		"values that are not": func(r *httpapi.ElementsReply) { r.Val = "zz" + r.Val[2:] },
		"deletions too short": func(r *httpapi.ElementsReply) { r.Deleted.LSN = nil },
	} {
		r := *cut.elements.ElementsReply
		spoil(&r)
		if _, err := newTopElements(&r); err == nil {
			t.Errorf("%s is taken", what)
		}
	}
}

// TestTopToken: the token goes to the server that was named, never to the
// addresses in its answer.
func TestTopToken(t *testing.T) {
	const token = "a-token-of-some-length"
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	member, err := trust.Load(trust.Files{Token: path})
	if err != nil {
		t.Fatal(err)
	}
	var stray, asked atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { stray.Add(1) }))
	defer other.Close()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer "+token {
			asked.Add(1)
		}
		w.Header().Set("Genome-Protocol", "1")
		switch r.URL.Path {
		case "/v1/cluster":
			fmt.Fprintf(w, `{"verdict":"converged","equal":2,"of":2,"actors":[{"actor":0,"self":true,"state":"equal","url":%q},{"actor":1,"state":"equal","url":%q}]}`, other.URL, other.URL)
		default: // even so
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		}
	}))
	defer srv.Close()
	eye := &topEye{client: httpapi.NewTrustedClient(srv.URL, member), timeout: patience}
	l := eye.look(t.Context(), topKnown{})
	if l.err != nil || len(l.cluster.Actors) != 2 {
		t.Fatalf("look: %v %+v", l.err, l.cluster)
	}
	if asked.Load() != 2 {
		t.Errorf("the server got %d requests with the token, want 2", asked.Load())
	}
	if stray.Load() != 0 {
		t.Errorf("%d requests went to addresses that the server named", stray.Load())
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

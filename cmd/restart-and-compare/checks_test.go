package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"crdt-genome/cmd/internal/fleet"
	"crdt-genome/genome"
	"crdt-genome/httpapi"
	"crdt-genome/store"
)

// newDown returns an actor that does not run, with a log of three inserted
// genes and one delete, and a clerk that has noted all of it.
func newDown(t *testing.T) (*trial, *subject, *bytes.Buffer) {
	t.Helper()
	data := t.TempDir()
	a, err := store.Open(t.Context(), store.Config{Data: data})
	if err != nil {
		t.Fatal(err)
	}
	ins, err := a.Insert(t.Context(), 0, []byte{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	del, err := a.Delete(t.Context(), 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	state, err := a.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	c := &clerk{
		acks: []ack{{dot: ins[0].Dot, kind: genome.Insert, genes: []byte{1, 2, 3}}, {dot: del[0].Dot, kind: genome.Delete}},
		last: httpapi.DigestReply{Ops: state.Ops, State: state.Digest, VV: state.Version, At: time.Now()},
	}
	out := &bytes.Buffer{}
	tr := &trial{report: &report{out: out}, ids: ledger{}}
	return tr, &subject{Actor: &fleet.Actor{Dir: store.Dir(data, 0)}, clerk: c}, out
}

// examined returns what examine counts and prints.
func examined(t *testing.T, tr *trial, s *subject, out *bytes.Buffer) (failed int, text string) {
	t.Helper()
	if err := tr.examine(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	return tr.failed, out.String()
}

func TestExaminePassesASoundLog(t *testing.T) {
	tr, s, out := newDown(t)
	if failed, text := examined(t, tr, s, out); failed != 0 || tr.passed != 3 {
		t.Errorf("%d passed, %d failed, want 3 and 0:\n%s", tr.passed, failed, text)
	}
}

// TestExamineFinds breaks each promise and wants it named: a check that cannot
// fail proves nothing.
func TestExamineFinds(t *testing.T) {
	for _, c := range []struct {
		name, want string
		spoil      func(t *testing.T, tr *trial, s *subject)
	}{
		{"a lost op", "but not insert", func(t *testing.T, tr *trial, s *subject) {
			lost := s.clerk.acks[0]
			lost.dot.Seq += 100
			s.clerk.acks = append(s.clerk.acks, lost)
		}},
		{"a gene that changed", "but not insert", func(t *testing.T, tr *trial, s *subject) { s.clerk.acks[0].genes[2]++ }},
		{"a lost delete", "but not delete", func(t *testing.T, tr *trial, s *subject) { s.clerk.acks[1].dot.Seq++ }},
		{"a delete that became an insert", "but not delete", func(t *testing.T, tr *trial, s *subject) { s.clerk.acks[1].dot.Seq = 1 }},
		{"another digest", "FAIL a0 log gives the digest", func(t *testing.T, tr *trial, s *subject) { s.clerk.last.State++ }},
		{"a version that the log has not reached", "FAIL a0 log gives the digest", func(t *testing.T, tr *trial, s *subject) {
			vv := s.clerk.last.VV
			s.clerk.last.VV = vv.With(genome.Dot{Replica: vv[0].Replica, Seq: 99})
		}},
		{"an id with two contents", "other content under id", func(t *testing.T, tr *trial, s *subject) {
			tr.ids[genome.Dot{Replica: s.clerk.acks[0].dot.Replica, Seq: 2}] = genome.Event{Value: 9}
		}},
		{"a damaged file", "FAIL a0 log is sound", func(t *testing.T, tr *trial, s *subject) {
			path := filepath.Join(s.Dir, "log.db")
			if err := os.WriteFile(path, []byte("damaged beyond repair"), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			tr, s, out := newDown(t)
			c.spoil(t, tr, s)
			failed, text := examined(t, tr, s, out)
			if failed == 0 || !strings.Contains(text, c.want) {
				t.Errorf("%d failed, want some and %q:\n%s", failed, c.want, text)
			}
		})
	}
}

func TestForgetGivesUpOnlyWhatIsLost(t *testing.T) {
	_, s, _ := newDown(t)
	h, err := readFile(t.Context(), s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	s.clerk.acks = append(s.clerk.acks, ack{dot: genome.Dot{Replica: 1, Seq: 1}, kind: genome.Insert, genes: []byte{1}})
	if lost := s.clerk.forget(h); lost != 1 || len(s.clerk.acks) != 2 {
		t.Errorf("forget() = %d with %d acks left, want 1 and 2", lost, len(s.clerk.acks))
	}
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args string
		want int
	}{
		{"--help", 0},
		{"--count 1", exitUsage},
		{"--signal HUP", exitUsage},
		{"--wipe 3", exitUsage},
		{"--wipe 1 --copy-back 1", exitUsage},
		{"--rounds 0", exitUsage},
		{"--no-such-flag", exitUsage},
	} {
		if got := run(t.Context(), strings.Fields(c.args), io.Discard, io.Discard); got != c.want {
			t.Errorf("run(%s) = %d, want %d", c.args, got, c.want)
		}
	}
}

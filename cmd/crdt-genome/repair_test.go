package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crdt-genome/cmd/internal/fleet"
	"crdt-genome/genome"
)

// spoilOp damages the record of op d in the log of an actor that is stopped,
// beyond what can be corrected, in every place where it stands.
func spoilOp(t *testing.T, a *fleet.Actor, d genome.Dot) {
	t.Helper()
	lsn := uint64(0)
	for line := range strings.Lines(inspected(t, exitOK, a.Dir, "--json")) {
		var r struct {
			Seq uint64 `json:"seq"`
			Op  string `json:"op"`
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		if r.Op == d.String() {
			lsn = r.Seq
		}
	}
	path := filepath.Join(a.Dir, "log.db")
	log, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bad, n := bytes.Clone(log), 0
	values(log, func(v []byte) {
		first, events := binary.LittleEndian.Uint64(v[16:]), uint64(binary.LittleEndian.Uint32(v[8:]))
		if lsn < first || lsn >= first+events {
			return
		}
		if events > 1 {
			t.Fatalf("op %v shares its record with others", d)
		}
		for at := 0; ; at++ { // the value is of log: where is it?
			i := bytes.Index(bad[at:], v)
			if i < 0 {
				break
			}
			at += i
			bad[at+len(v)-3] ^= 0x55
			bad[at+len(v)-7] ^= 0xaa
			n++
		}
	})
	if n == 0 {
		t.Fatalf("op %v (%d) has no record", d, lsn)
	}
	if err := os.WriteFile(path, bad, 0o600); err != nil {
		t.Fatal(err)
	}
}

// rangeOf is how one event is named as a range.
func rangeOf(d genome.Dot) string {
	return genome.Range{Replica: d.Replica, From: d.Seq, To: d.Seq}.String()
}

// TestRepairFromPeers damages a record of an own op in the log of a stopped
// actor. Its peers hold that op: the start repairs the log, says so, and fetches
// the op back.
func TestRepairFromPeers(t *testing.T) {
	t.Parallel()
	f := newGroup(t, fleet.Config{Count: 3, Args: []string{"--no-mutate", "--verify-interval", "200ms", "--pull-interval", "500ms"}})
	start(t, f.Actors()...)
	var own genome.Dot
	for i := range 9 {
		d := edit(t, f.Actor(i%3))
		if i == 3 {
			own = d // of actor 0, with others after it
		}
		for _, a := range f.Actors() {
			waitOps(t, a, uint64(i+1))
		}
	}
	want := settle(t, f)
	stop(t, f.Actor(0))
	inspected(t, exitOK, "verify", f.Actor(0).Dir)
	spoilOp(t, f.Actor(0), own)

	// What is damaged is named, and who holds it.
	out := inspected(t, exitNo, "verify", f.Actor(0).Dir, "--peers", f.Actor(1).Addr+","+f.Actor(2).Addr)
	if !strings.Contains(out, "missing    "+rangeOf(own)+"  held by actor 1 2\n") || !strings.Contains(out, "DAMAGED ") {
		t.Errorf("verify says\n%s", out)
	}
	start(t, f.Actor(0))
	waitOps(t, f.Actor(0), 9)
	if got := settle(t, f); got.State != want.State || !got.VV.Equal(want.VV) {
		t.Errorf("state %v %v, was %v %v", got.State, got.VV, want.State, want.VV)
	}
	for _, message := range []string{"damage in the log", "log repaired", "what was missing after the repair is back"} {
		if !poll(func() bool { return len(logLines(t, f.Actor(0), message)) > 0 }) {
			t.Errorf("it does not say %q", message)
		}
	}
	if lines := logLines(t, f.Actor(0), "damage in the log"); len(lines) > 0 && !strings.Contains(fmt.Sprint(lines[0]["ops"]), rangeOf(own)) {
		t.Errorf("it says %v, want %s", lines[0], rangeOf(own))
	}
	if next := edit(t, f.Actor(0)); next.Replica == own.Replica {
		t.Errorf("%v is of the epoch of the damaged log", next)
	}
	settle(t, f)
	stop(t, f.Actor(0))
	inspected(t, exitOK, "verify", f.Actor(0).Dir)
	if !inLog(t, f.Actor(0), own) {
		t.Errorf("%v is not in the log", own)
	}
}

// TestRepairOfWhatNobodyHolds damages the record of an op that no peer has seen.
// The start refuses and names it; with --repair it goes on without, reports it
// as lost and is not ready, until --accept-loss gives it up.
func TestRepairOfWhatNobodyHolds(t *testing.T) {
	t.Parallel()
	f := newGroup(t, fleet.Config{Count: 2, Args: []string{"--no-mutate", "--verify-interval", "200ms", "--pull-interval", "500ms"}})
	start(t, f.Actors()...)
	edit(t, f.Actor(0))
	edit(t, f.Actor(1))
	want := settle(t, f)
	stop(t, f.Actor(1))
	own := edit(t, f.Actor(0))
	stop(t, f.Actor(0))
	spoilOp(t, f.Actor(0), own)
	start(t, f.Actor(1))
	out := inspected(t, exitNo, "verify", f.Actor(0).Dir, "--peers", f.Actor(1).Addr)
	if !strings.Contains(out, "missing    "+rangeOf(own)+"  held by nobody asked\n") {
		t.Errorf("verify says\n%s", out)
	}
	err := f.Actor(0).Start(t.Context())
	exit, ok := errors.AsType[*fleet.ExitError](err)
	if !ok || exit.Code != exitCorrupt {
		t.Fatalf("it starts: %v", err)
	}
	log, err := os.ReadFile(f.Actor(0).LogPath)
	if err != nil || !strings.Contains(string(log), "("+rangeOf(own)+") in ") || !strings.Contains(string(log), "no peer is known to hold") {
		t.Errorf("it says\n%s", log)
	}

	if err := f.Actor(0).Start(t.Context(), "--repair"); err != nil {
		t.Fatal(err)
	}
	if lines := logLines(t, f.Actor(0), "the log lacks ops since it was repaired"); len(lines) != 1 || !strings.Contains(fmt.Sprint(lines[0]["detail"]), rangeOf(own)) {
		t.Errorf("it says %v", lines)
	}
	ready := func() (code int, said string) {
		resp, err := http.Get(f.Actor(0).URL() + "/readyz")
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return 0, err.Error()
		}
		return resp.StatusCode, string(body)
	}
	if !poll(func() bool {
		code, said := ready()
		return code == http.StatusServiceUnavailable && strings.Contains(said, rangeOf(own))
	}) {
		code, said := ready()
		t.Errorf("readiness: %d %s", code, said)
	}
	stop(t, f.Actor(0))
	if err := f.Actor(0).Start(t.Context(), "--accept-loss"); err != nil {
		t.Fatal(err)
	}
	if got := settle(t, f); got.State != want.State {
		t.Errorf("state %v, want %v", got.State, want.State)
	}
	if next := edit(t, f.Actor(0)); next.Replica == own.Replica {
		t.Errorf("%v is of the epoch of the op that was lost", next)
	}
	stop(t, f.Actor(0))
	inspected(t, exitOK, "verify", f.Actor(0).Dir)
}

package httpapi

import (
	"testing"

	"crdt-genome/genome"
)

// Ops that somebody makes up for a later time are parked. When the true ones
// come, those hold, their sender is told nothing bad, and nothing is a fork.
func TestForgedFutureOpIsNoFork(t *testing.T) {
	n := alone(t, nil)
	g := stranger(t, "9@5f3c1a2b")
	other := stranger(t, "8@5f3c1a2b")
	first, second, third := insert(t, g, 0, 1), insert(t, g, 1, 2), insert(t, other, 0, 9)
	forged := second
	forged.Ref = third.Ref
	forged.Ref.Replica = third.Dot.Replica // hangs on a gene that is not there yet
	wantReply(t, post(t, n, jsonOps(t, forged)), 202, PostReply{Pending: 1, Missing: map[string]string{"9@5f3c1a2b": "1"}})
	for _, op := range []genome.Op{first, second, third} { // the forged one is looked at again after each
		wantReply(t, post(t, n, jsonOps(t, op)), 200, PostReply{Applied: 1})
	}
	if got := mustState(t, n).Hex; got != "090102" && got != "010209" {
		t.Errorf("genome %s, want the true one", got)
	}
	if c := n.Counts(); c.Rejected["dot_conflict"] != 0 || c.Forks != 0 {
		t.Errorf("the true ops look like a fork: %+v", c)
	}
	if s := n.actor.Stats(); s.Live.PendingOps != 0 {
		t.Errorf("%d ops are still parked", s.Live.PendingOps)
	}
}

// A forged op that is parked does not keep a true one with the same dot from
// being parked too: parking is by sender.
func TestForgedParkedOpDoesNotHideTrueOne(t *testing.T) {
	l := newLab(t, 2, nil)
	n := l.start(0)
	g := stranger(t, "9@5f3c1a2b")
	insert(t, g, 0, 1) // never sent: what follows must wait
	second := insert(t, g, 1, 2)
	forged := second
	forged.Ref.Gene, forged.Side = 0, genome.Left
	for i, sender := range [][]string{{"Content-Type", typeJSON}, {"Content-Type", typeJSON, headerActor, "1"}} {
		op := []genome.Op{forged, second}[i]
		if a := ask(t, n, "POST", "/genome", jsonOps(t, op), sender...); a.status != 202 {
			t.Fatalf("%d: %d %s", i, a.status, a.body)
		}
		if s := n.actor.Stats(); s.Live.PendingOps != i+1 {
			t.Errorf("%d ops are parked, want %d", s.Live.PendingOps, i+1)
		}
	}
}

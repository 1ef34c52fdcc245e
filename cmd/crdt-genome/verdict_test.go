package main

import (
	"errors"
	"strings"
	"testing"

	"crdt-genome/genome"
)

// TestWhoLacksWhat: a verdict names the ops that are missing, and tells those
// of whom the same is to be said together.
func TestWhoLacksWhat(t *testing.T) {
	r := []genome.ReplicaID{0<<32 | 7, 1<<32 | 9}
	at := func(a, b uint64) (v genome.Version) {
		return v.With(genome.Dot{Replica: r[0], Seq: a}).With(genome.Dot{Replica: r[1], Seq: b})
	}
	of := func(actor genome.ActorID, v genome.Version) member {
		return member{view: view{where: "w", actor: actor, version: v, digest: genome.Digest(v.Hash())}}
	}
	members := []member{of(0, at(9, 4)), of(1, at(9, 4)), of(2, at(3, 8)), of(3, at(9, 8)), {view: view{where: "http://x"}, err: errors.New("ask: no route")}}
	nameMembers(members)
	j := judge(members)
	if want := "actors 0, 1 lack 4 ops: 1.5-8; actor 2 lacks 6 ops: 0.4-9; http://x is unreachable (no route)"; strings.Join(j.lagged, "; ") != want {
		t.Errorf("lagged %q, want %q", strings.Join(j.lagged, "; "), want)
	}
	if want := "a2 lacks 6 (0.4-9)"; j.worst != want {
		t.Errorf("worst %q, want %q", j.worst, want)
	}
	if got, want := together([]string{"x.db", "actor 2"}, "is unreachable (gone)"), "x.db, actor 2 are unreachable (gone)"; got != want {
		t.Errorf("together: %q, want %q", got, want)
	}
}

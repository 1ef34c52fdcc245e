package store

import (
	"errors"
	"testing"

	"crdt-genome/genome"
)

// TestNotePeerAhead: a peer that shows more of this actor's replica than is
// held here, or another history of it, ends the epoch at once.
func TestNotePeerAhead(t *testing.T) {
	for _, c := range []struct {
		name           string
		change         func(h *genome.Head)
		rotated, waits bool
	}{
		{"the same", func(*genome.Head) {}, false, false},
		{"less, from before", func(h *genome.Head) { *h = genome.Head{Replica: h.Replica} }, false, false},
		{"more", func(h *genome.Head) { h.Seq++ }, true, true},
		{"another history", func(h *genome.Head) { h.Chain++ }, true, false},
		{"another actor's", func(h *genome.Head) { h.Replica, h.Seq = genome.NewReplicaID(9, 1), 99 }, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := Open(t.Context(), Config{Data: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			if _, err := a.Insert(t.Context(), 0, []byte("abc")); err != nil {
				t.Fatal(err)
			}
			old := a.Replica()
			heads := a.Heads()
			c.change(&heads[0])
			waits, err := a.NotePeer(t.Context(), heads)
			if err != nil {
				t.Fatal(err)
			}
			if rotated := a.Replica() != old; rotated != c.rotated || waits != c.waits {
				t.Errorf("rotated %t, fenced %t; want %t, %t", rotated, waits, c.rotated, c.waits)
			}
			if _, err := a.Insert(t.Context(), 0, []byte("d")); errors.Is(err, ErrFenced) != c.waits {
				t.Errorf("an edit then: %v", err)
			}
		})
	}
}

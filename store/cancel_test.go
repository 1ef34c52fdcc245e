package store

import (
	"context"
	"errors"
	"testing"

	"crdt-genome/genome"
)

// TestEditGivenUp gives edits up while the writer is at them. Whoever gave up
// is answered at once and reads nothing that the writer may still set (the race
// detector sees to that); what had begun is done whole, and the log goes on.
func TestEditGivenUp(t *testing.T) {
	a := mustOpen(t, t.TempDir(), 1, nil)
	const rounds = 200
	given := 0
	for range rounds {
		ctx, giveUp := context.WithCancel(context.Background())
		ops, err := a.Edit(ctx, func(*genome.Genome) (Edit, error) {
			giveUp()
			return Edit{Genes: []byte{7}}, nil
		})
		switch {
		case errors.Is(err, context.Canceled) && ops == nil:
			given++
		case err != nil || len(ops) != 1:
			t.Fatalf("%d ops, %v", len(ops), err)
		}
		giveUp()
	}
	if given == 0 {
		t.Error("no edit was given up in time: the test does not test")
	}
	if op := mustInsert(t, a, 0, 8); op.Dot.Seq != rounds+1 { // comes after all of them
		t.Errorf("%v after %d edits", op.Dot, rounds)
	}
}

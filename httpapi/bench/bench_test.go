package bench

import (
	"context"
	"testing"
	"time"
)

// The figures depend on the machine; that they come, and that all nodes end up
// equal, does not.
func TestFigures(t *testing.T) {
	edits, err := Edits(context.Background(), t.TempDir(), 3, 200, 200*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if edits[0].Value != 39 {
		t.Errorf("%v edits, want 3 × 13", edits[0].Value)
	}
	joiner, err := Joiner(context.Background(), t.TempDir(), 10_000)
	if err != nil {
		t.Fatal(err)
	}
	fleet, err := Fleet(context.Background(), t.TempDir(), 5, 200, 300*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if fleet[0].Value != 60 || fleet[len(fleet)-1].Value <= 0 {
		t.Errorf("%+v", fleet)
	}
	for _, f := range append(append(edits, joiner...), fleet...) {
		t.Log(f.String())
	}
	for _, f := range edits[1:9] {
		if f.Value <= 0 {
			t.Errorf("%+v", f)
		}
	}
	if joiner[1].Value <= 0 {
		t.Errorf("%+v", joiner)
	}
}

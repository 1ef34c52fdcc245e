package faults

import (
	"context"
	"testing"
)

// TestPowerCut must find nothing.
func TestPowerCut(t *testing.T) {
	res, err := Run(context.Background(), Plan{Seed: 1, Cuts: 150, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d cuts in %d lives, %d events acknowledged, %d lost", res.Cuts, res.Lives, res.Acked, res.Lost)
	if res.Failed > 0 || res.Passed != 150 || res.Acked == 0 || res.Lost+res.Reissued > 0 {
		t.Errorf("%d failed: %q", res.Failed, res.Problems)
	}
}

// TestPowerCutControl leaves the syncs out, which must be found.
func TestPowerCutControl(t *testing.T) {
	res, err := Run(context.Background(), Plan{Seed: 1, Cuts: 100, Dir: t.TempDir(), NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d of %d cuts failed, %d of %d events lost", res.Failed, res.Cuts, res.Lost, res.Acked)
	if res.Lost == 0 {
		t.Error("without syncs, nothing was lost: the lab sees nothing")
	}
}

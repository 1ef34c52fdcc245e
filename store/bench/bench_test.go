package bench

import (
	"context"
	"strings"
	"testing"
	"time"
)

// TestSmall runs every measurement with little to do: that they run to their
// end and find what they wrote. Nothing is said about speed here.
func TestSmall(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	runs := map[string]func() ([]Figure, error){
		"appends alone": func() ([]Figure, error) { return Appends(ctx, dir, 1, 50*time.Millisecond) },
		"appends":       func() ([]Figure, error) { return Appends(ctx, dir, 8, 50*time.Millisecond) },
		"batches":       func() ([]Figure, error) { return Batches(ctx, dir) },
		"random":        func() ([]Figure, error) { return Starts(ctx, dir, 20_000, false, func(_, _ uint64) {}) },
		"typing":        func() ([]Figure, error) { return Starts(ctx, dir, 20_000, true, func(_, _ uint64) {}) },
		"checkpoint":    func() ([]Figure, error) { return Checkpoint(ctx, dir, 1, 100*time.Millisecond) },
	}
	for name, run := range runs {
		t.Run(name, func(t *testing.T) {
			figures, err := run()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range figures {
				if !(f.Value > 0) || f.Name == "" || f.Group == "" {
					t.Errorf("%+v", f)
				}
			}
		})
	}
}

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		f    Figure
		want string
	}{
		{Figure{Value: 2}, ""},
		{Figure{Value: 2, Goal: 1}, "ok"}, {Figure{Value: 1, Goal: 2}, "missed"},
		{Figure{Value: 2, Goal: 1, Most: true}, "missed"}, {Figure{Value: 1, Goal: 2, Most: true}, "ok"},
	} {
		if got := c.f.Verdict(); got != c.want || !strings.HasSuffix(c.f.String(), c.want) {
			t.Errorf("%+v: verdict %q, want %q", c.f, got, c.want)
		}
	}
}

func TestQuantile(t *testing.T) {
	times := []time.Duration{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	if p, m := quantile(times, .5), quantile(times, .99); p != 5 || m != 10 || quantile(nil, .5) != 0 {
		t.Errorf("quantiles %v, %v", p, m)
	}
	if m := median([]float64{3, 1, 2}); m != 2 {
		t.Errorf("median = %v", m)
	}
}

package bench

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// A load is what all that is measured has in common.
type anyLoad interface {
	Run(context.Context) ([]Figure, error)
	Close() error
}

func small(ctx context.Context, dir string) map[string]func() (anyLoad, error) {
	return map[string]func() (anyLoad, error){
		"appends alone": func() (anyLoad, error) { return OpenAppends(ctx, dir, 1, 20*time.Millisecond) },
		"appends":       func() (anyLoad, error) { return OpenAppends(ctx, dir, 8, 20*time.Millisecond) },
		"batches":       func() (anyLoad, error) { return OpenBatches(ctx, dir) },
		"random":        func() (anyLoad, error) { return OpenStarts(ctx, dir, 20_000, false) },
		"typing":        func() (anyLoad, error) { return OpenStarts(ctx, dir, 20_000, true) },
		"checkpoint":    func() (anyLoad, error) { return OpenCheckpoints(ctx, dir, 1, 100*time.Millisecond) },
	}
}

// TestSmall runs every measurement twice with little to do: that they run to
// their end, find what they wrote, name the same figures each time, and leave
// nothing behind. Nothing is said about speed here.
func TestSmall(t *testing.T) {
	dir := t.TempDir()
	for name, open := range small(t.Context(), dir) {
		t.Run(name, func(t *testing.T) {
			l, err := open()
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for i := range 2 {
				figures, err := l.Run(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for j, f := range figures {
					if !(f.Value > 0) || f.Name == "" || f.Group == "" {
						t.Errorf("%+v", f)
					}
					key := f.Group + ": " + f.Name
					if i == 0 {
						names = append(names, key)
					} else if j >= len(names) || names[j] != key {
						t.Errorf("figure %d of the second run is %s, unlike %q", j, key, names)
					}
				}
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// TestInterrupted ends each measurement before its first run: what is closed
// then is sound, and gone.
func TestInterrupted(t *testing.T) {
	dir := t.TempDir()
	for name, open := range small(t.Context(), dir) {
		l, err := open()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := l.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: an interrupted run says %v", name, err)
		}
		if err := l.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestWrong wants a log noticed that has lost what was acknowledged, and a
// receiver that differs from the maker of its ops.
func TestWrong(t *testing.T) {
	a, err := OpenAppends(t.Context(), t.TempDir(), 2, 10*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.log.done++ // as if one more had been acknowledged
	if err := a.Close(); !errors.Is(err, ErrWrong) {
		t.Errorf("a lost append: %v, want ErrWrong", err)
	}
	b, err := OpenBatches(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.actor.Insert(t.Context(), 0, []byte{1}); err != nil { // that the maker knows nothing of
		t.Fatal(err)
	}
	if _, err := b.Run(t.Context()); !errors.Is(err, ErrWrong) {
		t.Errorf("another genome: %v, want ErrWrong", err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
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
}

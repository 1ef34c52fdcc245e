package ringsim

import (
	"context"
	"fmt"
	"testing"
	"time"

	"crdt-genome/store/figures"
)

func run(t *testing.T, cfg Config) *Result {
	t.Helper()
	start := time.Now()
	r, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v in %v\n%+v", cfg, time.Since(start).Round(time.Millisecond), *r)
	return r
}

// whole fails unless every member that is there holds everything, and all
// replicas are the same.
func whole(t *testing.T, r *Result) {
	t.Helper()
	if r.Delivered != 1 || r.Digest == 0 {
		t.Errorf("delivered: %v, digest of all replicas %v (0: they differ)", r.Delivered, r.Digest)
	}
}

// TestLoss: with a tenth of all messages lost, an edit is everywhere within a
// second, with few copies and few POSTs. The clock is simulated, so these are
// no measurements of the machine.
func TestLoss(t *testing.T) {
	cfg := Config{Members: figures.Size(t, "CRDT_GENOME_MEMBERS", 1000), Authors: 100, Edits: 500, Rate: 250, Loss: 0.1, Seed: 1}
	if cfg.Members > 1000 {
		cfg.Edits, cfg.Rate = 5000, 1000 // each of 10,000 edits every 10 s
	}
	r := run(t, cfg)
	whole(t, r)
	if r.P99 > time.Second || r.Posts > 40 || r.Copies > 3.5 {
		t.Errorf("all have an edit after %v at the 99th percentile, %.1f POST/s a member, %.2f copies; want ≤ 1s, 40, 3.5", r.P99, r.Posts, r.Copies)
	}
	what := fmt.Sprintf("of %d members, 10 %% loss, seed %d", cfg.Members, cfg.Seed)
	figures.Tell(t, "overlay-all-nodes-p99-ms %d %s", r.P99.Milliseconds(), what)
	figures.Tell(t, "overlay-delivered %.0f%% %s", 100*r.Delivered, what)
	figures.Tell(t, "overlay-posts-per-second %.1f a member, most %.1f, %s", r.Posts, r.PostsMost, what)
	figures.Tell(t, "overlay-copies %.2f %s", r.Copies, what)
}

// TestChurn: the same while members crash, leave and join.
func TestChurn(t *testing.T) {
	members := figures.Size(t, "CRDT_GENOME_MEMBERS", 400)
	k := max(4, members/100)
	cfg := Config{Members: members, Authors: 50, Edits: 600, Rate: 120, Loss: 0.1, Crash: k, Leave: k, Join: k, Seed: 2}
	r := run(t, cfg)
	whole(t, r)
	figures.Tell(t, "overlay-churn-delivered %.0f%% %d members, 10 %% loss, %d crash, leave and join each in 5 s, seed %d", 100*r.Delivered, members, k, cfg.Seed)
	figures.Tell(t, "overlay-churn-all-nodes-p99-ms %d", r.P99.Milliseconds())
}

// TestSame: the same Config gives the same Result, and another seed another.
func TestSame(t *testing.T) {
	cfg := Config{Members: 150, Authors: 10, Edits: 60, Rate: 60, Loss: 0.2, Crash: 3, Leave: 3, Join: 3, Seed: 3}
	one, two := run(t, cfg), run(t, cfg)
	whole(t, one)
	if *one != *two {
		t.Errorf("the same again:\n%+v\n%+v", *one, *two)
	}
	cfg.Seed++
	if other := run(t, cfg); *other == *one {
		t.Error("another seed makes no difference")
	}
}

// TestPull: with one neighbour each and a quarter of all messages lost, push
// leaves much out, and pull brings it: 44 % here. That takes half a minute of
// simulated time; with half of all lost, more than the two minutes that Run
// waits, since a call then fails three times of four.
func TestPull(t *testing.T) {
	r := run(t, Config{Members: 60, Authors: 5, Edits: 100, Rate: 50, Loss: 0.25, Fanout: 1, Seed: 4})
	whole(t, r)
	if r.Pulled < 0.2 {
		t.Errorf("only %v of it was pulled: the case is too easy", r.Pulled)
	}
}

func TestRefuses(t *testing.T) {
	good := Config{Members: 10, Authors: 2, Edits: 1, Rate: 1}
	for _, bad := range []func(*Config){
		func(c *Config) { c.Members = 1 }, func(c *Config) { c.Authors = 0 }, func(c *Config) { c.Crash = 9 }, func(c *Config) { c.Edits = 0 },
		func(c *Config) { c.Rate = 0 }, func(c *Config) { c.Loss = 1 }, func(c *Config) { c.Fanout = 1000 }, func(c *Config) { c.Join = -1 },
	} {
		c := good
		bad(&c)
		if _, err := Run(t.Context(), c); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, Config{Members: 200, Authors: 10, Edits: 1000, Rate: 100}); err == nil {
		t.Error("it goes on when it is no longer wanted")
	}
}

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"crdt-genome/httpapi/rings/ringsim"
	logbench "crdt-genome/store/bench"
)

// Goals of the overlay at 10,000 members.
const (
	goalAllNodes = 1000 // ms
	goalPosts    = 40   // a second and member
	goalCopies   = 3.5
)

// simulates is about what a simulation takes.
const simulates = 5 * time.Second

func newBenchRingsCmd(a *app) *cobra.Command {
	cfg := ringsim.Config{}
	var o benchOptions
	var long time.Duration
	cmd := &cobra.Command{
		Use:   "rings",
		Short: "Simulate the overlay of thousands of members",
		Long: `Simulates a group above 64 members, where each sends to six others and passes on
what it gets, on a network that loses messages, while members crash, leave and
join. The code that decides who sends what to whom is the one of serve; clock
and network are simulated, so the times say nothing of this machine, and the
same seed gives the same figures.`,
		Example: "  crdt-genome bench rings --members 10000 --loss 0.1\n  crdt-genome bench rings --members 1000 --crash 10 --leave 10 --join 10 --seed 7",
		Args:    wantArgs(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if long < 10*time.Millisecond || long > maxBenchTime {
				return usageError("", "--time %v: must be 10ms to %v", long, maxBenchTime)
			}
			cfg.Edits = max(1, int(cfg.Rate*long.Seconds()))
			cfg.Authors = min(cfg.Authors, cfg.Members)
			return a.benchNodes(cmd.Context(), "rings", o, ".", each(simulates, func(ctx context.Context) ([]logbench.Figure, error) {
				r, err := ringsim.Run(ctx, cfg)
				if err != nil && ctx.Err() == nil {
					err = usageError("", "bench rings: %v", err)
				}
				if err != nil {
					return nil, err
				}
				return ringFigures(&cfg, r), nil
			}))
		},
	}
	f := cmd.Flags()
	o.addFlags(f, 1)
	f.IntVar(&cfg.Members, "members", 1000, "members at the start")
	f.IntVar(&cfg.Authors, "authors", 100, "members that edit")
	f.Float64Var(&cfg.Rate, "rate", 1000, "edits a second in all")
	f.DurationVar(&long, "time", 5*time.Second, "how long they edit, of simulated time")
	f.Float64Var(&cfg.Loss, "loss", 0.1, "share of requests, and of answers, that are lost")
	f.IntVar(&cfg.Crash, "crash", 0, "members that crash meanwhile")
	f.IntVar(&cfg.Leave, "leave", 0, "members that leave meanwhile")
	f.IntVar(&cfg.Join, "join", 0, "members that join meanwhile")
	f.IntVar(&cfg.Fanout, "fanout", 0, "neighbours of each member (default 6)")
	f.Uint64Var(&cfg.Seed, "seed", 1, "repeats the same run")
	return cmd
}

func ringFigures(cfg *ringsim.Config, r *ringsim.Result) (figures []logbench.Figure) {
	group := fmt.Sprintf("%d simulated members, %.0f edits/s, %.0f %% loss, seed %d", cfg.Members, cfg.Rate, 100*cfg.Loss, cfg.Seed)
	if n := cfg.Crash + cfg.Leave + cfg.Join; n > 0 {
		group += fmt.Sprintf(", %d crash, %d leave, %d join", cfg.Crash, cfg.Leave, cfg.Join)
	}
	add := func(name string, value float64, unit string, goal float64, most bool) {
		figures = append(figures, logbench.Figure{Group: group, Name: name, Value: value, Unit: unit, Goal: goal, Most: most})
	}
	equal := 0.0
	if r.Digest != 0 {
		equal = 1
	}
	ms := func(d time.Duration) float64 { return d.Seconds() * 1000 }
	add("edits", float64(r.Edits), "ops", 0, false)
	add("delivered", 100*r.Delivered, "%", 100, false)
	add("of it by pull", 100*r.Pulled, "%", 0, false)
	add("replicas equal at the end", equal, "", 1, false)
	add("until all have it, p50", ms(r.P50), "ms", 0, false)
	add("until all have it, p99", ms(r.P99), "ms", goalAllNodes, true)
	add("until all have it, most", ms(r.Most), "ms", 0, false)
	add("copies to each member", r.Copies, "", goalCopies, true)
	add("POSTs a second of a member", r.Posts, "", goalPosts, true)
	add("… of that with the most", r.PostsMost, "", goalPosts, true)
	add("requests a second of a member", r.Requests, "", 0, false)
	return figures
}

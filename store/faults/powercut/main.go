// Command powercut cuts the power of an actor many times; see package faults.
// It exits 1 if anything was lost, or, with --no-sync, if nothing was.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"crdt-genome/store/faults"
)

func main() {
	cuts := flag.Int("cuts", 1000, "power cuts")
	seed := flag.Uint64("seed", 1, "repeats an earlier run's choices")
	noSync := flag.Bool("no-sync", false, "leave the syncs out: the control, which must lose")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, faults.Plan{Seed: *seed, Cuts: *cuts, NoSync: *noSync})
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "powercut:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, p faults.Plan) (err error) {
	if p.Dir, err = os.MkdirTemp("", "crdt-genome-powercut-*"); err != nil {
		return err
	}
	defer os.RemoveAll(p.Dir) // of no use any more
	start, told := time.Now(), time.Now()
	p.Progress = func(r faults.Result) {
		if time.Since(told) > 10*time.Second {
			told = time.Now()
			fmt.Printf("%d of %d cuts, %d lost\n", r.Cuts, p.Cuts, r.Lost)
		}
	}
	r, err := faults.Run(ctx, p)
	if err != nil {
		return err
	}
	for _, problem := range r.Problems {
		fmt.Println("not ok", problem)
	}
	fmt.Printf("seed %d: %d cuts in %d lives, %.0f cuts/s, %d events acknowledged, %d lost, %d ids reissued\n",
		p.Seed, r.Cuts, r.Lives, float64(r.Cuts)/time.Since(start).Seconds(), r.Acked, r.Lost, r.Reissued)
	fmt.Printf("figure: recorded-power-cuts %d seed %d, %d lost, %d ids reissued\n", r.Cuts, p.Seed, r.Lost, r.Reissued)
	fmt.Printf("%d passed, %d failed\n", r.Passed, r.Failed)
	switch {
	case p.NoSync && r.Failed == 0:
		return fmt.Errorf("without syncs nothing was lost: the lab sees nothing")
	case !p.NoSync && r.Failed > 0:
		return fmt.Errorf("%d cuts lost something", r.Failed)
	}
	return nil
}

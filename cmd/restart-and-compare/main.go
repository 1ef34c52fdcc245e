package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"crdt-genome/cmd/internal/fleet"
)

// Exit codes, as those of crdt-genome.
const (
	exitFailed   = 1 // a check failed
	exitUsage    = 64
	exitInternal = 70 // the checks could not be made
)

// maxActors bounds --count: all of them run on this machine.
const maxActors = 100

type options struct {
	count, rounds  int
	run, down      time.Duration // how long a round runs, and how long its victims stay down
	settle         time.Duration // bound on the wait for equality
	signal         syscall.Signal
	wipe, copyBack []int
	seed           uint64
	mutateMax      time.Duration
	data, binary   string
	args           []string // further ones of serve
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "error:", err)
		return exitUsage
	}
	made := o.data == ""
	if made {
		if o.data, err = os.MkdirTemp("", "restart-and-compare-"); err != nil {
			fmt.Fprintln(stderr, "error:", err)
			return exitInternal
		}
	}
	r := &report{out: stdout}
	err = tryAll(ctx, o, r)
	if err != nil {
		fmt.Fprintln(stderr, "error:", err)
	}
	switch {
	case err == nil && r.failed == 0 && made:
		_ = os.RemoveAll(o.data) // a folder of ours in the temporary directory
	case err != nil || r.failed > 0:
		fmt.Fprintf(stderr, "data and logs are kept in %s; the choices repeat with --seed %d\n", o.data, o.seed)
	}
	fmt.Fprintf(stdout, "%d passed, %d failed\n", r.passed, r.failed)
	switch {
	case r.failed > 0:
		return exitFailed
	case err != nil:
		return exitInternal
	}
	return 0
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	f := flag.NewFlagSet("restart-and-compare", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&o.count, "count", 3, "number of `actors`")
	f.IntVar(&o.rounds, "rounds", 3, "number of `rounds`")
	f.DurationVar(&o.run, "run", 5*time.Second, "longest `time` that a round runs before the kill; at least half of it")
	f.DurationVar(&o.down, "down", time.Second, "`time` that the killed actors stay down")
	f.DurationVar(&o.settle, "settle", 2*time.Minute, "`time` in which all must become equal")
	f.DurationVar(&o.mutateMax, "mutate-max", 200*time.Millisecond, "longest `pause` before an actor's own mutation")
	f.Uint64Var(&o.seed, "seed", rand.Uint64N(1e6), "`number` that repeats the choices; random if not given")
	f.StringVar(&o.data, "data", "", "`folder` for data and logs; default: a temporary one, kept if a check fails")
	f.StringVar(&o.binary, "binary", "", "`path` of crdt-genome; default: built from this module")
	name := f.String("signal", "KILL", "KILL or TERM")
	f.Func("wipe", "wipe the disk of this `actor` in every round; may be repeated", actorList(&o.wipe))
	f.Func("copy-back", "put an old copy of the disk of this `actor` back in every round; may be repeated", actorList(&o.copyBack))
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.args = f.Args()
	switch strings.TrimPrefix(strings.ToUpper(*name), "SIG") {
	case "KILL", "9":
		o.signal = syscall.SIGKILL
	case "TERM", "15":
		o.signal = syscall.SIGTERM
	default:
		return o, fmt.Errorf("--signal %s: must be KILL or TERM", *name)
	}
	return o, o.check()
}

// actorList appends what a flag gives: an actor number, or some with commas.
func actorList(list *[]int) func(string) error {
	return func(s string) error {
		for part := range strings.SplitSeq(s, ",") {
			n, err := strconv.Atoi(part)
			if err != nil {
				return fmt.Errorf("%q is not an actor number", part)
			}
			*list = append(*list, n)
		}
		return nil
	}
}

func (o *options) check() error {
	if o.count < 2 || o.count > maxActors {
		return fmt.Errorf("--count %d: must be 2..%d", o.count, maxActors)
	}
	if o.rounds < 1 || o.run <= 0 || o.down < 0 || o.settle <= 0 || o.mutateMax <= 0 {
		return errors.New("--rounds, --run, --settle and --mutate-max must be above 0")
	}
	for _, a := range slices.Concat(o.wipe, o.copyBack) {
		if a < 0 || a >= o.count {
			return fmt.Errorf("--wipe and --copy-back take actors 0..%d, not %d", o.count-1, a)
		}
	}
	for _, a := range o.wipe {
		if slices.Contains(o.copyBack, a) {
			return fmt.Errorf("actor %d cannot be wiped and copied back", a)
		}
	}
	return nil
}

// tryAll starts the actors and runs all rounds. Its error says that the checks
// could not be made; what they found is in r.
func tryAll(ctx context.Context, o options, r *report) (err error) {
	if o.binary == "" {
		if err := os.MkdirAll(o.data, 0o700); err != nil {
			return err
		}
		if o.binary, err = fleet.Build(ctx, o.data); err != nil {
			return err
		}
	}
	t, err := newTrial(o, r)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	if err := t.fleet.StartAll(ctx); err != nil {
		return err
	}
	for n := 1; n <= o.rounds; n++ {
		if err := t.round(ctx, n); err != nil {
			return fmt.Errorf("round %d: %w", n, err)
		}
	}
	return nil
}

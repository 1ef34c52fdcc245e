package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"crdt-genome/cmd/internal/fleet"
)

type runOptions struct {
	nodeOptions
	count   int
	base    int
	runFor  time.Duration
	ops     uint64
	settle  time.Duration
	every   time.Duration
	faults  string
	respawn bool
	endAll  bool
}

func newRunCmd(a *app) *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run",
		Short: "N actors on this machine at once, with a verdict at the end",
		Long: `Starts N actors as processes of their own, prints a line about them every few
seconds, and ends after --for, after --ops, or with Ctrl-C. It then stops the
mutations, waits until all are equal, for at most --settle, and stops the
actors. The last line is the verdict, and so is the exit code: CONVERGED (0) if
every actor answered and all hold the same ops and the same genome, BEHIND (2)
if one lacks ops or does not answer, DIVERGED (1) if two hold the same ops but
not the same genome. What actor N prints goes to DATA/actor-N.log.

` + faultsHelp,
		Example: `  crdt-genome run --count 3
  crdt-genome run --count 5 --for 20s --mutate-max 200ms
  crdt-genome run --count 5 --for 30s --faults 'pause 3 at 5s for 10s; kill 1 at 18s'`,
		Args: wantArgs(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a.stateDirectory(cmd.Flags(), &o.data)
			o.seeded = cmd.Flags().Changed("seed")
			return a.run(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.IntVarP(&o.count, "count", "c", 3, "number of actors")
	f.IntVarP(&o.base, "base", "b", 8000, "port of actor 0; actor N listens on base+N (0 = any free ports)")
	f.DurationVar(&o.runFor, "for", 0, "stop after this long (0 = at Ctrl-C)")
	f.Uint64Var(&o.ops, "ops", 0, "stop when there are this many ops in all (0 = never)")
	f.DurationVar(&o.settle, "settle", 30*time.Second, "at the end, wait at most this long until all are equal")
	f.DurationVar(&o.every, "every", 5*time.Second, "time between two lines")
	f.StringVar(&o.faults, "faults", "", "what to do to the actors; see above")
	f.BoolVar(&o.respawn, "respawn", false, "start an actor again that was killed by somebody else or failed")
	f.BoolVar(&o.endAll, "end-faults", true, "at the end, undo the faults that still last")
	o.nodeOptions.addFlags(f)
	return cmd
}

// maxRun is the number of processes that run starts: more do not make the
// picture clearer, and each asks all others.
const maxRun = 200

func (o *runOptions) checkRun() ([]fault, error) {
	switch {
	case o.count < 1 || o.count > maxRun:
		return nil, usageError("", "--count %d: must be 1..%d", o.count, maxRun)
	case o.base < 0 || o.base > 65535:
		return nil, usageError("", "--base %d: must be 0..65535", o.base)
	case o.base+o.count-1 > 65535:
		return nil, usageError("", "actor %d needs port %d: base %d + %d is above 65535", o.count-1, o.base+o.count-1, o.base, o.count-1)
	case o.runFor < 0:
		return nil, usageError("", "--for %v: must not be negative; 0 is until Ctrl-C", o.runFor)
	case o.settle < 0:
		return nil, usageError("", "--settle %v: must not be negative", o.settle)
	case o.every <= 0:
		return nil, usageError("", "--every %v: must be above 0", o.every)
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	return parseFaults(o.faults, o.count)
}

func (a *app) run(ctx context.Context, o runOptions) error {
	faults, err := o.checkRun()
	if err != nil {
		return err
	}
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	for _, f := range faults {
		o.chaos = o.chaos || f.kind == "cut"
	}
	if err := o.makeRoster(); err != nil {
		return err
	}
	f, err := fleet.New(fleet.Config{Binary: binary, Count: o.count, Data: o.data, Base: o.base, Args: append(o.args(), a.childArgs()...), Env: o.bus.env(), Trust: a.trust})
	if err != nil {
		return err
	}
	r := &runner{a: a, o: o, fleet: f, down: map[int]downtime{}, reported: map[int]error{}}
	err = r.run(ctx, faults)
	return errors.Join(err, f.Close())
}

// childArgs are the global flags that the actors get too. Their output is a
// file whatever ours is.
func (a *app) childArgs() []string {
	return append(a.trustArgs(), "--log-level", a.opts.logLevel, "--log-format", a.opts.logFormat, "--color", "never")
}

// startError shows what an actor said when it could not start, with its exit
// code, as if it had been started by hand.
func startError(err error) error {
	e, ok := errors.AsType[*fleet.ExitError](err)
	if !ok {
		return err
	}
	c := &cliError{exit: e.Code, code: "actor_failed", msg: fmt.Sprintf("actor %d: %s", e.Actor, e.Text), cause: err,
		hint: "its log says more: " + e.LogPath}
	if e.Code <= 0 {
		c.exit = exitInternal
	}
	if msg, hint, ok := cutHint(e.Text); ok {
		c.msg, c.hint = fmt.Sprintf("actor %d: %s", e.Actor, msg), hint
	}
	return c
}

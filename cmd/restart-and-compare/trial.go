package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"crdt-genome/cmd/internal/fleet"
	"crdt-genome/genome"
	"crdt-genome/httpapi"
)

// stopTimeout bounds a clean stop, which takes at most 3 s on an idle machine.
const stopTimeout = time.Minute

// settlePoll is the pause between two looks at whether all are equal.
const settlePoll = 50 * time.Millisecond

// A trial is a group of actors with their clerks, and all that is known of it.
type trial struct {
	*report
	o      options
	rng    *rand.Rand // of the round's choices; each clerk has its own
	fleet  *fleet.Fleet
	actors []*subject
	ids    ledger
	reused int // ids found with two contents

	stopClerks context.CancelFunc
	clerks     sync.WaitGroup
}

// A subject is an actor on trial.
type subject struct {
	*fleet.Actor
	client *httpapi.Client
	clerk  *clerk
	backup string // of its folder, to be put back; empty: none
	robbed bool   // its disk has lost something in this round
}

func (s *subject) String() string { return fmt.Sprintf("a%d", s.Index) }

func newTrial(o options, r *report) (*trial, error) {
	f, err := fleet.New(fleet.Config{Binary: o.binary, Count: o.count, Data: o.data,
		Args: append([]string{"--mutate-max", o.mutateMax.String(), "--pull-interval", "1s", "--log-level", "info"}, o.args...)})
	if err != nil {
		return nil, err
	}
	t := &trial{report: r, o: o, rng: rand.New(rand.NewPCG(o.seed, 0)), fleet: f, ids: ledger{}}
	for i, a := range f.Actors() {
		c := a.Client()
		t.actors = append(t.actors, &subject{Actor: a, client: c, clerk: newClerk(c, i, rand.New(rand.NewPCG(o.seed, uint64(i)+1)))})
	}
	return t, nil
}

func (t *trial) close() error {
	t.rest()
	return t.fleet.Close()
}

// labour sends the clerks to work; rest calls them back and waits for them.
func (t *trial) labour(ctx context.Context) {
	ctx, t.stopClerks = context.WithCancel(ctx)
	for _, s := range t.actors {
		t.clerks.Go(func() { s.clerk.work(ctx) })
	}
}

func (t *trial) rest() {
	if t.stopClerks != nil {
		t.stopClerks()
		t.clerks.Wait()
	}
}

// choose returns the victims of a round: those whose disk is to be changed, and
// some others, but never all.
func (t *trial) choose() (victims []*subject) {
	named := slices.Concat(t.o.wipe, t.o.copyBack)
	some := 1 + t.rng.IntN(max(1, t.o.count/2))
	for _, i := range t.rng.Perm(t.o.count) {
		if slices.Contains(named, i) || len(victims) < some && len(victims) < t.o.count-1-len(named) {
			victims = append(victims, t.actors[i])
		}
	}
	return victims
}

// round runs, kills, examines, restarts and compares.
func (t *trial) round(ctx context.Context, n int) error {
	if err := t.keepCopies(ctx); err != nil {
		return err
	}
	victims := t.choose()
	run := t.o.run/2 + time.Duration(t.rng.Int64N(int64(t.o.run/2)+1))
	t.note("round %d  run %v · kill -%s %s · %v later restart · wait for equality",
		n, run.Round(time.Millisecond), strings.TrimPrefix(signalName(t.o.signal), "SIG"), names(victims), t.o.down)
	t.labour(ctx)
	if err := pause(ctx, run); err != nil {
		return err
	}
	for _, v := range victims {
		if err := t.stop(ctx, v); err != nil {
			return err
		}
	}
	if err := pause(ctx, t.o.down); err != nil {
		return err
	}
	before, err := t.versions(ctx, victims)
	if err != nil {
		return err
	}
	for _, v := range victims {
		if err := t.examine(ctx, v); err != nil {
			return err
		}
		if err := t.harm(v); err != nil {
			return err
		}
		if err := v.Start(ctx); err != nil {
			return err
		}
	}
	t.rest()
	return t.compare(ctx, before)
}

func signalName(s syscall.Signal) string {
	if s == syscall.SIGTERM {
		return "SIGTERM"
	}
	return "SIGKILL"
}

func names(subjects []*subject) string {
	var out []string
	for _, s := range subjects {
		out = append(out, s.String())
	}
	return strings.Join(out, " ")
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stop ends an actor by the signal asked for. One that is asked to stop must do
// so cleanly.
func (t *trial) stop(ctx context.Context, s *subject) error {
	if t.o.signal == syscall.SIGKILL {
		return s.Kill()
	}
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	err := s.Stop(ctx)
	t.check(err == nil, "%v stops cleanly%s", s, because(err))
	return nil
}

// because appends an error to a sentence.
func because(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}

// keepCopies copies the folders that are to be put back, each while its actor
// is down, so that the copy is a whole one.
func (t *trial) keepCopies(ctx context.Context) error {
	for _, i := range t.o.copyBack {
		s := t.actors[i]
		if err := t.stop(ctx, s); err != nil {
			return err
		}
		s.backup = filepath.Join(t.o.data, fmt.Sprintf("copy-%d", i))
		if err := errors.Join(os.RemoveAll(s.backup), os.CopyFS(s.backup, os.DirFS(s.Dir))); err != nil {
			return err
		}
		if err := s.Start(ctx); err != nil {
			return err
		}
	}
	return nil
}

// harm wipes the disk of an actor that is down, or puts an old copy back.
func (t *trial) harm(s *subject) error {
	wipe := slices.Contains(t.o.wipe, s.Index)
	s.robbed = wipe || s.backup != ""
	if !s.robbed {
		return nil
	}
	if err := os.RemoveAll(s.Dir); err != nil {
		return err
	}
	if wipe {
		t.note("     %v: disk wiped", s)
		return nil
	}
	t.note("     %v: disk put back as it was before the round", s)
	return os.CopyFS(s.Dir, os.DirFS(s.backup))
}

// versions returns what each actor that is up holds; nil for the others.
func (t *trial) versions(ctx context.Context, down []*subject) ([]genome.Version, error) {
	vs := make([]genome.Version, len(t.actors))
	for i, s := range t.actors {
		if slices.Contains(down, s) {
			continue
		}
		d, err := s.client.Digest(ctx)
		if err != nil {
			return nil, fmt.Errorf("%v, which nobody has killed: %w", s, err)
		}
		vs[i] = d.VV
	}
	return vs, nil
}

// examine checks the log of an actor that is down. Its error says that the
// check could not be made.
func (t *trial) examine(ctx context.Context, s *subject) error {
	acks, shown := s.clerk.noted()
	h, err := readFile(ctx, s.Dir)
	if err != nil {
		t.check(false, "%v log is sound: %v", s, err)
		return nil
	}
	missing, first := absent(acks, h)
	t.check(missing == 0, "%v log holds every op it acknowledged (%d)%s", s, len(acks), first)
	t.checkIDs(s, h)

	if shown.At.IsZero() {
		t.note("     %v had shown nothing yet", s)
		return nil
	}
	g, err := h.replay(&shown.VV)
	ok := err == nil && g.Version().Equal(shown.VV) && g.Digest() == shown.State
	t.check(ok, "%v log gives the digest %v that was shown before the stop (%d ops)%s", s, shown.State, shown.Ops, because(err))

	state, err := rebuild(ctx, s.Dir, genome.ActorID(s.Index))
	ok = err == nil && state.Version.Equal(h.version) && state.Digest == h.digest
	t.check(ok, "%v rebuilds digest %v from its log: what it had shown, and %d ops more%s", s, h.digest, h.version.Ops()-shown.Ops, because(err))
	return nil
}

// absent counts the acknowledged ops that a log does not hold, and names one.
func absent(acks []ack, h *history) (n int, first string) {
	for _, a := range acks {
		if !a.in(h.events) {
			if n == 0 {
				first = fmt.Sprintf("; but not %v %v %x", a.kind, a.dot, a.genes)
			}
			n++
		}
	}
	return n, first
}

// checkIDs counts only what is wrong: the good case is told once a round.
func (t *trial) checkIDs(s *subject, h *history) {
	if bad, ok := t.ids.add(h); !ok {
		t.reused++
		t.check(false, "%v log has other content under id %v than was seen before", s, bad)
	}
}

// compare waits until all are equal, and checks that nothing is missing.
func (t *trial) compare(ctx context.Context, before []genome.Version) error {
	for _, s := range t.actors {
		if err := s.client.Mutator(ctx, true); err != nil {
			return fmt.Errorf("pause %v: %w", s, err)
		}
	}
	if err := t.settle(ctx); err != nil {
		return err
	}
	for i, s := range t.actors {
		if err := t.whole(ctx, s, before[i]); err != nil {
			return err
		}
	}
	t.check(t.reused == 0, "no id has stood for two contents so far (%d ids)", len(t.ids))
	for _, s := range t.actors {
		if err := s.client.Mutator(ctx, false); err != nil {
			return fmt.Errorf("resume %v: %w", s, err)
		}
	}
	return nil
}

// settle waits until all actors show the same ops and the same genome.
func (t *trial) settle(ctx context.Context) error {
	start := time.Now()
	for {
		equal, of, ops, err := t.equal(ctx)
		took := time.Since(start)
		if err == nil && equal == of {
			t.check(true, "%d of %d equal after %.1f s, %d ops", equal, of, took.Seconds(), ops)
			return nil
		}
		if took > t.o.settle {
			t.check(false, "%d of %d equal after %.1f s, %d ops%s", equal, of, took.Seconds(), ops, because(err))
			return nil
		}
		if err := pause(ctx, settlePoll); err != nil {
			return err
		}
	}
}

// equal counts the actors that hold what the first one holds.
func (t *trial) equal(ctx context.Context) (equal, of int, ops uint64, err error) {
	var first httpapi.DigestReply
	for i, s := range t.actors {
		d, err := s.client.Digest(ctx)
		if err != nil {
			return equal, len(t.actors), ops, err
		}
		if i == 0 {
			first = d
		}
		if d.State == first.State && d.VV.Equal(first.VV) {
			equal++
		}
	}
	return equal, len(t.actors), first.Ops, nil
}

// whole checks that an actor's log holds what everybody acknowledged and what
// this one held before, and that what it shows is what its log gives.
func (t *trial) whole(ctx context.Context, s *subject, before genome.Version) error {
	h, err := readHistory(s.client.Records(ctx, 1, false))
	if err != nil {
		t.check(false, "%v log is sound: %v", s, err)
		return nil
	}
	t.checkIDs(s, h)
	for _, other := range t.actors {
		if other.robbed {
			if lost := other.clerk.forget(h); lost > 0 {
				t.note("     %v: %d acknowledged ops were on its disk only, and are gone with it", other, lost)
			}
			other.robbed = false
		}
	}
	missing, all, first := 0, 0, ""
	for _, other := range t.actors {
		acks, _ := other.clerk.noted()
		n, f := absent(acks, h)
		all += len(acks)
		if missing += n; n > 0 && first == "" {
			first = f
		}
	}
	t.check(missing == 0, "%v log holds every op that any actor acknowledged (%d)%s", s, all, first)
	d, err := s.client.Digest(ctx)
	if err != nil {
		return err
	}
	t.check(d.State == h.digest && d.VV.Equal(h.version), "%v shows the digest that its log gives", s)
	t.check(h.version.Covers(before), "%v has forgotten nothing", s)
	return nil
}

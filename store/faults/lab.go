package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"

	"crdt-genome/genome"
	"crdt-genome/store"
)

// A Plan says what Run does.
type Plan struct {
	Seed   uint64
	Cuts   int
	Dir    string // to work in; empty at the beginning
	NoSync bool   // the control: leave the syncs out

	Progress func(Result) // called after each life; may be nil
}

// A Result counts.
type Result struct {
	Cuts, Passed, Failed int
	Lives                int
	Acked                int // events acknowledged before a cut, over all cuts
	Lost                 int // of these, not there after it
	Reissued             int // ids given out twice
	Problems             []string
}

// maxProblems bounds what a Result tells of failures.
const maxProblems = 20

// cutsPerLife is how many cuts are tried of one life, before the last of them
// becomes the past of the next.
const cutsPerLife = 25

// maxLives is after how many lives a new log is begun: each cut reads all of it,
// so that with long logs nearly all of the time goes into reading.
const maxLives = 40

// actorID is whose log the lab works on.
const actorID = 1

// Run lets an actor live, cuts its power at random moments and checks what is
// left. The error is of the lab itself; what the actor does wrong is counted.
func Run(ctx context.Context, p Plan) (Result, error) {
	l := &lab{plan: p, rng: rand.New(rand.NewPCG(p.Seed, 0)), issued: map[genome.Dot]genome.Event{}}
	if err := l.begin(ctx); err != nil {
		return l.res, err
	}
	for l.res.Cuts < p.Cuts {
		if l.res.Lives%maxLives == 0 && l.res.Lives > 0 {
			if err := l.begin(ctx); err != nil {
				return l.res, err
			}
		}
		if err := l.life(ctx); err != nil {
			return l.res, err
		}
		if p.Progress != nil {
			p.Progress(l.res)
		}
		if p.NoSync && l.res.Failed > 0 {
			break // the log of the next life would be a ruin
		}
	}
	return l.res, l.other.Close()
}

// A lab is one Run.
type lab struct {
	plan   Plan
	rng    *rand.Rand
	res    Result
	other  *store.Actor // sends ops
	past   []byte       // the log that the next life begins with
	issued map[genome.Dot]genome.Event
}

func (l *lab) dir(name string) string { return filepath.Join(l.plan.Dir, name) }

// begin makes the first log, and another actor that sends ops to it.
func (l *lab) begin(ctx context.Context) error {
	if l.other != nil {
		if err := l.other.Close(); err != nil {
			return err
		}
	}
	for _, name := range []string{"first", "other"} {
		if err := os.RemoveAll(l.dir(name)); err != nil {
			return err
		}
	}
	a, err := store.Open(ctx, store.Config{Data: l.dir("first"), Actor: actorID})
	if err != nil {
		return err
	}
	if err := a.Close(); err != nil {
		return err
	}
	if l.past, err = os.ReadFile(logPath(l.dir("first"))); err != nil {
		return err
	}
	l.other, err = store.Open(ctx, store.Config{Data: l.dir("other"), Actor: actorID + 1})
	return err
}

func logPath(data string) string { return filepath.Join(store.Dir(data, actorID), "log.db") }

// place makes a folder with this log and nothing else.
func (l *lab) place(name string, log []byte) (data string, err error) {
	data = l.dir(name)
	if err := os.RemoveAll(data); err != nil {
		return "", err
	}
	if err := os.MkdirAll(store.Dir(data, actorID), 0o700); err != nil {
		return "", err
	}
	return data, os.WriteFile(logPath(data), log, 0o600)
}

// life runs an actor under a recorder and cuts its power.
func (l *lab) life(ctx context.Context) error {
	data, err := l.place("life", l.past)
	if err != nil {
		return err
	}
	rec := NewRecorder(l.past)
	rec.NoSync = l.plan.NoSync
	a, err := store.Open(ctx, store.Config{Data: data, Actor: actorID, Opened: rec.Attach, Repair: store.RepairNever, CheckpointEvery: 1500})
	if err != nil {
		return fmt.Errorf("a life begins: %w", err)
	}
	l.res.Lives++
	for range 3 + l.rng.IntN(12) {
		if err := l.step(ctx, a, rec); err != nil {
			_ = a.Close() // the error before matters
			return err
		}
	}
	n := rec.Len()
	if err := a.Close(); err != nil {
		return err
	}
	next := l.past
	for range min(cutsPerLife, l.plan.Cuts-l.res.Cuts) {
		file, acked := rec.Cut(l.rng.IntN(n+1), l.rng)
		ok, err := l.check(ctx, file, acked)
		if err != nil {
			return err
		}
		if ok {
			next = file
		}
	}
	l.past = next
	return nil
}

// step has the actor acknowledge something: an edit, many at once, or ops of
// another actor, now and then enough to fill a segment.
func (l *lab) step(ctx context.Context, a *store.Actor, rec *Recorder) error {
	switch l.rng.IntN(5) {
	case 0:
		return l.receive(ctx, a, rec)
	case 1:
		seeds := make([]uint64, 2+l.rng.IntN(30))
		for i := range seeds {
			seeds[i] = l.rng.Uint64()
		}
		return l.edits(ctx, a, rec, seeds)
	}
	return l.edits(ctx, a, rec, []uint64{l.rng.Uint64()})
}

// edits makes edits at once, one for each seed.
func (l *lab) edits(ctx context.Context, a *store.Actor, rec *Recorder, seeds []uint64) error {
	var group sync.WaitGroup
	made := make([][]genome.Op, len(seeds))
	errs := make([]error, len(seeds))
	for i, seed := range seeds {
		group.Go(func() {
			if made[i], errs[i] = edit(ctx, a, rand.New(rand.NewPCG(seed, 1))); errs[i] == nil {
				rec.Acked(made[i])
			}
		})
	}
	group.Wait()
	for i := range seeds {
		if errs[i] != nil {
			return errs[i]
		}
		l.issue(made[i], true)
	}
	return nil
}

// edit is one random edit.
func edit(ctx context.Context, a *store.Actor, rng *rand.Rand) ([]genome.Op, error) {
	return a.Edit(ctx, func(g *genome.Genome) (store.Edit, error) {
		n := g.Len()
		if n > 20 && rng.IntN(3) == 0 {
			return store.Edit{Delete: true, At: rng.IntN(n - 3), N: 1 + rng.IntN(3)}, nil
		}
		genes := make([]byte, 1+rng.IntN(4))
		for i := range genes {
			genes[i] = byte(rng.Uint32())
		}
		return store.Edit{At: rng.IntN(n + 1), Genes: genes}, nil
	})
}

// receive sends the actor what the other has and it lacks.
func (l *lab) receive(ctx context.Context, a *store.Actor, rec *Recorder) error {
	seeds := 1 + l.rng.IntN(400)
	var group sync.WaitGroup
	errs := make([]error, seeds)
	for i := range seeds {
		seed := l.rng.Uint64()
		group.Go(func() { _, errs[i] = edit(ctx, l.other, rand.New(rand.NewPCG(seed, 2))) })
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	for {
		b, more, err := l.other.Since(ctx, a.Version(), 0, 0)
		if err != nil {
			return err
		}
		if _, err := a.Receive(ctx, store.Source{Via: store.ViaPull, From: actorID + 1, Known: true}, b); err != nil {
			return err
		}
		rec.Acked(b.Ops)
		l.issue(b.Ops, false)
		if !more {
			return nil
		}
	}
}

// issue notes what was issued; own ops must be new.
func (l *lab) issue(ops []genome.Op, own bool) {
	for i := range ops {
		for j := range ops[i].Len() {
			d := genome.Dot{Replica: ops[i].Dot.Replica, Seq: ops[i].Dot.Seq + uint64(j)}
			if _, ok := l.issued[d]; ok && own {
				l.res.Reissued++
				l.problem("%v was issued twice", d)
			}
			l.issued[d] = ops[i].Event(j)
		}
	}
}

func (l *lab) problem(format string, args ...any) {
	if len(l.res.Problems) < maxProblems {
		l.res.Problems = append(l.res.Problems, fmt.Sprintf("life %d, cut %d: ", l.res.Lives, l.res.Cuts)+fmt.Sprintf(format, args...))
	}
}

// check opens a log after a cut; ok says that all is well.
func (l *lab) check(ctx context.Context, file []byte, acked []genome.Op) (ok bool, err error) {
	l.res.Cuts++
	data, err := l.place("cut", file)
	if err != nil {
		return false, err
	}
	before := len(l.res.Problems) + l.res.Lost + l.res.Reissued
	lost := l.survives(ctx, data, acked)
	l.res.Lost += lost
	if ok = lost == 0 && len(l.res.Problems)+l.res.Lost+l.res.Reissued == before; ok {
		l.res.Passed++
	} else {
		l.res.Failed++
	}
	return ok, nil
}

// survives returns how many acknowledged events are not there any more.
func (l *lab) survives(ctx context.Context, data string, acked []genome.Op) (lost int) {
	want := 0
	for i := range acked {
		want += acked[i].Len()
	}
	l.res.Acked += want
	a, err := store.Open(ctx, store.Config{Data: data, Actor: actorID, Repair: store.RepairNever})
	if err != nil {
		l.problem("%v", err)
		return want
	}
	defer a.Close() // it has told what it knows
	held := map[genome.Dot]bool{}
	g := genome.NewFromConfig(genome.Config{NoHistory: true})
	for r, err := range a.Records(ctx, 1) {
		if err != nil {
			l.problem("%v", err)
			return want
		}
		for j := range r.Op.Len() {
			d := genome.Dot{Replica: r.Op.Dot.Replica, Seq: r.Op.Dot.Seq + uint64(j)}
			held[d] = true
			if ev, ok := l.issued[d]; !ok || ev != r.Op.Event(j) {
				l.problem("%v holds what was never issued", d)
			}
		}
		if _, err := g.Apply(r.Op); err != nil {
			l.problem("%v", err)
		}
	}
	for i := range acked {
		for j := range acked[i].Len() {
			if !held[genome.Dot{Replica: acked[i].Dot.Replica, Seq: acked[i].Dot.Seq + uint64(j)}] {
				lost++
			}
		}
	}
	if lost > 0 {
		l.problem("%d of %d acknowledged events are lost", lost, want)
	}
	l.goesOn(ctx, a, g)
	return lost
}

// goesOn compares the genome with that of the records, and edits.
func (l *lab) goesOn(ctx context.Context, a *store.Actor, g *genome.Genome) {
	st, err := a.State(ctx)
	if err != nil || st.Digest != g.Digest() {
		l.problem("the genome is not that of the records: %v", err)
	}
	ops, err := a.Insert(ctx, 0, []byte{1})
	if err != nil {
		l.problem("an edit after the cut: %v", err)
		return
	}
	if _, ok := l.issued[ops[0].Dot]; ok {
		l.res.Reissued++
		l.problem("%v was issued again", ops[0].Dot)
	}
}

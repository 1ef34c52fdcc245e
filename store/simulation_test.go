package store

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"crdt-genome/genome"
	"crdt-genome/store/figures"
	"crdt-genome/store/signed"
)

// The simulation runs the stores of a few actors, each over a simulated disk,
// through a schedule that a seed decides: edits, messages that are lost,
// repeated and reordered, pulls, crashes between any two steps of the disk,
// clean stops, old copies put back, disks rolled back without a trace, wiped
// folders and twins. One call is under way at any time, so that a seed always
// gives the same run. The promises are looked at after every step.

// simRange is which seeds to run: "from-to" or a single one.
const simRange = "CRDT_GENOME_STORE_SEEDS"

const (
	simSeeds  = 150 // by default
	simSteps  = 120
	simActors = 3
	simTwins  = 1
)

// rare are things that must happen in some run, or the schedules are too tame.
var rare = []string{"crash within an edit", "crash within a receipt", "crash within opening", "crash within background work", "kill -9", "clean stop",
	"old copy put back", "rolled back without a trace", "noticed by a peer", "fenced", "fence lifted", "wiped", "twin", "duplicate", "parked",
	"segments packed", "checkpoint used", "torn meta page", "lost message", "epoch kept", "epoch new"}

// world is everything.
type world struct {
	t     *testing.T
	rng   *rand.Rand
	now   time.Time
	nodes []*node
	mail  []mail
	shown ledger // every event that anybody was shown or acknowledged, ever
	count map[string]int
	signs *group // that signs; nil: nobody does
	trace strings.Builder
}

// node is one actor with its disk.
type node struct {
	w      *world
	n      genome.ActorID
	f      *simFolder
	a      *Actor // nil while it does not run
	k      *keeper
	acked  ledger     // what it acknowledged and, unless its disk was meddled with, must still hold
	copies []diskCopy // of its disk, earlier
}

// mail is on its way.
type mail struct {
	to  *node
	src Source
	b   signed.Batch
}

// diskCopy is all of a disk at one moment.
type diskCopy struct {
	log   file[kv]
	guard file[guard]
	ckpts map[uint64]*file[[]byte]
	inode uint64
	ctime int64
	acked ledger
}

func newWorld(t *testing.T, seed uint64, count map[string]int, signs *group) *world {
	w := &world{t: t, rng: rngOf(seed), now: time.UnixMilli(1_700_000_000_000), shown: ledger{}, count: count, signs: signs}
	for i := range simActors {
		w.nodes = append(w.nodes, &node{w: w, n: genome.ActorID(i), f: newSimFolder(), acked: ledger{}})
	}
	for _, n := range w.nodes {
		n.start(false)
	}
	return w
}

func (w *world) say(format string, args ...any) { fmt.Fprintf(&w.trace, format+"\n", args...) }

func (w *world) fatal(format string, args ...any) {
	w.t.Helper()
	tail := strings.Split(w.trace.String(), "\n")
	w.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(tail[max(0, len(tail)-25):], "\n"))
}

// rngReader draws epochs and tokens from the world's dice.
type rngReader struct{ rng *rand.Rand }

func (r rngReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(r.rng.Uint32())
	}
	return len(p), nil
}

// start opens the actor; with crashes, the disk may stop on the way, again and
// again.
func (n *node) start(crashes bool) {
	w := n.w
	cfg, err := Config{Data: "unused", Actor: n.n, Rand: rngReader{w.rng}, Now: func() time.Time { return w.now },
		CheckpointEvery: 12, noKeeper: true, sealOps: 6, packParts: 2, Sign: w.signs.signing(n.n)}.withDefaults()
	if err != nil {
		w.fatal("%v", err)
	}
	for n.a == nil {
		if crashes && w.rng.IntN(3) == 0 {
			n.f.crashAt = len(n.f.steps) + 1 + w.rng.IntN(12)
		}
		a, err := open(ctx, cfg, n.f)
		switch {
		case err == nil:
			n.a, n.k = a, &keeper{a: a}
		case n.f.down:
			w.count["crash within opening"]++
			n.crashed()
		default:
			w.fatal("actor %d does not open: %v", n.n, err)
		}
	}
	o := n.a.Opening()
	w.say("%d starts: %+v", n.n, o)
	if o.Checkpoint > 0 {
		w.count["checkpoint used"]++
	}
	if o.EpochReason == ReasonClean {
		w.count["epoch kept"]++
	} else {
		w.count["epoch new"]++
	}
	n.check("start")
	n.compareReplay()
	n.boot()
}

// boot is what a server does before its first edit: it asks whoever is there
// what they hold of its actor.
func (n *node) boot() {
	for _, p := range n.w.nodes {
		if p != n && p.a != nil && n.a != nil {
			n.note(p)
		}
	}
}

func (n *node) note(p *node) {
	before := n.a.Replica()
	fenced, err := n.a.NotePeer(ctx, p.a.Heads())
	if err != nil {
		n.failed("crash within a receipt", err)
		return
	}
	if n.a.Replica() != before {
		n.w.count["noticed by a peer"]++
	}
	if fenced {
		n.w.count["fenced"]++
	}
}

// failed ends a life: a call may fail only because the disk stopped.
func (n *node) failed(where string, err error) {
	if !n.f.down {
		n.w.fatal("actor %d, %s: %v", n.n, where, err)
	}
	n.w.count[where]++
	n.w.say("%d %s", n.n, where)
	kill(n.a)
	n.a = nil
	n.crashed()
}

func (n *node) crashed() {
	n.f.crash(n.w.rng)
	if len(n.f.notes) > 0 {
		n.w.count["torn meta page"]++
	}
}

// check holds all that the actor shows against what was ever shown, and what it
// acknowledged against what it holds.
func (n *node) check(where string) {
	if n.a == nil {
		return
	}
	b := all(n.w.t, n.a)
	n.w.shown.saw(n.w.t, fmt.Sprintf("%s of actor %d", where, n.n), b.Ops)
	held := make(map[genome.Dot]genome.Event)
	addEvents(held, b.Ops)
	for d, ev := range n.acked {
		if held[d] != ev {
			n.w.fatal("%s: actor %d acknowledged %v %v and holds %v", where, n.n, d, ev, held[d])
		}
	}
}

// compareReplay compares the genome with one made of the actor's ops.
func (n *node) compareReplay() {
	g := genome.NewFromConfig(genome.Config{NoHistory: true})
	for _, op := range all(n.w.t, n.a).Ops {
		if err := applyNext(g, &op); err != nil {
			n.w.fatal("actor %d gives %v, which cannot be applied: %v", n.n, op.Dot, err)
		}
	}
	if st := mustState(n.w.t, n.a); st.Digest != g.Digest() || !slices.Equal(st.Heads, g.Heads()) {
		n.w.fatal("actor %d has digest %v, its ops give %v", n.n, st.Digest, g.Digest())
	}
}

// edit edits, and posts the ops to the others.
func (n *node) edit() {
	before := n.a.LSN()
	ops, err := edit(n.a, n.w.rng)
	switch {
	case errors.Is(err, ErrFenced):
		return
	case err != nil:
		n.failed("crash within an edit", err)
		return
	}
	n.w.say("%d edits %v", n.n, ops)
	n.w.shown.saw(n.w.t, "edit", ops)
	n.acked.saw(n.w.t, "edit", ops)
	b := signed.Batch{Block: genome.Block{Ops: ops}}
	if n.w.signs != nil {
		if b, _, err = n.a.SignedOwn(ctx, before, nil, 0, 0); err != nil {
			n.w.fatal("SignedOwn of actor %d: %v", n.n, err)
		}
	}
	for _, p := range n.w.nodes {
		if p != n {
			n.w.mail = append(n.w.mail, mail{p, Source{Via: ViaPost, From: n.n, Known: true, Peer: uint64(n.n)}, b})
		}
	}
}

// deliver hands one message over, any of them, and loses or keeps it.
func (w *world) deliver() {
	if len(w.mail) == 0 {
		return
	}
	i := w.rng.IntN(len(w.mail))
	m := w.mail[i]
	if w.rng.IntN(4) > 0 {
		w.mail = slices.Delete(w.mail, i, i+1)
	}
	if w.rng.IntN(5) == 0 || m.to.a == nil {
		w.count["lost message"]++
		return
	}
	if w.signs != nil && w.rng.IntN(4) == 0 {
		m.to.forged(m.src, m.b)
	} else {
		m.to.receive(m.src, m.b)
	}
}

// forged hands over what a relay has changed: nothing that is new here may be
// taken of it.
func (n *node) forged(src Source, b signed.Batch) {
	held := n.a.Version()
	rec, err := n.a.Receive(ctx, src, forgeNewest(n.w.rng, b.Block), b.Points...)
	if err != nil {
		n.failed("crash within a receipt", err)
		return
	}
	n.w.count["forged"]++
	if rec.Applied > 0 || rec.SelfAhead || !n.a.Version().Equal(held) {
		n.w.fatal("actor %d took a forged op: %+v", n.n, rec)
	}
}

func (n *node) receive(src Source, b signed.Batch) {
	rec, err := n.a.Receive(ctx, src, b.Block, b.Points...)
	if err != nil {
		n.failed("crash within a receipt", err)
		return
	}
	n.w.say("%d takes %d ops from %d: %+v", n.n, len(b.Ops), src.From, rec)
	for _, e := range rec.Refused {
		n.w.fatal("actor %d refused an honest op: %v", n.n, e)
	}
	if rec.Duplicate > 0 {
		n.w.count["duplicate"]++
	}
	if rec.Pending > 0 {
		n.w.count["parked"]++
	}
	if rec.SelfAhead {
		n.w.count["self ahead"]++
	}
	if rec.Pending == 0 {
		n.acked.saw(n.w.t, "receipt", b.Ops)
	}
}

// pull is anti-entropy: heads first, then what is lacking.
func (n *node) pull(p *node) {
	if n.note(p); n.a == nil {
		return
	}
	mine, theirs := mustState(n.w.t, n.a), mustState(n.w.t, p.a)
	if mine.Version.Equal(theirs.Version) && (mine.Digest != theirs.Digest || !slices.Equal(mine.Heads, theirs.Heads)) {
		n.w.fatal("actors %d and %d have diverged at %v", n.n, p.n, mine.Version)
	}
	_, was := n.a.Fenced()
	for more, last := true, genome.Version(nil); more && n.a != nil; {
		var b signed.Batch
		var err error
		v := n.a.Version()
		if last.Equal(v) && last != nil {
			n.w.fatal("actor %d gets nowhere with what %d gives", n.n, p.n)
		}
		last = v
		b, more, err = p.a.SignedSince(ctx, v, 1+n.w.rng.IntN(8), 0)
		if err != nil {
			n.w.fatal("Since of actor %d: %v", p.n, err)
		}
		n.receive(Source{Via: ViaPull, From: p.n, Known: true, Peer: uint64(p.n)}, b)
	}
	if n.a != nil && was {
		if _, is := n.a.Fenced(); !is {
			n.w.count["fence lifted"]++
		}
	}
}

// stop ends the actor cleanly, unless its disk stops on the way.
func (n *node) stop() {
	err := n.a.Close()
	n.a = nil
	if err == nil {
		n.w.count["clean stop"]++
		n.w.say("%d stops", n.n)
		if len(n.copies) < 6 { // with its guard: a machine that is put back to here knows of nothing
			n.copies = append(n.copies, n.snapshot())
		}
		return
	}
	if !n.f.down {
		n.w.fatal("actor %d does not stop: %v", n.n, err)
	}
	n.crashed()
}

// kill9 ends the process; what it wrote and did not sync stays, as long as the
// machine runs.
func (n *node) kill9() {
	kill(n.a)
	n.a = nil
	n.f.steps, n.f.crashAt, n.f.down = nil, 0, false
	n.w.count["kill -9"]++
	n.w.say("%d is killed", n.n)
}

func (n *node) snapshot() diskCopy {
	c := diskCopy{log: n.f.log, guard: n.f.guard, ckpts: map[uint64]*file[[]byte]{}, inode: n.f.inode, ctime: n.f.ctime, acked: maps.Clone(n.acked)}
	for lsn, f := range n.f.ckpts {
		copied := *f
		c.ckpts[lsn] = &copied
	}
	return c
}

// putBack puts an old copy on the disk: with another inode, as a copy has, or
// without a trace.
func (n *node) putBack(c diskCopy, traceless bool) {
	n.f = &simFolder{log: c.log, guard: c.guard, ckpts: map[uint64]*file[[]byte]{}, inode: c.inode, ctime: c.ctime}
	for lsn, f := range c.ckpts {
		copied := *f
		n.f.ckpts[lsn] = &copied
	}
	if !traceless {
		n.f.inode += 1000
	}
	n.acked = maps.Clone(c.acked)
}

// restore puts an old copy back by hand, or only its log.
func (n *node) restore() {
	if len(n.copies) == 0 {
		return
	}
	n.end()
	c := n.copies[n.w.rng.IntN(len(n.copies))]
	if n.w.rng.IntN(3) == 0 {
		c.guard, c.ckpts = n.f.guard, n.f.ckpts
	}
	n.putBack(c, false)
	n.w.count["old copy put back"]++
	n.w.say("an old copy of %d is put back", n.n)
}

// rollBack puts the whole machine back. Nothing on it can tell, so the others
// must, and for them to know, they have what the actor did since.
func (n *node) rollBack() {
	if len(n.copies) == 0 || n.a == nil {
		return
	}
	for _, p := range n.w.nodes {
		if p != n {
			if p.a == nil {
				p.start(false)
			}
			if p.a == nil || n.a == nil {
				return
			}
			if p.pull(n); p.a == nil || n.a == nil {
				return
			}
		}
	}
	if n.w.forgotten(n) {
		return
	}
	n.w.mail = nil
	n.kill9()
	n.putBack(n.copies[n.w.rng.IntN(len(n.copies))], true)
	n.w.count["rolled back without a trace"]++
	n.w.say("%d is rolled back", n.n)
	n.start(false)
}

// forgotten reports whether the actor has once made something that nobody holds
// any more: a copy from before that would make it anew, and nobody could tell.
func (w *world) forgotten(n *node) bool {
	held := ledger{}
	for _, p := range w.nodes {
		if p != n && p.a != nil {
			addEvents(held, all(w.t, p.a).Ops)
		}
	}
	for d := range w.shown {
		if _, ok := held[d]; !ok && d.Replica.Actor() == n.n {
			return true
		}
	}
	return false
}

// end stops the actor in one way or the other, if it runs.
func (n *node) end() {
	if n.a == nil {
		return
	}
	switch n.w.rng.IntN(3) {
	case 0:
		n.stop()
	case 1:
		n.kill9()
	default:
		kill(n.a)
		n.a = nil
		n.crashed()
	}
}

func (n *node) wipe() {
	n.end()
	n.f, n.acked, n.copies = newSimFolder(), ledger{}, nil
	n.w.count["wiped"]++
	n.w.say("%d is wiped", n.n)
}

// twin starts a second process for an actor, on a copy of its disk.
func (w *world) twin(n *node) {
	if len(w.nodes) == simActors+simTwins {
		return
	}
	t := &node{w: w, n: n.n}
	t.putBack(n.snapshot(), false)
	t.f.log.settle(true)
	t.f.guard.settle(true)
	w.nodes = append(w.nodes, t)
	w.count["twin"]++
	w.say("%d has a twin", n.n)
	t.start(false)
}

// background does the keeper's work.
func (n *node) background() {
	before := n.k.packedTo
	n.k.work(ctx)
	if n.f.down {
		n.failed("crash within background work", errCrash)
	} else if n.k.packedTo > before {
		n.w.count["segments packed"]++
	}
}

// step does one thing.
func (w *world) step() {
	w.now = w.now.Add(time.Duration(w.rng.IntN(2000)) * time.Millisecond)
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	if n.a == nil {
		n.start(true)
		return
	}
	if w.rng.IntN(12) == 0 && n.f.crashAt == 0 {
		n.f.crashAt = len(n.f.steps) + 1 + w.rng.IntN(8)
	}
	switch w.rng.IntN(30) {
	case 0:
		n.stop()
	case 1:
		n.kill9()
	case 2:
		n.restore()
	case 3:
		n.rollBack()
	case 4:
		if w.rng.IntN(3) == 0 {
			n.wipe()
		}
	case 5:
		if w.rng.IntN(3) == 0 {
			w.twin(n)
		}
	case 6, 7:
		if len(n.copies) < 4 && !n.f.down {
			n.copies = append(n.copies, n.snapshot())
		}
	case 8, 9, 10:
		n.background()
	case 11, 12, 13:
		if p := w.nodes[w.rng.IntN(len(w.nodes))]; p != n && p.a != nil {
			n.pull(p)
		}
	case 14, 15, 16, 17, 18, 19:
		w.deliver()
	default:
		n.edit()
	}
	n.check("after a step")
}

// heal stops all faults and lets everybody pull from everybody until nothing
// changes: in few rounds, all must hold what anybody held.
func (w *world) heal() {
	w.mail = nil
	for _, n := range w.nodes {
		n.f.crashAt = 0
		if n.a == nil {
			n.start(false)
		}
	}
	union := ledger{}
	for _, n := range w.nodes {
		addEvents(union, all(w.t, n.a).Ops)
	}
	for range 3 { // one more than needed, for who has to be started in the first
		for _, n := range w.nodes {
			for _, p := range w.nodes {
				if n.a == nil { // its disk had stopped already
					n.start(false)
				}
				if p != n && p.a != nil {
					n.pull(p)
				}
			}
		}
	}
	first := mustState(w.t, w.nodes[0].a)
	for _, n := range w.nodes {
		sameState(w.t, mustState(w.t, n.a), first)
		n.compareReplay()
		held := events(all(w.t, n.a).Ops) // and perhaps what was parked somewhere
		for d, ev := range union {
			if held[d] != ev {
				w.fatal("actor %d holds %v as %v; it was there as %v", n.n, d, held[d], ev)
			}
		}
		n.check("at the end")
	}
	w.say("all equal: %v", first.Digest)
	for _, n := range w.nodes {
		mustClose(w.t, n.a)
	}
}

// run runs one world and returns a hash of all that happened in it.
func run(t *testing.T, seed uint64, count map[string]int, signs *group) uint64 {
	w := newWorld(t, seed, count, signs)
	defer func() { // after a failure
		for _, n := range w.nodes {
			if n.a != nil {
				kill(n.a)
			}
		}
	}()
	for range simSteps {
		w.step()
	}
	w.heal()
	h := fnv.New64a()
	_, _ = bytes.NewBufferString(w.trace.String()).WriteTo(h)
	return h.Sum64()
}

func TestSimulation(t *testing.T) { simulate(t, simSeeds, nil, rare) }

// TestSignedSimulation is TestSimulation of actors that sign, with a relay that
// changes what it carries.
func TestSignedSimulation(t *testing.T) {
	signs := newGroup(t, simActors)
	simulate(t, simSeeds/3, signs, []string{"forged", "crash within a receipt", "crash within opening", "rolled back without a trace", "twin", "segments packed", "checkpoint used", "wiped"})
}

func simulate(t *testing.T, seeds uint64, signs *group, rare []string) {
	from, to := uint64(0), seeds
	if s := os.Getenv(simRange); s != "" {
		a, b, isRange := strings.Cut(s, "-")
		var err error
		from, err = strconv.ParseUint(a, 10, 64)
		must(t, err)
		if to = from + 1; isRange {
			to, err = strconv.ParseUint(b, 10, 64)
			must(t, err)
			to++ // the last is meant too
		}
	}
	count := map[string]int{}
	for seed := from; seed < to; seed++ {
		t.Run(seedName(seed), func(t *testing.T) {
			hash := run(t, seed, count, signs)
			if seed%25 == 0 && run(t, seed, map[string]int{}, signs) != hash {
				t.Error("the same seed gives another run")
			}
		})
		if t.Failed() {
			t.Fatalf("again with: %s=%d go test -run '^%s$' ./store", simRange, seed, t.Name())
		}
	}
	for _, what := range rare {
		if count[what] == 0 && to-from >= seeds {
			t.Errorf("never seen: %s", what)
		}
	}
	t.Log(count)
	if signs == nil {
		figures.Tell(t, "store-schedules %d seeds %d-%d, %d crashes within a step, %d kills, %d old disks, %d twins, 0 promises broken", to-from, from, to-1,
			count["crash within an edit"]+count["crash within a receipt"]+count["crash within opening"]+count["crash within background work"],
			count["kill -9"], count["old copy put back"]+count["rolled back without a trace"], count["twin"])
	}
}

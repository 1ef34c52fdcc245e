package ringsim

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"crdt-genome/genome"
	"crdt-genome/httpapi/rings"
)

// A Config says what to simulate. Members, Authors, Edits and Rate are
// required.
type Config struct {
	Members int     // at the start; ≤ MaxMembers
	Authors int     // of them edit, each with a whole replica; ≤ Members
	Edits   int     // single-gene edits in all; ≤ MaxEdits
	Rate    float64 // edits a second in all
	Loss    float64 // probability that a message is lost, 0 … 0.9
	Crash   int     // members that crash while there are edits, spread evenly
	Leave   int     // … that leave
	Join    int     // … that come, without a log
	Fanout  int     // default rings.Fanout
	Seed    uint64
}

// Bounds of a Config, by the memory that a simulation takes: 8 bytes for each
// edit and member that waits to be passed on, 30 for each author and member.
const (
	MaxMembers = 100_000
	MaxEdits   = 1_000_000
)

// Times of the simulated world; see the package comment.
const (
	wayLeast, wayMost       = 500 * time.Microsecond, 5 * time.Millisecond
	commitLeast, commitMost = time.Millisecond, 10 * time.Millisecond
	lostAfter               = 200 * time.Millisecond
	deadAfter               = 2 * time.Second
	crashLeast, crashMost   = 5 * time.Second, 15 * time.Second
	newsLeast, newsMost     = 200 * time.Millisecond, 3 * time.Second
	verifyEvery             = 5 * time.Second
	pullEvery               = 10 * time.Second
	wakeAtMost              = time.Second
	pullRetries             = 4
	warmUp                  = 3 * time.Second // before the first edit: all have asked their neighbours
	settle                  = 2 * time.Minute // after the last: how long the rest may take
	never                   = time.Duration(1<<63 - 1)
	maxBatch                = genome.MaxBatchOps
)

// A Result is what a simulation measured. Members that crashed or left count
// for the messages only.
type Result struct {
	Edits, Members int           // members: that were there from the start to the end
	Delivered      float64       // share of all pairs of an edit and a member there at the end
	Pulled         float64       // share of what was delivered that a pull brought
	Copies         float64       // of each edit, to each member that got it, duplicates included
	Posts          float64       // a second and member, while there were edits
	PostsMost      float64       // … of the member with the most
	Requests       float64       // a second and member, of every kind
	P50, P99, Most time.Duration // over the edits: until all Members had it
	Took           time.Duration // from the first edit until all had all, of simulated time
	Digest         genome.Digest // of all replicas; 0: they differ
}

type sim struct {
	cfg     Config
	rng     *rand.Rand
	now     time.Duration
	queue   queue
	events  uint64
	members []*member
	changes []change
	ops     []op
	genes   map[genome.GeneID]genome.Dot
	err     error

	start, end       time.Duration // of the edits
	stable           int
	missing          int // pairs of an edit and a stable member
	requests         int // between start and end
	copies, took     int // of edits that came; that were new
	pulled           int
	lastAt, mintedAt []time.Duration // by op
	minted           int
}

// An op is an edit: which one of its author's, and what it needs.
type op struct {
	author, seq       int32
	needs, needsUntil int32 // author and seq; needs < 0: nothing
	op                genome.Op
}

// A change is a member that comes or goes.
type change struct {
	at   time.Duration
	who  int32
	kind changeKind
}

type changeKind int

const (
	joins changeKind = iota
	leaves
	crashes
)

// Run simulates until all members hold all edits, or for two minutes of
// simulated time after the last edit.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	if cfg.Fanout == 0 {
		cfg.Fanout = rings.Fanout
	}
	quitters := cfg.Crash + cfg.Leave
	switch {
	case cfg.Members < 2 || cfg.Members > MaxMembers || cfg.Join < 0 || cfg.Join > MaxMembers:
		return nil, fmt.Errorf("%d members and %d that join: want 2 … %d, 0 … %d", cfg.Members, cfg.Join, MaxMembers, MaxMembers)
	case cfg.Crash < 0 || cfg.Leave < 0 || cfg.Authors < 1 || cfg.Authors+quitters > cfg.Members:
		return nil, fmt.Errorf("%d authors, %d that crash, %d that leave: more than %d members", cfg.Authors, cfg.Crash, cfg.Leave, cfg.Members)
	case cfg.Edits < 1 || cfg.Edits > MaxEdits || cfg.Rate <= 0:
		return nil, fmt.Errorf("%d edits at %v a second: want 1 … %d, and a rate above 0", cfg.Edits, cfg.Rate, MaxEdits)
	case cfg.Loss < 0 || cfg.Loss > 0.9 || cfg.Fanout < 1 || cfg.Fanout > rings.MaxFanout:
		return nil, fmt.Errorf("loss %v, fanout %d: want 0 … 0.9, 1 … %d", cfg.Loss, cfg.Fanout, rings.MaxFanout)
	}
	s := &sim{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0)), genes: map[genome.GeneID]genome.Dot{}, start: warmUp, stable: cfg.Members - quitters}
	s.end = s.start + time.Duration(float64(cfg.Edits)/cfg.Rate*float64(time.Second))
	s.missing = cfg.Edits * s.stable
	s.populate()
	for s.err == nil && s.queue.Len() > 0 && !s.over() {
		e := heap.Pop(&s.queue).(event)
		s.now = e.at
		e.do()
		if s.events++; s.events%4096 == 0 {
			s.err = ctx.Err()
		}
	}
	if s.err != nil {
		return nil, s.err
	}
	return s.result()
}

// over reports whether there is nothing more to wait for.
func (s *sim) over() bool {
	if s.now > s.end+settle {
		return true
	}
	if s.minted < s.cfg.Edits || s.missing > 0 {
		return false
	}
	for _, m := range s.members[s.cfg.Members:] {
		if m.held < s.cfg.Edits {
			return false
		}
	}
	return true
}

// populate makes the members, and everything that happens by itself.
func (s *sim) populate() {
	numbers := make([]uint64, s.cfg.Members)
	for i := range numbers {
		numbers[i] = uint64(i)
		s.members = append(s.members, s.newMember(int32(i), 0))
	}
	for _, m := range s.members {
		m.stable = true
		m.relink(numbers)
	}
	quit := s.rng.Perm(s.cfg.Members - s.cfg.Authors)
	var kinds []changeKind
	for _, k := range []struct {
		n    int
		kind changeKind
	}{{s.cfg.Crash, crashes}, {s.cfg.Leave, leaves}, {s.cfg.Join, joins}} {
		kinds = append(kinds, slices.Repeat([]changeKind{k.kind}, k.n)...)
	}
	s.rng.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
	for i, kind := range kinds {
		c := change{at: s.start + (s.end-s.start)*time.Duration(i)/time.Duration(len(kinds)), kind: kind}
		if kind == joins {
			c.who = int32(len(s.members))
			s.members = append(s.members, s.newMember(c.who, c.at))
		} else {
			c.who = int32(s.cfg.Authors + quit[0])
			quit = quit[1:]
			s.members[c.who].until, s.members[c.who].stable = c.at, false
		}
		s.changes = append(s.changes, c)
		s.at(c.at, func() { s.change(i) })
	}
	for _, m := range s.members {
		s.at(max(m.from, s.between(0, verifyEvery)), m.verify)
		s.at(max(m.from, s.between(0, pullEvery)), m.pullTimer)
	}
	s.at(s.start, s.edit)
}

// edit lets a random author edit, and the next one later.
func (s *sim) edit() {
	m := s.members[s.rng.IntN(s.cfg.Authors)]
	made, err := m.mint()
	if err != nil {
		s.err = err
		return
	}
	s.ops = append(s.ops, made)
	s.mintedAt, s.lastAt = append(s.mintedAt, s.now), append(s.lastAt, s.now)
	m.log = append(m.log, arrival{int32(s.minted), -1})
	m.vec[made.author], m.held = uint32(made.seq), m.held+1
	s.minted++
	s.missing--
	m.stepAll()
	if s.minted < s.cfg.Edits {
		s.at(s.start+time.Duration(float64(s.minted)/s.cfg.Rate*float64(time.Second)), s.edit)
	}
}

// change lets a member come or go, and all whose links that changes learn of it.
func (s *sim) change(i int) {
	c := s.changes[i]
	m := s.members[c.who]
	if c.kind == joins {
		m.relink(s.view(m))
	}
	// Links change only beside it, in the list with and without those that are
	// gone but still believed in (R3).
	var all, alive []uint64
	for _, o := range s.members {
		if o.from <= s.now {
			all = append(all, uint64(o.number))
			if o.alive() || o == m {
				alive = append(alive, uint64(o.number))
			}
		}
	}
	beside := append(rings.Neighbours(uint64(c.who), all, s.cfg.Fanout), rings.Neighbours(uint64(c.who), alive, s.cfg.Fanout)...)
	for _, o := range s.members {
		if slices.Contains(beside, uint64(o.number)) || slices.ContainsFunc(o.links, func(l *link) bool { return l.to == m }) {
			s.at(s.known(o, i), func() {
				if o.alive() {
					o.relink(s.view(o))
				}
			})
		}
	}
}

// known is when m learns of change i.
func (s *sim) known(m *member, i int) time.Duration {
	c := s.changes[i]
	least, most := newsLeast, newsMost
	if c.kind == crashes {
		least, most = crashLeast, crashMost
	}
	share := rand.New(rand.NewPCG(s.cfg.Seed+1, uint64(m.number)<<32|uint64(i))).Float64()
	return max(c.at+least+time.Duration(share*float64(most-least)), m.from)
}

// view returns the members as m knows them.
func (s *sim) view(m *member) (numbers []uint64) {
	out := map[int32]bool{} // who came that m has not heard of, and who is gone that it has
	for i, c := range s.changes {
		if knows := c.at <= s.now && s.known(m, i) <= s.now; knows != (c.kind == joins) {
			out[c.who] = true
		}
	}
	for _, o := range s.members {
		if !out[o.number] {
			numbers = append(numbers, uint64(o.number))
		}
	}
	return numbers
}

// result sums up.
func (s *sim) result() (*Result, error) {
	seconds := (s.end - s.start).Seconds() * float64(s.cfg.Members)
	r := &Result{Edits: s.minted, Members: s.stable, Requests: float64(s.requests) / seconds, Took: s.now - s.start,
		Copies: float64(s.copies) / float64(max(s.took, 1)), Pulled: float64(s.pulled) / float64(max(s.took, 1))}
	held, at := 0, 0
	for _, m := range s.members {
		r.Posts += float64(m.posts) / seconds
		r.PostsMost = max(r.PostsMost, float64(m.posts)/(s.end-s.start).Seconds())
		if m.alive() {
			held, at = held+m.held, at+1
		}
	}
	r.Delivered = float64(held) / float64(at*s.cfg.Edits)
	times := make([]time.Duration, s.minted)
	for i := range times {
		times[i] = s.lastAt[i] - s.mintedAt[i]
	}
	slices.Sort(times)
	at99 := (len(times)*99+99)/100 - 1
	r.P50, r.P99, r.Most = times[len(times)/2], times[at99], times[len(times)-1]
	for i, m := range s.members[:s.cfg.Authors] {
		if i == 0 {
			r.Digest = m.replica.Digest()
		}
		if m.replica.Digest() != r.Digest {
			r.Digest = 0
			return r, nil
		}
	}
	return r, nil
}

// errDisagrees says that the simulation and a replica do not agree: a bug.
var errDisagrees = errors.New("a replica did not apply what its vector says is ready")

// between draws a time.
func (s *sim) between(least, most time.Duration) time.Duration {
	return least + time.Duration(s.rng.Int64N(int64(most-least)))
}

// lost draws whether a message is.
func (s *sim) lost() bool { return s.rng.Float64() < s.cfg.Loss }

// clock is the time for package rings.
func (s *sim) clock() time.Time { return time.Unix(1, 0).Add(s.now) }

// An event is something that happens at its time; of one time, in the order in
// which they were planned.
type event struct {
	at  time.Duration
	seq uint64
	do  func()
}

func (s *sim) at(t time.Duration, do func()) {
	s.queue.planned++
	heap.Push(&s.queue, event{max(t, s.now), s.queue.planned, do})
}

type queue struct {
	events  []event
	planned uint64
}

func (q *queue) Len() int { return len(q.events) }
func (q *queue) Less(i, j int) bool {
	a, b := &q.events[i], &q.events[j]
	return a.at < b.at || a.at == b.at && a.seq < b.seq
}
func (q *queue) Swap(i, j int) { q.events[i], q.events[j] = q.events[j], q.events[i] }
func (q *queue) Push(e any)    { q.events = append(q.events, e.(event)) }
func (q *queue) Pop() any {
	e := q.events[len(q.events)-1]
	q.events[len(q.events)-1] = event{}
	q.events = q.events[:len(q.events)-1]
	return e
}

package ringsim

import (
	"slices"
	"time"

	"crdt-genome/genome"
	"crdt-genome/httpapi/rings"
)

// A member holds edits: which, as a vector over the authors, and in which order
// they came.
type member struct {
	s           *sim
	number      int32
	from, until time.Duration // that it lives
	stable      bool          // it is there from the start to the end
	vec         []uint32      // by author: how many edits it holds
	held        int
	log         []arrival // positions base+1 …
	base        int
	parked      []int32
	links       []*link
	replica     *genome.Genome // of an author; else nil
	posts       int
	fetching    bool
}

// An arrival is an edit and who brought it, -1 for one's own.
type arrival struct{ op, from int32 }

// keepLog is how much of a log is kept before what every link is done with is
// dropped. A node keeps all of it.
const keepLog = 4096

func (s *sim) newMember(number int32, from time.Duration) *member {
	m := &member{s: s, number: number, from: from, until: never, vec: make([]uint32, s.cfg.Authors)}
	if int(number) < s.cfg.Authors {
		m.replica = genome.NewFromConfig(genome.Config{Self: replicaOf(number), NoHistory: true})
	}
	return m
}

func replicaOf(author int32) genome.ReplicaID { return genome.NewReplicaID(genome.ActorID(author), 1) }

func (m *member) alive() bool { return m.from <= m.s.now && m.s.now < m.until }

// end is the position of the last arrival.
func (m *member) end() int { return m.base + len(m.log) }

// mint makes an edit of an author at a random place.
func (m *member) mint() (op, error) {
	g, rng := m.replica, m.s.rng
	var made genome.Op
	var err error
	if g.Len() > 10 && rng.IntN(2) == 0 {
		var ops []genome.Op
		if ops, err = g.Delete(rng.IntN(g.Len()), 1); err == nil {
			made = ops[0]
		}
	} else {
		made, err = g.Insert(rng.IntN(g.Len()+1), []byte{byte(rng.Uint32())})
	}
	if err != nil {
		return op{}, err
	}
	o := op{author: m.number, seq: int32(made.Dot.Seq), needs: -1, op: made}
	if made.Kind == genome.Insert {
		m.s.genes[genome.GeneID{Replica: made.Dot.Replica, Gene: made.Gene}] = made.Dot
	}
	if !made.Ref.IsRoot() {
		d := m.s.genes[made.Ref]
		o.needs, o.needsUntil = int32(d.Replica.Actor()), int32(d.Seq)
	}
	return o, nil
}

// take receives edits that from brought, and returns whether some must wait
// for others, and whether for some of from's own.
func (m *member) take(from *member, batch []int32, pull bool) (pending, lacksFrom bool) {
	s := m.s
	s.copies += len(batch)
	grown := false
	for _, i := range batch {
		o := &s.ops[i]
		switch {
		case m.vec[o.author] >= uint32(o.seq):
		case m.ready(o):
			m.apply(i, from, pull)
			grown = true
		default:
			pending = true
			lacksFrom = lacksFrom || o.author == from.number
			if len(m.parked) < maxBatch && !slices.Contains(m.parked, i) {
				m.parked = append(m.parked, i)
			}
		}
	}
	for again := grown; again; {
		again = false
		m.parked = slices.DeleteFunc(m.parked, func(i int32) bool {
			o := &s.ops[i]
			if m.vec[o.author] < uint32(o.seq) {
				if !m.ready(o) {
					return false
				}
				m.apply(i, from, pull)
				again = true
			}
			return true
		})
	}
	if grown {
		m.stepAll()
	}
	return pending, lacksFrom
}

// ready reports whether o can be applied.
func (m *member) ready(o *op) bool {
	return m.vec[o.author]+1 == uint32(o.seq) && (o.needs < 0 || m.vec[o.needs] >= uint32(o.needsUntil))
}

func (m *member) apply(i int32, from *member, pull bool) {
	s := m.s
	o := &s.ops[i]
	m.vec[o.author], m.held = uint32(o.seq), m.held+1
	m.log = append(m.log, arrival{i, from.number})
	s.took++
	if pull {
		s.pulled++
	}
	if m.stable {
		s.lastAt[i] = s.now
		s.missing--
	}
	if m.replica != nil {
		if res, err := m.replica.Apply(o.op); err != nil || res.Parked || len(res.Applied) != 1 {
			s.err = errDisagrees
		}
	}
}

// stepAll wakes all senders, and drops what they are done with.
func (m *member) stepAll() {
	done := m.end()
	for _, l := range m.links {
		l.step()
		done = min(done, l.cursor)
	}
	if m.replica == nil && done-m.base > keepLog {
		m.log = slices.Clone(m.log[done-m.base:])
		m.base = done
	}
}

// relink makes the links those to m's neighbours among members.
func (m *member) relink(members []uint64) {
	want := rings.Neighbours(uint64(m.number), members, m.s.cfg.Fanout)
	m.links = slices.DeleteFunc(m.links, func(l *link) bool {
		i, ok := slices.BinarySearch(want, uint64(l.to.number))
		if ok {
			want = slices.Delete(want, i, i+1)
		}
		l.closed = !ok
		return !ok
	})
	for _, w := range want {
		l := m.newLink(m.s.members[w])
		m.links = append(m.links, l)
		// Members do not all start in the same instant.
		m.s.at(m.s.now+m.s.between(0, time.Second), l.step)
	}
}

func (m *member) newLink(to *member) *link {
	return &link{m: m, to: to, known: make([]uint32, len(m.vec)), firstPull: true}
}

// linkTo returns m's link to o, nil if there is none.
func (m *member) linkTo(o *member) *link {
	for _, l := range m.links {
		if l.to == o {
			return l
		}
	}
	return nil
}

// verify asks all neighbours what they hold, every 5 s.
func (m *member) verify() {
	if !m.alive() {
		return
	}
	for _, l := range m.links {
		l.verify()
	}
	m.s.at(m.s.now+verifyEvery, m.verify)
}

// pullTimer pulls from somebody at random, every 10 s ± 25 %.
func (m *member) pullTimer() {
	if !m.alive() {
		return
	}
	if o := m.s.members[m.s.rng.IntN(len(m.s.members))]; o != m && o.from <= m.s.now {
		l := m.linkTo(o)
		if l == nil {
			l = m.newLink(o)
			l.firstPull = false
		}
		l.wakePull()
	}
	m.s.at(m.s.now+m.s.between(pullEvery*3/4, pullEvery*5/4), m.pullTimer)
}

// wantPull pulls from who sent edits that need others.
func (m *member) wantPull(from *member) {
	l := m.linkTo(from)
	if l == nil && len(m.links) > 0 {
		l = m.links[m.s.rng.IntN(len(m.links))]
	}
	if l != nil {
		l.wakePull()
	}
}

// since returns what a holder of vec lacks of m, in an order in which it can be
// applied: that in which it was made.
func (m *member) since(vec []uint32) (batch []int32) {
	for i := range m.s.ops {
		if o := &m.s.ops[i]; uint32(o.seq) > vec[o.author] && uint32(o.seq) <= m.vec[o.author] {
			if batch = append(batch, int32(i)); len(batch) == maxBatch {
				break
			}
		}
	}
	return batch
}

// call sends a request from m to o. serve runs there and calls answer; done
// runs here, also if something was lost on the way.
func (m *member) call(o *member, serve func(answer func()), done func(ok bool)) {
	s, sent := m.s, m.s.now
	if s.start <= s.now && s.now < s.end {
		s.requests++
	}
	finish := func(at time.Duration, ok bool) {
		s.at(at, func() {
			if m.alive() {
				done(ok)
			}
		})
	}
	if s.lost() {
		finish(sent+lostAfter, false)
		return
	}
	s.at(sent+s.between(wayLeast, wayMost), func() {
		if !o.alive() {
			finish(sent+deadAfter, false)
			return
		}
		if l := o.linkTo(m); l != nil {
			l.signOfLife()
		}
		serve(func() {
			if s.lost() {
				finish(max(s.now, sent+lostAfter), false)
				return
			}
			finish(s.now+s.between(wayLeast, wayMost), true)
		})
	})
}

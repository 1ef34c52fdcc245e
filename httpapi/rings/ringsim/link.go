package ringsim

import (
	"slices"
	"time"

	"crdt-genome/httpapi/rings"
)

// A link is the sender and the puller of one member for another, as the loops
// of package httpapi are: rings.Link says what comes next.
type link struct {
	m, to  *member
	closed bool
	state  rings.Link
	known  []uint32 // what to is known to hold
	cursor int      // position in m's log up to which all is sent
	first  int      // … from which on what others made is passed on

	busy     bool // a request of the sender is on its way, or it rests
	rest     int  // counts rests; one that was cut short is not ended again
	armed    bool // it will step by itself
	failures int  // in a row
	pauses   int
	answered bool
	lastWake time.Duration

	pulling, again bool
	firstPull      bool
	target         []uint32 // what m lacked of to at the last verification
}

// down reports whether to counts as unreachable.
func (l *link) down() bool { return l.failures >= rings.MeshProbes }

// step does what a sender does next, unless that is under way.
func (l *link) step() {
	if l.busy || l.armed || l.closed || !l.m.alive() {
		return
	}
	s := l.m.s
	l.state.Saw(l.failures)
	l.state.Pace = rings.Spread(rings.Pace(true), uint64(l.m.number), uint64(l.to.number))
	l.state.ProbeAfter = rings.Probes(true)
	do, until := l.state.Next(s.clock(), l.cursor < l.m.end())
	switch do {
	case rings.Probe:
		l.busy = true
		l.m.call(l.to, func(answer func()) { answer() }, func(ok bool) {
			if !ok {
				l.fail()
				return
			}
			if !l.state.Answered() {
				l.good()
				l.busy = false
				l.step()
				return
			}
			l.ask()
		})
	case rings.Ask:
		l.busy = true
		l.ask()
	case rings.Post:
		l.post()
	case rings.Wait:
		if !until.IsZero() {
			l.armed = true
			s.at(s.now+until.Sub(s.clock()), func() {
				l.armed = false
				l.step()
			})
		}
	}
}

// ask asks what to holds.
func (l *link) ask() {
	held := l.m.end()
	theirs := slices.Clone(l.known)
	l.m.call(l.to, func(answer func()) { copy(theirs, l.to.vec); answer() }, func(ok bool) {
		if !ok {
			l.fail()
			return
		}
		l.good()
		copy(l.known, theirs)
		l.state.Asked()
		l.first, l.cursor = held, held
		if l.m.replica != nil && l.known[l.m.number] < l.m.vec[l.m.number] {
			l.cursor = 0
		}
		l.busy = false
		l.step()
	})
}

// outgoing returns what to is to be sent next.
func (l *link) outgoing() (batch []int32, next int) {
	m := l.m
	for i := l.cursor - m.base; i < len(m.log); i++ {
		e := m.log[i]
		o := &m.s.ops[e.op]
		if l.known[o.author] >= uint32(o.seq) ||
			!rings.Carries(m.base+i+1 > l.first, o.author == m.number, uint64(e.from), e.from >= 0, uint64(l.to.number)) {
			continue
		}
		if batch = append(batch, e.op); len(batch) == maxBatch {
			return batch, m.base + i + 1
		}
	}
	return batch, m.end()
}

// post sends one batch.
func (l *link) post() {
	batch, next := l.outgoing()
	if len(batch) == 0 {
		l.cursor = next
		return
	}
	s := l.m.s
	l.state.Posting(s.clock())
	l.busy = true
	if s.start <= s.now && s.now < s.end {
		l.m.posts++
	}
	var pending, lacks bool
	l.m.call(l.to, func(answer func()) {
		s.at(s.now+s.between(commitLeast, commitMost), func() {
			if !l.to.alive() {
				return
			}
			if pending, lacks = l.to.take(l.m, batch, false); pending {
				l.to.wantPull(l.m)
			}
			if back := l.to.linkTo(l.m); back != nil {
				back.holds(batch)
			}
			answer()
		})
	}, func(ok bool) {
		if !ok {
			l.fail()
			return
		}
		l.good()
		l.pauses = 0
		l.cursor = next
		if !pending {
			l.holds(batch)
		} else if lacks {
			l.state.Restarted()
		}
		l.busy = false
		l.step()
	})
}

// holds notes that to has the edits of batch, and so all before them.
func (l *link) holds(batch []int32) {
	for _, i := range batch {
		o := &l.m.s.ops[i]
		l.known[o.author] = max(l.known[o.author], uint32(o.seq))
	}
}

// good notes an answer.
func (l *link) good() {
	news := !l.answered || l.down()
	l.answered, l.failures = true, 0
	if news {
		l.wakePull()
	}
}

// fail notes that none came, and lets the sender rest.
func (l *link) fail() {
	s := l.m.s
	l.failures++
	l.rest++
	rest := l.rest
	s.at(s.now+rings.Pause(l.pauses, s.rng.Float64()), func() { l.rise(rest) })
	l.pauses++
}

// rise ends a rest.
func (l *link) rise(rest int) {
	if l.rest == rest {
		l.rest++
		l.busy = false
		l.step()
	}
}

// signOfLife ends a rest early: the other speaks.
func (l *link) signOfLife() {
	if l.failures > 0 && l.m.s.now-l.lastWake >= wakeAtMost {
		l.lastWake = l.m.s.now
		l.pauses = 0
		l.wakePull()
	}
}

// verify compares what both hold, and pulls what has been lacking since the
// last time.
func (l *link) verify() {
	if l.closed || !l.answered {
		return
	}
	theirs := slices.Clone(l.known)
	l.m.call(l.to, func(answer func()) { copy(theirs, l.to.vec); answer() }, func(ok bool) {
		if !ok {
			l.failures++
			return
		}
		l.good()
		copy(l.known, theirs)
		if l.target != nil && lacked(l.m.vec, l.target) > 0 {
			l.wakePull()
		}
		if l.target = nil; lacked(l.m.vec, theirs) > 0 {
			l.target = theirs
		}
	})
}

// lacked counts the edits of theirs that mine lacks.
func lacked(mine, theirs []uint32) (n uint64) {
	for i, t := range theirs {
		if t > mine[i] {
			n += uint64(t - mine[i])
		}
	}
	return n
}

// wakePull begins to fetch what to has and m lacks, or does so once more when
// what is under way ends.
func (l *link) wakePull() {
	if l.pulling {
		l.again = true
		return
	}
	l.pulling = true
	l.pull(0)
}

func (l *link) pull(try int) {
	m, s := l.m, l.m.s
	retry := func() {
		l.failures++
		if try+1 < pullRetries && !l.down() {
			s.at(s.now+rings.Pause(try, s.rng.Float64()), func() { l.pull(try + 1) })
			return
		}
		l.pulled()
	}
	theirs := slices.Clone(l.known)
	m.call(l.to, func(answer func()) { copy(theirs, l.to.vec); answer() }, func(ok bool) {
		if !ok {
			retry()
			return
		}
		l.good()
		copy(l.known, theirs)
		n := lacked(m.vec, theirs)
		if n == 0 {
			l.pulled()
			return
		}
		s.at(s.now+rings.Grace(l.firstPull, n, rings.PullGrace), func() { l.fetch(theirs, retry) })
	})
}

// fetch brings what is still lacking.
func (l *link) fetch(theirs []uint32, retry func()) {
	m := l.m
	if lacked(m.vec, theirs) == 0 {
		l.pulled()
		return
	}
	if m.fetching { // one at a time
		m.s.at(m.s.now+m.s.between(wayLeast, commitMost), func() { l.fetch(theirs, retry) })
		return
	}
	m.fetching = true
	vec := slices.Clone(m.vec)
	var batch []int32
	m.call(l.to, func(answer func()) { batch = l.to.since(vec); answer() }, func(ok bool) {
		m.fetching = false
		if !ok {
			retry()
			return
		}
		m.take(l.to, batch, true)
		if len(batch) == maxBatch {
			l.again = true
		}
		l.pulled()
	})
}

// pulled ends a pull.
func (l *link) pulled() {
	l.pulling = false
	l.firstPull = l.firstPull && !l.answered
	if l.again {
		l.again = false
		l.wakePull()
	}
}

package membership

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// States of a member.
const (
	Alive = "alive"
	Left  = "left"   // it said goodbye
	Dead  = "failed" // it does not answer, say the others too
)

// A Member is one process.
type Member struct {
	Name     string    `json:"name"`           // unique to the process
	Actors   Set       `json:"actors"`         // whom it runs
	URL      string    `json:"url"`            // where the first of them is reached
	Addr     string    `json:"addr,omitempty"` // HOST:PORT of its gossip; none in a static list
	State    string    `json:"state"`
	Self     bool      `json:"self,omitempty"` // the answering process
	Boot     string    `json:"boot,omitempty"` // of the process; orders processes by their start
	Protocol uint32    `json:"protocol"`
	Since    time.Time `json:"since"` // of State, as seen from here

	leaving bool // it has said goodbye
}

// A List says who the members are. It may be wrong for a while: a member that
// lives may be missing, and one that is gone may be there. What it returns is
// the caller's to read, not to change.
type List interface {
	// Members returns those that live, ourselves among them, in the order of
	// their first actors. No two have an actor in common.
	Members() []Member
	// Gone returns those that left or failed lately, the latest first.
	Gone() []Member
	// Rivals returns processes that say they run an actor of ours.
	Rivals() []Member
	// Changed is closed at the next change of any of these.
	Changed() <-chan struct{}
	// Ready is closed once others have had their chance to be known.
	Ready() <-chan struct{}
	// Close leaves the group; ctx bounds the goodbye.
	Close(ctx context.Context) error
}

// static is a list that was given and never changes.
type static struct {
	members []Member
	ready   chan struct{}
}

// Static returns the list of self and others.
func Static(self Member, others []Member) List {
	self.Self = true
	s := &static{members: append([]Member{self}, others...), ready: make(chan struct{})}
	for i := range s.members {
		m := &s.members[i]
		m.State, m.Name = Alive, cmp.Or(m.Name, m.Actors.String())
	}
	byActor(s.members)
	close(s.ready)
	return s
}

func (s *static) Members() []Member           { return s.members }
func (s *static) Gone() []Member              { return nil }
func (s *static) Rivals() []Member            { return nil }
func (s *static) Changed() <-chan struct{}    { return nil }
func (s *static) Ready() <-chan struct{}      { return s.ready }
func (s *static) Close(context.Context) error { return nil }

func byActor(members []Member) {
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(a.Actors.First(), b.Actors.First()) })
}

// resolve makes one list of what everybody says of itself. Of two processes
// that claim the same actor, the one that was started later is taken: the
// other is what is left of a crash, or is found out by talking to it. Nobody
// takes an actor from self; who tries is a rival.
func resolve(self Member, others []Member) (members, rivals []Member) {
	slices.SortFunc(others, func(a, b Member) int { // the latest first
		return cmp.Or(cmp.Compare(b.Boot, a.Boot), cmp.Compare(a.Name, b.Name))
	})
	var t taken
	t.take(self.Actors)
	members = []Member{self}
	for _, m := range others {
		switch {
		case m.Actors.Meets(self.Actors):
			rivals = append(rivals, m)
		case t.free(m.Actors):
			t.take(m.Actors)
			members = append(members, m)
		}
	}
	byActor(members)
	return members, rivals
}

// taken are ranges that are spoken for, ascending.
type taken []Range

// at returns the index of the first range that ends at a or behind it.
func (t taken) at(a uint32) int {
	i, _ := slices.BinarySearchFunc(t, a, func(r Range, a uint32) int { return cmp.Compare(r.Last, a) })
	return i
}

func (t taken) free(s Set) bool {
	return !slices.ContainsFunc(s, func(r Range) bool {
		i := t.at(r.First)
		return i < len(t) && t[i].First <= r.Last
	})
}

// take adds what is free.
func (t *taken) take(s Set) {
	for _, r := range s {
		*t = slices.Insert(*t, t.at(r.First), r)
	}
}

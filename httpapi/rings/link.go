package rings

import "time"

// A Step is what the sender of one link does next.
type Step int

const (
	Wait  Step = iota // until the time that came with it, or until something happens
	Probe             // ask for a sign of life: nothing large is sent to who has not answered
	Ask               // ask what the other holds
	Post              // send one batch
)

// A Link decides when the sender of one link does what. It is a value that its
// owner changes by telling what happened; times come from the owner.
//
//	new, or other process  ->  Ask  ->  Post  ->  Post … at most one in a Pace
//	    a failure          ->  Wait for the pause that the owner chose
//	    ProbeAfter in a row->  Probe before anything else
type Link struct {
	Pace       time.Duration // least time between the starts of two POSTs
	ProbeAfter int           // failures in a row after which a probe comes first; ≥ 1

	failures int
	asked    bool
	last     time.Time // start of the last POST
	rest     time.Time // nothing is tried before
}

// Next returns what to do at now, given whether there is something to send,
// and for Wait until when; the zero time: until something happens.
func (l *Link) Next(now time.Time, something bool) (Step, time.Time) {
	switch {
	case now.Before(l.rest):
		return Wait, l.rest
	case l.failures >= l.ProbeAfter:
		return Probe, now
	case !l.asked:
		return Ask, now
	case !something:
		return Wait, time.Time{}
	case now.Before(l.last.Add(l.Pace)):
		return Wait, l.last.Add(l.Pace)
	}
	return Post, now
}

// Posting notes that a POST starts at now.
func (l *Link) Posting(now time.Time) { l.last = now }

// Answered notes that the other did what was asked: a probe, a question, a
// POST. It returns whether it had been silent for so long that others have
// brought it much: then it is asked what it holds, and the rest is left to
// pull. After a failure or two what failed is sent again, as nobody else may.
func (l *Link) Answered() (ask bool) {
	ask = l.failures >= MeshProbes
	l.failures, l.rest = 0, time.Time{}
	return ask
}

// Asked notes that it has said what it holds.
func (l *Link) Asked() { l.asked = true }

// Failed notes that it did not, and that nothing is tried before pause is over.
func (l *Link) Failed(now time.Time, pause time.Duration) {
	l.failures++
	l.rest = now.Add(pause)
}

// Saw sets the number of failures in a row to what others know of it.
func (l *Link) Saw(failures int) { l.failures = failures }

// Woken ends the pause: the other has shown a sign of life.
func (l *Link) Woken() { l.rest = time.Time{} }

// Restarted notes that another process answers, of which nothing is known.
func (l *Link) Restarted() { l.asked = false }

// Failures returns the number of failures in a row.
func (l *Link) Failures() int { return l.failures }

// Carries reports whether a link carries an op. A mesh carries what was minted
// here, since everybody gets it from who minted it. An overlay carries all
// that is new here, but not back to where it came from.
//
//	relay  in an overlay
//	ours   minted by this member
//	from   the member that brought it, if known
//	to     the member at the other end
func Carries(relay, ours bool, from uint64, known bool, to uint64) bool {
	if ours {
		return true
	}
	return relay && !(known && from == to)
}

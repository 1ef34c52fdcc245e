package httpapi

import (
	"net/http"
	"time"
)

// clockFar is how far a peer's clock may be from ours before that is logged:
// the Date header has whole seconds, and an answer takes a while.
const clockFar = 10 * time.Second

// checkClock warns, once per start of the peer, that its clock is far from
// ours. Two answers in a row must say so: a single one may have waited while
// this process was frozen. Nothing depends on clocks but the ages shown.
func (p *peer) checkClock(h http.Header, now time.Time) {
	date, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return // a peer need not tell the time
	}
	ahead := date.Sub(now)
	far := ahead.Abs() > clockFar
	p.mu.Lock()
	twice := far && p.clockOff
	p.clockOff = far
	p.mu.Unlock()
	if !twice {
		return
	}
	p.once("clock", func() {
		p.n.log.Warn().Uint32("peer", uint32(p.actor)).Int64("ahead_ms", ahead.Milliseconds()).
			Str("hint", "order is not affected, ages shown are").Msg("peer's clock is far off")
	})
}

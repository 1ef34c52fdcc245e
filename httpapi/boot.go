package httpapi

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strconv"
	"sync"
	"time"

	"crdt-genome/genome"
)

// A bootID names one run of a process: when it started and 64 random bits, as
// "<unix ms, 12 hex digits>-<16 hex digits>". Its text order is the order of
// starts, so two processes agree which of them came later; a wrong clock can
// make them pick the older, but never both or neither.
type bootID string

func newBootID(start time.Time) bootID {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: see crypto/rand
	return bootID(fmt.Sprintf("%012x-%s", start.UnixMilli(), hex.EncodeToString(b[:])))
}

// started returns the time in b; false if b is not a boot id.
func (b bootID) started() (time.Time, bool) {
	if len(b) != 29 || b[12] != '-' {
		return time.Time{}, false
	}
	ms, err := strconv.ParseUint(string(b[:12]), 16, 63)
	_, err2 := strconv.ParseUint(string(b[13:]), 16, 64)
	return time.UnixMilli(int64(ms)), err == nil && err2 == nil
}

// Two processes under one actor number are told apart from a restart by time:
// after a restart nothing more is heard of the older one. So the older must be
// heard again twinGrace after the newer was first heard, and both within
// twinMemory. That is not enough, for what a killed process has handed to its
// kernel is sent again for minutes when packets get lost: the older must also
// say, in the Date of its request (RFC 9110, 6.6.1), that it sent it after the
// newer was started. Clocks that differ only put that off.
const (
	twinGrace  = time.Second
	twinMemory = time.Minute
	// twinSilence without a sign of the older process lifts the fence; see
	// fenceTwin. While that one lives, and somebody hears both, there is one at
	// least every backoffMax.
	twinSilence = 5 * time.Minute
)

// twins remembers which processes speak as which actor.
type twins struct {
	grace time.Duration

	mu   sync.Mutex
	seen map[genome.ActorID][]sighting // only of configured actors; ≤ maxTwins each
}

type sighting struct {
	boot        bootID
	first, last time.Time
	sent        time.Time // by the clock of boot: the latest request
}

// see notes that boot spoke as actor in a request sent at the given time by its
// own clock, zero if it does not say. It returns the older process that speaks
// as the same actor, if there is one that lives.
func (t *twins) see(actor genome.ActorID, boot bootID, sent, now time.Time) (older bootID, inUse bool) {
	started, ok := boot.started()
	if !ok {
		return "", false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	all := t.seen[actor]
	me := -1
	for i := range all {
		if all[i].boot == boot {
			me = i
		}
	}
	if me < 0 {
		if len(all) == maxTwins {
			all = all[1:] // the one heard of first
		}
		me = len(all)
		all = append(all, sighting{boot: boot, first: now})
		t.seen[actor] = all
	}
	all[me].last = now
	if sent.After(all[me].sent) {
		all[me].sent = sent
	}
	for _, s := range all {
		if s.boot < boot && s.sent.After(started) && s.last.Sub(all[me].first) > t.grace && now.Sub(s.last) < twinMemory {
			return s.boot, true
		}
	}
	return "", false
}

// forget drops what is known of an actor that is no peer any more.
func (t *twins) forget(actor genome.ActorID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.seen, actor)
}

package rings

import "time"

// What senders and pulls keep to. The node and the simulation read it here.
const (
	// MeshPace is the least time between the starts of two POSTs to one member.
	// The first op after a pause goes at once; what is minted meanwhile goes
	// together.
	MeshPace = 5 * time.Millisecond
	// RingPace is the same where members pass on what others minted: on each
	// of some ten hops, what came meanwhile goes together.
	RingPace = 200 * time.Millisecond

	// MeshProbes failures in a row a sender asks for a sign of life before it
	// sends a body. In rings one is enough: a body sent in vain is a copy too
	// many.
	MeshProbes = 3
	RingProbes = 1

	// PauseFirst and PauseMax bound the full-jitter pause of a sender: between
	// 0 and 100 ms after the first failure, 0 and 30 s in the end.
	PauseFirst = 100 * time.Millisecond
	PauseMax   = 30 * time.Second

	// PullGrace is how long an op that push is probably bringing may take.
	PullGrace = time.Second
	// SmallGap is the number of missing events up to which that is believed.
	SmallGap = 1024
)

// Pace returns the least time between the starts of two POSTs to one member.
func Pace(relay bool) time.Duration {
	if relay {
		return RingPace
	}
	return MeshPace
}

// Spread returns the pace of one link in rings: between 4/5 of pace and all of
// it, by whose it is. With one pace for all, members that begin together go on
// together: both ends of a link then post at the same time, each what the
// other is just sending, and an op waits for the same instant at every hop.
// Measured in a simulation (ringsim) of 2,000 members without loss: 3.8
// copies of each op and 1.0 s until all have it, against 3.2 and 0.6 s.
func Spread(pace time.Duration, from, to uint64) time.Duration {
	const steps = 1024
	return pace - pace/5*time.Duration(place(from, to)%steps)/steps
}

// Probes returns the failures in a row after which a probe comes first.
func Probes(relay bool) int {
	if relay {
		return RingProbes
	}
	return MeshProbes
}

// Pause returns how long a sender rests after its n-th failure in a row,
// counted from 0. share, 0 … 1, is drawn at random by the caller: full jitter
// keeps those that failed together from trying again together (Brooker,
// "Exponential Backoff And Jitter", 2015).
func Pause(n int, share float64) time.Duration {
	most := PauseMax
	if n < 16 {
		most = min(most, PauseFirst<<max(n, 0))
	}
	return time.Duration(share * float64(most))
}

// Grace returns how long a pull waits before it fetches lacked events, where
// usual is what push may take. The first pull from a member does not wait, as
// nobody has pushed to us yet, and no more does one for a large gap.
func Grace(first bool, lacked uint64, usual time.Duration) time.Duration {
	if first || lacked > SmallGap {
		return 0
	}
	return usual
}

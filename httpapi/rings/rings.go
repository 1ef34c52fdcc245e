// Package rings says who sends to whom in a group that is too large for
// everybody to send to everybody, and when. It is pure: no clock, no
// randomness, no I/O. The same code runs in a node and in a simulation.
//
// # Overlay
//
// Every member has a number that nobody else has and that it keeps over
// restarts. For each ring the numbers are hashed with the ring's own number,
// which puts the members in a circle in an order that is as good as random;
// a member's neighbours are the one before and the one behind it. With three
// rings that is six neighbours, fewer where two rings agree.
//
//	ring 0:  … 17 -> 3 -> 88 …      3's neighbours: 17, 88,
//	ring 1:  … 88 -> 5 -> 3 -> 9 …                  5, 9,
//	ring 2:  … 41 -> 3 -> 17 …                      41 (and 17 again)
//
// So everybody computes the same links from the same list, without asking:
//
//	R1. The graph of one whole ring is connected, whatever the list is.
//	R2. Nobody has more neighbours than the fanout, and with an even fanout
//	    links go both ways.
//	R3. When a member comes or goes, only its own neighbours' links change.
//
// Lists that differ for a while give links that differ: an op may take a
// detour, or wait for a pull. Nothing depends on equal lists.
//
// Union of a few random cycles: every node has the same degree and the
// diameter is logarithmic (Law and Siu, "Distributed construction of random
// expander networks", INFOCOM 2003).
package rings

import (
	"slices"
)

const (
	// Threshold is the number of members up to which everybody sends its own
	// ops to everybody: a POST more for each, but the shortest way.
	Threshold = 64
	// Fanout is the number of neighbours above it: three rings.
	Fanout = 6
	// MaxFanout bounds what can be asked for: more rings than this make
	// copies, not ways.
	MaxFanout = 64
)

// Neighbours returns whom self sends to, ascending: at most k of members,
// which may be in any order and need not hold self. Neighbour 2r is the next
// on ring r, neighbour 2r+1 the one before. It takes O(k·len(members)).
func Neighbours(self uint64, members []uint64, k int) []uint64 {
	var all []uint64
	for i := range min(k, MaxFanout) {
		if m, ok := beside(self, members, uint64(i/2), i%2 == 1); ok {
			all = append(all, m)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// beside returns the member next to self on a ring; false if self is alone.
func beside(self uint64, members []uint64, ring uint64, before bool) (best uint64, found bool) {
	me := place(ring, self)
	var least uint64 // distance to best, less 1
	for _, m := range members {
		if m == self {
			continue
		}
		d := place(ring, m) - me - 1 // around the circle, which is all of uint64
		if before {
			d = me - place(ring, m) - 1
		}
		if !found || d < least {
			best, least, found = m, d, true
		}
	}
	return best, found
}

// place is where m stands on a ring. Each step can be undone, so no two
// members share a place (SplitMix64; Steele, Lea and Flood, OOPSLA 2014).
func place(ring, m uint64) uint64 {
	x := m + (ring+1)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

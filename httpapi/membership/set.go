package membership

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
)

// Bounds of a Set, so that one can always be announced and walked through.
const (
	// MaxActors is the number of actors of one process.
	MaxActors = 1024
	// maxRanges is the number of ranges that they may be given in.
	maxRanges = 32
)

// A Range is the actors First … Last.
type Range struct{ First, Last uint32 }

// A Set is some actors, as ranges that ascend and neither touch nor overlap.
// Its text form is "0-49,60".
type Set []Range

// One returns the set of a single actor.
func One(actor uint32) Set { return Set{{actor, actor}} }

// ParseSet reads the text form. The ranges may come in any order and touch,
// but not overlap: an actor named twice is a mistake.
func ParseSet(text string) (Set, error) {
	var s Set
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		a, err := strconv.ParseUint(first, 10, 32)
		b := a
		if err == nil && isRange {
			b, err = strconv.ParseUint(last, 10, 32)
		}
		if err != nil || b < a {
			return nil, fmt.Errorf("%q is not an actor or a range of actors such as 0-49", part)
		}
		if len(s) == maxRanges {
			return nil, fmt.Errorf("more than %d ranges", maxRanges)
		}
		s = append(s, Range{uint32(a), uint32(b)})
	}
	return s.normal()
}

// SetOf returns the set of the actors, which are as few ranges as they can be.
func SetOf(list []uint32) (Set, error) {
	var s Set
	for _, a := range list {
		s = append(s, Range{a, a})
	}
	s, err := s.normal()
	if err == nil && len(s) > maxRanges {
		return nil, fmt.Errorf("%v: more than %d ranges", s, maxRanges)
	}
	return s, err
}

// normal sorts and joins what touches.
func (s Set) normal() (Set, error) {
	slices.SortFunc(s, func(a, b Range) int { return cmp.Compare(a.First, b.First) })
	var out Set
	for _, r := range s {
		k := len(out) - 1
		switch {
		case k < 0 || r.First > out[k].Last && r.First-out[k].Last > 1:
			out = append(out, r)
		case r.First <= out[k].Last:
			return nil, fmt.Errorf("actor %d is given twice", r.First)
		default:
			out[k].Last = r.Last
		}
	}
	if out.Len() > MaxActors {
		return nil, fmt.Errorf("%d actors: more than %d in one process", out.Len(), MaxActors)
	}
	return out, nil
}

// Len is the number of actors.
func (s Set) Len() uint64 {
	var n uint64
	for _, r := range s {
		n += uint64(r.Last-r.First) + 1
	}
	return n
}

// First is the lowest actor; of an empty set, 0.
func (s Set) First() uint32 {
	if len(s) == 0 {
		return 0
	}
	return s[0].First
}

// Has reports whether actor is in the set.
func (s Set) Has(actor uint32) bool {
	return slices.ContainsFunc(s, func(r Range) bool { return r.First <= actor && actor <= r.Last })
}

// Meets reports whether the sets have an actor in common.
func (s Set) Meets(t Set) bool {
	return slices.ContainsFunc(s, func(a Range) bool {
		return slices.ContainsFunc(t, func(b Range) bool { return a.First <= b.Last && b.First <= a.Last })
	})
}

// All yields the actors, ascending.
func (s Set) All() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for _, r := range s {
			for a := uint64(r.First); a <= uint64(r.Last); a++ {
				if !yield(uint32(a)) {
					return
				}
			}
		}
	}
}

func (s Set) String() string {
	var b strings.Builder
	for i, r := range s {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprint(&b, r.First)
		if r.Last > r.First {
			fmt.Fprintf(&b, "-%d", r.Last)
		}
	}
	return b.String()
}

// MarshalText and UnmarshalText are the text form.
func (s Set) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s *Set) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSet(string(text))
	return err
}

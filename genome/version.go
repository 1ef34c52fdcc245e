package genome

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A VersionEntry says that Replica's events 1 … Seq are held.
type VersionEntry struct {
	Replica ReplicaID
	Seq     uint64 // ≥ 1
}

// A Version is a version vector: for each replica the highest seq up to which
// all its events are held. It is sorted by replica and has no entry for a
// replica of which nothing is held; the empty vector is nil.
type Version []VersionEntry

func (v Version) search(r ReplicaID) (int, bool) {
	return slices.BinarySearchFunc(v, r, func(e VersionEntry, r ReplicaID) int {
		switch {
		case e.Replica < r:
			return -1
		case e.Replica > r:
			return 1
		}
		return 0
	})
}

// Get returns the seq held of r, 0 if none. O(log replicas).
func (v Version) Get(r ReplicaID) uint64 {
	if i, ok := v.search(r); ok {
		return v[i].Seq
	}
	return 0
}

// Includes reports whether v holds the event d. O(log replicas).
func (v Version) Includes(d Dot) bool { return v.Get(d.Replica) >= d.Seq }

// With returns a copy of v that holds d.Replica's events up to at least d.Seq.
// O(replicas).
func (v Version) With(d Dot) Version {
	i, ok := v.search(d.Replica)
	w := slices.Clone(v)
	switch {
	case !ok && d.Seq > 0:
		w = slices.Insert(w, i, VersionEntry(d))
	case ok && w[i].Seq < d.Seq:
		w[i].Seq = d.Seq
	}
	return w
}

// Merge returns what v or other holds: the entrywise maximum. O(replicas of
// both); neither is changed.
func (v Version) Merge(other Version) Version {
	if len(v) == 0 || len(other) == 0 {
		return slices.Concat(v, other)
	}
	w := make(Version, 0, max(len(v), len(other)))
	for len(v) > 0 && len(other) > 0 {
		a, b := v[0], other[0]
		if a.Replica <= b.Replica {
			v = v[1:]
		}
		if b.Replica <= a.Replica {
			other = other[1:]
		}
		switch {
		case a.Replica < b.Replica:
			w = append(w, a)
		case b.Replica < a.Replica:
			w = append(w, b)
		default:
			w = append(w, VersionEntry{a.Replica, max(a.Seq, b.Seq)})
		}
	}
	return append(append(w, v...), other...)
}

// Covers reports whether v holds everything that other holds. O(r log r), r
// being the replicas; so are Common and Lacks.
func (v Version) Covers(other Version) bool {
	for _, e := range other {
		if v.Get(e.Replica) < e.Seq {
			return false
		}
	}
	return true
}

// Equal reports whether v and other hold the same events.
func (v Version) Equal(other Version) bool { return slices.Equal(v, other) }

// Common returns what both v and other hold: the entrywise minimum. Every
// replica that holds v or other can show its state at Common, which is how two
// replicas are compared while both go on changing.
func (v Version) Common(other Version) Version {
	var w Version
	for _, e := range v {
		if n := min(e.Seq, other.Get(e.Replica)); n > 0 {
			w = append(w, VersionEntry{e.Replica, n})
		}
	}
	return w
}

// Ops returns the number of unit events that v holds.
func (v Version) Ops() uint64 {
	var n uint64
	for _, e := range v {
		n += e.Seq
	}
	return n
}

// A Range is the events From … To of one replica, both included.
type Range struct {
	Replica  ReplicaID
	From, To uint64
}

// Len returns the number of events in r.
func (r Range) Len() uint64 { return r.To - r.From + 1 }

// String returns "0@9c41e2b7.404-412", or "0@9c41e2b7.404" for one event.
func (r Range) String() string {
	s := Dot{r.Replica, r.From}.String()
	if r.To > r.From {
		s += "-" + strconv.FormatUint(r.To, 10)
	}
	return s
}

// Lacks returns what v lacks of other, by ascending replica: exactly the
// events that other holds and v does not.
func (v Version) Lacks(other Version) []Range {
	var out []Range
	for _, e := range other {
		if have := v.Get(e.Replica); have < e.Seq {
			out = append(out, Range{e.Replica, have + 1, e.Seq})
		}
	}
	return out
}

// Hash returns a short name of v for people and headers: the first 64 bits of
// SHA-256 over the entries, each as two 8-byte little-endian integers. Equal
// vectors have equal hashes on every machine.
func (v Version) Hash() uint64 {
	buf := make([]byte, 0, 16*len(v))
	for _, e := range v {
		buf = binary.LittleEndian.AppendUint64(buf, uint64(e.Replica))
		buf = binary.LittleEndian.AppendUint64(buf, e.Seq)
	}
	sum := sha256.Sum256(buf)
	return binary.BigEndian.Uint64(sum[:8])
}

// String returns the entries as dots joined by commas, the form that
// [ParseVersion] reads: "0@9c41e2b7.431,1@0be2d7f1.463"; nothing for the empty
// vector.
func (v Version) String() string {
	var b []byte
	for i, e := range v {
		if i > 0 {
			b = append(b, ',')
		}
		b = Dot(e).appendText(b)
	}
	return string(b)
}

// ParseVersion parses what String prints; the empty text is the empty vector.
// Entries may come in any order, each replica once. The error is an
// [*OpError] with [CodeBadID].
func ParseVersion(s string) (Version, error) {
	if s == "" {
		return nil, nil
	}
	var v Version
	for part := range strings.SplitSeq(s, ",") {
		d, err := ParseDot(part)
		if err != nil {
			return nil, err
		}
		v = append(v, VersionEntry(d))
	}
	return v.sorted()
}

// sorted orders v by replica and refuses a replica named twice.
func (v Version) sorted() (Version, error) {
	slices.SortFunc(v, func(a, b VersionEntry) int { return Dot(a).Compare(Dot(b)) })
	for i := 1; i < len(v); i++ {
		if v[i].Replica == v[i-1].Replica {
			return nil, badID(v[i].Replica.String(), "a replica stands in a version vector once")
		}
	}
	return v, nil
}

// MarshalJSON returns {"0@9c41e2b7":431,…}, by ascending replica.
func (v Version) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, e := range v {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(e.Replica.appendText(append(b, '"')), '"', ':')
		b = strconv.AppendUint(b, e.Seq, 10)
	}
	return append(b, '}'), nil
}

// UnmarshalJSON parses what MarshalJSON prints. Entries may come in any order,
// each replica once; null is the empty vector. The error is an [*OpError] with
// [CodeBadID] or [CodeBadEncoding].
func (v *Version) UnmarshalJSON(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	tok, err := dec.Token()
	if err == nil && tok == nil {
		*v = nil
		return nil
	}
	if tok != json.Delim('{') {
		return errVersionJSON
	}
	var w Version
	for dec.More() {
		name, _ := dec.Token()
		value, err := dec.Token()
		s, isName := name.(string)
		n, isNumber := value.(json.Number)
		if err != nil || !isName || !isNumber {
			return errVersionJSON
		}
		r, err := ParseReplicaID(s)
		if err != nil {
			return err
		}
		seq, ok := parseDecimal(string(n), MaxSeq)
		if !ok || seq == 0 {
			return badID(s+"."+string(n), fmt.Sprintf("seq is 1 to %d", uint64(MaxSeq)))
		}
		w = append(w, VersionEntry{r, seq})
	}
	if tok, err = dec.Token(); err != nil || tok != json.Delim('}') {
		return errVersionJSON
	}
	if w, err = w.sorted(); err == nil {
		*v = w
	}
	return err
}

var errVersionJSON error = &OpError{Code: CodeBadEncoding, Detail: `a version vector is written {"actor@epoch":seq,...}`}

package genome

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// A Gene is one byte. A genome is shown as two lower-case hex digits a gene.
type Gene = byte

// An ActorID is the number an operator gave an actor, 0 … 2^32-1. It outlives
// restarts and lost disks; what must never be reused is bound to a [ReplicaID].
type ActorID uint32

// An Epoch tells the lives of one actor apart: 32 random bits, minted when a
// log is created and again whenever continuity with the past cannot be proven.
// Epoch 0 is reserved and never minted. Its text form is 8 hex digits.
type Epoch uint32

// String returns e as 8 lower-case hex digits.
func (e Epoch) String() string { return fmt.Sprintf("%08x", uint32(e)) }

// A ReplicaID is an actor in one of its epochs: actor<<32 | epoch. It is what
// the CRDT calls a replica, and orders numerically. The text form is
// actor@epoch, "3@5f3c1a2b". The zero ReplicaID belongs to nobody.
type ReplicaID uint64

// NewReplicaID returns the replica of actor a in epoch e.
func NewReplicaID(a ActorID, e Epoch) ReplicaID {
	return ReplicaID(uint64(a)<<32 | uint64(e))
}

// Actor returns the actor that r belongs to.
func (r ReplicaID) Actor() ActorID { return ActorID(r >> 32) }

// Epoch returns the epoch of r.
func (r ReplicaID) Epoch() Epoch { return Epoch(r) }

// Valid reports whether r can issue ops: its epoch is not the reserved 0.
func (r ReplicaID) Valid() bool { return r.Epoch() != 0 }

// String returns the text form of r.
func (r ReplicaID) String() string { return string(r.appendText(nil)) }

func (r ReplicaID) appendText(dst []byte) []byte {
	dst = strconv.AppendUint(dst, uint64(r.Actor()), 10)
	dst = append(dst, '@')
	return fmt.Appendf(dst, "%08x", uint32(r.Epoch()))
}

// MarshalText returns the text form of r. It never fails.
func (r ReplicaID) MarshalText() ([]byte, error) { return r.appendText(nil), nil }

// UnmarshalText parses the text form; see [ParseReplicaID].
func (r *ReplicaID) UnmarshalText(text []byte) (err error) {
	*r, err = ParseReplicaID(string(text))
	return err
}

// ParseReplicaID parses "actor@epoch". The form is canonical: a decimal actor
// without leading zeros, then exactly 8 lower-case hex digits that are not all
// zero. The error is an [*OpError] with [CodeBadID].
func ParseReplicaID(s string) (ReplicaID, error) {
	actor, epoch, ok := strings.Cut(s, "@")
	if !ok {
		return 0, badID(s, "a replica is written actor@epoch, as 3@5f3c1a2b")
	}
	a, ok := parseDecimal(actor, math.MaxUint32)
	if !ok {
		return 0, badID(s, "the actor is a decimal number up to 4294967295, without leading zeros")
	}
	e, ok := parseEpoch(epoch)
	if !ok {
		return 0, badID(s, "the epoch is 8 lower-case hex digits, not all zero")
	}
	return NewReplicaID(ActorID(a), e), nil
}

func parseEpoch(s string) (Epoch, bool) {
	if len(s) != 8 || strings.ToLower(s) != s {
		return 0, false
	}
	e, err := strconv.ParseUint(s, 16, 32)
	return Epoch(e), err == nil && e != 0
}

// parseDecimal accepts what AppendUint prints, and nothing else.
func parseDecimal(s string, limit uint64) (uint64, bool) {
	if s == "" || len(s) > 20 || (s[0] == '0' && len(s) > 1) || s[0] == '+' {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil && n <= limit
}

func badID(s, why string) error {
	if len(s) > 64 {
		s = s[:61] + "..."
	}
	return &OpError{Code: CodeBadID, Detail: fmt.Sprintf("bad id %q: %s", s, why)}
}

// A Dot names one unit event: the Seq-th event of Replica. Seq counts 1, 2,
// 3, … without gaps, one per gene inserted and one per gene deleted. The text
// form is "3@5f3c1a2b.17".
type Dot struct {
	Replica ReplicaID
	Seq     uint64
}

// String returns the text form of d.
func (d Dot) String() string { return string(d.appendText(nil)) }

func (d Dot) appendText(dst []byte) []byte {
	return strconv.AppendUint(append(d.Replica.appendText(dst), '.'), d.Seq, 10)
}

// MarshalText returns the text form of d. It never fails.
func (d Dot) MarshalText() ([]byte, error) { return d.appendText(nil), nil }

// UnmarshalText parses the text form; see [ParseDot].
func (d *Dot) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDot(string(text))
	return err
}

// ParseDot parses "actor@epoch.seq", seq ≥ 1. The error is an [*OpError] with
// [CodeBadID].
func ParseDot(s string) (Dot, error) {
	r, n, err := parseNumbered(s, ".", "an op is written actor@epoch.seq, as 3@5f3c1a2b.17")
	if err == nil && n == 0 {
		err = badID(s, "seq counts from 1")
	}
	return Dot{r, n}, err
}

// A GeneID names one gene for ever: the Gene-th gene that Replica inserted,
// counted from 0 without gaps. Deleting a gene does not free its id. The text
// form is "3@5f3c1a2b#12". The zero GeneID is [Root].
type GeneID struct {
	Replica ReplicaID
	Gene    uint64
}

// Root is the beginning of the list: the parent of what is inserted before
// everything else. It is not a gene and cannot be deleted.
var Root = GeneID{}

// IsRoot reports whether g is [Root].
func (g GeneID) IsRoot() bool { return g == Root }

// String returns the text form of g, "root" for [Root].
func (g GeneID) String() string {
	if g.IsRoot() {
		return "root"
	}
	return string(g.appendText(nil))
}

func (g GeneID) appendText(dst []byte) []byte {
	return strconv.AppendUint(append(g.Replica.appendText(dst), '#'), g.Gene, 10)
}

// MarshalText returns the text form of g; for [Root] it is empty. It never
// fails.
func (g GeneID) MarshalText() ([]byte, error) {
	if g.IsRoot() {
		return nil, nil
	}
	return g.appendText(nil), nil
}

// UnmarshalText parses the text form; the empty text is [Root].
func (g *GeneID) UnmarshalText(text []byte) (err error) {
	if len(text) == 0 {
		*g = Root
		return nil
	}
	*g, err = ParseGeneID(string(text))
	return err
}

// ParseGeneID parses "actor@epoch#gene". The error is an [*OpError] with
// [CodeBadID].
func ParseGeneID(s string) (GeneID, error) {
	r, n, err := parseNumbered(s, "#", "a gene is written actor@epoch#number, as 3@5f3c1a2b#12")
	return GeneID{r, n}, err
}

// parseNumbered parses replica, sep, decimal number up to MaxSeq.
func parseNumbered(s, sep, form string) (ReplicaID, uint64, error) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return 0, 0, badID(s, form)
	}
	r, err := ParseReplicaID(s[:i])
	if err != nil {
		return 0, 0, err
	}
	n, ok := parseDecimal(s[i+1:], MaxSeq)
	if !ok {
		return 0, 0, badID(s, fmt.Sprintf("the number after %q is decimal, at most %d, without leading zeros", sep, uint64(MaxSeq)))
	}
	return r, n, nil
}

// Compare orders dots by replica, then seq.
func (d Dot) Compare(e Dot) int {
	return cmp.Or(cmp.Compare(d.Replica, e.Replica), cmp.Compare(d.Seq, e.Seq))
}

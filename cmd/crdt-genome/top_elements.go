package main

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"crdt-genome/genome"
	"crdt-genome/httpapi"
)

// topElements is the list with its tombstones as one server has it. What any
// other actor shows follows from its version vector.
type topElements struct {
	*httpapi.ElementsReply
	vals   []byte
	deaths [][]topDeath // of each row; concurrent deletions are several
}

// A topDeath is a deletion of an element.
type topDeath struct {
	author int
	seq    uint64
	lsn    uint64
}

// newTopElements checks what a server sent: it may be anybody's.
func newTopElements(r *httpapi.ElementsReply) (*topElements, error) {
	n, d := len(r.Author), r.Deleted
	vals, err := hex.DecodeString(r.Val)
	if err != nil || len(vals) != n || len(r.Seq) != n || len(r.LSN) != n ||
		len(d.Author) != len(d.Of) || len(d.Seq) != len(d.Of) || len(d.LSN) != len(d.Of) {
		return nil, errors.New("elements: columns of different lengths")
	}
	e := &topElements{r, vals, make([][]topDeath, n)}
	for _, a := range slices.Concat(r.Author, d.Author) {
		if a < 0 || a >= len(r.Replicas) {
			return nil, fmt.Errorf("elements: no author %d", a)
		}
	}
	for i, row := range d.Of {
		if row < 0 || row >= n {
			return nil, fmt.Errorf("elements: no row %d", row)
		}
		e.deaths[row] = append(e.deaths[row], topDeath{d.Author[i], d.Seq[i], d.LSN[i]})
	}
	return e, nil
}

func (e *topElements) digest() genome.Digest {
	if e == nil {
		return 0
	}
	return e.Digest
}

// What a row shows of an element.
type topMark uint8

const (
	markGone    topMark = iota // deleted here
	markHas                    // in the list here
	markMissing                // in the list elsewhere, not received here
	markStale                  // in the list here, deleted elsewhere
)

// shown reports whether the element is in the list of the row.
func (k topMark) shown() bool { return k == markHas || k == markStale }

// A topMoment is a state of the list: that of version v, or, if past, that
// after the first lsn unit events of the server's log.
type topMoment struct {
	v    genome.Version
	past bool
	lsn  uint64
}

// marks returns what a moment shows of each row.
func (e *topElements) marks(at topMoment) []topMark {
	heads := make([]uint64, len(e.Replicas))
	for i, r := range e.Replicas {
		heads[i] = at.v.Get(r)
	}
	holds := func(author int, seq, lsn uint64) bool {
		if at.past {
			return lsn <= at.lsn
		}
		return heads[author] >= seq
	}
	out := make([]topMark, len(e.Author))
	for i := range out {
		dead := slices.ContainsFunc(e.deaths[i], func(d topDeath) bool { return holds(d.author, d.seq, d.lsn) })
		switch has := holds(e.Author[i], e.Seq[i], e.LSN[i]); {
		case has && dead || !has && len(e.deaths[i]) > 0:
			out[i] = markGone
		case !has:
			out[i] = markMissing
		case len(e.deaths[i]) > 0:
			out[i] = markStale
		default:
			out[i] = markHas
		}
	}
	return out
}

// shownRows returns the rows that any of the marks shows, in order: the columns
// of the picture.
func shownRows(marks [][]topMark) (rows []int) {
	if len(marks) == 0 {
		return nil
	}
	for i := range marks[0] {
		if slices.ContainsFunc(marks, func(m []topMark) bool { return m[i].shown() }) {
			rows = append(rows, i)
		}
	}
	return rows
}

// A topCell is one character of a strip, which stands for one element or more.
type topCell struct {
	mark   topMark
	author genome.ActorID
	val    byte
}

// cells draws the columns of a row into at most width cells. A cell of several
// elements shows what is wrong with any of them.
func (e *topElements) cells(columns []int, marks []topMark, width int) []topCell {
	n := min(len(columns), max(width, 0))
	out := make([]topCell, n)
	for x := range out {
		some := columns[x*len(columns)/n : (x+1)*len(columns)/n]
		pick := some[0]
		for _, i := range some[1:] {
			if rankOf(marks[i]) > rankOf(marks[pick]) {
				pick = i
			}
		}
		out[x] = topCell{marks[pick], e.Replicas[e.Author[pick]].Actor(), e.vals[pick]}
	}
	return out
}

// rankOf orders the marks by how much they must be seen.
func rankOf(k topMark) int {
	return slices.Index([]topMark{markGone, markHas, markStale, markMissing}, k)
}

// A topOp is an op as the last lines of the screen tell it.
type topOp struct {
	lsn    uint64
	dot    genome.Dot
	insert bool
	val    byte
	author genome.ActorID // of the op
}

// lastOps returns the last ops up to position lsn of those that the elements
// tell of, the newest first.
func (e *topElements) lastOps(lsn uint64, most int) (ops []topOp) {
	if e == nil || most <= 0 {
		return nil
	}
	add := func(author int, seq, at uint64, insert bool, val byte) {
		if at > lsn {
			return
		}
		r := e.Replicas[author]
		op := topOp{at, genome.Dot{Replica: r, Seq: seq}, insert, val, r.Actor()}
		i, _ := slices.BinarySearchFunc(ops, op, func(a, b topOp) int { return cmp.Compare(b.lsn, a.lsn) })
		if i < most {
			ops = slices.Insert(ops, i, op)
			ops = ops[:min(len(ops), most)]
		}
	}
	for i := range e.Author {
		add(e.Author[i], e.Seq[i], e.LSN[i], true, e.vals[i])
		for _, d := range e.deaths[i] {
			add(d.author, d.seq, d.lsn, false, e.vals[i])
		}
	}
	return ops
}

// actorNames writes actors as "0 1 3".
func actorNames(actors []genome.ActorID, sep string) string {
	var out []byte
	for i, a := range actors {
		if i > 0 {
			out = append(out, sep...)
		}
		out = strconv.AppendUint(out, uint64(a), 10)
	}
	return string(out)
}

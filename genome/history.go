package genome

import (
	"iter"
	"math"
	"slices"
	"sort"
)

// history holds every applied op in the order of application, so that what a
// peer lacks can be told from memory. A causal order: an op comes after all
// that it depends on.
type history struct {
	ops []Op
	by  map[ReplicaID][]int // the places of a replica's ops in ops, ascending; never ranged over
}

// append adds op, joined to the op before where the two are one run.
func (h *history) append(op Op) {
	if last := len(h.ops) - 1; last >= 0 {
		if joined, ok := h.ops[last].Join(op); ok {
			h.ops[last] = joined
			return
		}
	}
	if h.by == nil {
		h.by = make(map[ReplicaID][]int)
	}
	op.Genes = slices.Clip(op.Genes) // so that a later join cannot write into the caller's array
	h.by[op.Dot.Replica] = append(h.by[op.Dot.Replica], len(h.ops))
	h.ops = append(h.ops, op)
}

// clipped returns op such that appending to its genes cannot write into the
// history's array, which a later join may grow in place.
func (op Op) clipped() Op {
	op.Genes = slices.Clip(op.Genes)
	return op
}

// find returns the place in h.by[r] of the op that holds r's event seq, or of
// the first after it.
func (h *history) find(r ReplicaID, seq uint64) int {
	places := h.by[r]
	return sort.Search(len(places), func(i int) bool { return h.ops[places[i]].Last() >= seq })
}

// lookup returns the op that holds the event d.
func (h *history) lookup(d Dot) (Op, bool) {
	places := h.by[d.Replica]
	i := h.find(d.Replica, d.Seq)
	if d.Seq == 0 || i == len(places) {
		return Op{}, false
	}
	return h.ops[places[i]].clipped(), true
}

// since yields what lacks names, one op at a time, in causal order. Known
// heads of ops are cut off. O(what lies behind the first op yielded).
func (h *history) since(v Version, lacks []Range) iter.Seq[Op] {
	first := math.MaxInt
	for _, r := range lacks {
		first = min(first, h.by[r.Replica][h.find(r.Replica, r.From)])
	}
	return func(yield func(Op) bool) {
		for i := first; i < len(h.ops); i++ {
			op := h.ops[i]
			known := v.Get(op.Dot.Replica)
			if op.Last() <= known {
				continue
			}
			if known >= op.Dot.Seq {
				op = op.TrimHead(int(known - op.Dot.Seq + 1))
			}
			if !yield(op.clipped()) {
				return
			}
		}
	}
}

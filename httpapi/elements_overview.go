package httpapi

import (
	"context"
	"net/http"

	"crdt-genome/genome"
)

// An OverviewReply answers GET /v1/elements/overview: the list with its
// tombstones in slots of equal length, the rest by less than one element.
// Slot i of n is about the elements from i*Total/n up to (i+1)*Total/n.
type OverviewReply struct {
	Pos    uint64  `json:"pos"`    // position in this node's log, in unit events
	Total  int     `json:"total"`  // elements there are
	Genes  int     `json:"genes"`  // of them in this node's list
	Author []int64 `json:"author"` // the actor that wrote most of the slot's genes that are in the list; -1: none is
	Live   []int   `json:"live"`   // genes of the slot that are in the list
	Differ []int   `json:"differ"` // elements of the slot of which an actor lacks the insertion or a deletion
}

// maxSlots is the number of slots in one answer: a column of pixels each, on
// the widest screens. More are asked for in vain.
const maxSlots = 4096

// An overviewCache is the last answer of getOverview. It goes with the token
// of the elementsCache.
type overviewCache struct {
	digest genome.Digest
	slots  uint64
	common genome.Version
	body   []byte // gzip
}

// getOverview answers the whole list from afar. It costs what getElements does,
// and takes turns with it.
func (n *Node) getOverview(w http.ResponseWriter, r *http.Request) error {
	slots, err := intParam(r, "slots", maxSlots)
	if err != nil {
		return err
	}
	body, err := n.overviewBody(r.Context(), min(max(slots, 1), maxSlots))
	if err != nil {
		return n.storeProblem(err)
	}
	w.Header().Set("Vary", "Accept-Encoding")
	return writeGzip(w, r, body)
}

func (n *Node) overviewBody(ctx context.Context, slots uint64) ([]byte, error) {
	view, err := n.clusterView(ctx)
	if err != nil {
		return nil, err
	}
	cache := n.watch.elements
	if err := cache.take(ctx); err != nil {
		return nil, err
	}
	defer cache.give()
	st, err := n.actor.State(ctx)
	if err != nil {
		return nil, err
	}
	c, common := &cache.overview, commonVersion(st.Version, view.actors)
	if c.body != nil && c.digest == st.Digest && c.slots == slots && c.common.Equal(common) {
		return c.body, nil
	}
	reply, digest, err := n.overview(ctx, int(slots), common)
	if err != nil {
		return nil, err
	}
	body, err := gzipJSON(reply)
	if err != nil {
		return nil, err
	}
	*c = overviewCache{digest, slots, common, body}
	return body, nil
}

// commonVersion returns what of v all actors hold that have been heard of.
func commonVersion(v genome.Version, actors []ActorView) genome.Version {
	for i := range actors {
		a := &actors[i]
		if !a.Self && a.Boot != "" && !a.VV.Covers(v) {
			v = v.Common(a.VV)
		}
	}
	return v
}

// overview reads the list from the genome, and out of the log which elements
// are touched by events that are not common to all.
func (n *Node) overview(ctx context.Context, slots int, common genome.Version) (*OverviewReply, genome.Digest, error) {
	t := &overviewTable{elementsTable: elementsTable{replicas: map[genome.ReplicaID]int{}}}
	o, digest, version := &t.reply, genome.Digest(0), genome.Version(nil)
	err := n.actor.View(ctx, func(g *genome.Genome) {
		digest, version, o.Pos, o.Genes = g.Digest(), g.Version(), g.Ops(), g.Len()
		o.Total = g.Len() + g.Tombstones()
		t.makeSlots(min(slots, o.Total))
		t.survey(g)
	})
	if err != nil {
		return nil, 0, err
	}
	if common.Covers(version) {
		return o, digest, nil
	}
	t.index()
	t.differs = make([]bool, o.Total)
	for rec, err := range n.actor.Records(ctx, 1) {
		if err != nil {
			return nil, 0, err
		}
		if rec.LSN > o.Pos {
			break
		}
		t.differ(rec.LSN, rec.Op, common.Get(rec.Op.Dot.Replica))
	}
	return o, digest, nil
}

// An overviewTable fills an OverviewReply.
type overviewTable struct {
	elementsTable
	reply   OverviewReply
	differs []bool // by element: it is counted
}

// makeSlots makes arrays that are empty, never null.
func (t *overviewTable) makeSlots(n int) {
	t.reply.Author, t.reply.Live, t.reply.Differ = make([]int64, n), make([]int, n), make([]int, n)
}

// slotOf returns the slot of an element, and the first element of the next one.
func (t *overviewTable) slotOf(element int) (slot, next int) {
	n, total := len(t.reply.Live), t.reply.Total
	slot = ((element+1)*n - 1) / total
	return slot, (slot + 1) * total / n
}

// survey counts, for each slot, the genes of each author.
func (t *overviewTable) survey(g *genome.Genome) {
	at, slot := 0, 0
	counts := map[genome.ActorID]int{} // of the slot
	for run := range g.Runs() {
		t.spans = append(t.spans, elementSpan{run.First, run.N, at})
		for end := at + run.N; at < end; {
			s, next := t.slotOf(at)
			if s != slot {
				t.settle(slot, counts)
				slot = s
			}
			k := min(end, next) - at
			if run.Live {
				counts[run.First.Replica.Actor()] += k
			}
			at += k
		}
	}
	if t.reply.Total > 0 {
		t.settle(slot, counts)
	}
}

// settle notes whose genes are most of a slot, the lower actor's among equals,
// and clears the counts.
func (t *overviewTable) settle(slot int, counts map[genome.ActorID]int) {
	author, most := int64(-1), 0
	for a, k := range counts {
		t.reply.Live[slot] += k
		if k > most || k == most && int64(a) < author {
			author, most = int64(a), k
		}
	}
	t.reply.Author[slot] = author
	clear(counts)
}

// differ counts the elements that the events of op touch from seq known+1 on.
func (t *overviewTable) differ(lsn uint64, op genome.Op, known uint64) {
	n := min(op.Len(), int(t.reply.Pos-lsn+1))
	for i := range n {
		if op.Dot.Seq+uint64(i) <= known {
			continue
		}
		ev := op.Event(i)
		id := ev.Ref
		if ev.Kind == genome.Insert {
			id = genome.GeneID{Replica: op.Dot.Replica, Gene: op.Gene + uint64(i)}
		}
		if row, ok := t.row(id); ok && !t.differs[row] {
			t.differs[row] = true
			slot, _ := t.slotOf(row)
			t.reply.Differ[slot]++
		}
	}
}

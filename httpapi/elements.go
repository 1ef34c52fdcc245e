package httpapi

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"crdt-genome/genome"
)

// An ElementsReply answers GET /v1/elements: the list with its tombstones, in
// order, as columns. Row i of the columns Author … LSN, byte i of Val and
// letter i of Side are one element, a gene that is or was in the list.
//
// An element is in the list of whoever holds the events of vector V if its dot
// (Author, Seq) is in V and no dot of its rows in Deleted is: so the list of
// any peer, and of any moment of the past, can be read from one answer.
// GET /v1/changes?since=Pos goes on from here.
type ElementsReply struct {
	Replica genome.ReplicaID `json:"replica"` // the answering node
	Digest  genome.Digest    `json:"digest"`
	Pos     uint64           `json:"pos"` // position in this node's log, in unit events
	VV      genome.Version   `json:"vv"`

	Total  int `json:"total"`  // elements there are
	From   int `json:"from"`   // the first one here
	Before int `json:"before"` // genes of the node's list that stand before it

	Replicas     []genome.ReplicaID `json:"replicas"` // what the author columns index
	Author       []int              `json:"author"`
	Gene         []uint64           `json:"gene"` // with Author: the id
	Seq          []uint64           `json:"seq"`  // with Author: the dot of its insertion
	Val          string             `json:"val"`  // hex, two digits an element, tombstones included
	ParentAuthor []int              `json:"parent_author"`
	ParentGene   []uint64           `json:"parent_gene"` // with ParentAuthor -1: the beginning of the list
	Side         string             `json:"side"`        // L or R: of the parent
	LSN          []uint64           `json:"lsn"`         // position of the insertion in this node's log

	Deleted Deletions `json:"deleted"`
}

// Deletions are the events that delete elements of an ElementsReply, as
// columns, in the order of the log. Concurrent ones may delete one element.
type Deletions struct {
	Of     []int    `json:"of"` // row, counted from the first element in the answer
	Author []int    `json:"author"`
	Seq    []uint64 `json:"seq"`
	LSN    []uint64 `json:"lsn"`
}

const (
	// maxElements is the number of elements in one answer, about 4 MiB before
	// compression. More are asked for with ?from=: a page shows a window, and
	// where it stands in the whole by GET /v1/elements/overview.
	maxElements = 100_000

	// maxDeletions is the number of deletions in one answer. Beyond it only
	// the first deletion of an element is named, so that an element that is
	// deleted over and over cannot make the answer grow.
	maxDeletions = 2 * maxElements
)

// A window is the part of the list that a reader wants.
type window struct {
	from, limit uint64
	whole       uint64 // a list of at most so many elements is wanted as a whole
}

// newWindow reads the query.
func newWindow(r *http.Request) (w window, err error) {
	if w.from, err = intParam(r, "from", 0); err != nil {
		return w, err
	}
	if w.limit, err = intParam(r, "limit", maxElements); err != nil {
		return w, err
	}
	w.whole, err = intParam(r, "whole", 0)
	w.limit, w.whole = min(w.limit, maxElements), min(w.whole, maxElements)
	return w, err
}

// of returns the window of a list of total elements, as from and limit.
func (w window) of(total uint64) window {
	if total <= w.whole {
		return window{limit: total}
	}
	return window{from: min(w.from, total), limit: w.limit}
}

// getElements answers a window of the list. What it costs is one reading of
// the log, so it is done for one reader at a time and remembered.
func (n *Node) getElements(w http.ResponseWriter, r *http.Request) error {
	wanted, err := newWindow(r)
	if err != nil {
		return err
	}
	body, digest, err := n.watch.elements.get(r.Context(), n, wanted)
	if err != nil {
		return n.storeProblem(err)
	}
	w.Header().Set("Vary", "Accept-Encoding")
	if tagged(w, r, digest) {
		return nil
	}
	return writeGzip(w, r, body)
}

// writeGzip answers with JSON that is compressed already.
func writeGzip(w http.ResponseWriter, r *http.Request, body []byte) error {
	w.Header().Set("Content-Type", mediaJSON)
	out := &patientWriter{w, http.NewResponseController(w)}
	if acceptsGzip(r) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, err := out.Write(body)
		return err
	}
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("read our own gzip: %w", err)
	}
	_, err = io.Copy(out, z)
	return err
}

// acceptsGzip reports whether r wants gzip: it is named, and not with q=0.
func acceptsGzip(r *http.Request) bool {
	for part := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, q, _ := strings.Cut(part, ";")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") {
			_, weight, weighed := strings.Cut(q, "=")
			v, err := strconv.ParseFloat(strings.TrimSpace(weight), 64)
			return !weighed || err == nil && v > 0
		}
	}
	return false
}

// An elementsCache holds the last answers of getElements and getOverview, so
// that seven tabs that load at once cost one reading of the log each.
type elementsCache struct {
	turn   chan struct{} // holds one token; the fields below go with it
	digest genome.Digest
	window window
	body   []byte // gzip

	overview overviewCache
}

func newElementsCache() *elementsCache {
	c := &elementsCache{turn: make(chan struct{}, 1)}
	c.turn <- struct{}{}
	return c
}

// take waits for its turn; the caller must give it back.
func (c *elementsCache) take(ctx context.Context) error {
	select {
	case <-c.turn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *elementsCache) give() { c.turn <- struct{}{} }

func (c *elementsCache) get(ctx context.Context, n *Node, wanted window) ([]byte, genome.Digest, error) {
	if err := c.take(ctx); err != nil {
		return nil, 0, err
	}
	defer c.give()
	st, err := n.actor.State(ctx)
	if err != nil {
		return nil, 0, err
	}
	if c.body != nil && c.digest == st.Digest && c.window == wanted {
		return c.body, c.digest, nil
	}
	reply, err := n.elements(ctx, wanted)
	if err != nil {
		return nil, 0, err
	}
	body, err := gzipJSON(reply)
	if err != nil {
		return nil, 0, err
	}
	c.body, c.digest, c.window = body, reply.Digest, wanted
	return body, c.digest, nil
}

func gzipJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		return nil, fmt.Errorf("gzip: %w", err)
	}
	if err := errors.Join(json.NewEncoder(z).Encode(v), z.Close()); err != nil {
		return nil, fmt.Errorf("encode answer: %w", err)
	}
	return b.Bytes(), nil
}

// elements reads a window of the list: its order from the genome, and where
// each element came from out of the log, up to the same moment.
func (n *Node) elements(ctx context.Context, wanted window) (*ElementsReply, error) {
	t := &elementsTable{replicas: map[genome.ReplicaID]int{}}
	e := &t.reply
	e.Replica = n.actor.Replica()
	err := n.actor.View(ctx, func(g *genome.Genome) {
		e.Digest, e.Pos, e.VV = g.Digest(), g.Ops(), g.Version()
		t.window(g, wanted.of(uint64(g.Len()+g.Tombstones())))
	})
	if err != nil {
		return nil, err
	}
	t.makeColumns()
	for rec, err := range n.actor.Records(ctx, 1) {
		if err != nil {
			return nil, err
		}
		if rec.LSN > e.Pos {
			break
		}
		t.add(rec.LSN, rec.Op)
	}
	e.Val = hex.EncodeToString(t.vals)
	e.Side = string(t.sides)
	return e, nil
}

// An elementsTable fills an ElementsReply.
type elementsTable struct {
	reply    ElementsReply
	replicas map[genome.ReplicaID]int // index into reply.Replicas; looked up only
	spans    []elementSpan            // by first id
	last     int                      // span found last: neighbours in the log are neighbours here
	vals     []byte
	sides    []byte
	dead     []bool // a deletion of the row is in the reply
}

// An elementSpan is n elements with consecutive ids, from row on.
type elementSpan struct {
	first  genome.GeneID
	n, row int
}

// window notes which elements the answer is about.
func (t *elementsTable) window(g *genome.Genome, w window) {
	e := &t.reply
	e.From = int(w.from)
	end := e.From + int(w.limit)
	for run := range g.Runs() {
		if run.Live && e.Total < e.From {
			e.Before += min(run.N, e.From-e.Total)
		}
		lo, hi := max(e.Total, e.From), min(e.Total+run.N, end)
		if lo < hi {
			first := run.First
			first.Gene += uint64(lo - e.Total)
			t.spans = append(t.spans, elementSpan{first, hi - lo, lo - e.From})
		}
		e.Total += run.N
	}
}

// makeColumns makes room for the rows: arrays that are empty, never null.
func (t *elementsTable) makeColumns() {
	e, rows := &t.reply, 0
	for _, s := range t.spans {
		rows += s.n
	}
	t.index()
	e.Replicas = []genome.ReplicaID{}
	e.Author, e.ParentAuthor = make([]int, rows), make([]int, rows)
	e.Gene, e.Seq, e.ParentGene, e.LSN = make([]uint64, rows), make([]uint64, rows), make([]uint64, rows), make([]uint64, rows)
	e.Deleted = Deletions{Of: []int{}, Author: []int{}, Seq: []uint64{}, LSN: []uint64{}}
	t.vals, t.sides, t.dead = make([]byte, rows), bytes.Repeat([]byte{'R'}, rows), make([]bool, rows)
}

// index makes row ready.
func (t *elementsTable) index() {
	slices.SortFunc(t.spans, func(a, b elementSpan) int { return compareGenes(a.first, b.first) })
}

func compareGenes(a, b genome.GeneID) int {
	return cmp.Or(cmp.Compare(a.Replica, b.Replica), cmp.Compare(a.Gene, b.Gene))
}

// row returns the row of an element, false if it is outside of the window.
func (t *elementsTable) row(id genome.GeneID) (int, bool) {
	if len(t.spans) == 0 {
		return 0, false
	}
	if row, ok := t.spans[t.last].row0(id); ok {
		return row, true
	}
	i, found := slices.BinarySearchFunc(t.spans, id, func(s elementSpan, id genome.GeneID) int { return compareGenes(s.first, id) })
	if !found {
		i--
	}
	if i < 0 {
		return 0, false
	}
	t.last = i
	return t.spans[i].row0(id)
}

// row0 returns the row of an element of s.
func (s *elementSpan) row0(id genome.GeneID) (int, bool) {
	if id.Replica != s.first.Replica || id.Gene < s.first.Gene || id.Gene-s.first.Gene >= uint64(s.n) {
		return 0, false
	}
	return s.row + int(id.Gene-s.first.Gene), true
}

// replica returns the index of r in the answer's table.
func (t *elementsTable) replica(r genome.ReplicaID) int {
	i, ok := t.replicas[r]
	if !ok {
		i = len(t.reply.Replicas)
		t.replicas[r] = i
		t.reply.Replicas = append(t.reply.Replicas, r)
	}
	return i
}

// add fills in what the log says from position lsn on. A record may be longer
// than what the genome had when the window was taken.
func (t *elementsTable) add(lsn uint64, op genome.Op) {
	for i := range min(op.Len(), int(t.reply.Pos-lsn+1)) {
		ev, seq, at := op.Event(i), op.Dot.Seq+uint64(i), lsn+uint64(i)
		if ev.Kind == genome.Insert {
			t.insert(genome.GeneID{Replica: op.Dot.Replica, Gene: op.Gene + uint64(i)}, ev, seq, at)
			continue
		}
		t.delete(op.Dot.Replica, ev, seq, at)
	}
}

func (t *elementsTable) insert(id genome.GeneID, ev genome.Event, seq, lsn uint64) {
	row, ok := t.row(id)
	if !ok {
		return
	}
	e := &t.reply
	e.Author[row], e.Gene[row], e.Seq[row], e.LSN[row] = t.replica(id.Replica), id.Gene, seq, lsn
	e.ParentAuthor[row] = -1
	if !ev.Ref.IsRoot() {
		e.ParentAuthor[row], e.ParentGene[row] = t.replica(ev.Ref.Replica), ev.Ref.Gene
	}
	if ev.Side == genome.Left {
		t.sides[row] = 'L'
	}
	t.vals[row] = ev.Value
}

func (t *elementsTable) delete(author genome.ReplicaID, ev genome.Event, seq, lsn uint64) {
	row, ok := t.row(ev.Ref)
	d := &t.reply.Deleted
	if !ok || t.dead[row] && len(d.Of) >= maxDeletions {
		return
	}
	t.dead[row] = true
	d.Of, d.Author = append(d.Of, row), append(d.Author, t.replica(author))
	d.Seq, d.LSN = append(d.Seq, seq), append(d.LSN, lsn)
}

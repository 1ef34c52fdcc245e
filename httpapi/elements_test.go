package httpapi

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"crdt-genome/genome"
	"crdt-genome/store"
)

// startWatched starts an actor on a free port, without mutations of its own.
func startWatched(t *testing.T, actor genome.ActorID, change func(*Config)) *Node {
	t.Helper()
	cfg := Config{Store: store.Config{Data: t.TempDir(), Actor: actor}, Listen: "127.0.0.1:0", Mutate: MutateConfig{Off: true}}
	if change != nil {
		change(&cfg)
	}
	n, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close(context.Background()) })
	return n
}

// editAtRandom makes n edits, deletions of runs among them.
func editAtRandom(t *testing.T, n *Node, rng *rand.Rand, edits int) {
	t.Helper()
	for range edits {
		_, err := n.actor.Edit(t.Context(), func(g *genome.Genome) (store.Edit, error) {
			if g.Len() > 4 && rng.IntN(3) == 0 {
				at := rng.IntN(g.Len() - 2)
				return store.Edit{Delete: true, At: at, N: 1 + rng.IntN(2)}, nil
			}
			return store.Edit{At: rng.IntN(g.Len() + 1), Genes: []byte{byte(rng.Uint64()), byte(rng.Uint64())}[:1+rng.IntN(2)]}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// copyOps brings all ops of one node to another.
func copyOps(t *testing.T, from, to *Node) {
	t.Helper()
	block, more, err := from.actor.Since(t.Context(), to.actor.Version(), 0, 0)
	if err != nil || more {
		t.Fatalf("Since: more %v, err %v", more, err)
	}
	if _, err := to.actor.Receive(t.Context(), store.Source{}, block); err != nil {
		t.Fatal(err)
	}
}

func getElements(t *testing.T, n *Node, query string) ElementsReply {
	t.Helper()
	var e ElementsReply
	if err := NewClient(n.URL()).getJSON(t.Context(), call{path: "/v1/elements" + query}, &e); err != nil {
		t.Fatal(err)
	}
	return e
}

// listAt reads the list of vector v out of an answer, as the page does.
func (e *ElementsReply) listAt(t *testing.T, v genome.Version) string {
	t.Helper()
	vals, err := hex.DecodeString(e.Val)
	if err != nil {
		t.Fatal(err)
	}
	dead := make([]bool, len(vals))
	for i, of := range e.Deleted.Of {
		if v.Get(e.Replicas[e.Deleted.Author[i]]) >= e.Deleted.Seq[i] {
			dead[of] = true
		}
	}
	var list []byte
	for i := range vals {
		if !dead[i] && v.Get(e.Replicas[e.Author[i]]) >= e.Seq[i] {
			list = append(list, vals[i])
		}
	}
	return hex.EncodeToString(list)
}

// TestElementsShowEveryMoment: one answer gives the list of the node, of every
// peer's vector and of every position of the log.
func TestElementsShowEveryMoment(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	a, b := startWatched(t, 0, nil), startWatched(t, 1, nil)
	type moment struct {
		v    genome.Version
		list string
	}
	var moments []moment
	note := func(n *Node) {
		st, err := n.actor.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		moments = append(moments, moment{st.Version, st.Hex})
	}
	for range 8 { // edits on both sides at once, then an exchange
		editAtRandom(t, a, rng, 10)
		editAtRandom(t, b, rng, 10)
		note(a)
		note(b)
		copyOps(t, a, b)
		copyOps(t, b, a)
		note(a)
	}
	e := getElements(t, a, "")
	for i, m := range moments {
		if got := e.listAt(t, m.v); got != m.list {
			t.Errorf("moment %d: list of %v = %s, want %s", i, m.v, got, m.list)
		}
	}
	if e.Pos != a.actor.LSN() || e.Total != len(e.Author) || e.From != 0 {
		t.Errorf("pos %d, total %d, from %d; the log ends at %d and there are %d rows", e.Pos, e.Total, e.From, a.actor.LSN(), len(e.Author))
	}
	var lsns []uint64
	lsns = append(append(lsns, e.LSN...), e.Deleted.LSN...)
	slices.Sort(lsns)
	for i, lsn := range lsns {
		if lsn != uint64(i)+1 {
			t.Fatalf("the positions of all rows are not 1 … %d: %d at %d", len(lsns), lsn, i)
		}
	}
	if uint64(len(lsns)) != e.Pos {
		t.Errorf("%d rows in all, want %d", len(lsns), e.Pos)
	}
}

// TestElementsParents: parents and sides are those of the ops in the log.
func TestElementsParents(t *testing.T) {
	a := startWatched(t, 0, nil)
	editAtRandom(t, a, rand.New(rand.NewPCG(3, 4)), 60)
	e := getElements(t, a, "")
	row := map[genome.GeneID]int{}
	for i := range e.Author {
		row[genome.GeneID{Replica: e.Replicas[e.Author[i]], Gene: e.Gene[i]}] = i
	}
	for rec, err := range a.actor.Records(t.Context(), 1) {
		if err != nil {
			t.Fatal(err)
		}
		for i := range rec.Op.Len() {
			ev := rec.Op.Event(i)
			if ev.Kind != genome.Insert {
				continue
			}
			r := row[genome.GeneID{Replica: rec.Op.Dot.Replica, Gene: rec.Op.Gene + uint64(i)}]
			parent := genome.GeneID{}
			if e.ParentAuthor[r] >= 0 {
				parent = genome.GeneID{Replica: e.Replicas[e.ParentAuthor[r]], Gene: e.ParentGene[r]}
			}
			if parent != ev.Ref || string(e.Side[r]) != ev.Side.String() || e.Seq[r] != rec.Op.Dot.Seq+uint64(i) {
				t.Errorf("row %d: parent %v %c, seq %d; want %v %v, %d", r, parent, e.Side[r], e.Seq[r], ev.Ref, ev.Side, rec.Op.Dot.Seq+uint64(i))
			}
		}
	}
}

// TestElementsWindow: the windows together are the whole.
func TestElementsWindow(t *testing.T) {
	a := startWatched(t, 0, nil)
	editAtRandom(t, a, rand.New(rand.NewPCG(5, 6)), 60)
	whole := getElements(t, a, "")
	val, side, deleted := "", "", 0
	var gene, lsn []uint64
	for from := 0; from < whole.Total; from += 7 {
		w := getElements(t, a, fmt.Sprintf("?from=%d&limit=7", from))
		if w.From != from || w.Total != whole.Total || len(w.Author) > 7 {
			t.Fatalf("window at %d: from %d, total %d, %d rows", from, w.From, w.Total, len(w.Author))
		}
		val, side, deleted = val+w.Val, side+w.Side, deleted+len(w.Deleted.Of)
		gene, lsn = append(gene, w.Gene...), append(lsn, w.LSN...)
	}
	if val != whole.Val || side != whole.Side || deleted != len(whole.Deleted.Of) || !slices.Equal(gene, whole.Gene) || !slices.Equal(lsn, whole.LSN) {
		t.Error("the windows of 7 do not add up to the whole")
	}
	if beyond := getElements(t, a, "?from=1000000000000"); beyond.From != whole.Total || len(beyond.Author) != 0 {
		t.Errorf("a window beyond the end begins at %d and has %d rows", beyond.From, len(beyond.Author))
	}
}

// TestElementsHTTP: ETag, compression, and no null where an array is promised.
func TestElementsHTTP(t *testing.T) {
	a := startWatched(t, 0, nil)
	get := func(header ...string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.URL()+"/v1/elements", nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := (&http.Transport{DisableCompression: true}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(b)
	}
	_, body := get()
	if strings.Contains(body, "null") || !json.Valid([]byte(body)) {
		t.Errorf("elements of an empty list: %s", body)
	}
	editAtRandom(t, a, rand.New(rand.NewPCG(7, 8)), 20)
	resp, plain := get()
	tag := resp.Header.Get("ETag")
	st, err := a.actor.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if tag != etag(st.Digest) {
		t.Errorf("ETag %s, want the digest %s", tag, etag(st.Digest))
	}
	if resp, body := get("If-None-Match", tag); resp.StatusCode != http.StatusNotModified || body != "" {
		t.Errorf("with If-None-Match: %s and %d bytes, want 304 and none", resp.Status, len(body))
	}
	for _, c := range []struct {
		accept string
		gzip   bool
	}{{"gzip", true}, {"br;q=1.0, gzip;q=0.8", true}, {"gzip;q=0", false}, {"identity", false}} {
		resp, body := get("Accept-Encoding", c.accept)
		if got := resp.Header.Get("Content-Encoding") == "gzip"; got != c.gzip || (body == plain) == c.gzip {
			t.Errorf("Accept-Encoding %q: compressed %v, want %v; equal to the plain body: %v", c.accept, got, c.gzip, body == plain)
		}
	}
	if resp, body := get("Accept", "x"); resp.StatusCode != 200 || body != plain {
		t.Error("the second reading differs from the first")
	}
	editAtRandom(t, a, rand.New(rand.NewPCG(9, 10)), 1)
	if resp, _ := get("If-None-Match", tag); resp.StatusCode != http.StatusOK {
		t.Errorf("after an edit: %s, want 200", resp.Status)
	}
}

// insertAt is an edit that inserts genes.
func insertAt(at int, genes []byte) func(*genome.Genome) (store.Edit, error) {
	return func(*genome.Genome) (store.Edit, error) { return store.Edit{At: at, Genes: genes}, nil }
}

// TestElementsWhole: a short list comes whole whatever window is asked for, a
// longer one does not; Before counts the genes that stand before the window.
func TestElementsWhole(t *testing.T) {
	a := startWatched(t, 0, nil)
	editAtRandom(t, a, rand.New(rand.NewPCG(11, 12)), 60)
	all := getElements(t, a, "")
	query := fmt.Sprintf("?from=20&limit=5&whole=%d", all.Total)
	if e := getElements(t, a, query); e.From != 0 || len(e.Author) != all.Total || e.Before != 0 {
		t.Errorf("%s of %d elements: from %d, %d rows, %d before", query, all.Total, e.From, len(e.Author), e.Before)
	}
	dead := make([]bool, all.Total)
	for _, of := range all.Deleted.Of {
		dead[of] = true
	}
	before := 0
	for from := range all.Total {
		e := getElements(t, a, fmt.Sprintf("?from=%d&limit=5&whole=%d", from, all.Total-1))
		if e.From != from || e.Before != before || len(e.Author) != min(5, all.Total-from) {
			t.Fatalf("from %d: begins at %d with %d genes before and %d rows; want %d before", from, e.From, e.Before, len(e.Author), before)
		}
		if !dead[from] {
			before++
		}
	}
	if e := getElements(t, a, "?whole=1000000000000&limit=1000000000000"); len(e.Author) != all.Total {
		t.Errorf("%d rows", len(e.Author))
	}
}

func getOverview(t *testing.T, n *Node, query string) OverviewReply {
	t.Helper()
	var o OverviewReply
	if err := NewClient(n.URL()).getJSON(t.Context(), call{path: "/v1/elements/overview" + query}, &o); err != nil {
		t.Fatal(err)
	}
	return o
}

// TestOverview: what the slots say is what counting the elements gives, for
// every number of slots; where an actor lacks something is told.
func TestOverview(t *testing.T) {
	a, b := startWatched(t, 0, nil), startWatched(t, 1, nil)
	rng := rand.New(rand.NewPCG(13, 14))
	for range 3 {
		editAtRandom(t, a, rng, 15)
		editAtRandom(t, b, rng, 15)
		copyOps(t, a, b)
		copyOps(t, b, a)
	}
	common := b.actor.Version()
	editAtRandom(t, a, rng, 12) // of which b knows nothing
	e := getElements(t, a, "")
	dead, differs := make([]bool, e.Total), make([]bool, e.Total)
	for i, of := range e.Deleted.Of {
		dead[of] = true
		differs[of] = differs[of] || common.Get(e.Replicas[e.Deleted.Author[i]]) < e.Deleted.Seq[i]
	}
	for i := range e.Author {
		differs[i] = differs[i] || common.Get(e.Replicas[e.Author[i]]) < e.Seq[i]
	}
	for _, slots := range []int{1, 2, 7, e.Total - 1, e.Total} {
		o, _, err := a.overview(t.Context(), slots, common)
		if err != nil || len(o.Live) != slots || o.Total != e.Total {
			t.Fatalf("%d slots of %d elements, want %d of %d, err %v", len(o.Live), o.Total, slots, e.Total, err)
		}
		for s := range slots {
			live, differ, by := 0, 0, map[int64]int{}
			for i := s * e.Total / slots; i < (s+1)*e.Total/slots; i++ {
				if !dead[i] {
					live++
					by[int64(e.Replicas[e.Author[i]].Actor())]++
				}
				if differs[i] {
					differ++
				}
			}
			author := int64(-1)
			if live > 0 {
				author = 0
				if by[1] > by[0] {
					author = 1
				}
			}
			if o.Live[s] != live || o.Differ[s] != differ || o.Author[s] != author {
				t.Errorf("slot %d of %d: %d live, %d differ, by %d; want %d, %d, %d", s, slots, o.Live[s], o.Differ[s], o.Author[s], live, differ, author)
			}
		}
	}
}

// TestOverviewHTTP: bounds, the empty list, and an answer that is new when the
// list is.
func TestOverviewHTTP(t *testing.T) {
	a := startWatched(t, 0, nil)
	if o := getOverview(t, a, ""); o.Author == nil || o.Live == nil || o.Differ == nil || len(o.Live) != 0 {
		t.Errorf("of an empty list: %+v", o)
	}
	if _, err := a.actor.Edit(t.Context(), insertAt(0, make([]byte, maxSlots+1000))); err != nil {
		t.Fatal(err)
	}
	if o := getOverview(t, a, "?slots=1000000000"); len(o.Live) != maxSlots || o.Total != maxSlots+1000 || o.Genes != o.Total {
		t.Errorf("%d slots of %d elements, %d genes", len(o.Live), o.Total, o.Genes)
	}
	if o := getOverview(t, a, "?slots=0"); len(o.Live) != 1 {
		t.Errorf("%d slots, want one", len(o.Live))
	}
	if _, err := a.actor.Edit(t.Context(), insertAt(0, []byte{1})); err != nil {
		t.Fatal(err)
	}
	if o := getOverview(t, a, "?slots=3"); o.Total != maxSlots+1001 || o.Live[0]+o.Live[1]+o.Live[2] != o.Total {
		t.Errorf("after an edit: %+v", o)
	}
	if r := ask(t, a, "GET", "/v1/elements/overview?slots=x", nil); r.status != http.StatusBadRequest {
		t.Errorf("slots=x: %d", r.status)
	}
}

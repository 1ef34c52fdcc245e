package observatory_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"crdt-genome/httpapi/observatory"
)

// A script is a node that says what a test wants it to say.
type script struct {
	srv      *httptest.Server
	elements any
	feed     chan string // whole SSE events

	mu  sync.Mutex
	ids []string // Last-Event-ID or since of each stream
}

func newScript(t *testing.T, elements any) *script {
	t.Helper()
	s := &script{elements: elements, feed: make(chan string, 64)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		a, ok := observatory.Get(strings.TrimPrefix(r.URL.Path, "/"))
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", a.Type)
		w.Header().Set("Content-Security-Policy", "default-src 'self'")
		_, _ = w.Write(a.Body)
	})
	mux.HandleFunc("GET /v1/elements", func(w http.ResponseWriter, r *http.Request) { _ = json.NewEncoder(w).Encode(s.elements) })
	mux.HandleFunc("GET /v1/log", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, `{"seq":1,"time":"2026-11-22T22:10:04.871Z","via":"local","from":0}`)
	})
	mux.HandleFunc("GET /v1/changes", s.changes)
	s.srv = httptest.NewServer(mux)
	t.Cleanup(func() {
		close(s.feed)
		s.srv.CloseClientConnections()
		s.srv.Close()
	})
	return s
}

func (s *script) changes(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.ids = append(s.ids, r.Header.Get("Last-Event-ID")+"/"+r.URL.Query().Get("since"))
	s.mu.Unlock()
	w.Header().Set("Content-Type", "text/event-stream")
	rc := http.NewResponseController(w)
	fmt.Fprint(w, "retry: 200\n\n")
	_ = rc.Flush()
	for {
		select {
		case e, ok := <-s.feed:
			if !ok || e == "" {
				return
			}
			_, _ = w.Write([]byte(e))
			_ = rc.Flush()
		case <-r.Context().Done():
			return
		}
	}
}

// say sends one event; id 0: none.
func (s *script) say(id int, event string, data any) {
	b, err := json.Marshal(data)
	if err != nil {
		panic(err)
	}
	line := ""
	if id > 0 {
		line = fmt.Sprintf("id: %d\n", id)
	}
	s.feed <- line + fmt.Sprintf("event: %s\ndata: %s\n\n", event, b)
}

type object = map[string]any

// actor is a peer event.
func actor(n int, vv object, more object) object {
	o := object{"actor": n, "state": "equal", "vv": vv, "lacks_ops": 0, "oldest_ms": 0, "since_ms": 0, "rtt_ms": 0.4, "ops": 1, "genes": 1,
		"boot": "b", "posts": 0, "posts_failed": 0, "at": "2026-11-22T22:10:31Z"}
	for k, v := range more {
		o[k] = v
	}
	return o
}

func verdict(v string, equal, of int, groups [][]int, ops, genes int) object {
	return object{"verdict": v, "equal": equal, "of": of, "groups": groups, "ops": ops, "genes": genes, "digest": "00112233aabbccdd", "paused": true}
}

// fourGenes is a list by actors 0 and 1: a, b, c and d, of which b is deleted
// by 0 and d by 1. It is what actor 0 holds.
func fourGenes() object {
	return object{"replica": "0@00000001", "digest": "00112233aabbccdd", "pos": 6, "vv": object{"0@00000001": 4, "1@00000002": 2}, "total": 4, "from": 0,
		"replicas": []string{"0@00000001", "1@00000002"}, "author": []int{0, 0, 1, 0}, "gene": []int{0, 1, 0, 2}, "seq": []int{1, 2, 1, 3}, "val": "0a0b0c0d",
		"parent_author": []int{-1, 0, 0, 1}, "parent_gene": []int{0, 0, 1, 0}, "side": "RRRR", "lsn": []int{1, 2, 3, 4},
		"deleted": object{"of": []int{1, 3}, "author": []int{0, 1}, "seq": []int{4, 2}, "lsn": []int{5, 6}}}
}

// TestMarks: each of the four marks is what the legend says, for what a peer's
// vector says.
func TestMarks(t *testing.T) {
	s := newScript(t, fourGenes())
	tb := open(t, s.srv.URL+"/")
	tb.pattern = "getImageData" // of this test
	s.say(0, "peer", actor(0, object{"0@00000001": 4, "1@00000002": 2}, object{"self": true}))
	s.say(0, "peer", actor(1, object{"0@00000001": 3, "1@00000002": 2}, nil)) // lacks that b is deleted
	s.say(0, "peer", actor(2, object{"0@00000001": 4}, nil))                  // lacks c, and that d is deleted
	s.say(0, "peer", actor(3, object{"1@00000002": 9}, nil))                  // lacks all of actor 0; has 7 more of actor 1
	s.say(0, "verdict", verdict("behind", 1, 4, [][]int{{0, 1, 2, 3}}, 6, 2))
	tb.wait(`observatory.G.rows.length === 4`)
	// Columns: a, b (shown by 1), c, d (shown by 2). For each row, the mark of each.
	const has, missing, stale, gone = "has", "missing", "stale", "gone"
	want := [][]string{
		{has, gone, has, gone},
		{has, stale, has, gone},
		{has, gone, missing, stale},
		{missing, gone, has, gone},
	}
	// A mark is told by its pixels: an edge and the middle, and whether it is of the author's colour.
	const look = `((row, col) => {
		const c = document.querySelectorAll("#strips canvas")[row], w = Math.min(c.width / 4, 26), g = c.getContext("2d");
		const at = (x, y) => [...g.getImageData(Math.floor(col * w + x), y, 1, 1).data];
		const hue = ["230,159,0,255", "86,180,233,255"][[0, 0, 1, 0][col]];
		const corner = at(1, 1).join(), middle = at(w / 2 - 1, Math.floor(c.height / 2) - 3);
		let grey = 0;
		for (let y = 0; y < c.height; y++) { const [r, , b, a] = at(w / 2, y); if (a === 255 && Math.abs(r - b) < 30) grey++; }
		if (grey === c.height) return "missing";
		if (corner === hue) return middle[3] === 0 ? "stale" : "has";
		return corner === "0,0,0,0" && middle[3] === 0 ? "gone" : "?" + corner + "/" + middle.join();
	})(%d, %d)`
	tb.wait(`document.querySelectorAll("#strips canvas").length === 4`)
	for row, marks := range want {
		for col, mark := range marks {
			if got := eval[string](tb, fmt.Sprintf(look, row, col)); got != mark {
				t.Errorf("actor %d, column %d: %s, want %s", row, col, got, mark)
			}
		}
	}
	if got := eval[string](tb, `document.querySelectorAll("#strips .count")[3].textContent`); !strings.Contains(got, "+7") {
		t.Errorf("actor 3 holds 7 changes that are not here; its row says %q", got)
	}
	keys := eval[int](tb, `new Set([...document.querySelectorAll(".key")].map(c => c.toDataURL())).size`)
	if keys != 4 {
		t.Errorf("the legend has %d different marks, want 4", keys)
	}
}

// TestVerdictWords: nothing is claimed before there is news; the words follow
// the verdict; diverged stays; a stream that is down is said to be.
func TestVerdictWords(t *testing.T) {
	s := newScript(t, fourGenes())
	tb := open(t, s.srv.URL+"/")
	tb.pattern = "ERR_" // streams are cut on purpose
	vv := object{"0@00000001": 4, "1@00000002": 2}
	s.say(0, "peer", actor(0, vv, object{"self": true}))
	tb.wait(`observatory.S.actors.size === 1`)
	s.say(0, "verdict", verdict("connecting", 0, 2, [][]int{{0}, {1}}, 6, 2))
	tb.wait(`observatory.S.verdict?.verdict === "connecting"`)
	// Everything so far would pass for equality, if the page guessed.
	if got := eval[string](tb, `document.getElementById("word").textContent`); got != "connecting…" {
		t.Errorf("before any news of the others the page says %q", got)
	}
	s.say(0, "peer", actor(1, vv, nil))
	for _, c := range []struct{ verdict, word, sentence string }{
		{"converged", "CONVERGED", "All 2 actors hold the same 2 genes"},
		{"behind", "BEHIND", "on their way"},
		{"partitioned", "PARTITIONED {0} {1}", "{0} and {1} do not reach each other"},
		{"unreachable", "UNREACHABLE", "cannot be reached"},
		{"converged", "CONVERGED", "All 2 actors"},
		{"diverged", "DIVERGED", "bug or damage"},
		{"converged", "DIVERGED", "bug or damage"}, // it stays
	} {
		s.say(0, "peer", actor(1, vv, object{"state": map[bool]string{true: "unreachable", false: "equal"}[c.verdict == "unreachable" || c.verdict == "partitioned"]}))
		s.say(0, "verdict", verdict(c.verdict, 2, 2, [][]int{{0}, {1}}, 6, 2))
		tb.wait(fmt.Sprintf(`observatory.S.verdict.verdict === %q && document.getElementById("word").textContent === %q`, c.verdict, c.word))
		if got := eval[string](tb, `document.getElementById("sentence").textContent`); !strings.Contains(got, c.sentence) {
			t.Errorf("%s: %q, want it to say %q", c.verdict, got, c.sentence)
		}
	}
	if got := eval[string](tb, `getComputedStyle(document.getElementById("verdict")).backgroundColor`); got != "rgb(194, 24, 43)" && got != "rgb(179, 21, 42)" {
		tb.wait(`/rgb\((194, 24, 43|179, 21, 42)\)/.test(getComputedStyle(document.getElementById("verdict")).backgroundColor)`) // the colour fades in
	}
	s.srv.Listener.Close()
	s.srv.CloseClientConnections()
	tb.wait(word + ` === "stale" && /stale \d+ s/.test(document.getElementById("word").textContent)`)
}

// TestPageComesBack: after a cut the browser asks from the last id on, and an
// op that it has already is not applied again.
func TestPageComesBack(t *testing.T) {
	s := newScript(t, fourGenes())
	tb := open(t, s.srv.URL+"/")
	tb.pattern = "ERR_"
	vv := object{"0@00000001": 4, "1@00000002": 2}
	s.say(0, "peer", actor(0, vv, object{"self": true}))
	s.say(0, "verdict", verdict("converged", 1, 1, [][]int{{0}}, 6, 2))
	op := func(seq int) {
		s.say(seq, "op", object{"seq": seq, "time": "2026-11-22T22:10:31Z", "op": fmt.Sprintf("0@00000001.%d", seq-2), "kind": "insert", "genes": "ee", "gene": seq - 4,
			"parent": "0@00000001#0", "side": "R", "via": "local", "from": 0})
	}
	op(7)
	tb.wait(`observatory.M.pos === 7`)
	s.feed <- "" // ends the stream
	op(7)
	op(8)
	tb.wait(`observatory.M.pos === 8`)
	if d, r := eval[int](tb, `observatory.S.duplicates`), eval[int](tb, `observatory.S.reloads`); d != 1 || r != 1 {
		t.Errorf("%d duplicates noticed and the list loaded %d times, want 1 and 1", d, r)
	}
	// The new genes are siblings of b, with higher numbers: they stand behind all that hangs on b.
	if got := eval[string](tb, `observatory.M.order.map(r => observatory.M.val[r].toString(16)).join()`); got != "a,b,c,d,ee,ee" {
		t.Errorf("order %s", got)
	}
	op(11) // a gap: the page must load the list again
	tb.wait(`observatory.S.reloads === 2`)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ids) < 2 || s.ids[0] != "/6" || s.ids[1] != "7/6" {
		t.Errorf("streams were asked from %q, want first since 6, then with Last-Event-ID 7", s.ids)
	}
}

// TestManyGenes: 20,000 genes in five rows. How long a frame takes is told,
// not tested: it depends on the machine.
func TestManyGenes(t *testing.T) {
	const n = 20_000
	e := object{"replica": "0@00000001", "digest": "00112233aabbccdd", "pos": n, "vv": object{"0@00000001": n}, "total": n, "from": 0,
		"replicas": []string{"0@00000001"}, "val": strings.Repeat("2a", n), "side": strings.Repeat("R", n),
		"deleted": object{"of": []int{}, "author": []int{}, "seq": []int{}, "lsn": []int{}}}
	author, parent, gene, seq, before := make([]int, n), make([]int, n), make([]int, n), make([]int, n), make([]int, n)
	for i := range n {
		gene[i], seq[i], before[i] = i, i+1, i-1
	}
	parent[0], before[0] = -1, 0
	e["author"], e["gene"], e["seq"], e["parent_author"], e["parent_gene"], e["lsn"] = author, gene, seq, parent, before, seq
	s := newScript(t, e)
	tb := open(t, s.srv.URL+"/")
	s.say(0, "peer", actor(0, object{"0@00000001": n}, object{"self": true}))
	for i := 1; i < 5; i++ {
		s.say(0, "peer", actor(i, object{"0@00000001": n - 100*i}, nil))
	}
	s.say(0, "verdict", verdict("behind", 1, 5, [][]int{{0, 1, 2, 3, 4}}, n, n))
	tb.wait(`observatory.G.rows.length === 5 && observatory.G.rows[4].genes === 19600`)
	ms := eval[float64](tb, `(() => { const t = performance.now(); for (let i = 0; i < 20; i++) observatory.paint(); return (performance.now() - t) / 20; })()`)
	t.Logf("%d genes in 5 rows: %.1f ms a frame", n, ms)
}

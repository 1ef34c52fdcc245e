package httpapi

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"

	"crdt-genome/genome"
)

// problemIn decodes an answer that must be a problem document with everything
// that a client may rely on.
func problemIn(t *testing.T, a answer) *Problem {
	t.Helper()
	if got := a.header.Get("Content-Type"); got != problemContentType {
		t.Fatalf("status %d, Content-Type %q, want %q; body %s", a.status, got, problemContentType, a.body)
	}
	p := &Problem{}
	if err := json.Unmarshal([]byte(a.body), p); err != nil {
		t.Fatalf("problem: %v in %s", err, a.body)
	}
	if p.Status != a.status || p.Type != problemTypePrefix+p.Code || p.Title == "" {
		t.Errorf("status %d: problem %+v does not agree with itself", a.status, p)
	}
	return p
}

// wantProblem checks status, code and the counter of the code.
func wantProblem(t *testing.T, n *Node, a answer, status int, code string) *Problem {
	t.Helper()
	p := problemIn(t, a)
	if a.status != status || p.Code != code {
		t.Errorf("answer %d %s (%s), want %d %s", a.status, p.Code, p.Detail, status, code)
	}
	if n.Counts().Rejected[code] == 0 {
		t.Errorf("genome_rejected_total{code=%q} is 0", code)
	}
	return p
}

func wantReply(t *testing.T, a answer, status int, want PostReply) {
	t.Helper()
	var got PostReply
	if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != status {
		t.Fatalf("answer %d %s, want %d; %v", a.status, a.body, status, err)
	}
	if got.Applied != want.Applied || got.Duplicate != want.Duplicate || got.Pending != want.Pending || fmt.Sprint(got.Missing) != fmt.Sprint(want.Missing) {
		t.Errorf("answer %+v, want %+v", got, want)
	}
}

func TestPostForms(t *testing.T) {
	n := alone(t, nil)
	for i, form := range []struct {
		name, media string
		body        func(a, b genome.Op) any
	}{
		{"NDJSON", typeNDJSON, func(a, b genome.Op) any { return jsonOps(t, a, b) }},
		{"array", typeJSON, func(a, b genome.Op) any {
			return "[" + strings.ReplaceAll(strings.TrimSpace(jsonOps(t, a, b)), "\n", ",") + "]"
		}},
		{"block", genome.MediaType, func(a, b genome.Op) any { return blockOps(t, a, b) }},
		{"curl -d", "application/x-www-form-urlencoded", func(a, b genome.Op) any { return jsonOps(t, a, b) }},
		{"charset", "application/json; charset=utf-8", func(a, b genome.Op) any { return jsonOps(t, a, b) }},
	} {
		t.Run(form.name, func(t *testing.T) {
			g := stranger(t, fmt.Sprintf("%d@5f3c1a2b", 100+i))
			body := form.body(insert(t, g, 0, 1, 2), insert(t, g, 1, 3))
			send := func() answer { return ask(t, n, "POST", "/genome", body, "Content-Type", form.media) }
			a := send()
			wantReply(t, a, 200, PostReply{Applied: 3})
			if got, want := a.header.Get(headerOps), fmt.Sprint(n.actor.LSN()); got != want {
				t.Errorf("Genome-Ops %q, want %s", got, want)
			}
			wantReply(t, send(), 200, PostReply{Duplicate: 3})
			if !strings.Contains(mustState(t, n).Hex, "010302") {
				t.Errorf("genome %s lacks what was posted", mustState(t, n).Hex)
			}
		})
	}
	t.Run("object", func(t *testing.T) {
		wantReply(t, post(t, n, `{"Insert":{"id":"7@9c41e2b7.1","parent":null,"side":"R","val":42}}`), 200, PostReply{Applied: 1})
		wantReply(t, post(t, n, `{"Delete":{"id":"7@9c41e2b7.2","target":"7@9c41e2b7#0","count":1}}`), 200, PostReply{Applied: 1})
	})
	t.Run("none", func(t *testing.T) { wantReply(t, post(t, n, ""), 200, PostReply{}) })
}

// A 200 is an acknowledgement: what it counts is in the log then, whoever else
// is posting the same at the time. Keeps H2.
func TestPostIsDurableWhenAnswered(t *testing.T) {
	n := alone(t, nil)
	g := stranger(t, "9@5f3c1a2b")
	var wg sync.WaitGroup
	for range 20 {
		op := insert(t, g, 0, 1)
		body := jsonOps(t, op)
		for range 4 { // three of the four find it in the writer's queue or the log
			wg.Go(func() {
				if a := post(t, n, body); a.status == http.StatusOK && !n.actor.Version().Includes(op.Dot) {
					t.Errorf("%v is acknowledged and not durable: %s", op.Dot, a.body)
				}
			})
		}
		wg.Wait()
	}
	if got := mustState(t, n).Ops; got != 20 {
		t.Errorf("%d ops, want 20", got)
	}
}

func TestPostParks(t *testing.T) {
	n := alone(t, nil)
	g := stranger(t, "9@5f3c1a2b")
	first, second, third := insert(t, g, 0, 1), insert(t, g, 1, 2), insert(t, g, 2, 3)
	wantReply(t, post(t, n, jsonOps(t, third)), 202, PostReply{Pending: 1, Missing: map[string]string{"9@5f3c1a2b": "1-2"}})
	wantReply(t, post(t, n, jsonOps(t, second)), 202, PostReply{Pending: 1, Missing: map[string]string{"9@5f3c1a2b": "1"}})
	if st := mustState(t, n); st.Ops != 0 {
		t.Errorf("parked ops are shown: %d", st.Ops)
	}
	wantReply(t, post(t, n, jsonOps(t, first)), 200, PostReply{Applied: 3})
	h := stranger(t, "8@5f3c1a2b")
	if _, err := h.Apply(first); err != nil {
		t.Fatal(err)
	}
	for _, op := range []genome.Op{second, third, insert(t, g, 3, 4)} {
		if _, err := h.Apply(op); err != nil {
			t.Fatal(err)
		}
	}
	needs := insert(t, h, 4, 5) // names gene 3 of g, which n has not seen
	wantReply(t, post(t, n, jsonOps(t, needs)), 202, PostReply{Pending: 1, Missing: map[string]string{"9@5f3c1a2b": "#3"}})
}

// foreignOps are ops of the original Rust program, as its own crate prints them.
var foreignOps = []string{
	`{"Insert":{"id":[[[[0,[]],[1,[1]]],{"actor":0,"counter":1}]],"val":64}}`,
	`{"Insert":{"id":[[[[1,[1]],[1,[1]]],{"actor":0,"counter":2}]],"val":253}}`,
	`{"Insert":{"id":[[[[1,[1]],[1,[2]]],{"actor":0,"counter":3}]],"val":112}}`,
	`{"Insert":{"id":[[[[-1,[1]],[1,[1]]],{"actor":0,"counter":4}]],"val":7}}`,
	`{"Insert":{"id":[[[[-1,[1]],[1,[2]]],{"actor":1,"counter":1}],[[[0,[]],[1,[1]]],{"actor":1,"counter":2}]],"val":3}}`,
	`{"Delete":{"id":[[[[-1,[1]],[1,[1]]],{"actor":0,"counter":4}]],"dot":{"actor":1,"counter":3}}}`,
}

func TestPostRefuses(t *testing.T) {
	n := alone(t, nil)
	wantReply(t, post(t, n, `{"Insert":{"id":"7@9c41e2b7.1","parent":null,"side":"R","genes":"2a"}}`), 200, PostReply{Applied: 1})
	for _, bad := range []struct {
		name, body string
		status     int
		code       string
	}{
		{"conflict", `{"Insert":{"id":"7@9c41e2b7.1","parent":null,"side":"R","genes":"2b"}}`, 409, "dot_conflict"},
		{"gene out of range", `{"Insert":{"id":"7@9c41e2b7.2","parent":null,"side":"R","val":300}}`, 422, "op_invalid"},
		{"no genes", `{"Insert":{"id":"7@9c41e2b7.2","parent":null,"side":"R","genes":""}}`, 422, "op_invalid"},
		{"bad id", `{"Insert":{"id":"7@9c41e2b7","parent":null,"side":"R","genes":"2a"}}`, 422, "bad_id"},
		{"epoch 0", `{"Insert":{"id":"7@00000000.1","parent":null,"side":"R","genes":"2a"}}`, 422, "bad_id"},
		{"own gene that it never had", `{"Delete":{"id":"7@9c41e2b7.2","target":"7@9c41e2b7#5","count":1}}`, 422, "unknown_target"},
		{"far future", `{"Insert":{"id":"7@9c41e2b7.70000","parent":null,"side":"R","genes":"2a"}}`, 422, "seq_too_far"},
		{"gene of the far future", `{"Delete":{"id":"7@9c41e2b7.2","target":"6@9c41e2b7#70000","count":1}}`, 422, "seq_too_far"},
		{"wrong case", `{"insert":{}}`, 400, "bad_encoding"},
		{"not JSON", `hello`, 400, "bad_encoding"},
		{"unknown field", `{"Insert":{"id":"7@9c41e2b7.2","parent":null,"side":"R","genes":"2a","x":1}}`, 400, "bad_encoding"},
		{"cut short", `{"Insert":{"id":"7@9c41e2b7.2","par`, 400, "unexpected_eof"},
		{"cut after an op", `{"Insert":{"id":"7@9c41e2b7.2","parent":null,"side":"R","genes":"2a"}}{"Ins`, 400, "unexpected_eof"},
	} {
		t.Run(bad.name, func(t *testing.T) {
			p := wantProblem(t, n, post(t, n, bad.body), bad.status, bad.code)
			if bad.code == "dot_conflict" && (p.Ours == "" || p.Theirs == "" || p.Ours == p.Theirs || p.Hint == "") {
				t.Errorf("a conflict does not show both sides: %+v", p)
			}
		})
	}
	for i, body := range foreignOps {
		t.Run(fmt.Sprintf("foreign %d", i), func(t *testing.T) {
			if p := wantProblem(t, n, post(t, n, body), 422, "foreign_op"); p.Hint == "" {
				t.Error("no hint")
			}
		})
	}
	if st := mustState(t, n); st.Hex != "2a" || st.Ops != 1 {
		t.Errorf("refused ops changed the genome: %s, %d ops", st.Hex, st.Ops)
	}
}

// One bad op does not keep the others of its batch out, and is named.
func TestPostMixedBatch(t *testing.T) {
	n := alone(t, nil)
	good := `{"Insert":{"id":"7@9c41e2b7.1","parent":null,"side":"R","genes":"2a"}}`
	bad := `{"Delete":{"id":"7@9c41e2b7.2","target":"7@9c41e2b7#5","count":1}}`
	p := wantProblem(t, n, ask(t, n, "POST", "/genome", good+"\n"+bad, "Content-Type", typeNDJSON), 422, "unknown_target")
	if p.PostReply == nil || p.Applied != 1 || len(p.Refused) != 1 || p.Refused[0].Op != "7@9c41e2b7.2" {
		t.Errorf("problem %+v, %+v: want 1 applied and op 2 refused", p, p.PostReply)
	}
	many := good
	for range 2 * maxRefusals {
		many += "\n" + bad
	}
	p = wantProblem(t, n, ask(t, n, "POST", "/genome", many, "Content-Type", typeNDJSON), 422, "unknown_target")
	if len(p.Refused) != maxRefusals {
		t.Errorf("%d refusals are listed, want %d", len(p.Refused), maxRefusals)
	}
}

func TestPostBinaryDamage(t *testing.T) {
	n := alone(t, nil)
	g := stranger(t, "9@5f3c1a2b")
	data := blockOps(t, insert(t, g, 0, 1, 2, 3), insert(t, g, 1, 4))
	for i := range data {
		flipped := bytes.Clone(data)
		flipped[i] ^= 0x10
		for _, body := range [][]byte{data[:i], flipped} {
			a := ask(t, n, "POST", "/genome", body, "Content-Type", genome.MediaType)
			if p := problemIn(t, a); a.status != 400 && a.status != 426 {
				t.Errorf("damaged at byte %d: %d %s", i, a.status, p.Code)
			}
		}
	}
	newer := bytes.Clone(data)
	newer[0] = 2
	wantProblem(t, n, ask(t, n, "POST", "/genome", newer, "Content-Type", genome.MediaType), 426, "wire_version_unsupported")
	if st := mustState(t, n); st.Ops != 0 {
		t.Errorf("%d ops of damaged blocks were taken", st.Ops)
	}
}

// The parking of one sender is bounded, and what is sent in order still gets in.
func TestPostPendingFull(t *testing.T) {
	n := alone(t, nil)
	g := stranger(t, "9@5f3c1a2b")
	first := insert(t, g, 0, 1)
	var ops []genome.Op
	for range genome.MaxParkedOps + 10 {
		ops = append(ops, insert(t, g, 0, 2))
	}
	early := blockOps(t, ops[1:genome.MaxParkedOps+1]...)
	if a := ask(t, n, "POST", "/genome", early, "Content-Type", genome.MediaType); a.status != 202 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	a := post(t, n, jsonOps(t, ops[genome.MaxParkedOps+5]))
	wantProblem(t, n, a, 503, "pending_full")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	wantReply(t, post(t, n, jsonOps(t, first, ops[0])), 200, PostReply{Applied: genome.MaxParkedOps + 2})
}

func TestBodyLimits(t *testing.T) {
	n := alone(t, nil)
	zipped := func(size int) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write(bytes.Repeat([]byte(" "), size))
		_ = z.Close()
		return b.Bytes()
	}
	op := `{"Insert":{"id":"7@9c41e2b7.1","parent":null,"side":"R","genes":"2a"}}`
	for _, c := range []struct {
		name   string
		body   any
		header []string
		status int
		code   string
	}{
		{"as large as allowed", strings.Repeat(" ", maxBody-len(op)) + op, nil, 200, ""},
		{"one byte more", strings.Repeat(" ", maxBody-len(op)+1) + op, nil, 413, "body_too_large"},
		{"chunked, one byte more", http.NoBody, nil, 413, "body_too_large"}, // replaced below
		{"gzip", zipped(1000), []string{"Content-Encoding", "gzip"}, 200, ""},
		{"bomb", zipped(50 << 20), []string{"Content-Encoding", "gzip"}, 413, "body_too_large"},
		{"not gzip", "this is not a gzip header", []string{"Content-Encoding", "gzip"}, 400, "bad_encoding"},
		{"half a gzip", zipped(100000)[:40], []string{"Content-Encoding", "gzip"}, 400, "unexpected_eof"},
		{"gzip twice", zipped(10), []string{"Content-Encoding", "gzip, gzip"}, 415, "unsupported_encoding"},
		{"brotli", "x", []string{"Content-Encoding", "br"}, 415, "unsupported_encoding"},
		{"text", op, []string{"Content-Type", "text/plain"}, 415, "unsupported_media_type"},
		{"no type", op, []string{"Content-Type", ""}, 415, "unsupported_media_type"},
		{"odd type", op, []string{"Content-Type", ";;"}, 415, "unsupported_media_type"},
		{"too many ops", strings.Repeat(op+"\n", maxBatchOps+1), nil, 413, "too_many_ops"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.body == http.NoBody { // a reader of unknown length is sent in chunks
				c.body = struct{ io.Reader }{strings.NewReader(strings.Repeat(" ", maxBody+1))}
			}
			a := ask(t, n, "POST", "/genome", c.body, append([]string{"Content-Type", typeJSON}, c.header...)...)
			if c.code == "" {
				if a.status != c.status {
					t.Errorf("%d %s, want %d", a.status, a.body, c.status)
				}
				return
			}
			wantProblem(t, n, a, c.status, c.code)
		})
	}
}

// A bomb is not unpacked beyond the limit: 413 alone would not show that.
func TestBombIsNotUnpacked(t *testing.T) {
	n := alone(t, nil)
	const size = 200 << 20
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	zeros := make([]byte, 1<<20)
	for range size >> 20 {
		_, _ = z.Write(zeros)
	}
	_ = z.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	wantProblem(t, n, ask(t, n, "POST", "/genome", b.Bytes(), "Content-Type", typeJSON, "Content-Encoding", "gzip"), 413, "body_too_large")
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > size/4 {
		t.Errorf("%d bytes were allocated for a bomb of %d", got, size)
	}
}

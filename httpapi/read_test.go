package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"crdt-genome/genome"
	"crdt-genome/store"
)

func TestGetGenome(t *testing.T) {
	n := alone(t, nil)
	a := ask(t, n, "GET", "/genome", nil)
	if a.status != 200 || a.body != "" || a.header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("empty genome: %d %q %s", a.status, a.body, a.header.Get("Content-Type"))
	}
	empty := a.header.Get("ETag")
	mustInsert(t, n, 0, 0x2a, 0x0f)
	if a = ask(t, n, "GET", "/genome", nil, "If-None-Match", empty); a.status != 200 || a.body != "2a0f" {
		t.Errorf("%d %q, want 2a0f and nothing else", a.status, a.body)
	}
	tag := a.header.Get("ETag")
	if want := `"` + mustState(t, n).Digest.String() + `"`; tag != want || tag == empty {
		t.Errorf("ETag %s, want %s", tag, want)
	}
	if got := a.header.Get(headerOps); got != "2" {
		t.Errorf("%s: %s, want 2", headerOps, got)
	}
	if got := a.header.Get(headerVV); got != hash16(mustState(t, n).VVHash) {
		t.Errorf("%s: %s", headerVV, got)
	}
	for _, match := range []string{tag, "W/" + tag, `"x", ` + tag, "*"} {
		if a = ask(t, n, "GET", "/genome", nil, "If-None-Match", match); a.status != 304 || a.body != "" {
			t.Errorf("If-None-Match %s: %d %q, want 304", match, a.status, a.body)
		}
	}
	if a = ask(t, n, "HEAD", "/genome", nil); a.status != 200 || a.body != "" || a.header.Get("Content-Length") != "4" {
		t.Errorf("HEAD: %d %q, %v", a.status, a.body, a.header)
	}
	if a = ask(t, n, "GET", "/", nil); a.status != 200 || strings.Count(a.body, "\n") != 3 || !strings.Contains(a.body, "actor 0") {
		t.Errorf("GET /: %d %q, want three lines", a.status, a.body)
	}
}

func TestEdit(t *testing.T) {
	n := alone(t, nil)
	edit := func(body string, header ...string) answer {
		return ask(t, n, "POST", "/v1/edit", body, append([]string{"Content-Type", typeJSON}, header...)...)
	}
	a := edit(`{"insert":{"at":0,"hex":"2a2b"}}`)
	var reply EditReply
	if err := json.Unmarshal([]byte(a.body), &reply); err != nil || a.status != 201 || len(reply.Ops) != 1 || reply.Ops[0].Replica != n.actor.Replica() {
		t.Errorf("insert: %d %s %v", a.status, a.body, err)
	}
	tag := ask(t, n, "GET", "/genome", nil).header.Get("ETag")
	if a = edit(`{"delete":{"at":1,"n":1}}`, "If-Match", tag); a.status != 201 {
		t.Errorf("delete with the right If-Match: %d %s", a.status, a.body)
	}
	wantProblem(t, n, edit(`{"delete":{"at":0,"n":1}}`, "If-Match", tag), 412, "precondition_failed")
	if got := mustState(t, n).Hex; got != "2a" {
		t.Errorf("genome %s, want 2a", got)
	}
	for body, want := range map[string]string{
		`{"insert":{"at":2,"hex":"2a"}}`:                               "422 index_out_of_range",
		`{"insert":{"at":-1,"hex":"2a"}}`:                              "422 index_out_of_range",
		`{"delete":{"at":0,"n":2}}`:                                    "422 index_out_of_range",
		`{"delete":{"at":9223372036854775807,"n":1}}`:                  "422 index_out_of_range",
		`{"delete":{"at":0,"n":0}}`:                                    "400 bad_request",
		`{"insert":{"at":0,"hex":"2"}}`:                                "400 bad_request",
		`{"insert":{"at":0,"hex":""}}`:                                 "400 bad_request",
		`{}`:                                                           "400 bad_request",
		`{"insert":{"at":0,"hex":"2a"},"delete":{"at":0,"n":1}}`:       "400 bad_request",
		`{"inserts":{"at":0,"hex":"2a"}}`:                              "400 bad_request",
		`{"insert":{"at":0,`:                                           "400 unexpected_eof",
		`{"insert":{"at":0,"hex":"2a"}}{"insert":{"at":0,"hex":"2b"}}`: "400 bad_request",
		`{"insert":{"at":0,"hex":"2a"}} and more`:                      "400 bad_request",
		`{"insert":{"at":0,"hex":"` + strings.Repeat("00", genome.MaxRun+1) + `"}}`: "400 bad_request",
	} {
		a := edit(body)
		if p := problemIn(t, a); fmt.Sprint(a.status, " ", p.Code) != want || p.Hint == "" {
			t.Errorf("%.60s: %d %s hint %q, want %s", body, a.status, p.Code, p.Hint, want)
		}
	}
}

func TestDigestsOfThePast(t *testing.T) {
	n := alone(t, nil)
	c := NewClient(n.URL())
	mustInsert(t, n, 0, 1, 2, 3)
	before, err := c.Digest(ctx)
	if err != nil || before.State != mustState(t, n).Digest || before.Ops != 3 || before.Genes != 3 || before.Actor != 0 {
		t.Fatalf("Digest: %+v, %v", before, err)
	}
	if _, err := n.actor.Delete(ctx, 0, 1); err != nil {
		t.Fatal(err)
	}
	for range 2 { // made, then remembered
		if then, err := c.StateAt(ctx, before.VV); err != nil || then.State != before.State || then.Genes != 3 {
			t.Errorf("StateAt the vector of before: %+v, %v, want %v", then, err, before.State)
		}
	}
	now, _ := c.Digest(ctx)
	if at, err := c.StateAt(ctx, now.VV); err != nil || at.State != now.State {
		t.Errorf("StateAt now: %+v, %v", at, err)
	}
	half := genome.Version{{Replica: n.actor.Replica(), Seq: 2}} // in the middle of an op
	if at, err := c.StateAt(ctx, half); err != nil || at.Genes != 2 {
		t.Errorf("StateAt in an op: %+v, %v", at, err)
	}
	_, err = c.StateAt(ctx, genome.Version{{Replica: n.actor.Replica(), Seq: 9}})
	if p, ok := errors.AsType[*Problem](err); !ok || p.Code != codeVectorAhead || p.Status != 409 {
		t.Errorf("StateAt the future: %v", err)
	}
	g := stranger(t, "9@5f3c1a2b")
	for _, op := range allOps(t, n) {
		if _, err := g.Apply(op); err != nil {
			t.Fatal(err)
		}
	}
	op := insert(t, g, 2, 9)
	wantReply(t, post(t, n, jsonOps(t, op)), 200, PostReply{Applied: 1})
	_, err = c.StateAt(ctx, genome.Version{{Replica: op.Dot.Replica, Seq: 1}}) // needs a gene that is not in it
	if p, ok := errors.AsType[*Problem](err); !ok || p.Code != codeVectorNotClosed || p.Status != 422 {
		t.Errorf("StateAt a vector that cannot be: %v", err)
	}
	if a := ask(t, n, "GET", "/v1/digest", nil, "If-None-Match", ask(t, n, "GET", "/v1/digest", nil).header.Get("ETag")); a.status != 304 {
		t.Errorf("If-None-Match: %d, want 304", a.status)
	}
}

// allOps returns everything that n holds.
func allOps(t *testing.T, n *Node) []genome.Op {
	t.Helper()
	b, more, err := n.actor.Since(ctx, nil, 0, 0)
	if err != nil || more {
		t.Fatalf("Since: more %v, %v", more, err)
	}
	return b.Ops
}

func TestOpsAndHeads(t *testing.T) {
	n := alone(t, nil)
	for i := range 10 {
		mustInsert(t, n, 0, byte(i))
	}
	heads, err := NewClient(n.URL()).Heads(ctx)
	if err != nil || !heads.Version().Equal(mustState(t, n).Version) || heads[n.actor.Replica()].Chain != n.actor.Heads()[0].Chain {
		t.Errorf("Heads: %+v, %v", heads, err)
	}
	v := genome.Version{{Replica: n.actor.Replica(), Seq: 4}}
	a := ask(t, n, "GET", sinceQuery(v)+"&limit=3", nil)
	if a.header.Get(headerMore) != "true" || strings.Count(a.body, "\n") != 3 || !strings.Contains(a.body, fmt.Sprintf(`"%v.5"`, n.actor.Replica())) {
		t.Errorf("GET /v1/ops: more %s, %s", a.header.Get(headerMore), a.body)
	}
	body, _ := json.Marshal(OpsQuery{Since: v, Limit: 100})
	a = ask(t, n, "POST", "/v1/ops/query", body, "Accept", genome.MediaType)
	block, err := genome.DecodeBlock([]byte(a.body), maxBatchOps)
	if err != nil || len(block.Ops) != 6 || block.Heads[0].Chain != heads[n.actor.Replica()].Chain || a.header.Get(headerMore) != "false" {
		t.Errorf("POST /v1/ops/query: %d ops, %v, %v", len(block.Ops), block.Heads, err)
	}
	wantProblem(t, n, ask(t, n, "POST", "/v1/ops/query", `{"since":3}`), 400, "bad_request")
	for i := range 4 { // a vector that is too long for a URL
		for j := range 100 {
			v = v.With(genome.Dot{Replica: genome.NewReplicaID(genome.ActorID(100+j), genome.Epoch(1+i)), Seq: 1})
		}
	}
	if block, more, err := NewClient(n.URL()).Since(ctx, v); err != nil || more || len(block.Ops) != 6 {
		t.Errorf("Since a long vector: %d ops, %v", len(block.Ops), err)
	}
}

func TestLogRoutes(t *testing.T) {
	n := alone(t, nil)
	c := NewClient(n.URL())
	mustInsert(t, n, 0, 1, 2, 3)
	if _, err := n.actor.Delete(ctx, 1, 1); err != nil {
		t.Fatal(err)
	}
	g := stranger(t, "9@5f3c1a2b")
	left := insert(t, g, 0, 9)
	left.Side = genome.Right
	wantReply(t, post(t, n, jsonOps(t, left)), 200, PostReply{Applied: 1})

	var got, want []string
	for rec, err := range n.actor.Records(ctx, 1) {
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, fmt.Sprintf("%d %v %v %x %v %v %d", rec.LSN, rec.Op.Dot, rec.Op.Kind, rec.Op.Genes, rec.Op.Ref, rec.Via, rec.CRC))
	}
	for rec, err := range c.Records(ctx, 1, false) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%d %v %v %x %v %v %d", rec.LSN, rec.Op.Dot, rec.Op.Kind, rec.Op.Genes, rec.Op.Ref, rec.Via, rec.CRC))
	}
	if len(got) != 3 || strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("Records through the server:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if a := ask(t, n, "GET", "/v1/log?from=4&limit=1", nil); strings.Count(a.body, "\n") != 1 || !strings.Contains(a.body, `"seq":4`) {
		t.Errorf("limit: %s", a.body)
	}
	if info, err := c.LogInfo(ctx); err != nil || info.Records != 5 || info.PID != os.Getpid() || info.URL != n.URL() || filepath.Base(info.Path) != "log.db" {
		t.Errorf("LogInfo: %+v, %v", info, err)
	}
	if s, err := c.LogStats(ctx); err != nil || s.Ops != 5 || s.Own != 4 || s.Deletes != 1 || s.Live.Post != 1 {
		t.Errorf("LogStats: %+v, %v", s, err)
	}
	if v, err := c.LogVerify(ctx); err != nil || !v.OK || v.Records != 5 || v.Replayed != v.Served {
		t.Errorf("LogVerify: %+v, %v", v, err)
	}
}

// A backup opens as a log and holds what was there.
func TestBackup(t *testing.T) {
	n := alone(t, nil)
	mustInsert(t, n, 0, 1, 2, 3)
	var b bytes.Buffer
	if err := NewClient(n.URL()).Backup(ctx, &b); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.MkdirAll(store.Dir(dir, 0), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(store.Dir(dir, 0), "log.db"), b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := store.Open(ctx, store.Config{Data: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if st, err := a.State(ctx); err != nil || st.Digest != mustState(t, n).Digest {
		t.Errorf("the backup holds %+v, %v", st, err)
	}
	if a.Replica() == n.actor.Replica() {
		t.Error("a backup goes on under the same epoch")
	}
}

// Following the log ends when the reader goes, when the node stops, and never
// blocks for ever.
func TestFollow(t *testing.T) {
	l := newLab(t, 1, nil)
	n := l.start(0)
	mustInsert(t, n, 0, 1)
	cctx, cancel := context.WithCancel(ctx)
	got := make(chan uint64)
	ended := make(chan error, 1)
	go func() {
		var last error
		for rec, err := range NewClient(n.URL()).Records(cctx, 1, true) {
			if last = err; err == nil {
				got <- rec.LSN
			}
		}
		ended <- last
	}()
	if lsn := <-got; lsn != 1 {
		t.Errorf("first record %d", lsn)
	}
	mustInsert(t, n, 0, 2)
	if lsn := <-got; lsn != 2 {
		t.Errorf("next record %d", lsn)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("after cancel: %v", err)
	}
	eventually(t, func() bool { return len(n.streams) == 0 }, why("the server still follows"))

	go func() { // from beyond the end: nothing comes until the node stops
		for _, err := range NewClient(n.URL()).Records(ctx, 100, true) {
			ended <- err
			return
		}
		ended <- nil
	}()
	eventually(t, func() bool { return len(n.streams) == 1 }, why("nobody follows"))
	l.stop(0)
	if err := <-ended; err != nil {
		t.Errorf("the stream of a node that stops ends with %v", err)
	}
}

func TestFollowersAreBounded(t *testing.T) {
	n := alone(t, nil)
	for range maxStreams {
		n.streams <- struct{}{}
	}
	a := ask(t, n, "GET", "/v1/log?follow=true", nil)
	wantProblem(t, n, a, 503, "busy")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

func TestHealth(t *testing.T) {
	l := newLab(t, 2, nil)
	n := l.start(0)
	for _, path := range []string{"/livez", "/healthz"} {
		if a := ask(t, n, "GET", path, nil); a.status != 200 || a.body != "ok\n" {
			t.Errorf("%s: %d %q", path, a.status, a.body)
		}
	}
	if a := ask(t, n, "GET", "/readyz", nil); a.status != 503 || !strings.Contains(a.body, "[-]sync failed: no peer has answered yet") {
		t.Errorf("readyz before any peer: %d %q", a.status, a.body)
	}
	l.start(1)
	eventually(t, func() bool { return ask(t, n, "GET", "/readyz", nil).status == 200 }, why("not ready"))
	if a := ask(t, n, "GET", "/readyz?verbose", nil); !strings.Contains(a.body, "[+]log ok: 0 ops, writable\n[+]sync ok\n[+]apply ok\nreadyz check passed\n") {
		t.Errorf("readyz?verbose: %q", a.body)
	}
	// A peer that shows more than the bound of what we lack.
	p := n.peer(1)
	p.holds([]genome.Head{{Replica: genome.NewReplicaID(1, 1), Seq: 5000}})
	if check := n.checkSync(); check.ok || !strings.Contains(check.text, "5000 ops behind peer 1 (limit 1000)") {
		t.Errorf("5,000 ops behind: %+v", check)
	}
	n.heart.beat(n.started.Add(-stallAfter * 2))
	if check := n.checkApply(); check.ok {
		t.Errorf("no heartbeat: %+v", check)
	}
	n.stopping.Store(true)
	if check := n.checkLog(); check.ok {
		t.Errorf("stopping: %+v", check)
	}
	n.stopping.Store(false)
}

func TestReadyAlone(t *testing.T) {
	l := newLab(t, 2, func(c *Config) { c.ReadyAlone = true })
	if a := ask(t, l.start(0), "GET", "/readyz", nil); a.status != 200 {
		t.Errorf("%d %q", a.status, a.body)
	}
}

func TestPutRoutes(t *testing.T) {
	var level zerolog.Level
	n := alone(t, func(c *Config) { c.SetLevel = func(l zerolog.Level) { level = l } })
	c := NewClient(n.URL())
	if err := c.LogLevel(ctx, "warn"); err != nil || level != zerolog.WarnLevel {
		t.Errorf("LogLevel: %v, level %v", err, level)
	}
	for _, bad := range []string{`{"level":"loud"}`, `{"level":"disabled"}`, `[]`} {
		wantProblem(t, n, ask(t, n, "PUT", "/v1/log-level", bad), 400, "bad_request")
	}
	for _, paused := range []bool{false, true} {
		if err := c.Mutator(ctx, paused); err != nil || n.mutator.paused() != paused {
			t.Errorf("Mutator(%v): %v", paused, err)
		}
		if v, err := c.Version(ctx); err != nil || v.Paused != paused || v.Version != "test" || v.PID != os.Getpid() {
			t.Errorf("Version: %+v, %v", v, err)
		}
	}
	wantProblem(t, n, ask(t, n, "PUT", "/v1/mutator", `{}`), 400, "bad_request")
	wantProblem(t, n, ask(t, n, "PUT", "/v1/mutator", `{"paused":`), 400, "bad_request")
}

// The client names what is wrong with the other end.
func TestClientErrors(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/genome", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<html>")
	})
	mux.HandleFunc("/v1/vv", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(headerProtocol, protocol)
		w.WriteHeader(502)
		_, _ = io.WriteString(w, "bad gateway")
	})
	mux.HandleFunc("/v1/digest", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(headerProtocol, protocol)
		_, _ = io.WriteString(w, "{")
	})
	mux.HandleFunc("/livez", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/genome", http.StatusFound) })
	srv := newLocalServer(t, mux)
	c := NewClient(srv)
	_, err := c.Genome(ctx)
	if e, ok := errors.AsType[*NotGenomeError](err); !ok || e.Got != "HTML" {
		t.Errorf("a web page: %v", err)
	}
	if err := c.Live(ctx); err == nil {
		t.Error("a redirect was followed")
	}
	_, err = c.Heads(ctx)
	if p, ok := errors.AsType[*Problem](err); !ok || p.Status != 502 || p.Code != "http_502" {
		t.Errorf("a refusal that is no problem document: %v", err)
	}
	if _, err = c.Digest(ctx); err == nil || !strings.Contains(err.Error(), "/v1/digest") {
		t.Errorf("half an answer: %v", err)
	}
	if _, err := NewClient("http://127.0.0.1:1").Version(ctx); err == nil {
		t.Error("nobody answers, and no error")
	}
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"crdt-genome/cmd/internal/fleet"
	"crdt-genome/genome"
	"crdt-genome/httpapi"
	"crdt-genome/store"
)

// Every test below runs real processes, breaks something, and wants all actors
// equal in the end.

// quick makes actors that mutate and look after each other in a hurry.
var quick = []string{"--mutate-max", "50ms", "--verify-interval", "200ms", "--pull-interval", "500ms"}

func program(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("crdt-genome")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// newGroup makes a fleet of the real program; what the actors printed is shown
// if the test fails.
func newGroup(t *testing.T, cfg fleet.Config) *fleet.Fleet {
	t.Helper()
	cfg.Binary, cfg.Data = program(t), filepath.Join(t.TempDir(), "data")
	f, err := fleet.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		for _, a := range f.Actors() {
			if log, err := os.ReadFile(a.LogPath); err == nil && t.Failed() {
				t.Logf("actor %d printed:\n%s", a.Index, log)
			}
		}
	})
	return f
}

func start(t *testing.T, actors ...*fleet.Actor) {
	t.Helper()
	for _, a := range actors {
		if err := a.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func stop(t *testing.T, a *fleet.Actor) {
	t.Helper()
	if err := a.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func kill(t *testing.T, a *fleet.Actor) {
	t.Helper()
	if err := a.Kill(); err != nil {
		t.Fatal(err)
	}
}

// try calls do until it has no error: a busy machine may let a question time
// out.
func try(t *testing.T, do func() error) {
	t.Helper()
	var err error
	if !poll(func() bool { err = do(); return err == nil }) {
		t.Fatal(err)
	}
}

func digest(t *testing.T, a *fleet.Actor) (d httpapi.DigestReply) {
	t.Helper()
	try(t, func() (err error) { d, err = a.Client().Digest(t.Context()); return err })
	return d
}

// waitOps waits until an actor holds n ops.
func waitOps(t *testing.T, a *fleet.Actor, n uint64) {
	t.Helper()
	if !poll(func() bool { d, err := a.Client().Digest(t.Context()); return err == nil && d.Ops >= n }) {
		t.Fatalf("actor %d has %d ops, want %d", a.Index, digest(t, a).Ops, n)
	}
}

// settle stops the mutations and waits until all actors hold the same; then it
// asks the compare command, with flags, which must say so too. It returns what all hold.
func settle(t *testing.T, f *fleet.Fleet, flags ...string) httpapi.DigestReply {
	t.Helper()
	for _, a := range f.Actors() {
		try(t, func() error { return a.Client().Mutator(t.Context(), true) })
	}
	equal := func() bool {
		first := digest(t, f.Actor(0))
		for _, a := range f.Actors()[1:] {
			if d := digest(t, a); d.State != first.State || !d.VV.Equal(first.VV) {
				return false
			}
		}
		return true
	}
	if !poll(equal) {
		for _, a := range f.Actors() {
			d := digest(t, a)
			t.Errorf("actor %d: %v, digest %v", a.Index, d.VV, d.State)
		}
		t.Fatal("the actors do not become equal")
	}
	out, err := exec.CommandContext(t.Context(), program(t), slices.Concat([]string{"compare", "--wait", patience.String()}, f.URLs(), flags)...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "\nCONVERGED  ") {
		t.Fatalf("compare: %v\n%s", err, out)
	}
	genomes := make([]string, len(f.Actors()))
	for i, a := range f.Actors() {
		try(t, func() (err error) { genomes[i], err = a.Client().Genome(t.Context()); return err })
		if genomes[i] != genomes[0] {
			t.Fatalf("actor %d shows %s, actor 0 %s", i, genomes[i], genomes[0])
		}
	}
	return digest(t, f.Actor(0))
}

// edit makes an actor insert a gene, and returns the op that it acknowledged.
func edit(t *testing.T, a *fleet.Actor) genome.Dot {
	t.Helper()
	r, err := a.Client().Edit(t.Context(), httpapi.EditRequest{Insert: &httpapi.InsertRequest{Hex: "5a"}})
	if err != nil || len(r.Ops) != 1 {
		t.Fatalf("edit at actor %d: %v, %v", a.Index, r, err)
	}
	return r.Ops[0]
}

// inLog reports whether a log that nobody has open holds an op.
func inLog(t *testing.T, a *fleet.Actor, d genome.Dot) bool {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), program(t), "inspect-log", a.Dir, "--file", "--json", "--since", d.String()).Output()
	if err != nil {
		t.Fatalf("inspect-log: %v", err)
	}
	return len(out) > 0
}

// logLines returns the lines of an actor's log with that message, decoded.
func logLines(t *testing.T, a *fleet.Actor, message string) (lines []map[string]any) {
	t.Helper()
	data, err := os.ReadFile(a.LogPath)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		var fields map[string]any
		if json.Unmarshal([]byte(line), &fields) == nil && fields["message"] == message {
			lines = append(lines, fields)
		}
	}
	return lines
}

func TestLateJoiner(t *testing.T) {
	t.Parallel()
	f := newGroup(t, fleet.Config{Count: 3, Args: quick})
	start(t, f.Actor(0), f.Actor(1))
	waitOps(t, f.Actor(0), 60)
	start(t, f.Actor(2))
	waitOps(t, f.Actor(2), 60)
	own := edit(t, f.Actor(2))
	if d := settle(t, f); d.VV.Get(own.Replica) < own.Seq {
		t.Errorf("op %v of the late joiner is not everywhere: %v", own, d.VV)
	}
}

// TestRejoinAfterKill kills an actor a moment after it has acknowledged an op.
func TestRejoinAfterKill(t *testing.T) {
	t.Parallel()
	f := newGroup(t, fleet.Config{Count: 3, Args: quick})
	start(t, f.Actors()...)
	a := f.Actor(1)
	for range 2 {
		waitOps(t, a, 20)
		acked := edit(t, a)
		kill(t, a)
		if !inLog(t, a, acked) {
			t.Fatalf("op %v was acknowledged and is not in the log", acked)
		}
		waitOps(t, f.Actor(0), digest(t, f.Actor(0)).Ops+20)
		start(t, a)
		if again := edit(t, a); again.Replica == acked.Replica {
			t.Errorf("after a kill it mints %v, under the epoch of %v", again, acked)
		}
		if got := digest(t, a).VV.Get(acked.Replica); got < acked.Seq {
			t.Errorf("it came back with %d ops of %v, had acknowledged %d", got, acked.Replica, acked.Seq)
		}
	}
	settle(t, f)
}

func TestWipedDisk(t *testing.T) {
	t.Parallel()
	f := newGroup(t, fleet.Config{Count: 3, Args: quick})
	start(t, f.Actors()...)
	a := f.Actor(1)
	waitOps(t, f.Actor(0), 60)
	before := edit(t, a)
	if !poll(func() bool { return digest(t, f.Actor(0)).VV.Get(before.Replica) >= before.Seq }) {
		t.Fatalf("op %v does not get to actor 0", before)
	}
	kill(t, a)
	if err := os.RemoveAll(a.Dir); err != nil {
		t.Fatal(err)
	}
	start(t, a)
	if after := edit(t, a); after.Replica == before.Replica {
		t.Errorf("with an empty disk it mints %v, under the epoch of %v", after, before)
	}
	if d := settle(t, f); d.VV.Get(before.Replica) < before.Seq {
		t.Errorf("%d ops of %v are left, %d had been seen", d.VV.Get(before.Replica), before.Replica, before.Seq)
	}
}

func TestOldCopyPutBack(t *testing.T) {
	t.Parallel()
	f := newGroup(t, fleet.Config{Count: 3, Args: quick})
	start(t, f.Actors()...)
	a := f.Actor(1)
	waitOps(t, a, 30)
	stop(t, a)
	old := filepath.Join(t.TempDir(), "old")
	if err := os.CopyFS(old, os.DirFS(a.Dir)); err != nil {
		t.Fatal(err)
	}
	start(t, a)
	lost := edit(t, a) // not in the copy
	if !poll(func() bool { return digest(t, f.Actor(2)).VV.Get(lost.Replica) >= lost.Seq }) {
		t.Fatalf("op %v does not get to actor 2", lost)
	}
	stop(t, a)
	if err := errors.Join(os.RemoveAll(a.Dir), os.CopyFS(a.Dir, os.DirFS(old))); err != nil {
		t.Fatal(err)
	}
	start(t, a)
	if after := edit(t, a); after.Replica == lost.Replica {
		t.Errorf("from an old copy it mints %v, which the epoch of %v may have issued", after, lost)
	}
	if d := settle(t, f); d.VV.Get(lost.Replica) < lost.Seq {
		t.Errorf("op %v did not come back", lost)
	}
	const told, back = "this log ends before what a peer has by this actor: restored from a backup?", "own ops fetched back"
	if !poll(func() bool { return len(logLines(t, a, back)) > 0 }) {
		t.Fatalf("never logged: %s", back)
	}
	warned, info := logLines(t, a, told), logLines(t, a, back)[0]
	if len(warned) == 0 || warned[0]["level"] != "warn" || warned[0]["replica"] != lost.Replica.String() {
		t.Fatalf("of the old copy it tells %v", warned)
	}
	// Peers may know more one after the other, so the figures are bounds.
	if n, ok := info["fetched"].(float64); !ok || n < 1 || info["level"] != "info" || info["replica"] != lost.Replica.String() || info["epoch"] == nil {
		t.Errorf("of what came back it tells %v", info)
	}
	opened := logLines(t, a, "log opened")
	if last := opened[len(opened)-1]; last["epoch_reason"] != "moved or restored" {
		t.Errorf("the log says %v", last)
	}
}

// TestTwoProcessesOneActor runs a second actor 1 beside the group, on a disk of
// its own. Minted are ops of both until they meet; then the later one stops
// minting, and what there is converges.
func TestTwoProcessesOneActor(t *testing.T) {
	t.Parallel()
	f := newGroup(t, fleet.Config{Count: 2, Args: quick})
	start(t, f.Actors()...)
	waitOps(t, f.Actor(0), 20)
	twin, err := fleet.New(fleet.Config{Binary: program(t), Count: 2, Data: filepath.Join(t.TempDir(), "twin"), Args: quick,
		Peers: func(from, to int) string { return f.Actor(to).URL() }})
	if err != nil {
		t.Fatal(err)
	}
	defer twin.Close()
	second := twin.Actor(1)
	start(t, second)
	const fenced = "another process runs as this actor: minting stopped"
	if !poll(func() bool { return len(logLines(t, second, fenced)) > 0 }) {
		t.Fatal("the second actor 1 does not notice the first")
	}
	if _, err := second.Client().Edit(t.Context(), httpapi.EditRequest{Insert: &httpapi.InsertRequest{Hex: "5a"}}); !isProblem(err, "fenced", "actor_in_use") {
		t.Errorf("an edit of the second actor 1: %v, want that it is fenced", err)
	}
	if n := len(logLines(t, f.Actor(1), fenced)); n > 0 {
		t.Error("the first actor 1 has stopped minting, too")
	}
	edit(t, f.Actor(1))
	settle(t, f)
	kill(t, second)
}

func isProblem(err error, codes ...string) bool {
	p, ok := errors.AsType[*httpapi.Problem](err)
	for _, c := range codes {
		if ok && p.Code == c {
			return true
		}
	}
	return false
}

// TestUnreachableIsNoMatch has two empty actors and one that never comes up:
// its genome is empty too, as far as anybody could say.
func TestUnreachableIsNoMatch(t *testing.T) {
	t.Parallel()
	f := newGroup(t, fleet.Config{Count: 3, Args: []string{"--no-mutate", "--verify-interval", "100ms"}})
	start(t, f.Actor(0), f.Actor(1))
	round := func(match, unreachable float64) map[string]any {
		t.Helper()
		var last map[string]any
		if !poll(func() bool {
			rounds := logLines(t, f.Actor(0), "match count")
			if len(rounds) > 0 {
				last = rounds[len(rounds)-1]
			}
			return last != nil && last["match_count"] == match && last["unreachable"] == unreachable
		}) {
			t.Fatalf("match_count=%v unreachable=%v was never logged; last: %v", match, unreachable, last)
		}
		return last
	}
	line := round(1, 1)
	for _, field := range []string{"actor", "match_count", "peers", "behind", "unreachable", "diverged", "ops", "genes", "digest", "level", "time"} {
		if _, ok := line[field]; !ok {
			t.Errorf("the line has no field %q: %v", field, line)
		}
	}
	if line["level"] != "info" || line["peers"] != 2.0 || line["behind"] != 0.0 || line["diverged"] != 0.0 {
		t.Errorf("a round with one peer away: %v", line)
	}
	for _, args := range [][]string{append([]string{"compare"}, f.URLs()...), {"status", f.Actor(0).URL(), "--timeout", patience.String()}} {
		out, err := exec.CommandContext(t.Context(), program(t), args...).Output()
		if code := exitCode(err); code != exitUndecided || strings.Contains(string(out), "CONVERGED") {
			t.Errorf("%s with one actor away: exit code %d, want %d\n%s", args[0], code, exitUndecided, out)
		}
	}
	start(t, f.Actor(2))
	round(2, 0)
	settle(t, f)
}

func exitCode(err error) int {
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return e.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}

// TestRunLeavesNobody kills run itself: its actors must not live on.
func TestRunLeavesNobody(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	cmd := exec.Command(program(t), "run", "--count", "2", "--base", "0", "--data", data, "--json")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var first runStart
	if err := json.NewDecoder(out).Decode(&first); err != nil || len(first.Actors) != 2 {
		t.Fatalf("run says %+v, %v", first, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	for _, a := range first.Actors {
		client := httpapi.NewClient(strings.TrimSuffix(a.URL, "/"))
		if !poll(func() bool { _, err := client.Version(context.Background()); return err != nil }) {
			t.Errorf("actor %d lives on", a.Actor)
		}
		if !poll(func() bool {
			log, _ := os.ReadFile(filepath.Join(data, fmt.Sprintf("actor-%d.log", a.Actor)))
			return strings.Contains(string(log), `"stopped"`)
		}) {
			t.Errorf("actor %d did not stop cleanly", a.Actor)
		}
	}
}

// TestPeerFromElsewhere puts a proxy before an actor that makes it look as if
// it ran a newer program on a machine whose clock is an hour ahead. Both are
// named once; the ops of both still get to each other by pulling.
func TestPeerFromElsewhere(t *testing.T) {
	t.Parallel()
	var known atomic.Pointer[fleet.Fleet] // the proxy is there before it
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		target, err := url.Parse(known.Load().Actor(1).URL())
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		(&httputil.ReverseProxy{
			Rewrite:      func(p *httputil.ProxyRequest) { p.SetURL(target) },
			ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
			ModifyResponse: func(resp *http.Response) error {
				resp.Header.Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
				resp.Header.Set("Genome-Protocol", "2")
				return nil
			},
		}).ServeHTTP(w, r)
	}))
	defer proxy.Close()
	f := newGroup(t, fleet.Config{Count: 2, Args: append([]string{"--no-mutate"}, quick[2:]...),
		Peers: func(_, to int) string { return map[int]string{1: proxy.URL}[to] }})
	known.Store(f)
	start(t, f.Actors()...)
	for _, want := range []struct {
		message string
		fields  map[string]any
	}{
		{"peer's clock is far off", map[string]any{"level": "warn", "peer": 1.0, "hint": "order is not affected, ages shown are"}},
		{"peer speaks another protocol", map[string]any{"level": "warn", "peer": 1.0, "protocol": "2", "ours": "1"}},
	} {
		if !poll(func() bool { return len(logLines(t, f.Actor(0), want.message)) > 0 }) {
			t.Errorf("never logged: %s", want.message)
			continue
		}
		line := logLines(t, f.Actor(0), want.message)[0]
		for k, v := range want.fields {
			if line[k] != v {
				t.Errorf("%s: %s = %v, want %v", want.message, k, line[k], v)
			}
		}
	}
	settle(t, f)
	if n := len(logLines(t, f.Actor(0), "peer's clock is far off")); n != 1 {
		t.Errorf("the clock was warned of %d times, want once", n)
	}
}

// TestCompareDiverged compares two logs that hold the same ops by their ids,
// of which one gene differs: what a bug or damage would leave.
func TestCompareDiverged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	logs := []string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}
	for i, data := range logs {
		actor, err := store.Open(t.Context(), store.Config{Data: data, Rand: rand.NewChaCha8([32]byte{})})
		if err != nil {
			t.Fatal(err)
		}
		_, err = actor.Edit(t.Context(), func(*genome.Genome) (store.Edit, error) {
			return store.Edit{Genes: []byte{1, 2, byte(3 + i), 4}}, nil
		})
		if err := errors.Join(err, actor.Close()); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), program(t), "compare", logs[0], logs[1])
	cmd.Dir = dir
	out, err := cmd.Output()
	if code := exitCode(err); code != exitNo {
		t.Errorf("exit code %d, want %d", code, exitNo)
	}
	const want = `(?m)^DIVERGED  \S+ and \S+ hold the same 4 ops but differ at index 2: 03 \(gene 0#2\) / 04 \(gene 0#2\)\. This is a bug or damage\. Evidence written to (\S+)$`
	m := regexp.MustCompile(want).FindStringSubmatch(string(out))
	if m == nil {
		t.Fatalf("compare says\n%swant a match of %s", out, want)
	}
	files, err := os.ReadDir(filepath.Join(dir, m[1]))
	if err != nil || len(files) != 6 {
		t.Errorf("evidence: %v, %v; want log, list and genome of both", files, err)
	}
}

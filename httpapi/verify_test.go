package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"crdt-genome/store"
)

// roundLine is the line that a round logs.
type roundLine struct {
	Message                                     string
	Actor, Peers, Behind, Unreachable, Diverged int
	MatchCount                                  int `json:"match_count"`
	Ops                                         uint64
	Genes                                       int
	Digest                                      string
}

// lastRound returns the last match line of actor i's log.
func (l *lab) lastRound(i int) (r roundLine, ok bool) {
	lines := l.logs[i].lines(`"message":"match count"`)
	if len(lines) == 0 {
		return r, false
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &r); err != nil {
		l.t.Fatalf("%v in %s", err, lines[len(lines)-1])
	}
	return r, true
}

// waitRound waits for a round of actor i that is as wanted.
func (l *lab) waitRound(i int, match, behind, unreachable, diverged int) {
	l.t.Helper()
	var last roundLine
	eventually(l.t, func() bool {
		last, _ = l.lastRound(i)
		return last.MatchCount == match && last.Behind == behind && last.Unreachable == unreachable && last.Diverged == diverged
	}, func() string {
		return fmt.Sprintf("last round %+v, want match %d behind %d unreachable %d diverged %d\n%s", last, match, behind, unreachable, diverged, l.logs[i])
	})
	if last.MatchCount+last.Behind+last.Unreachable+last.Diverged != last.Peers {
		l.t.Errorf("the four numbers do not add up to the peers: %+v", last)
	}
}

// Nobody who did not answer matches, not even when all genomes are empty. The
// clock is fake: an hour of rounds, and not one of them may say so.
func TestVerifyUnreachableNeverMatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 3, func(c *Config) { c.VerifyInterval = 5 * time.Second })
		l.mem = true
		l.start(0)
		time.Sleep(time.Hour)
		lines := l.logs[0].lines(`"message":"match count"`)
		if len(lines) < 600 { // a round in which dials are lost takes longer than the interval at times
			t.Errorf("%d rounds in an hour", len(lines))
		}
		for _, line := range lines {
			if !strings.Contains(line, `"match_count":0,"peers":2,"behind":0,"unreachable":2,"diverged":0,"ops":0,"genes":0`) {
				t.Errorf("nobody answers, and the line is %s", line)
			}
		}
		if k := len(l.logs[0].lines(`"message":"peer unreachable"`)); k < 20 || k > 30 { // every 5 minutes for each of two
			t.Errorf("%d warnings in an hour", k)
		}
		if k := len(l.logs[0].lines(`"message":"no peer has answered yet"`)); k != 1 {
			t.Errorf("%d lines say that nobody answers, want 1", k)
		}
		l.start(1)
		time.Sleep(time.Minute)
		if r, _ := l.lastRound(0); r.MatchCount != 1 || r.Unreachable != 1 {
			t.Errorf("one of two is there: %+v", r)
		}
		if len(l.logs[0].lines(`"message":"peer back"`, `"peer":1`)) != 1 {
			t.Error("nothing says that peer 1 is back")
		}
		l.stop(0)
		l.stop(1)
	})
}

func TestVerifyBehind(t *testing.T) {
	l := newLab(t, 3, nil)
	l.startAll()
	l.waitRound(0, 2, 0, 0, 0)
	l.setFaults(func(from, to int) fault { // nothing but reads of the genome gets through
		return fault{instead: onlyGenome(l, from)}
	})
	mustInsert(t, l.nodes[0], 0, 1, 2)
	mustInsert(t, l.nodes[1], 0, 3)
	l.waitRound(0, 0, 2, 0, 0)
	l.waitRound(1, 0, 2, 0, 0)
	l.waitRound(2, 0, 2, 0, 0)
	l.setFaults(nil)
	l.waitEqual()
	for i := range 3 {
		l.waitRound(i, 2, 0, 0, 0)
	}
}

// onlyGenome lets GET /genome through and loses the rest.
func onlyGenome(l *lab, from int) func(*http.Request) (*http.Response, error) {
	rt := newTransport()
	rt.DialContext = l.paths.dial
	rt.DisableKeepAlives = true
	return func(r *http.Request) (*http.Response, error) {
		if r.Method != "GET" || r.URL.Path != "/genome" {
			return nil, errLost
		}
		return rt.RoundTrip(r)
	}
}

// The original's meaning of a match: equal genomes as strings, whatever the
// vectors. What is missing shows in /v1/cluster.
func TestVerifyMatchIsOfStrings(t *testing.T) {
	l := newLab(t, 2, nil)
	l.startAll()
	l.waitRound(0, 1, 0, 0, 0)
	l.setFaults(func(from, to int) fault { return fault{instead: onlyReads(l)} })
	mustInsert(t, l.nodes[0], 0, 1)
	if _, err := l.nodes[0].actor.Delete(ctx, 0, 1); err != nil {
		t.Fatal(err)
	}
	rounds := len(l.logs[0].lines(`"message":"match count"`, `"ops":2`))
	eventually(t, func() bool { return len(l.logs[0].lines(`"message":"match count"`, `"ops":2`)) > rounds }, why("no round"))
	if r, _ := l.lastRound(0); r.MatchCount != 1 {
		t.Errorf("both are empty: %+v", r)
	}
	c, err := l.nodes[0].Cluster(ctx)
	if err != nil || c.Verdict != StateBehind || c.Actors[1].LacksOps != 2 || c.Equal != 1 {
		t.Errorf("cluster: %+v, %v", c, err)
	}
}

// onlyReads lets GETs through, but those that pull.
func onlyReads(l *lab) func(*http.Request) (*http.Response, error) {
	rt := newTransport()
	rt.DialContext = l.paths.dial
	rt.DisableKeepAlives = true
	return func(r *http.Request) (*http.Response, error) {
		if r.Method != "GET" || r.URL.Path == "/v1/ops" {
			return nil, errLost
		}
		return rt.RoundTrip(r)
	}
}

// A peer with the same vector and another state is named once, with evidence,
// until both are equal again.
func TestVerifyDivergence(t *testing.T) {
	l := newLab(t, 2, nil)
	l.startAll()
	mustInsert(t, l.nodes[0], 0, 1, 2, 3)
	l.waitEqual()
	l.waitRound(0, 1, 0, 0, 0)
	n := l.nodes[0]
	rt := newTransport()
	rt.DialContext = l.paths.dial
	rt.DisableKeepAlives = true
	lie := func(r *http.Request) (*http.Response, error) { // one gene flipped, all else as it is
		if r.URL.Path == "/genome" {
			r.Header.Del("If-None-Match")
		}
		resp, err := rt.RoundTrip(r)
		if err == nil && r.Method == "GET" && r.URL.Path == "/genome" {
			_ = resp.Body.Close()
			resp.Header.Set("ETag", `"00000000deadbeef"`)
			body := "01ff03"
			if len(mustState(t, n).Genes) == 4 {
				body = "0901ff03"
			}
			resp.Body, resp.ContentLength = http.NoBody, int64(len(body))
			resp.Body = readCloser{strings.NewReader(body)}
		}
		return resp, err
	}
	liars := func(from, to int) fault {
		if from == 0 {
			return fault{instead: lie}
		}
		return fault{}
	}
	l.setFaults(liars)
	l.waitRound(0, 0, 0, 0, 1)
	wantMetric(t, n, "genome_divergence_total", 1)
	mustInsert(t, n, 0, 9) // other digests, the same divergence
	eventually(t, func() bool {
		r, _ := l.lastRound(0)
		return r.Diverged == 1 && r.Genes == 4
	}, why("not diverged any more"))
	if c, err := n.Cluster(ctx); err != nil || c.Verdict != StateDiverged {
		t.Errorf("cluster: %+v, %v", c, err)
	}
	if got := n.Counts().Diverged; got != 1 {
		t.Errorf("%d alarms for one divergence", got)
	}
	alarms := l.logs[0].lines(`"event":"diverged"`, `"peer":1`, `"b":"00000000deadbeef"`)
	if len(alarms) != 1 {
		t.Fatalf("%d alarms in the log", len(alarms))
	}
	files, _ := filepath.Glob(filepath.Join(store.Dir(l.dirs[0], 0), "diverged-*-peer-1.json"))
	if len(files) != 1 || !strings.Contains(alarms[0], filepath.Base(files[0])) {
		t.Fatalf("evidence: %v, log %s", files, alarms[0])
	}
	data, err := os.ReadFile(files[0])
	var e Evidence
	if err = errors.Join(err, json.Unmarshal(data, &e)); err != nil {
		t.Fatal(err)
	}
	if e.Index != 1 || e.Ours.Hex != "010203" || e.Theirs.Hex != "01ff03" || e.Theirs.Digest != 0xdeadbeef || len(e.Theirs.Heads) != 1 {
		t.Errorf("evidence: %s", data)
	}

	l.setFaults(nil)
	l.waitRound(0, 1, 0, 0, 0)
	if len(l.logs[0].lines(`"event":"reunited"`)) != 1 {
		t.Error("nothing says that both are equal again")
	}
	l.setFaults(liars)
	eventually(t, func() bool { return n.Counts().Diverged == 2 }, why("no second alarm"))
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

func TestEvidenceIsBounded(t *testing.T) {
	l := newLab(t, 2, nil)
	n := l.start(0)
	theirs := GenomeReply{Hex: strings.Repeat("ab", maxEvidenceHex)}
	st := &store.State{Hex: strings.Repeat("ab", maxEvidenceHex-10) + "cd"}
	for i := range maxEvidence {
		path := filepath.Join(store.Dir(l.dirs[0], 0), fmt.Sprintf("diverged-%d-peer-9.json", i))
		if i == 0 {
			var err error
			if path, err = n.keepEvidence(n.peer(1), theirs, st); err != nil {
				t.Fatal(err)
			}
			if fi, err := os.Stat(path); err != nil || fi.Size() > 3*maxEvidenceHex || fi.Mode().Perm() != 0o600 {
				t.Errorf("%v, %v", fi, err)
			}
			continue
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if path, err := n.keepEvidence(n.peer(1), theirs, st); err == nil {
		t.Errorf("one more file than allowed: %s", path)
	}
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", -1}, {"0102", "0102", -1}, {"01", "0102", 1}, {"0102", "0103", 1}, {"1102", "0102", 0}} {
		if got := firstDifference(c.a, c.b); got != c.want {
			t.Errorf("firstDifference(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

// A fork is named and stays, until the peer comes back with another log: then
// it is forgotten, and both become equal. Its lag ends too.
func TestForkIsForgottenWhenPeerIsWiped(t *testing.T) {
	l := newLab(t, 2, nil)
	l.startAll()
	l.setFaults(cut(0))
	g, h := stranger(t, "9@5f3c1a2b"), stranger(t, "9@5f3c1a2b")
	wantReply(t, post(t, l.nodes[0], jsonOps(t, insert(t, g, 0, 1), insert(t, g, 1, 2))), 200, PostReply{Applied: 2})
	wantReply(t, post(t, l.nodes[1], jsonOps(t, insert(t, h, 0, 7))), 200, PostReply{Applied: 1})
	mustInsert(t, l.nodes[0], 0, 3)
	l.setFaults(nil)
	l.waitRound(0, 0, 0, 0, 1)
	l.waitRound(1, 0, 0, 0, 1)
	for i, n := range l.nodes {
		if got := n.Counts().Forks; got != 1 {
			t.Errorf("actor %d counts %d forks, want 1", i, got)
		}
		c, err := n.Cluster(ctx)
		other := c.Actors[1-i]
		if err != nil || c.Verdict != StateDiverged || len(other.Forks) != 1 || other.Forks[0].Ours == other.Forks[0].Theirs || other.Forks[0].Replica.Actor() != 9 {
			t.Errorf("actor %d sees %+v, %v", i, c, err)
		}
		if len(l.logs[i].lines(`"event":"fork"`)) != 1 {
			t.Errorf("actor %d: the fork is not named once", i)
		}
	}
	if got := mustState(t, l.nodes[1]).Hex; !strings.Contains(got, "03") || !strings.Contains(got, "07") {
		t.Errorf("actor 1 holds %s: what is not forked must go on", got)
	}
	l.stop(1)
	if err := os.RemoveAll(store.Dir(l.dirs[1], 1)); err != nil {
		t.Fatal(err)
	}
	l.start(1)
	l.waitEqual()
	l.waitRound(0, 1, 0, 0, 0)
	if c, err := l.nodes[0].Cluster(ctx); err != nil || c.Verdict != VerdictConverged || len(c.Actors[1].Forks) != 0 {
		t.Errorf("cluster: %+v, %v", c, err)
	}
	eventually(t, func() bool {
		lag, _ := metric(t, l.nodes[0], `genome_peer_lag_seconds{peer="1"}`)
		ops, _ := metric(t, l.nodes[0], `genome_peer_lag_ops{peer="1"}`)
		return lag == 0 && ops == 0
	}, why("the lag of the wiped peer stays"))
}

// Whoever answers at a peer's address and is not that peer is not equal to us,
// is named once, and waits do not mend it.
func TestVerifyStrangers(t *testing.T) {
	web := newLocalServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Type", "text/html") }))
	wrong := alone(t, func(c *Config) { c.Store.Actor = 7 })
	elsewhere := alone(t, func(c *Config) { c.Store.Actor, c.Store.Cluster = 3, "elsewhere" })
	l := newLab(t, 1, func(c *Config) {
		c.Peers = []Peer{{Actor: 1, URL: web}, {Actor: 2, URL: wrong.URL()}, {Actor: 3, URL: elsewhere.URL()}}
		c.Transport = nil
	})
	l.start(0)
	l.waitRound(0, 0, 0, 3, 0)
	for _, want := range []string{"is not crdt-genome (got HTML)", "is actor 7, expected 2", "belongs to cluster elsewhere"} {
		eventually(t, func() bool { return len(l.logs[0].lines("peer refused", want)) == 1 }, why("the log does not say once: "+want))
	}
	if r, _ := l.lastRound(0); r.MatchCount != 0 {
		t.Errorf("%+v", r)
	}
}

func TestClusterFresh(t *testing.T) {
	l := newLab(t, 3, func(c *Config) { c.VerifyInterval = time.Hour })
	l.startAll()
	c := NewClient(l.nodes[0].URL())
	if r, err := c.Cluster(ctx); err != nil || r.Of != 3 || r.Rounds != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	mustInsert(t, l.nodes[0], 0, 1)
	l.waitEqual()
	eventually(t, func() bool {
		r, err := c.Cluster(ctx)
		return err == nil && r.Verdict == VerdictConverged && r.Equal == 3
	}, why("never converged although asked anew"))
	l.stop(2)
	eventually(t, func() bool {
		r, err := c.Cluster(ctx)
		return err == nil && r.Verdict == StateUnreachable && r.Actors[2].Error != "" && r.Actors[2].Ops == 1
	}, why("never unreachable although asked anew"))
}

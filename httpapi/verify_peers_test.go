package httpapi

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"crdt-genome/genome"
)

// A poser stands for a peer at verification; actor 0 is the one that asks.
type poser struct {
	name string
	want string // the class that it belongs to
	pose func(r *http.Request, st poserState) *http.Response
}

// poserState is what actor 0 holds.
type poserState struct {
	hex, etag, vv string
}

// posers are peers of every kind: dead, slow, empty, equal, behind, diverged,
// and those that lie about what they hold.
var posers = []poser{
	{"dead", StateUnreachable, func(*http.Request, poserState) *http.Response { return nil }},
	{"slow", StateUnreachable, func(r *http.Request, st poserState) *http.Response {
		if !sleep(r.Context(), time.Hour) {
			return nil
		}
		return genomeAnswer(st.hex, st.etag, st.vv)
	}},
	{"empty", StateBehind, func(_ *http.Request, st poserState) *http.Response {
		return genomeAnswer("", `"0000000000000001"`, "0000000000000000")
	}},
	{"equal", StateEqual, func(_ *http.Request, st poserState) *http.Response { return genomeAnswer(st.hex, st.etag, st.vv) }},
	{"not modified", StateEqual, func(_ *http.Request, st poserState) *http.Response { return notModified(st.etag, st.vv) }},
	{"other genes, same vector", StateDiverged, func(_ *http.Request, st poserState) *http.Response {
		return genomeAnswer("ff"+st.hex[2:], `"00000000deadbeef"`, st.vv)
	}},
	{"other genes, same vector and digest", StateDiverged, func(_ *http.Request, st poserState) *http.Response {
		return genomeAnswer("ff"+st.hex[2:], st.etag, st.vv)
	}},
	{"same genes and vector, other digest", StateDiverged, func(_ *http.Request, st poserState) *http.Response {
		return genomeAnswer(st.hex, `"00000000deadbeef"`, st.vv)
	}},
	{"same digest, other genes and vector", StateBehind, func(_ *http.Request, st poserState) *http.Response {
		return genomeAnswer("ff"+st.hex[2:], st.etag, "0000000000000001")
	}},
	{"not modified, but another digest", StateUnreachable, func(_ *http.Request, st poserState) *http.Response {
		return notModified(`"00000000deadbeef"`, "0000000000000001")
	}},
	{"no digest", StateUnreachable, func(_ *http.Request, st poserState) *http.Response { return genomeAnswer(st.hex, "", st.vv) }},
	{"cut short", StateUnreachable, func(_ *http.Request, st poserState) *http.Response {
		a := genomeAnswer(st.hex, st.etag, st.vv)
		a.Body = io.NopCloser(io.MultiReader(strings.NewReader(st.hex[:2]), brokenReader{}))
		return a
	}},
	{"an error with our genome in it", StateUnreachable, func(_ *http.Request, st poserState) *http.Response {
		a := genomeAnswer(st.hex, st.etag, st.vv)
		a.StatusCode = 500
		return a
	}},
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func genomeAnswer(hex, etag, vv string) *http.Response {
	h := http.Header{}
	h.Set("ETag", etag)
	h.Set(headerVV, vv)
	return &http.Response{StatusCode: 200, Header: h, Body: io.NopCloser(strings.NewReader(hex)), ContentLength: int64(len(hex))}
}

func notModified(etag, vv string) *http.Response {
	a := genomeAnswer("", etag, vv)
	a.StatusCode = 304
	return a
}

// Peers of every kind are put into their class, each by itself and all in one
// line of the log, and the slow ones delay it by no more than a question may
// take. The clock is fake.
func TestVerifyEveryKindOfPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n *Node
		var st atomic.Pointer[poserState]
		l := newLab(t, 1, func(c *Config) {
			c.VerifyInterval, c.PullInterval = 5*time.Second, time.Hour
			c.Peers = nil
			for i := range posers {
				c.Peers = append(c.Peers, Peer{Actor: genome.ActorID(1 + i), URL: "http://" + name(1+i)})
			}
			c.Transport = roundTripFunc(func(r *http.Request) (*http.Response, error) {
				var i int
				_, _ = fmt.Sscanf(r.URL.Host, "actor-%d", &i)
				var a *http.Response
				switch r.URL.Path {
				case "/genome":
					if r.Method == "GET" {
						a = posers[i-1].pose(r, *st.Load())
					}
				case "/v1/vv":
					a = genomeAnswer("{}", "", "")
				}
				if a == nil {
					return nil, errLost
				}
				a.Request = r
				a.Header.Set(headerProtocol, protocol)
				a.Header.Set(headerActor, fmt.Sprint(i))
				a.Header.Set(headerCluster, defaultCluster)
				a.Header.Set(headerBoot, "000000000001-0000000000000001")
				return a, nil
			})
		})
		l.mem = true
		st.Store(&poserState{hex: "00"})
		n = l.start(0)
		mustInsert(t, n, 0, 1, 2, 3)
		s := mustState(t, n)
		st.Store(&poserState{hex: s.Hex, etag: etag(s.Digest), vv: hash16(s.VVHash)})
		time.Sleep(2 * time.Minute)

		want := map[string]int{}
		for i, p := range posers {
			q := n.peer(genome.ActorID(1 + i))
			q.mu.Lock()
			got := q.verdict
			q.mu.Unlock()
			if got != p.want {
				t.Errorf("%s: %s, want %s", p.name, got, p.want)
			}
			want[p.want]++
		}
		r, _ := l.lastRound(0)
		if r.MatchCount != want[StateEqual] || r.Behind != want[StateBehind] || r.Unreachable != want[StateUnreachable] || r.Diverged != want[StateDiverged] || r.Peers != len(posers) {
			t.Errorf("the line is %+v, want %v", r, want)
		}
		rounds := n.Counts().Rounds
		time.Sleep(10 * (5*time.Second + askTimeout))
		if got := n.Counts().Rounds - rounds; got < 10 {
			t.Errorf("%d rounds in the time of 10 with a slow peer", got)
		}
		l.stop(0)
	})
}

// In rings, a request in the name of a peer that is dead says that it holds
// what we do. Anybody can send that: it is no answer (keeps H5).
func TestForgedRide(t *testing.T) {
	const count = 4
	n := alone(t, func(c *Config) { c.Peers, c.Fanout, c.VerifyInterval = invented(count), 2, time.Hour })
	st := mustState(t, n)
	for i := range count {
		a := ask(t, n, "GET", "/genome", nil, headerActor, fmt.Sprint(i+1), headerBoot, string(newBootID(n.started)), headerState, stateText(st))
		if a.status != 200 || a.header.Get(headerState) != stateText(st) {
			t.Fatalf("%d, state %q", a.status, a.header.Get(headerState))
		}
	}
	if r := n.verify(ctx, st, n.peers()); r.match != 0 || r.unreachable != count {
		t.Errorf("%+v; want all unreachable", r)
	}
}

// What rides on an answer is believed for as long as both sides stay as they are.
func TestRide(t *testing.T) {
	n := alone(t, func(c *Config) { c.Peers, c.Fanout, c.VerifyInterval = invented(1), FanoutAll, time.Hour })
	p, st, h := n.peer(1), mustState(t, n), http.Header{}
	h.Set(headerState, stateText(st))
	eventually(t, func() bool { // unless its loops find at this very moment that it is not there
		p.answeredNow()
		p.noteRide(h, true)
		return p.rides(st)
	}, why("an answer is not believed"))
	other := *st
	other.VVHash++
	if p.rides(&other) {
		t.Error("we have changed since")
	}
	h.Set(headerState, stateText(&other))
	if p.noteRide(h, false); p.rides(st) {
		t.Error("it says itself that it has changed")
	}
	h.Set(headerState, stateText(st))
	p.answeredNow()
	p.noteRide(h, true)
	p.failedNow(ctx, errLost)
	if p.rides(st) {
		t.Error("it has failed since")
	}
}

package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"crdt-genome/genome"
)

// sseEvent is one event as a browser sees it; comments have only the text.
type sseEvent struct{ id, event, data, comment string }

// sseStream reads a stream in the background.
type sseStream struct {
	status int
	header http.Header
	events chan sseEvent // closed at the end
	err    error         // of the last read; after events is closed
	stop   context.CancelFunc
}

func openChanges(t *testing.T, n *Node, query string, header ...string) *sseStream {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.URL()+"/v1/changes"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	s := &sseStream{status: resp.StatusCode, header: resp.Header, events: make(chan sseEvent, 4096), stop: cancel}
	go func() {
		defer close(s.events)
		defer resp.Body.Close()
		s.err = s.read(resp.Body)
	}()
	return s
}

func (s *sseStream) read(r io.Reader) error {
	in := bufio.NewReader(r)
	var e sseEvent
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch field {
		case "id":
			e.id = value
		case "event":
			e.event = value
		case "data":
			e.data = value
		case ":":
			e.comment = ":"
		case "":
			if e != (sseEvent{}) {
				s.events <- e
			}
			e = sseEvent{}
		}
	}
}

// next returns the next event that is wanted.
func (s *sseStream) next(t *testing.T, want func(sseEvent) bool) sseEvent {
	t.Helper()
	timeout := time.NewTimer(time.Minute)
	defer timeout.Stop()
	for {
		select {
		case e, ok := <-s.events:
			if !ok {
				t.Fatalf("the stream ended: %v", s.err)
			}
			if want(e) {
				return e
			}
		case <-timeout.C:
			t.Fatal("no such event within a minute")
		}
	}
}

func named(event string) func(sseEvent) bool {
	return func(e sseEvent) bool { return e.event == event }
}

func decode[T any](t *testing.T, e sseEvent) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(e.data), &v); err != nil {
		t.Fatalf("event %v: %v", e, err)
	}
	return v
}

// opsUntil returns the op events up to position end; it checks that each id is
// the position of the event's last unit, and that positions have no gap.
func (s *sseStream) opsUntil(t *testing.T, after, end uint64) (ops []LogRecord) {
	t.Helper()
	for after < end {
		e := s.next(t, named(eventOp))
		op := decode[LogRecord](t, e)
		rec, err := op.Record()
		if err != nil {
			t.Fatal(err)
		}
		if op.Seq != after+1 {
			t.Fatalf("op at position %d comes after %d", op.Seq, after)
		}
		after = op.Seq + uint64(rec.Op.Len()) - 1
		if e.id != strconv.FormatUint(after, 10) {
			t.Fatalf("op at %d of %d events has id %s, want %d", op.Seq, rec.Op.Len(), e.id, after)
		}
		ops = append(ops, op)
	}
	return ops
}

// TestChangesResume: whoever comes back with the last id it saw gets every
// later op once, while others are being made.
func TestChangesResume(t *testing.T) {
	n := startWatched(t, 0, nil)
	rng := rand.New(rand.NewPCG(11, 12))
	editAtRandom(t, n, rng, 5)
	var pos uint64
	for range 5 {
		var wg sync.WaitGroup
		wg.Go(func() { editAtRandom(t, n, rng, 20) })
		header := []string{"Last-Event-ID", strconv.FormatUint(pos, 10)}
		s := openChanges(t, n, "?since=0", header...) // the id wins, as the URL is that of the first connection
		upTo := pos + 10
		for _, op := range s.opsUntil(t, pos, upTo) {
			rec, _ := op.Record()
			pos = op.Seq + uint64(rec.Op.Len()) - 1
		}
		s.stop()
		wg.Wait()
	}
	s := openChanges(t, n, "?since="+strconv.FormatUint(pos, 10))
	s.opsUntil(t, pos, n.actor.LSN())
}

// TestChangesFromNow: without a position the past is left out.
func TestChangesFromNow(t *testing.T) {
	n := startWatched(t, 0, nil)
	rng := rand.New(rand.NewPCG(13, 14))
	editAtRandom(t, n, rng, 5)
	s := openChanges(t, n, "")
	before := n.actor.LSN()
	s.next(t, named(eventVerdict)) // the stream has begun
	editAtRandom(t, n, rng, 3)
	s.opsUntil(t, before, n.actor.LSN())
	if got := s.header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("Content-Type %q", got)
	}
}

func TestChangesReset(t *testing.T) {
	n := startWatched(t, 0, nil)
	editAtRandom(t, n, rand.New(rand.NewPCG(15, 16)), 5)
	s := openChanges(t, n, "", "Last-Event-ID", "999999")
	if e := s.next(t, func(sseEvent) bool { return true }); e.event != eventReset || decode[ResetEvent](t, e).Pos != n.actor.LSN() {
		t.Errorf("a reader from beyond the end first got %v, want a reset to %d", e, n.actor.LSN())
	}
}

func TestChangesHeartbeat(t *testing.T) {
	n := startWatched(t, 0, nil)
	s := openChanges(t, n, "?heartbeat=1s")
	s.next(t, func(e sseEvent) bool { return e.comment == ":" })
}

// TestChangesNDJSON: without SSE each line is an object; feed=normal ends with
// the present, and the filters choose.
func TestChangesNDJSON(t *testing.T) {
	n := startWatched(t, 3, nil)
	editAtRandom(t, n, rand.New(rand.NewPCG(17, 18)), 40)
	read := func(query string) (ops []LogRecord, events int) {
		t.Helper()
		resp, err := http.Get(n.URL() + "/v1/changes?feed=normal&since=0" + query)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		for dec := json.NewDecoder(resp.Body); ; {
			var line struct {
				Event string          `json:"event"`
				ID    uint64          `json:"id"`
				Data  json.RawMessage `json:"data"`
			}
			if err := dec.Decode(&line); errors.Is(err, io.EOF) {
				return ops, events
			} else if err != nil {
				t.Fatal(err)
			}
			events++
			if line.Event == eventOp {
				ops = append(ops, decode[LogRecord](t, sseEvent{data: string(line.Data)}))
			}
		}
	}
	all, _ := read("")
	inserts, _ := read("&kind=insert&author=3")
	deletes, _ := read("&kind=delete")
	if len(all) == 0 || len(inserts) == 0 || len(deletes) == 0 || len(all) != len(inserts)+len(deletes) {
		t.Errorf("%d ops, %d inserts and %d deletes", len(all), len(inserts), len(deletes))
	}
	if other, events := read("&author=4"); len(other) != 0 || events != 2 { // its peer and verdict
		t.Errorf("%d ops of actor 4, %d events in all", len(other), events)
	}
	if few, _ := read("&limit=3"); !slices.EqualFunc(few, all[:3], func(a, b LogRecord) bool { return a.Op == b.Op }) {
		t.Errorf("limit=3 gave %d ops", len(few))
	}
	for _, bad := range []string{"?since=x", "?since=-1", "?feed=x", "?kind=x", "?author=x", "?heartbeat=1ms", "?limit=x"} {
		if s := openChanges(t, n, bad); s.status != http.StatusBadRequest {
			t.Errorf("%s: status %d, want 400", bad, s.status)
		}
	}
}

// TestChangesBound: the stream above the bound is refused and may come back.
func TestChangesBound(t *testing.T) {
	n := startWatched(t, 0, nil)
	var open []*sseStream
	for range maxStreams {
		s := openChanges(t, n, "")
		if s.status != http.StatusOK {
			t.Fatalf("stream %d: status %d", len(open), s.status)
		}
		open = append(open, s)
	}
	s := openChanges(t, n, "")
	if s.status != http.StatusServiceUnavailable || s.header.Get("Retry-After") == "" {
		t.Errorf("one stream too many: status %d, Retry-After %q", s.status, s.header.Get("Retry-After"))
	}
	open[0].stop()
	eventually(t, func() bool { return openChanges(t, n, "").status == http.StatusOK }, why("no slot is free"))
}

// TestChangesShutdown: open streams end, cleanly, when the node stops.
func TestChangesShutdown(t *testing.T) {
	n := startWatched(t, 0, nil)
	var open []*sseStream
	for range 3 {
		s := openChanges(t, n, "")
		s.next(t, named(eventVerdict))
		open = append(open, s)
	}
	if err := n.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, s := range open {
		for range s.events { // to the end
		}
		if !errors.Is(s.err, io.EOF) { // a chunked body that is cut off is an unexpected EOF
			t.Errorf("a stream ended with %v, want EOF", s.err)
		}
	}
}

// TestChangesSlowReader: who takes nothing is dropped, and its slot is free.
func TestChangesSlowReader(t *testing.T) {
	n := startWatched(t, 0, func(c *Config) { c.tune.stall = 100 * time.Millisecond })
	conn, err := net.Dial("tcp", n.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET /v1/changes HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
	eventually(t, func() bool { return len(n.streams) == 1 }, why("the stream is not open"))
	genes := make([]byte, genome.MaxRun)
	eventually(t, func() bool {
		if _, err := n.actor.Edit(t.Context(), insertAt(0, genes)); err != nil {
			t.Fatal(err)
		}
		return len(n.streams) == 0
	}, why("the reader is not dropped"))
	eventually(t, func() bool { return !n.watch.watched() }, why("somebody looks on"))
}

// A testNet is a network of nodes known by "http://actor-<n>", links of which
// can be cut.
type testNet struct {
	mu   sync.Mutex
	addr map[string]string // host -> HOST:PORT
	cut  map[[2]genome.ActorID]bool
}

func newTestNet() *testNet {
	return &testNet{addr: map[string]string{}, cut: map[[2]genome.ActorID]bool{}}
}

func hostOf(a genome.ActorID) string { return fmt.Sprintf("actor-%d", a) }

// start runs actors 0 … count-1, each of which has all others as peers.
func (tn *testNet) start(t *testing.T, count int) (nodes []*Node) {
	t.Helper()
	var peers []Peer
	for a := range count {
		peers = append(peers, Peer{Actor: genome.ActorID(a), URL: "http://" + hostOf(genome.ActorID(a))})
	}
	for a := range count {
		n := startWatched(t, genome.ActorID(a), func(c *Config) {
			c.Peers, c.Transport = peers, &testLink{tn, genome.ActorID(a), newTransport()}
			c.VerifyInterval, c.PullInterval = 500*time.Millisecond, time.Second
		})
		tn.mu.Lock()
		tn.addr[hostOf(genome.ActorID(a))] = n.Addr().String()
		tn.mu.Unlock()
		nodes = append(nodes, n)
	}
	return nodes
}

// set cuts or heals the link between two actors.
func (tn *testNet) set(a, b genome.ActorID, cut bool) {
	tn.mu.Lock()
	defer tn.mu.Unlock()
	tn.cut[[2]genome.ActorID{min(a, b), max(a, b)}] = cut
}

// testLink is the way out of one actor.
type testLink struct {
	net  *testNet
	from genome.ActorID
	rt   *http.Transport
}

func (l *testLink) RoundTrip(r *http.Request) (*http.Response, error) {
	var to genome.ActorID
	if _, err := fmt.Sscanf(r.URL.Host, "actor-%d", &to); err != nil {
		return nil, err
	}
	l.net.mu.Lock()
	addr, cut := l.net.addr[r.URL.Host], l.net.cut[[2]genome.ActorID{min(l.from, to), max(l.from, to)}]
	l.net.mu.Unlock()
	if cut || addr == "" {
		return nil, errors.New("the link is cut")
	}
	r = r.Clone(r.Context())
	r.URL.Host, r.Host = addr, "localhost"
	return l.rt.RoundTrip(r)
}

func (l *testLink) CloseIdleConnections() { l.rt.CloseIdleConnections() }

func verdictIs(t *testing.T, verdict string, groups ...[]genome.ActorID) func(sseEvent) bool {
	return func(e sseEvent) bool {
		if e.event != eventVerdict {
			return false
		}
		v := decode[ClusterView](t, e)
		return v.Verdict == verdict && (groups == nil || slices.EqualFunc(v.Groups, groups, slices.Equal[[]genome.ActorID]))
	}
}

// TestChangesTellAPartition: a stream tells of convergence, of a partition,
// and of its end; of a link that is cut while others go round it; and of each
// delivery.
func TestChangesTellAPartition(t *testing.T) {
	tn := newTestNet()
	nodes := tn.start(t, 3)
	s := openChanges(t, nodes[0], "")
	s.next(t, verdictIs(t, VerdictConverged, []genome.ActorID{0, 1, 2}))

	ops, err := nodes[0].actor.Edit(t.Context(), insertAt(0, []byte{1, 2}))
	if err != nil {
		t.Fatal(err)
	}
	reached := map[genome.ActorID]bool{}
	for len(reached) < 2 {
		d := decode[DeliveryEvent](t, s.next(t, named(eventDelivery)))
		if d.Op != ops[0].Dot.String() || d.Count != 2 || d.From != 0 || reached[d.To] {
			t.Fatalf("delivery %+v, want both events of %v, once to each", d, ops[0].Dot)
		}
		reached[d.To] = true
	}

	tn.set(0, 2, true) // 1 still reaches both
	p := decode[PeerEvent](t, s.next(t, func(e sseEvent) bool {
		return e.event == eventPeer && strings.Contains(e.data, `"through":[1]`)
	}))
	if p.Actor != 2 || p.State != StateUnreachable {
		t.Errorf("through 1: %+v, want actor 2, unreachable", p)
	}

	tn.set(1, 2, true)
	if _, err := nodes[0].actor.Edit(t.Context(), insertAt(0, []byte{3})); err != nil {
		t.Fatal(err)
	}
	s.next(t, verdictIs(t, VerdictPartitioned, []genome.ActorID{0, 1}, []genome.ActorID{2}))

	tn.set(0, 2, false)
	tn.set(1, 2, false)
	s.next(t, verdictIs(t, VerdictConverged, []genome.ActorID{0, 1, 2}))
	if g := nodes[2].actor.Version(); !g.Equal(nodes[0].actor.Version()) {
		t.Errorf("told converged, but actor 2 holds %v and actor 0 %v", g, nodes[0].actor.Version())
	}
}

// TestClusterView: the verdict and the groups from what is known and heard.
func TestClusterView(t *testing.T) {
	vv := func(seq uint64) genome.Version {
		return genome.Version{}.With(genome.Dot{Replica: genome.NewReplicaID(0, 7), Seq: seq})
	}
	is := func(a genome.ActorID, state string, seq uint64) ActorStatus {
		return ActorStatus{Actor: a, State: state, VV: vv(seq), Boot: "b", Self: a == 0}
	}
	now := time.Now()
	never := ActorStatus{Actor: 2, State: StateUnreachable}
	for _, c := range []struct {
		name    string
		actors  []ActorStatus
		heard   map[genome.ActorID]hearsay
		verdict string
		equal   int
		groups  string
		through string // of actor 2
	}{
		{"alone", []ActorStatus{is(0, StateEqual, 5)}, nil, VerdictConverged, 1, "[[0]]", ""},
		{"all equal", []ActorStatus{is(0, StateEqual, 5), is(1, StateEqual, 5), is(2, StateEqual, 5)}, nil, VerdictConverged, 3, "[[0 1 2]]", "[]"},
		{"one behind", []ActorStatus{is(0, StateEqual, 5), is(1, StateEqual, 5), is(2, StateEqual, 4)}, nil, StateBehind, 2, "[[0 1 2]]", "[]"},
		{"we are behind", []ActorStatus{is(0, StateEqual, 3), is(1, StateBehind, 5)}, nil, StateBehind, 1, "[[0 1]]", ""},
		{"away and equal", []ActorStatus{is(0, StateEqual, 5), is(1, StateEqual, 5), is(2, StateUnreachable, 5)}, nil, StateUnreachable, 2, "[[0 1] [2]]", "[]"},
		{"away and behind", []ActorStatus{is(0, StateEqual, 5), is(1, StateEqual, 5), is(2, StateUnreachable, 4)}, nil, VerdictPartitioned, 2, "[[0 1] [2]]", "[]"},
		{"never heard of", []ActorStatus{is(0, StateEqual, 5), is(1, StateEqual, 5), never}, nil, StateUnreachable, 2, "[[0 1] [2]]", "[]"},
		{"only our link is cut", []ActorStatus{is(0, StateEqual, 5), is(1, StateEqual, 5), is(2, StateUnreachable, 3)},
			map[genome.ActorID]hearsay{1: {at: now, actors: []ActorStatus{{Actor: 2, State: StateEqual, VV: vv(5), Boot: "b"}}}},
			VerdictConverged, 3, "[[0 1 2]]", "[1]"},
		{"heard that it has started anew", []ActorStatus{is(0, StateEqual, 5), is(1, StateEqual, 5), is(2, StateUnreachable, 3)},
			map[genome.ActorID]hearsay{1: {at: now, actors: []ActorStatus{{Actor: 2, State: StateEqual, VV: vv(5), Boot: "c"}}}},
			StateBehind, 2, "[[0 1 2]]", "[1]"},
		{"the one who says so is away", []ActorStatus{is(0, StateEqual, 5), is(1, StateUnreachable, 5), is(2, StateUnreachable, 5)},
			map[genome.ActorID]hearsay{1: {at: now, actors: []ActorStatus{{Actor: 2, State: StateEqual, VV: vv(5), Boot: "b"}}}},
			StateUnreachable, 1, "[[0] [1 2]]", "[]"},
		{"what was said long ago of what it holds", []ActorStatus{is(0, StateEqual, 5), is(1, StateUnreachable, 5), is(2, StateUnreachable, 3)},
			map[genome.ActorID]hearsay{1: {at: now.Add(-time.Hour), actors: []ActorStatus{{Actor: 2, State: StateEqual, VV: vv(5), Boot: "b"}}}},
			StateUnreachable, 1, "[[0] [1 2]]", "[]"},
		{"diverged", []ActorStatus{is(0, StateEqual, 5), is(1, StateDiverged, 5), is(2, StateUnreachable, 4)}, nil, StateDiverged, 1, "[[0 1] [2]]", "[]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newClusterView(ClusterReply{Of: len(c.actors), Actors: c.actors}, c.heard, now)
			if v.Verdict != c.verdict || v.Equal != c.equal || fmt.Sprint(v.Groups) != c.groups {
				t.Errorf("verdict %s, equal %d, groups %v; want %s, %d, %s", v.Verdict, v.Equal, v.Groups, c.verdict, c.equal, c.groups)
			}
			if len(v.actors) > 2 && fmt.Sprint(v.actors[2].Through) != c.through {
				t.Errorf("actor 2 is reached through %v, want %s", v.actors[2].Through, c.through)
			}
		})
	}
}

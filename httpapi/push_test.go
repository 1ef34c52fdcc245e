package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"crdt-genome/genome"
	"crdt-genome/store/figures"
)

// A peer that is away for a day costs next to nothing: no goroutine, no memory
// and no request for each op. When it is back it gets all. The clock is fake.
// What it costs is over what a day costs an actor that has no peers at all.
func TestDeadPeerForADay(t *testing.T) {
	dead, days := amount(t, "CRDT_GENOME_DEAD_PEERS", 1), amount(t, "CRDT_GENOME_DEAD_DAYS", 1)
	minutes := days * 24 * 60
	if testing.Short() { // with the race detector it takes ten times as long
		minutes /= 12
	}
	aloneGoroutines, aloneHeap := awayFor(t, 0, minutes)
	goroutines, heap := awayFor(t, dead, minutes)
	goroutines, heap = goroutines-aloneGoroutines, heap-aloneHeap
	figures.Tell(t, "dead-peer-goroutines %d over those of an actor without peers, %d dead for %d days, %d ops", goroutines, dead, days, minutes*opsPerMinute)
	figures.Tell(t, "dead-peer-heap-KiB %d over that of an actor without peers", heap>>10)
	if goroutines > 10*dead {
		t.Errorf("%d goroutines more than without peers", goroutines)
	}
	if heap > int64(dead)<<20 {
		t.Errorf("the heap grew by %d bytes more than without peers", heap)
	}
}

const opsPerMinute = 60

// awayFor lets an actor make an op a second, of which those of a minute come at
// once, while all its peers are dead. It returns its goroutines at the end and
// what its heap grew by.
func awayFor(t *testing.T, dead, minutes int) (goroutines int, heap int64) {
	synctest.Test(t, func(t *testing.T) {
		var tries, bodies atomic.Int64
		l := newLab(t, 1+dead, func(c *Config) {
			c.VerifyInterval, c.PullInterval = 5*time.Second, 10*time.Second
			c.Log = c.Log.Level(4) // errors only: a day of lines is no memory of ours
		})
		l.mem = true
		l.startAll()
		n := l.nodes[0]
		time.Sleep(time.Minute) // they know each other before they go away
		for i := range dead {
			l.stop(1 + i)
		}
		l.setFaults(func(from, to int) fault { return fault{instead: refuseAndCount(&tries, &bodies)} })
		time.Sleep(time.Minute)
		before, others := liveHeap(), runtime.NumGoroutine()-ours()
		for range minutes {
			mustInsert(t, n, 0, make([]byte, opsPerMinute)...)
			time.Sleep(time.Minute)
		}
		goroutines, heap = runtime.NumGoroutine()-others, liveHeap()-before
		// Rounds every 5 s, pulls every 10 s of which one peer has its turn, and a
		// sender at half of 30 s on average.
		if got, most := tries.Load(), int64(minutes*60*dead*(1+2+1)/5); got > most {
			t.Errorf("%d requests in %d minutes, want ≤ %d", got, minutes, most)
		}
		if got := bodies.Load(); got > int64(dead*probeAfter) {
			t.Errorf("%d POSTs to peers that do not answer, want probes instead", got)
		}
		if rate := float64(tries.Load()) / float64(minutes*60*max(dead, 1)); rate > 2 {
			t.Errorf("%.2f requests a second for each peer", rate)
		}
		l.setFaults(nil)
		for i := range dead {
			l.start(1 + i)
		}
		for range 120 { // a sender pauses for at most 30 s
			time.Sleep(time.Second)
		}
		for i, m := range l.nodes {
			if got, want := m.actor.LSN(), uint64(minutes*opsPerMinute); got != want {
				t.Errorf("2 minutes after they are back, actor %d holds %d ops, want %d", i, got, want)
			}
			l.stop(i)
		}
	})
	return goroutines, heap
}

// liveHeap returns the bytes that are in use.
func liveHeap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what the first one has found to have a finalizer
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// ours counts the goroutines that run code of nodes.
func ours() (k int) {
	stacks := make([]byte, 16<<20)
	for _, stack := range strings.Split(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
		if strings.Contains(stack, "crdt-genome/httpapi.(*") || strings.Contains(stack, "crdt-genome/store.(*") {
			k++
		}
	}
	return k
}

// refuseAndCount is a peer that is away.
func refuseAndCount(tries, bodies *atomic.Int64) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		tries.Add(1)
		if r.Method == http.MethodPost {
			bodies.Add(1)
		}
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: fmt.Errorf("connection refused")}
	}
}

// A crowd stands for many peers at once: it answers as they would.
type crowd struct {
	mu     sync.Mutex
	back   bool // they answer
	vv     map[string]genome.Version
	asked  map[string][]time.Time // requests, by peer
	most   int                    // requests under way at once, over all
	flying int
}

func (c *crowd) roundTrip(r *http.Request) (*http.Response, error) {
	host := r.URL.Host
	c.mu.Lock()
	c.flying++
	c.most = max(c.most, c.flying)
	back := c.back
	c.asked[host] = append(c.asked[host], time.Now())
	c.mu.Unlock()
	time.Sleep(10 * time.Millisecond)
	defer func() {
		c.mu.Lock()
		c.flying--
		c.mu.Unlock()
	}()
	if !back {
		return nil, fmt.Errorf("connection refused")
	}
	var actor int
	_, _ = fmt.Sscanf(host, "actor-%d", &actor)
	resp := &http.Response{StatusCode: 200, Header: http.Header{}, Request: r}
	resp.Header.Set(headerProtocol, protocol)
	resp.Header.Set(headerActor, fmt.Sprint(actor))
	resp.Header.Set(headerCluster, defaultCluster)
	resp.Header.Set(headerBoot, "000000000001-0000000000000001")
	body := "{}"
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case r.Method == "POST":
		data, _ := io.ReadAll(r.Body)
		b, err := genome.DecodeBlock(data, maxBatchOps)
		if err != nil {
			return nil, err
		}
		for _, h := range lasts(b) {
			c.vv[host] = c.vv[host].With(genome.Dot{Replica: h.Replica, Seq: h.Seq})
		}
	case r.URL.Path == "/genome":
		resp.Header.Set("ETag", `"0000000000000001"`)
		body = ""
	}
	resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	return resp, nil
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A hundred peers come back at the same moment. Each is asked at its own time,
// and gets everything in a few requests.
func TestHundredPeersReturnAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const peers = 100
		c := &crowd{vv: map[string]genome.Version{}, asked: map[string][]time.Time{}}
		l := newLab(t, 1, func(cfg *Config) {
			cfg.Peers = nil
			for i := range peers {
				cfg.Peers = append(cfg.Peers, Peer{Actor: genome.ActorID(1 + i), URL: "http://" + name(1+i)})
			}
			cfg.Fanout = FanoutAll // everybody is sent to
			cfg.VerifyInterval, cfg.PullInterval = 5*time.Second, 10*time.Second
			cfg.Transport = roundTripFunc(c.roundTrip)
		})
		l.mem = true
		n := l.start(0)
		for range 200 {
			mustInsert(t, n, 0, 1, 2, 3)
			time.Sleep(3 * time.Second)
		}
		c.mu.Lock()
		c.back, c.most = true, 0
		clear(c.asked)
		returned := time.Now()
		c.mu.Unlock()
		time.Sleep(90 * time.Second)
		l.stop(0)
		busiest := 0
		for i := range peers {
			host := name(1 + i)
			if got := c.vv[host].Ops(); got != 600 {
				t.Errorf("%s got %d ops, want 600", host, got)
			}
			if first := c.asked[host][0].Sub(returned); first > backoffMax {
				t.Errorf("%s was first asked after %v", host, first)
			}
			// Two requests a second, of all kinds: the first of them may come
			// together, so it is counted over ten seconds.
			for j, at := range c.asked[host] {
				k := j
				for k < len(c.asked[host]) && c.asked[host][k].Sub(at) < 10*time.Second {
					k++
				}
				busiest = max(busiest, k-j)
			}
		}
		figures.Tell(t, "returning-peer-requests/s %.1f at most to one of %d peers, over 10 s; %d under way at once", float64(busiest)/10, peers, c.most)
		if busiest > 20 {
			t.Errorf("a peer was asked %d times in 10 s", busiest)
		}
		if c.most > 2*peers+verifyParallel {
			t.Errorf("%d requests were under way at once", c.most)
		}
	})
}

// A POST whose answer is lost is sent again by the sender alone, which counts
// both: net/http must not do so on its own.
func TestLostAnswersAreCounted(t *testing.T) {
	var arrived, lost atomic.Int64
	l := newLab(t, 2, nil)
	m := l.start(1)
	cutting, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	front := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" && r.URL.Path == "/genome" {
			body, _ := io.ReadAll(r.Body)
			arrived.Add(1)
			if lost.Add(1) <= 3 { // delivered, and the connection dies
				ask(t, m, "POST", "/genome", body, "Content-Type", genome.MediaType)
				panic(http.ErrAbortHandler)
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		m.srv.Handler.ServeHTTP(w, r)
	})}
	served := make(chan error, 1)
	go func() { served <- front.Serve(cutting) }()
	t.Cleanup(func() { _ = front.Close(); <-served })
	l.paths.set(name(1), cutting.Addr().String())
	n := l.start(0)
	eventually(t, func() bool { return n.peer(1).version() != nil || n.pulled.Load() }, why("never connected"))
	for i := range 10 {
		mustInsert(t, n, 0, byte(i))
		l.waitEqual()
	}
	eventually(t, func() bool {
		c := n.Counts()
		return c.PostsFailed == 3 && c.Posts+c.PostsFailed == uint64(arrived.Load())
	}, func() string {
		c := n.Counts()
		return fmt.Sprintf("%d POSTs arrived, 3 answers were lost; counted are %d and %d failed", arrived.Load(), c.Posts, c.PostsFailed)
	})
	if s := m.actor.Stats(); s.Live.Conflicts != 0 || s.Ops != 10 {
		t.Errorf("%+v", s)
	}
}

// One batch at a time to each peer, none above the bound, however much waits.
func TestOneBatchInFlight(t *testing.T) {
	var mu sync.Mutex
	flying, most, largest := 0, 0, 0
	l := newLab(t, 2, nil)
	l.startAll()
	rt := newTransport()
	rt.DialContext = l.paths.dial
	l.waitRound(0, 1, 0, 0, 0)
	l.setFaults(cut(0))
	for range 40 {
		mustInsert(t, l.nodes[0], 0, make([]byte, 30_000)...)
	}
	l.setFaults(func(from, to int) fault {
		if from == 1 {
			return fault{lose: true} // no pull: all must be pushed
		}
		return fault{instead: func(r *http.Request) (*http.Response, error) {
			if r.Method != "POST" {
				return rt.RoundTrip(r)
			}
			mu.Lock()
			flying++
			most, largest = max(most, flying), max(largest, int(r.ContentLength))
			mu.Unlock()
			defer func() {
				mu.Lock()
				flying--
				mu.Unlock()
			}()
			return rt.RoundTrip(r)
		}}
	})
	l.waitEqual()
	rt.CloseIdleConnections()
	mu.Lock()
	defer mu.Unlock()
	if most != 1 {
		t.Errorf("%d batches were under way at once", most)
	}
	if largest > 256<<10+4<<10 || largest < 128<<10 {
		t.Errorf("the largest batch has %d bytes, want about 256 KiB at most", largest)
	}
	for _, line := range l.logs[1].lines(`"message":"caught up"`) {
		t.Errorf("something was pulled: %s", line)
	}
}

// A peer that refuses ops for good is not told them again and again, and what
// comes later still goes to it.
func TestRefusedOpsAreNotRepeated(t *testing.T) {
	var posts atomic.Int64
	l := newLab(t, 2, nil)
	l.startAll()
	l.waitRound(0, 1, 0, 0, 0)
	refuse := atomic.Bool{}
	rt := newTransport()
	rt.DialContext = l.paths.dial
	l.setFaults(func(from, to int) fault {
		if from == 1 {
			return fault{}
		}
		return fault{instead: func(r *http.Request) (*http.Response, error) {
			if r.Method == "POST" && refuse.Load() {
				posts.Add(1)
				return l.nodes[1].refusal(r, problem("op_invalid", "not to my taste", ""))
			}
			return rt.RoundTrip(r)
		}}
	})
	refuse.Store(true)
	mustInsert(t, l.nodes[0], 0, 1, 2, 3)
	eventually(t, func() bool { v, _ := metric(t, l.nodes[0], `genome_peer_queue_dropped_total{peer="1"}`); return v == 3 }, why("nothing is counted as dropped"))
	refuse.Store(false)
	l.waitEqual() // by pull
	mustInsert(t, l.nodes[0], 0, 4)
	l.waitEqual()
	if got := posts.Load(); got != 1 {
		t.Errorf("refused ops were sent %d times", got)
	}
	if len(l.logs[0].lines("peer refused ops", "not to my taste")) != 1 {
		t.Error("the refusal is not in the log once")
	}
	rt.CloseIdleConnections()
}

// refusal is what a node's server would answer.
func (n *Node) refusal(r *http.Request, p *Problem) (*http.Response, error) {
	h := http.Header{}
	n.identify(h)
	body, err := json.Marshal(p)
	return &http.Response{StatusCode: p.Status, Header: h, Request: r, Body: io.NopCloser(bytes.NewReader(body))}, err
}

// A peer that keeps our ops parked, since it will not take an earlier one, is
// not flooded with them.
func TestStillParkedIsNoFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var posts atomic.Int64
		l := newLab(t, 2, func(c *Config) { c.VerifyInterval, c.PullInterval = time.Hour, time.Hour })
		l.mem = true
		c := &crowd{back: true, vv: map[string]genome.Version{}, asked: map[string][]time.Time{}}
		l.faults = func(from, to int) fault {
			return fault{instead: func(r *http.Request) (*http.Response, error) {
				if r.Method != "POST" {
					return c.roundTrip(r)
				}
				posts.Add(1)
				resp, err := c.roundTrip(r.Clone(context.WithoutCancel(r.Context())))
				if err == nil {
					body := fmt.Sprintf(`{"applied":0,"duplicate":0,"pending":1,"missing":{"%v":"1"}}`, l.nodes[0].actor.Replica())
					resp.StatusCode, resp.Body = 202, io.NopCloser(strings.NewReader(body))
				}
				return resp, err
			}}
		}
		n := l.start(0)
		mustInsert(t, n, 0, 1)
		time.Sleep(10 * time.Minute)
		if got := posts.Load(); got < 2 || got > 200 {
			t.Errorf("%d POSTs in 10 minutes", got)
		}
		l.stop(0)
	})
}

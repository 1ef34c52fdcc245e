package httpapi

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	rtmetrics "runtime/metrics"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"crdt-genome/genome"
	"crdt-genome/store/figures"
)

// allowed are the statuses that a stranger may meet. 500 is not among them.
var allowed = []int{200, 201, 202, 301, 304, 307, 400, 403, 404, 405, 409, 412, 413, 415, 421, 422, 426, 429, 431, 503}

// An abuser makes requests that are nearly right.
type abuser struct {
	rng    *rand.Rand
	g      *genome.Genome
	bodies [][]byte // good ones, to be spoilt
}

func newAbuser(t *testing.T, seed uint64) *abuser {
	a := &abuser{rng: rand.New(rand.NewPCG(seed, 9)), g: genome.New(genome.NewReplicaID(genome.ActorID(500+seed), 1))}
	for range 20 {
		op := insert(t, a.g, a.rng.IntN(a.g.Len()+1), []byte("genes")[:1+a.rng.IntN(5)]...)
		a.bodies = append(a.bodies, []byte(jsonOps(t, op)), blockOps(t, op))
	}
	for _, s := range foreignOps {
		a.bodies = append(a.bodies, []byte(s))
	}
	for _, seq := range []uint64{70_000, 1 << 40, 1<<63 - 1} { // far in the future
		a.bodies = append(a.bodies, []byte(fmt.Sprintf(`{"Insert":{"id":"5@0000000a.%d","gene":%d,"parent":null,"side":"R","genes":"2a"}}`, seq, seq-1)))
	}
	a.bodies = append(a.bodies, []byte(`{"insert":{"at":0,"hex":"2a"}}`), []byte(`{"delete":{"at":0,"n":1}}`), []byte(`{"since":{"1@00000001":1},"limit":5}`),
		[]byte(`{"paused":true}`), []byte(`{"level":"error"}`), bytes.Repeat([]byte("["), 5000), nil)
	return a
}

func pick[T any](a *abuser, of ...T) T { return of[a.rng.IntN(len(of))] }

// body returns a good body, most of the time spoilt.
func (a *abuser) body() []byte {
	b := bytes.Clone(a.bodies[a.rng.IntN(len(a.bodies))])
	for range a.rng.IntN(4) {
		if len(b) == 0 {
			break
		}
		i := a.rng.IntN(len(b))
		switch a.rng.IntN(6) {
		case 0:
			b[i] ^= 1 << a.rng.IntN(8)
		case 1:
			b = b[:i]
		case 2:
			b = slices.Insert(b, i, byte(a.rng.Uint32()))
		case 3:
			b = append(b, b[i:]...)
		case 4: // a number that is too large somewhere
			if j := bytes.IndexAny(b[i:], "0123456789"); j >= 0 {
				b = slices.Concat(b[:i+j], []byte(pick(a, "18446744073709551615", "-1", "1e308", "65537", "99999999999999999999999")), b[i+j:])
			}
		case 5:
			b = slices.Concat(b[:i], pick(a, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, []byte("null"), []byte("\x00"), []byte("{}")), b[i:])
		}
	}
	return b
}

// request returns one that is wrong in some ways. The headers that say who
// sends are left out: they are peers' business and tested on their own.
func (a *abuser) request() *http.Request {
	path := pick(a, "/genome", "/genome", "/genome", "/genome", "/v1/edit", "/v1/ops", "/v1/ops/query", "/v1/digest", "/v1/vv", "/v1/log",
		"/v1/mutator", "/v1/cluster", "/v1/log/info", "/v1/version", "/livez", "/readyz", "/", "/v1/", "/../genome", "//genome", "/v1/elements", "/v1/openapi.json", "/metrics/x")
	query := pick(a, "", "", "", "?since=1@00000001:5", "?since="+strings.Repeat("9", 300), "?limit=-1", "?limit=99999999999999999999", "?at=1@00000001:3", "?from=18446744073709551615",
		"?from=0&limit=1", "?%zz", "?a=%00", "?since=1@00000001:18446744073709551615,1@00000001:1")
	method := pick(a, "POST", "POST", "POST", "POST", "GET", "GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "X")
	r := httptest.NewRequest(method, "http://localhost/", bytes.NewReader(a.body()))
	r.URL.Path, r.URL.RawQuery, r.RequestURI = path, strings.TrimPrefix(query, "?"), path+query
	r.Header.Set("Content-Type", pick(a, "application/json", "application/json", "application/x-ndjson", genome.MediaType, genome.MediaType, "text/plain", "", "a/b;;", "application/json; charset=\xff"))
	if a.rng.IntN(8) == 0 {
		r.Header.Set("Content-Encoding", pick(a, "gzip", "gzip, gzip", "br", "identity", "\x00"))
	}
	if a.rng.IntN(8) == 0 {
		r.Header.Set(pick(a, headerProtocol, headerCluster, headerAge, "If-Match", "If-None-Match", "Origin", "Accept", "Sec-Fetch-Site"), pick(a, "", "1", "2", "*", `"x"`, "cross-site", "text/plain", "-1", strings.Repeat("x", 2000)))
	}
	if a.rng.IntN(200) == 0 { // a bomb: 50 KiB of gzip that unpack to 50 MiB
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(bomb())), int64(len(bomb()))
		r.Header.Set("Content-Encoding", pick(a, "gzip", "gzip", "gzip, gzip", "zstd"))
	}
	if a.rng.IntN(50) == 0 {
		r.Host = pick(a, "evil.example", "", "localhost:99999", "[::1", "127.0.0.1.", "\x00")
	}
	return r
}

// bomb is 50 MiB of blanks in gzip.
var bomb = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	for range 50 {
		_, _ = z.Write(bytes.Repeat([]byte(" "), 1<<20)) // to memory
	}
	_ = z.Close()
	return b.Bytes()
})

// A hundred thousand requests that are wrong in every way we know, while slow
// clients hold connections and somebody good does real work: none panics, each
// gets a status that is meant, memory and connections stay bounded, and the node
// works. How long the good one waits is told; it is bounded only at night, when
// the machine has nothing else to do.
func TestAbuse(t *testing.T) {
	requests, slow, workers := amount(t, "CRDT_GENOME_REQUESTS", 100_000), amount(t, "CRDT_GENOME_SLOW_CLIENTS", 100), 1
	if testing.Short() { // with the race detector
		requests /= 10
	}
	n := alone(t, func(c *Config) { c.Log = c.Log.Level(5) })
	before := liveHeap()
	stop := make(chan struct{})
	var around sync.WaitGroup
	around.Go(func() { holdSlowly(t, n, slow, stop) })
	eventually(t, func() bool { open, _ := n.conns.totals(); return open >= min(slow, maxConns) }, why("the slow clients do not connect"))
	var waits []time.Duration
	around.Go(func() { waits = workWell(t, n, stop) })
	var mostHeap uint64
	mostConns := 0
	around.Go(func() { mostHeap, mostConns = watchResources(n, stop) })

	var mu sync.Mutex
	statuses := map[int]int{}
	var wg sync.WaitGroup
	start := time.Now()
	for w := range uint64(workers) {
		a := newAbuser(t, w)
		wg.Go(func() {
			for range requests / workers {
				r, rec := a.request(), httptest.NewRecorder()
				n.srv.Handler.ServeHTTP(rec, r)
				mu.Lock()
				statuses[rec.Code]++
				mu.Unlock()
				if !slices.Contains(allowed, rec.Code) {
					t.Errorf("seed %d: %s %s: %d %s", w, r.Method, r.URL, rec.Code, rec.Body)
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	close(stop)
	around.Wait()
	var table []string
	for _, s := range slices.Sorted(maps.Keys(statuses)) {
		table = append(table, fmt.Sprintf("%d:%d", s, statuses[s]))
	}
	slices.Sort(waits)
	p99 := waits[len(waits)*99/100]
	figures.Tell(t, "malformed-requests %d seeds 0-%d, %.0f/s, %d panics; status:count %s", requests, workers-1, float64(requests)/took.Seconds(), n.Counts().Panics, strings.Join(table, " "))
	figures.Tell(t, "abuse-good-p99-ms %.1f of %d good requests meanwhile, wanted is < 50", float64(p99.Microseconds())/1000, len(waits))
	figures.Tell(t, "abuse-heap-MiB %d at most over idle, wanted is < 64", (int64(mostHeap)-before)>>20)
	figures.Tell(t, "abuse-connections %d at most with %d slow clients, allowed are %d", mostConns, slow, maxConns)
	for _, s := range []int{200, 202, 400, 403, 404, 405, 409, 413, 415, 421, 422, 426} {
		if statuses[s] == 0 {
			t.Errorf("no request was answered %d: the abuser is not nasty enough", s)
		}
	}
	if got := n.Counts().Panics; got != 0 {
		t.Errorf("%d panics", got)
	}
	if grown := int64(mostHeap) - before; grown > 64<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	if mostConns > maxConns || mostConns < min(slow, 50) {
		t.Errorf("%d connections at most, want %d..%d", mostConns, min(slow, 50), maxConns)
	}
	if os.Getenv("CRDT_GENOME_REQUESTS") != "" && p99 > 50*time.Millisecond {
		t.Errorf("good requests wait %v at the 99th percentile", p99)
	}
	works(t, n)
}

// holdSlowly keeps that many connections open, each of which sends a byte now
// and then and never a whole request. Who is cut off comes again.
func holdSlowly(t *testing.T, n *Node, clients int, stop <-chan struct{}) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range clients {
		wg.Go(func() {
			for {
				c, err := net.Dial("tcp", n.Addr().String())
				if err != nil {
					t.Errorf("dial: %v", err)
					return
				}
				head := "POST /genome HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n" + strings.Repeat(" ", 900)
				for j := 0; err == nil && j < len(head); j++ {
					_, err = io.WriteString(c, head[j:j+1])
					select {
					case <-stop:
						_ = c.Close()
						return
					case <-time.After(time.Duration(200+i%800) * time.Millisecond):
					}
				}
				_ = c.Close()
				select { // or those beyond the bound would do nothing but push each other out
				case <-stop:
					return
				case <-time.After(time.Second):
				}
			}
		})
	}
}

// workWell reads and writes as it should be done, and returns how long each
// answer took.
func workWell(t *testing.T, n *Node, stop <-chan struct{}) (waits []time.Duration) {
	c := NewClient(n.URL())
	defer c.http.CloseIdleConnections()
	g := stranger(t, "998@5f3c1a2b")
	for k := 0; ; k++ {
		select {
		case <-stop:
			return waits
		case <-time.After(2 * time.Millisecond):
		}
		start := time.Now()
		var op genome.Op
		if k%2 == 1 {
			op = insert(t, g, g.Len(), byte(k))
		}
		var err error
		for range 3 { // a machine that is too busy to be quick may lose its connection to the slow ones
			if k%2 == 0 {
				_, err = c.Digest(ctx)
			} else {
				_, err = c.Post(ctx, genome.Block{Ops: []genome.Op{op}})
			}
			if err == nil {
				break
			}
		}
		if err != nil {
			t.Errorf("a good request failed: %v", err)
			return waits
		}
		waits = append(waits, time.Since(start))
	}
}

// watchResources returns the most memory that was live, and the most
// connections that were open.
func watchResources(n *Node, stop <-chan struct{}) (heap uint64, open int) {
	live := []rtmetrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for {
		rtmetrics.Read(live)
		heap = max(heap, live[0].Value.Uint64())
		k, _ := n.conns.totals()
		open = max(open, k)
		select {
		case <-stop:
			return heap, open
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// works checks that n takes and shows ops, and that its log is sound.
func works(t *testing.T, n *Node) {
	t.Helper()
	g := stranger(t, "999@5f3c1a2b")
	wantReply(t, post(t, n, jsonOps(t, insert(t, g, 0, 0x5a))), 200, PostReply{Applied: 1})
	if a := ask(t, n, "GET", "/genome", nil); a.status != 200 || !strings.Contains(a.body, "5a") {
		t.Errorf("afterwards: %d", a.status)
	}
	if v, err := NewClient(n.URL()).LogVerify(ctx); err != nil || !v.OK {
		t.Errorf("the log afterwards: %+v, %v", v, err)
	}
}

// The same over connections, with half-open, cut and garbled ones among them.
func TestAbuseOnTheWire(t *testing.T) {
	const conns, most = 4000, 64
	n := alone(t, func(c *Config) { c.tune.conns, c.Log = most, c.Log.Level(5) })
	var wg sync.WaitGroup
	for w := range uint64(8) {
		a := newAbuser(t, w)
		wg.Go(func() {
			for range conns / 8 {
				c, err := net.Dial("tcp", n.Addr().String())
				if err != nil {
					t.Errorf("dial: %v", err)
					return
				}
				_ = c.SetDeadline(time.Now().Add(patience))
				body := a.body()
				head := fmt.Sprintf("%s /genome HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n", pick(a, "POST", "GET", "P OST"))
				switch a.rng.IntN(5) {
				case 0: // cut in the header
					head = head[:a.rng.IntN(len(head))]
				case 1: // a length that lies, either way
					head += fmt.Sprintf("Content-Length: %d\r\n\r\n%s", a.rng.IntN(2*len(body)+2), body)
				case 2: // chunks that lie
					head += fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n%s", a.rng.IntN(2*len(body)+2), body, pick(a, "0\r\n\r\n", "-1\r\n", "ffffffffffffffff\r\n", ""))
				case 3: // both
					head += fmt.Sprintf("Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n%s", len(body), body)
				case 4: // garbage
					head = string(body) + "\r\n\r\n"
				}
				_, _ = io.WriteString(c, head)
				_ = c.(*net.TCPConn).CloseWrite()
				if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil && !slices.Contains(append(slices.Clone(allowed), statusClientWentAway, 501, 505), resp.StatusCode) {
					t.Errorf("%q: %s", head, resp.Status)
				}
				_ = c.Close()
			}
		})
	}
	wg.Wait()
	figures.Tell(t, "garbled-connections %d seeds 0-7, %d panics", conns, n.Counts().Panics)
	eventually(t, func() bool { open, _ := n.conns.totals(); return open <= 1 }, why("connections stay open"))
	if c := n.Counts(); c.Panics != 0 || c.Rejected["unexpected_eof"] == 0 {
		t.Errorf("%+v", c)
	}
	works(t, n)
}

package httpapi

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"crdt-genome/genome"
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
	if a.rng.IntN(50) == 0 {
		r.Host = pick(a, "evil.example", "", "localhost:99999", "[::1", "127.0.0.1.", "\x00")
	}
	return r
}

// A hundred thousand requests that are wrong in every way we know: none
// panics, each gets a status that is meant, memory stays, and the node works.
func TestAbuse(t *testing.T) {
	const requests, workers = 100_000, 4
	n := alone(t, func(c *Config) { c.Log = c.Log.Level(5) })
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
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
	line := ""
	for _, s := range slices.Sorted(maps.Keys(statuses)) {
		line += fmt.Sprintf(" %d: %d", s, statuses[s])
	}
	t.Logf("%d requests in %v (%.0f/s):%s", requests, took.Round(time.Millisecond), requests/took.Seconds(), line)
	for _, s := range []int{200, 202, 400, 403, 404, 405, 409, 415, 421, 422, 426} {
		if statuses[s] == 0 {
			t.Errorf("no request was answered %d: the abuser is not nasty enough", s)
		}
	}
	if got := n.Counts().Panics; got != 0 {
		t.Errorf("%d panics", got)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 64<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	works(t, n)
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
	const conns, most = 400, 64
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
	eventually(t, func() bool { open, _ := n.conns.totals(); return open <= 1 }, why("connections stay open"))
	if c := n.Counts(); c.Panics != 0 || c.Rejected["unexpected_eof"] == 0 {
		t.Errorf("%+v", c)
	}
	works(t, n)
}

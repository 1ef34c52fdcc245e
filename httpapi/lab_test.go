package httpapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"crdt-genome/genome"
	"crdt-genome/store"
)

var ctx = context.Background()

// patience is how long a test waits for what must happen. It is far more than
// anything takes, so that a busy machine fails no test.
const patience = 60 * time.Second

// A lab is a group of nodes that reach each other by name ("http://actor-1")
// whatever port they have got, over loopback TCP or over pipes in memory. All
// its faults are made where a node sends.
type lab struct {
	t     testing.TB
	count int
	mem   bool // pipes instead of TCP, for synctest
	adapt func(*Config)
	dirs  []string // data directory of each
	nodes []*Node  // nil: not running
	logs  []*logBuffer
	paths directory

	mu     sync.Mutex
	faults func(from, to int) fault // nil: none
}

// newLab makes a group of count nodes that are not running yet. adapt may be nil.
func newLab(t testing.TB, count int, adapt func(*Config)) *lab {
	l := &lab{t: t, count: count, adapt: adapt, nodes: make([]*Node, count)}
	for range count {
		l.dirs = append(l.dirs, t.TempDir())
		l.logs = append(l.logs, &logBuffer{})
	}
	t.Cleanup(func() {
		for i := range l.nodes {
			l.stop(i)
		}
	})
	return l
}

// config is what node i is started with: quick intervals and no mutations.
func (l *lab) config(i int) Config {
	cfg := Config{
		Store:          store.Config{Data: l.dirs[i], Actor: genome.ActorID(i)},
		Listen:         "127.0.0.1:0",
		VerifyInterval: 200 * time.Millisecond,
		PullInterval:   300 * time.Millisecond,
		Mutate:         MutateConfig{Off: true},
		Log:            zerolog.New(l.logs[i]).Level(zerolog.DebugLevel),
		SetLevel:       func(zerolog.Level) {},
		Version:        "test",
		Transport:      l.transport(i),
		tune:           tuning{grace: 10 * time.Millisecond},
	}
	if l.mem {
		cfg.Listener = l.paths.listen(name(i))
	}
	for j := range l.count {
		cfg.AllowHosts = append(cfg.AllowHosts, name(j))
		cfg.Peers = append(cfg.Peers, Peer{Actor: genome.ActorID(j), URL: "http://" + name(j)})
	}
	if l.adapt != nil {
		l.adapt(&cfg)
	}
	return cfg
}

func name(i int) string { return fmt.Sprintf("actor-%d", i) }

// start starts node i.
func (l *lab) start(i int) *Node {
	l.t.Helper()
	n, err := Start(ctx, l.config(i))
	if err != nil {
		l.t.Fatalf("Start(%d): %v", i, err)
	}
	l.nodes[i] = n
	if !l.mem {
		l.paths.set(name(i), n.Addr().String())
	}
	return n
}

// startAll starts all nodes.
func (l *lab) startAll() []*Node {
	l.t.Helper()
	for i := range l.count {
		l.start(i)
	}
	return l.nodes
}

// stop stops node i, if it runs.
func (l *lab) stop(i int) {
	l.t.Helper()
	if l.nodes[i] == nil {
		return
	}
	l.paths.set(name(i), "")
	if err := l.nodes[i].Close(ctx); err != nil {
		l.t.Errorf("Close(%d): %v", i, err)
	}
	l.nodes[i] = nil
}

// setFaults decides what becomes of every request from now on.
func (l *lab) setFaults(f func(from, to int) fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults = f
}

func (l *lab) fault(from, to int) fault {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.faults == nil {
		return fault{}
	}
	return l.faults(from, to)
}

// cut returns faults that lose everything between the actors of a and others.
func cut(a ...int) func(from, to int) fault {
	in := func(i int) bool {
		for _, x := range a {
			if x == i {
				return true
			}
		}
		return false
	}
	return func(from, to int) fault { return fault{lose: in(from) != in(to)} }
}

// waitEqual waits until all running nodes hold the same vector and state.
func (l *lab) waitEqual() {
	l.t.Helper()
	var last string
	eventually(l.t, func() bool {
		last = ""
		var first *store.State
		equal := true
		for _, n := range l.nodes {
			if n == nil {
				continue
			}
			st := mustState(l.t, n)
			last += fmt.Sprintf("\n  actor %d: %d ops, %v", n.cfg.Store.Actor, st.Ops, st.Digest)
			if first == nil {
				first = st
			}
			equal = equal && first.Version.Equal(st.Version)
			if first.Version.Equal(st.Version) && first.Digest != st.Digest {
				l.t.Fatalf("diverged:%s", last)
			}
		}
		return equal
	}, func() string { return "not equal:" + last })
}

// eventually polls until ok, and fails with what if it never is.
func eventually(t testing.TB, ok func() bool, what func() string) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v: %s", patience, what())
		}
	}
}

func why(s string) func() string { return func() string { return s } }

func mustState(t testing.TB, n *Node) *store.State {
	t.Helper()
	st, err := n.actor.State(ctx)
	if err != nil {
		t.Fatalf("State: %v", err)
	}
	return st
}

// mustInsert mints an insert on n.
func mustInsert(t testing.TB, n *Node, at int, genes ...byte) genome.Op {
	t.Helper()
	ops, err := n.actor.Insert(ctx, at, genes)
	if err != nil {
		t.Fatalf("Insert: %v", err)
	}
	return ops[0]
}

// A fault is what becomes of one request.
type fault struct {
	lose    bool          // before it arrives
	deaf    bool          // its answer is lost
	repeat  bool          // it arrives twice
	delay   time.Duration // before it arrives; unequal ones reorder
	instead func(*http.Request) (*http.Response, error)
}

// link is the http.RoundTripper of one node.
type link struct {
	l    *lab
	from int
	rt   *http.Transport
}

func (l *lab) transport(from int) http.RoundTripper {
	rt := newTransport()
	rt.DialContext = l.paths.dial
	return &link{l, from, rt}
}

var errLost = errors.New("lost on the way")

func (k *link) RoundTrip(r *http.Request) (*http.Response, error) {
	var to int
	_, _ = fmt.Sscanf(r.URL.Host, "actor-%d", &to)
	f := k.l.fault(k.from, to)
	if f.instead != nil {
		return f.instead(r)
	}
	if !sleep(r.Context(), f.delay) {
		return nil, r.Context().Err()
	}
	if f.lose {
		return nil, errLost
	}
	if f.repeat && r.GetBody != nil {
		body, _ := r.GetBody()
		again := r.Clone(r.Context())
		again.Body = body
		if resp, err := k.rt.RoundTrip(again); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
	}
	resp, err := k.rt.RoundTrip(r)
	if f.deaf && err == nil {
		_ = resp.Body.Close()
		return nil, errLost
	}
	return resp, err
}

func (k *link) CloseIdleConnections() { k.rt.CloseIdleConnections() }

// directory says where each name is reached.
type directory struct {
	mu    sync.Mutex
	tcp   map[string]string
	pipes map[string]*pipeListener
}

func (d *directory) set(name, addr string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tcp == nil {
		d.tcp = map[string]string{}
	}
	d.tcp[name] = addr
}

func (d *directory) listen(name string) net.Listener {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pipes == nil {
		d.pipes = map[string]*pipeListener{}
	}
	ln := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	d.pipes[name] = ln
	return ln
}

func (d *directory) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	host, _, _ := net.SplitHostPort(addr)
	d.mu.Lock()
	tcp, ln := d.tcp[host], d.pipes[host]
	d.mu.Unlock()
	switch {
	case ln != nil:
		return ln.dial(ctx)
	case tcp != "":
		return (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", tcp)
	}
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
}

// pipeListener hands out net.Pipes: connections that a fake clock can wait for.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipeListener) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }

func (p *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-p.closed:
	case <-ctx.Done():
	}
	_, _ = ours.Close(), theirs.Close()
	return nil, &net.OpError{Op: "dial", Net: "pipe", Err: errors.New("connection refused")}
}

// logBuffer keeps a node's log.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// lines returns the lines that hold all of parts.
func (l *logBuffer) lines(parts ...string) (found []string) {
line:
	for line := range strings.Lines(l.String()) {
		for _, p := range parts {
			if !strings.Contains(line, p) {
				continue line
			}
		}
		found = append(found, line)
	}
	return found
}

// alone starts one node without peers.
func alone(t testing.TB, adapt func(*Config)) *Node {
	t.Helper()
	l := newLab(t, 1, adapt)
	return l.start(0)
}

// An answer is what came back for a raw request.
type answer struct {
	status int
	header http.Header
	body   string
}

// ask sends a request to n, as curl would. The headers come in pairs.
func ask(t testing.TB, n *Node, method, path string, body any, header ...string) answer {
	t.Helper()
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(b)
	case []byte:
		r = bytes.NewReader(b)
	case io.Reader:
		r = b
	}
	req, err := http.NewRequest(method, "http://"+n.Addr().String()+path, r)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
			continue
		}
		req.Header.Set(header[i], header[i+1])
	}
	client := http.Client{Transport: plain, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: body: %v", method, path, err)
	}
	return answer{resp.StatusCode, resp.Header, string(data)}
}

// plain is a transport that changes nothing and keeps no connection.
var plain = &http.Transport{DisableCompression: true, DisableKeepAlives: true}

const typeJSON, typeNDJSON = "application/json", "application/x-ndjson"

// post sends ops in JSON.
func post(t testing.TB, n *Node, body string) answer {
	t.Helper()
	return ask(t, n, "POST", "/genome", body, "Content-Type", typeJSON)
}

// ops encodes the ops as NDJSON.
func jsonOps(t testing.TB, ops ...genome.Op) string {
	t.Helper()
	var b strings.Builder
	for _, op := range ops {
		data, err := op.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		b.Write(data)
		b.WriteByte('\n')
	}
	return b.String()
}

func blockOps(t testing.TB, ops ...genome.Op) []byte {
	t.Helper()
	data, err := genome.AppendBlock(nil, genome.Block{Ops: ops})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// stranger returns a genome that makes ops as a replica that no node runs.
func stranger(t testing.TB, replica string) *genome.Genome {
	t.Helper()
	id, err := genome.ParseReplicaID(replica)
	if err != nil {
		t.Fatal(err)
	}
	return genome.New(id)
}

func insert(t testing.TB, g *genome.Genome, at int, genes ...byte) genome.Op {
	t.Helper()
	op, err := g.Insert(at, genes)
	if err != nil {
		t.Fatal(err)
	}
	return op
}

// sinceQuery is the URL of what v lacks.
func sinceQuery(v genome.Version) string { return "/v1/ops?since=" + url.QueryEscape(v.String()) }

// newLocalServer serves h until the end of the test and returns its URL.
func newLocalServer(t testing.TB, h http.Handler) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

package httpapi

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"crdt-genome/genome"
	"crdt-genome/store"
)

func TestRouting(t *testing.T) {
	n := alone(t, nil)
	for _, c := range []struct {
		method, path string
		header       []string
		status       int
		code, allow  string
	}{
		{"GET", "/nothing", nil, 404, "not_found", ""},
		{"GET", "/genome/", nil, 404, "not_found", ""},
		{"GET", "/v1/", nil, 404, "not_found", ""},
		{"PUT", "/genome", nil, 405, "method_not_allowed", "GET, HEAD, POST"},
		{"DELETE", "/genome", nil, 405, "method_not_allowed", "GET, HEAD, POST"},
		{"POST", "/v1/vv", nil, 405, "method_not_allowed", "GET, HEAD"},
		{"GET", "/v1/edit", nil, 405, "method_not_allowed", "POST"},
		{"BREW", "/genome", nil, 405, "method_not_allowed", "GET, HEAD, POST"},
		{"GET", "/genome", []string{"Host", "evil.example"}, 421, "wrong_host", ""},
		{"GET", "/genome", []string{"Host", "evil.example:80"}, 421, "wrong_host", ""},
		{"GET", "/nothing", []string{"Host", "127.0.0.1.evil.example"}, 421, "wrong_host", ""},
		{"POST", "/genome", []string{"Origin", "https://evil.example"}, 403, "cross_origin", ""},
		{"PUT", "/v1/mutator", []string{"Sec-Fetch-Site", "cross-site"}, 403, "cross_origin", ""},
		{"GET", "/genome", []string{headerProtocol, "2"}, 426, "wire_version_unsupported", ""},
		{"POST", "/genome", []string{headerCluster, "another"}, 409, "wrong_cluster", ""},
		{"GET", "/v1/ops?since=x", nil, 422, "bad_id", ""},
		{"GET", "/v1/ops?limit=x", nil, 400, "bad_request", ""},
		{"GET", "/v1/log?from=-1", nil, 400, "bad_request", ""},
		{"GET", "/v1/log?limit=1e9", nil, 400, "bad_request", ""},
		{"GET", "/v1/digest?at=9", nil, 422, "bad_id", ""},
	} {
		t.Run(c.method+" "+c.path+" "+strings.Join(c.header, " "), func(t *testing.T) {
			a := ask(t, n, c.method, c.path, nil, c.header...)
			p := problemIn(t, a)
			if a.status != c.status || p.Code != c.code {
				t.Errorf("answer %d %s %q, want %d %s", a.status, p.Code, p.Detail, c.status, c.code)
			}
			if a.header.Get("Allow") != c.allow {
				t.Errorf("Allow %q, want %q", a.header.Get("Allow"), c.allow)
			}
		})
	}
	for _, host := range []string{"localhost", "LOCALHOST:1", "127.0.0.1:99", "[::1]:80", "actor-0", "actor-0:80"} {
		if a := ask(t, n, "GET", "/genome", nil, "Host", host); a.status != 200 {
			t.Errorf("Host %s: %d, want 200", host, a.status)
		}
	}
	if a := ask(t, n, "GET", "//genome", nil); a.status != http.StatusMovedPermanently && a.status != http.StatusTemporaryRedirect {
		t.Errorf("//genome: %d, want a redirect to /genome", a.status)
	}
	if a := ask(t, n, "GET", "/nothing", nil, "Accept", "text/plain"); !strings.HasPrefix(a.body, "error: not_found: ") {
		t.Errorf("as text: %q", a.body)
	}
	if a := ask(t, n, "GET", "/genome", nil, "X", strings.Repeat("x", maxHeader)); a.status != 431 {
		t.Errorf("long header: %d, want 431", a.status)
	}
	if a := ask(t, n, "GET", "/genome", nil, "X", strings.Repeat("x", maxHeader-1000)); a.status != 200 {
		t.Errorf("header just short enough: %d, want 200", a.status)
	}
}

func TestHeadersOfEveryAnswer(t *testing.T) {
	n := alone(t, nil)
	for _, path := range []string{"/genome", "/nothing", "/v1/vv"} {
		h := ask(t, n, "GET", path, nil).header
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
			"X-Content-Type-Options":  "nosniff", headerProtocol: "1", headerActor: "0", headerCluster: "crdt-genome",
			headerReplica: n.actor.Replica().String(), headerBoot: string(n.boot),
		} {
			if h.Get(name) != want {
				t.Errorf("%s: %s is %q, want %q", path, name, h.Get(name), want)
			}
		}
	}
}

// Whatever panics in a request is answered, counted, logged, and harms nobody.
func TestPanicIsAnswered(t *testing.T) {
	l := newLab(t, 1, nil)
	n := l.start(0)
	s := n.srv.Handler.(*server)
	s.mux.HandleFunc("GET /panic", func(w http.ResponseWriter, r *http.Request) { panic("on purpose") })
	s.mux.HandleFunc("GET /late", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "begun")
		panic("on purpose")
	})
	a := ask(t, n, "GET", "/panic", nil)
	wantProblem(t, n, a, 500, "internal")
	if strings.Contains(a.body, "purpose") {
		t.Errorf("the answer shows what is inside: %s", a.body)
	}
	resp, err := http.Get("http://" + n.Addr().String() + "/late")
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
	}
	if err == nil {
		t.Error("an answer that broke off in the middle looks complete")
	}
	if got := n.Counts().Panics; got != 2 {
		t.Errorf("%d panics are counted, want 2", got)
	}
	if len(l.logs[0].lines(`"event":"panic"`, "on purpose")) != 2 {
		t.Error("the panics are not in the log")
	}
	if a := ask(t, n, "GET", "/genome", nil); a.status != 200 {
		t.Errorf("afterwards: %d", a.status)
	}
}

func TestUnsafeBind(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "example.com:0"} {
		_, err := Start(ctx, Config{Store: store.Config{Data: t.TempDir()}, Listen: addr})
		if _, ok := errors.AsType[*UnsafeBindError](err); !ok {
			t.Errorf("Start on %s: %v, want an UnsafeBindError", addr, err)
		}
	}
	n := alone(t, func(c *Config) { c.Listen, c.Insecure, c.AllowHosts = "0.0.0.0:0", true, nil })
	if a := ask(t, n, "GET", "/genome", nil, "Host", "any.example"); a.status != 200 {
		t.Errorf("open to all: Host any.example: %d, want 200", a.status)
	}
}

func TestListenErrors(t *testing.T) {
	n := alone(t, nil)
	_, err := Start(ctx, Config{Store: store.Config{Data: t.TempDir(), Actor: 1}, Listen: n.Addr().String()})
	e, ok := errors.AsType[*ListenError](err)
	if !ok || e.PID == 0 || e.Actor != 0 || !strings.Contains(err.Error(), "in use by pid") {
		t.Errorf("Start on a port in use: %v, want who holds it", err)
	}
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	dir := store.Config{Data: t.TempDir(), Actor: 1}
	_, err = Start(ctx, Config{Store: dir, Listen: other.Listener.Addr().String()})
	if e, ok := errors.AsType[*ListenError](err); !ok || e.PID != 0 {
		t.Errorf("Start on a port of another program: %v", err)
	}
	a, err := store.Open(ctx, dir)
	if err != nil {
		t.Fatalf("the log is still held: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}

func TestConfigErrors(t *testing.T) {
	good := func() Config { return Config{Store: store.Config{Data: t.TempDir()}, Listen: "127.0.0.1:0"} }
	for name, spoil := range map[string]func(*Config){
		"no port":        func(c *Config) { c.Listen = "127.0.0.1" },
		"negative":       func(c *Config) { c.VerifyInterval = -1 },
		"mutate":         func(c *Config) { c.Mutate = MutateConfig{Min: 2, Max: 1} },
		"peer URL":       func(c *Config) { c.Peers = []Peer{{Actor: 1, URL: "ftp://x"}} },
		"peer twice":     func(c *Config) { c.Peers = []Peer{{Actor: 1, URL: "http://x"}, {Actor: 1, URL: "http://y"}} },
		"no data folder": func(c *Config) { c.Store.Data = "" },
	} {
		cfg := good()
		spoil(&cfg)
		if n, err := Start(ctx, cfg); err == nil {
			t.Errorf("%s: no error", name)
			_ = n.Close(ctx)
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := good()
	cfg.Listener, cfg.VerifyInterval = ln, -1
	if _, err := Start(ctx, cfg); err == nil {
		t.Error("no error")
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener handed over is still open: %v", err)
	}
}

// raw sends bytes to n and returns the whole answer.
func raw(t *testing.T, n *Node, request string) string {
	t.Helper()
	c, err := net.Dial("tcp", n.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	_ = c.(*net.TCPConn).CloseWrite()
	data, _ := io.ReadAll(c) // a reset is an end too
	return string(data)
}

// Nothing is taken from a body that ends early, or that lies about its length.
func TestBodiesThatLie(t *testing.T) {
	n := alone(t, nil)
	op := `{"Insert":{"id":"7@9c41e2b7.1","parent":null,"side":"R","genes":"2a"}}`
	head := "POST /genome HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
	for _, c := range []struct{ name, request, want string }{
		{"shorter than said", head + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(op)+5, op), "unexpected_eof"},
		{"chunk cut", head + fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s", len(op)+5, op), "unexpected_eof"},
		{"no last chunk", head + fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(op), op), "unexpected_eof"},
		{"bad chunk size", head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n" + op, "bad_encoding"},
		{"two lengths", head + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + op, "400 Bad Request"},
		{"negative length", head + "Content-Length: -1\r\n\r\n" + op, "400 Bad Request"},
		{"not HTTP", "hello\r\n\r\n", "400 Bad Request"},
		{"newer HTTP", "GET /genome HTTP/3.0\r\nHost: localhost\r\n\r\n", "505 "},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := raw(t, n, c.request)
			if !strings.Contains(got, c.want) {
				t.Errorf("%q, want %s", got, c.want)
			}
			if strings.Contains(c.want, "_") && !strings.Contains(strings.ToLower(got), "connection: close") {
				t.Errorf("the connection is kept: %q", got)
			}
		})
	}
	if st := mustState(t, n); st.Ops != 0 {
		t.Errorf("%d ops were taken", st.Ops)
	}
}

// Slow clients are cut off at the limits, to the second. The clock is fake.
func TestSlowClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 1, nil)
		l.mem = true
		l.start(0)
		connect := func() net.Conn {
			c, err := l.paths.dial(ctx, "", "actor-0:80")
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		// until returns what comes on c, and when it is closed.
		until := func(c net.Conn, send string, every time.Duration) (string, time.Duration) {
			start := time.Now()
			stop := make(chan struct{})
			go func() {
				for i := range len(send) {
					if _, err := io.WriteString(c, send[i:i+1]); err != nil {
						return
					}
					select {
					case <-time.After(every):
					case <-stop:
						return
					}
				}
			}()
			data, _ := io.ReadAll(c)
			close(stop)
			_ = c.Close()
			return string(data), time.Since(start)
		}
		for _, c := range []struct {
			name, send string
			every      time.Duration
			want       string
			at         time.Duration
		}{
			{"nothing at all", "", 0, "", headerTimeout},
			{"slow header", "GET /genome HTTP/1.1\r\nHost: localhost\r\nX: y", time.Second, "", headerTimeout},
			{"slow body", "POST /genome HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n" +
				strings.Repeat(" ", 90000), 2 * time.Millisecond, codeBodyTimeout, bodyTimeout},
			{"idle", "GET /genome HTTP/1.1\r\nHost: localhost\r\n\r\n", time.Microsecond, "200 OK", idleTimeout},
		} {
			got, at := until(connect(), c.send, c.every)
			if !strings.Contains(got, c.want) {
				t.Errorf("%s: %q, want %q", c.name, got, c.want)
			}
			if at < c.at || at > c.at+2*time.Second {
				t.Errorf("%s: closed after %v, want %v", c.name, at, c.at)
			}
		}
		// Meanwhile a long answer goes on: an open read must not end it.
		if open, _ := l.nodes[0].conns.totals(); open != 0 {
			t.Errorf("%d connections are left", open)
		}
		l.stop(0)
	})
}

// More connections than allowed: those that keep us waiting go, a quick one is
// always served.
func TestConnectionBound(t *testing.T) {
	const most = 20
	n := alone(t, func(c *Config) { c.tune.conns = most })
	var slow []net.Conn
	defer func() {
		for _, c := range slow {
			_ = c.Close()
		}
	}()
	for i := range 5 * most {
		c, err := net.Dial("tcp", n.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		slow = append(slow, c)
		if i%2 == 0 {
			_, _ = io.WriteString(c, "GET /genome HTTP/1.1\r\nHost: loc")
		}
		if a := ask(t, n, "GET", "/genome", nil); a.status != 200 {
			t.Fatalf("with %d slow clients: %d", i, a.status)
		}
		if open, _ := n.conns.totals(); open > most {
			t.Fatalf("%d connections are open, want ≤ %d", open, most)
		}
	}
	if _, closed := n.conns.totals(); closed < 3*most {
		t.Errorf("%d were closed for others, want ≥ %d", closed, 3*most)
	}
	_ = slow[0].SetReadDeadline(time.Now().Add(patience))
	if _, err := slow[0].Read(make([]byte, 1)); err == nil || errors.Is(err, errTimeout(err)) {
		t.Errorf("the first slow client is still connected: %v", err)
	}
}

// errTimeout returns err if it is a timeout, and otherwise something else.
func errTimeout(err error) error {
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return err
	}
	return errors.ErrUnsupported
}

// Connections at work are not closed for others: the new one goes.
func TestConnectionBoundSparesWorkers(t *testing.T) {
	n := alone(t, func(c *Config) { c.tune.conns = 2 })
	follow := func() *bufio.Reader {
		c, err := net.Dial("tcp", n.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(c, "GET /v1/log?follow=true HTTP/1.1\r\nHost: localhost\r\n\r\n")
		return bufio.NewReader(c)
	}
	one, two := follow(), follow()
	for _, r := range []*bufio.Reader{one, two} {
		if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, "200") {
			t.Fatalf("%q, %v", line, err)
		}
	}
	if line, err := follow().ReadString('\n'); err == nil {
		t.Errorf("a third connection got %q", line)
	}
	mustInsert(t, n, 0, 42)
	for _, r := range []*bufio.Reader{one, two} {
		for line := ""; !strings.Contains(line, `"genes":"2a"`); {
			var err error
			if line, err = r.ReadString('\n'); err != nil {
				t.Fatalf("a follower was cut off: %v", err)
			}
		}
	}
}

func TestErrorMapping(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{&store.NotWritableError{Err: io.ErrShortWrite}, 507, "store_full"},
		{fmt.Errorf("x: %w", store.ErrFull), 429, "queue_full"},
		{store.ErrClosed, 503, "stopping"},
		{fmt.Errorf("%w: y", store.ErrFenced), 503, "fenced"},
		{fmt.Errorf("z: %w", genome.ErrIndex), 422, "index_out_of_range"},
		{&genome.OpError{Code: genome.CodeTooManyReplicas}, 422, "too_many_replicas"},
		{errors.New("anything else"), 500, "internal"},
	} {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
		problemOf(c.err).write(w, r)
		p := problemIn(t, answer{w.Code, w.Header(), w.Body.String()})
		if p.Status != c.status || p.Code != c.code {
			t.Errorf("%v: %d %s, want %d %s", c.err, p.Status, p.Code, c.status, c.code)
		}
		if retry := w.Header().Get("Retry-After"); (c.status == 429 || c.status == 503) != (retry != "") {
			t.Errorf("%v: Retry-After %q", c.err, retry)
		}
	}
	for code, k := range kinds {
		if k.status < 400 || k.title == "" {
			t.Errorf("code %s has status %d and title %q", code, k.status, k.title)
		}
	}
}

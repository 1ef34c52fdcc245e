package observatory_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"crdt-genome/genome"
	"crdt-genome/httpapi"
	"crdt-genome/store"
)

// patience is how long a test waits for what must happen, on a loaded machine.
const patience = 60 * time.Second

// errNoBrowser says that there is no Chromium to test with.
var errNoBrowser = errors.New("no chromium, chromium-browser, google-chrome or headless-shell in PATH")

// mayLackBrowser reports whether the tests may skip for want of a browser: not
// on a build machine, unless that says that it cannot have one.
func mayLackBrowser() bool {
	return os.Getenv("CI") != "true" || os.Getenv("CRDT_GENOME_NO_BROWSER") != ""
}

// browser starts the one browser that all tests share; stopBrowser ends it.
var (
	browser     = sync.OnceValues(startBrowser)
	stopBrowser = func() {}
)

func TestMain(m *testing.M) {
	code := m.Run()
	stopBrowser()
	os.Exit(code)
}

func startBrowser() (context.Context, error) {
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "headless-shell"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" || os.Getenv("CRDT_GENOME_NO_BROWSER") != "" {
		return nil, errNoBrowser
	}
	opts := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.WSURLReadTimeout(patience))
	for _, flag := range []string{"disable-quic", "disable-component-update", "hide-scrollbars", "mute-audio"} {
		opts = append(opts, chromedp.Flag(flag, true))
	}
	alloc, endAlloc := chromedp.NewExecAllocator(context.Background(), opts...)
	ctx, end := chromedp.NewContext(alloc)
	if err := chromedp.Do(ctx); err != nil { // starts it
		end()
		endAlloc()
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	stopBrowser = func() {
		end()
		endAlloc()
	}
	return ctx, nil
}

// A tab is one page of the browser.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu      sync.Mutex
	console []string // messages and exceptions
	urls    []string // requested
	pattern string   // what the test expects in the console
}

// open opens url in a new tab. At its end a test fails if the page wrote to
// the console or asked another origin.
func open(t *testing.T, url string) *tab {
	t.Helper()
	b, err := browser()
	if errors.Is(err, errNoBrowser) && mayLackBrowser() {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := chromedp.NewContext(b)
	tb := &tab{t: t, ctx: ctx}
	t.Cleanup(func() {
		tb.check(url)
		cancel()
	})
	if err := chromedp.Listen(ctx, tb.hear); err != nil {
		t.Fatal(err)
	}
	call(tb, network.Enable, network.EnableParams{})
	call(tb, log.Enable, cdp.Empty{})
	call(tb, runtime.Enable, cdp.Empty{})
	tb.do(chromedp.EmulateViewport(1280, 720), chromedp.Navigate(url))
	return tb
}

func (tb *tab) hear(ev any) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	switch e := ev.(type) {
	case *runtime.EventConsoleAPICalled:
		var parts []string
		for _, a := range e.Args {
			parts = append(parts, string(a.Value))
		}
		tb.console = append(tb.console, strings.Join(parts, " "))
	case *runtime.EventExceptionThrown:
		tb.console = append(tb.console, fmt.Sprintf("%s %s:%d", e.ExceptionDetails.Text, e.ExceptionDetails.URL, e.ExceptionDetails.LineNumber+1))
	case *log.EventEntryAdded:
		tb.console = append(tb.console, e.Entry.Text+" "+e.Entry.URL)
	case *network.EventRequestWillBeSent:
		tb.urls = append(tb.urls, e.Request.URL)
	}
}

func (tb *tab) check(url string) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	for _, c := range tb.console {
		if tb.pattern == "" || !strings.Contains(c, tb.pattern) {
			tb.t.Errorf("console: %.300s", c)
		}
	}
	origin := strings.Join(strings.SplitN(url, "/", 4)[:3], "/")
	for _, u := range tb.urls {
		if u != origin && !strings.HasPrefix(u, origin+"/") && !strings.HasPrefix(u, "blob:"+origin) {
			tb.t.Errorf("request to another origin: %.200s", u)
		}
	}
}

// do runs actions in the page.
func (tb *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		tb.t.Fatal(err)
	}
}

// get runs an action in the page and returns its value.
func get[T any](tb *tab, action chromedp.Action[T]) T {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, action)
	if err != nil {
		tb.t.Fatal(err)
	}
	return v
}

// eval returns the value of a JavaScript expression.
func eval[T any](tb *tab, js string) T {
	tb.t.Helper()
	return get(tb, chromedp.Evaluate[T](js))
}

// call sends a command of the DevTools protocol.
func call[P, R any](tb *tab, command cdp.Command[P, R], params P) {
	tb.t.Helper()
	get(tb, func(ctx context.Context, t *chromedp.Target) (R, error) { return cdp.Call(ctx, t, command, params) })
}

// wait polls until a JavaScript expression is true.
func (tb *tab) wait(js string) {
	tb.t.Helper()
	for deadline := time.Now().Add(patience); !eval[bool](tb, "!!("+js+")"); time.Sleep(30 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.t.Fatalf("still not: %s\nverdict: %s\nstory: %s\nconsole: %.1000q", js, eval[string](tb, word), eval[string](tb, `observatory.S.story.map(l => l.text).join("; ")+[...observatory.S.actors.values()].map(a=>a.state+a.link+a.since_ms+a.error).join()`), tb.console)
		}
	}
}

// until polls until ok.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
	}
}

const word = `document.getElementById("verdict").dataset.verdict`

// A cluster is some nodes, each behind a door of its own: an address that
// stays while the node behind it is stopped and started.
type cluster struct {
	t     *testing.T
	data  []string
	doors []*door
	nodes []*httpapi.Node // nil: stopped

	mu  sync.Mutex
	cut map[[2]int]bool
}

func startCluster(t *testing.T, count int) *cluster {
	t.Helper()
	if _, err := browser(); errors.Is(err, errNoBrowser) && mayLackBrowser() {
		t.Skip(err)
	}
	c := &cluster{t: t, nodes: make([]*httpapi.Node, count), cut: map[[2]int]bool{}}
	for range count {
		c.data = append(c.data, t.TempDir())
		c.doors = append(c.doors, newDoor(t))
	}
	t.Cleanup(func() {
		for i := range c.nodes {
			c.stop(i)
		}
	})
	for i := range count {
		c.start(i)
	}
	return c
}

func (c *cluster) url(i int) string { return "http://" + c.doors[i].ln.Addr().String() }

func (c *cluster) start(i int) {
	c.t.Helper()
	cfg := httpapi.Config{Store: store.Config{Data: c.data[i], Actor: genome.ActorID(i)}, Listen: "127.0.0.1:0",
		Chaos: true, VerifyInterval: time.Second, PullInterval: time.Second, Mutate: httpapi.MutateConfig{Off: true, Max: 200 * time.Millisecond},
		Transport: &way{c, i, &http.Transport{MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second}}}
	for j, d := range c.doors {
		cfg.Peers = append(cfg.Peers, httpapi.Peer{Actor: genome.ActorID(j), URL: "http://" + d.ln.Addr().String()})
	}
	n, err := httpapi.Start(context.Background(), cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.nodes[i] = n
	c.doors[i].set(n.Addr().String())
}

func (c *cluster) stop(i int) {
	if c.nodes[i] == nil {
		return
	}
	c.doors[i].set("")
	_ = c.nodes[i].Close(context.Background())
	c.nodes[i] = nil
}

// link cuts or heals the links between two sets of actors.
func (c *cluster) link(cut bool, some, others []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range some {
		for _, b := range others {
			c.cut[[2]int{min(a, b), max(a, b)}] = cut
		}
	}
}

// edit makes node i insert genes.
func (c *cluster) insert(i, at int, hex string) {
	c.t.Helper()
	if _, err := httpapi.NewClient(c.nodes[i].URL()).Edit(context.Background(), httpapi.EditRequest{Insert: &httpapi.InsertRequest{At: at, Hex: hex}}); err != nil {
		c.t.Fatal(err)
	}
}

// known waits until node i knows that all nodes hold all that was minted: what
// it knows before a cut is what it shows after it.
func (c *cluster) known(i int) {
	c.t.Helper()
	until(c.t, fmt.Sprintf("node %d knows that all are equal", i), func() bool {
		var ops uint64
		for _, n := range c.nodes {
			ops = max(ops, n.Actor().Version().Ops())
		}
		r, err := c.nodes[i].Cluster(context.Background())
		if err != nil {
			c.t.Fatal(err)
		}
		for _, a := range r.Actors {
			if a.Ops != ops {
				return false
			}
		}
		return r.Verdict == httpapi.VerdictConverged
	})
}

func (c *cluster) genome(i int) string {
	c.t.Helper()
	st, err := c.nodes[i].Actor().State(context.Background())
	if err != nil {
		c.t.Fatal(err)
	}
	return st.Hex
}

// way is the way out of one node; links that are cut fail on it.
type way struct {
	c    *cluster
	from int
	rt   *http.Transport
}

func (w *way) RoundTrip(r *http.Request) (*http.Response, error) {
	for to, d := range w.c.doors {
		if d.ln.Addr().String() != r.URL.Host {
			continue
		}
		w.c.mu.Lock()
		cut := w.c.cut[[2]int{min(w.from, to), max(w.from, to)}]
		w.c.mu.Unlock()
		if cut {
			return nil, errors.New("link cut")
		}
	}
	return w.rt.RoundTrip(r)
}

func (w *way) CloseIdleConnections() { w.rt.CloseIdleConnections() }

// A door forwards connections to a node, or closes them while there is none.
type door struct {
	ln net.Listener

	mu    sync.Mutex
	to    string
	conns map[net.Conn]bool
}

func newDoor(t *testing.T) *door {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &door{ln: ln, conns: map[net.Conn]bool{}}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() { d.forward(in) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		d.set("")
		running.Wait()
	})
	return d
}

// set changes where the door leads; open connections end.
func (d *door) set(to string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.to = to
	for c := range d.conns {
		_ = c.Close()
	}
	clear(d.conns)
}

func (d *door) forward(in net.Conn) {
	defer in.Close()
	d.mu.Lock()
	to := d.to
	d.mu.Unlock()
	if to == "" {
		return
	}
	out, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer out.Close()
	d.mu.Lock()
	if d.to != to {
		d.mu.Unlock()
		return
	}
	d.conns[in], d.conns[out] = true, true
	d.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { _, _ = io.Copy(out, in); _ = out.(*net.TCPConn).CloseWrite() })
	both.Go(func() { _, _ = io.Copy(in, out); _ = in.(*net.TCPConn).CloseWrite() })
	both.Wait()
	d.mu.Lock()
	delete(d.conns, in)
	delete(d.conns, out)
	d.mu.Unlock()
}

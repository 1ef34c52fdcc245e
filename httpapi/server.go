package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"crdt-genome/genome"
	"crdt-genome/httpapi/trust"
)

// protocol is the version that peers speak; others are refused with 426.
const protocol = "1"

const protocolNumber = 1

// Headers of the protocol; see the package comment.
const (
	headerProtocol = "Genome-Protocol"
	headerActor    = "Genome-Actor"
	headerReplica  = "Genome-Replica"
	headerBoot     = "Genome-Boot"
	headerCluster  = "Genome-Cluster"
	headerOps      = "Genome-Ops" // of GET and POST /genome: unit events held
	headerVV       = "Genome-VV"  // … and the hash of the vector
	headerLogBytes = "Genome-Log-Bytes"
	headerAge      = "Genome-Age"     // of a pushed batch: ms that its oldest op has been durable at its sender
	headerProcess  = "Genome-Process" // of a POST: "all": 2xx when every actor of the process has it; of an answer: "50 49": actors of the process, and how many hold just what this one does
	headerState    = "Genome-State"   // in rings: hash of a vector and the digest there, "16 hex digits-16 hex digits"
	headerSigned   = "Genome-Signed"  // of a question for /v1/ops: "true" wants signed points with a binary answer
	headerMore     = "Genome-More"    // of /v1/ops: "true" when the limit cut it short
)

// A handler does a request or says why not; ServeHTTP answers and logs.
type handler func(w http.ResponseWriter, r *http.Request) error

// server is the http.Handler of a Node.
type server struct {
	n      *Node
	mux    *http.ServeMux
	cross  *http.CrossOriginProtection
	closed bool // only the Host names allowed are served
}

func (n *Node) newServer(ln net.Listener) *http.Server {
	host, _, _ := net.SplitHostPort(ln.Addr().String())
	s := &server{n: n, mux: http.NewServeMux(), cross: http.NewCrossOriginProtection(),
		closed: isLoopback(host) || len(n.cfg.AllowHosts) > 0}
	for _, r := range n.routes() {
		s.mux.HandleFunc(r.pattern, func(w http.ResponseWriter, req *http.Request) {
			w.(*answerWriter).err = r.handle(w, req) // ServeHTTP made it
		})
	}
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: n.cfg.tune.header,
		ReadTimeout:       n.cfg.tune.header + n.cfg.tune.body,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       n.cfg.tune.idle,
		MaxHeaderBytes:    maxHeader - netHTTPSlop,
		ErrorLog:          newDebugLog(n.log),
		ConnState:         n.conns.changed,
		ConnContext:       n.conns.begin,
	}
	srv.RegisterOnShutdown(n.endStreams)
	return srv
}

// ServeHTTP answers one request and keeps count.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	if r.ContentLength == 0 { // with a body, readBody says when it is here
		s.n.conns.work(r.Context(), true)
	}
	_, pattern := s.mux.Handler(r)
	aw := &answerWriter{ResponseWriter: w}
	defer func() {
		s.n.conns.work(r.Context(), false)
		s.n.metrics.observe(pattern, r.Method, aw.status, time.Since(start))
	}()
	err := s.n.guard(aw, r, s.answer)
	switch {
	case err == nil:
	case aw.status != 0: // too late for another: cut the connection instead
		s.n.log.Debug().Err(err).Str("route", pattern).Msg("answer cut short")
		panic(http.ErrAbortHandler)
	default:
		s.n.refuse(aw, r, err)
	}
}

// answer checks what is common to all routes, then takes the route.
func (s *server) answer(w http.ResponseWriter, r *http.Request) error {
	setHeaders(w.Header())
	if err := s.admit(w, r); err != nil {
		return err
	}
	h, pattern := s.mux.Handler(r)
	if pattern == "" {
		return unrouted(h, r)
	}
	s.mux.ServeHTTP(w, r)
	return w.(*answerWriter).err
}

// setHeaders sets what every answer has. A stranger learns no more of us than
// that crdt-genome answers; see admit.
func setHeaders(h http.Header) {
	h.Set(headerProtocol, protocol)
	h.Set("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
}

// identify says who we are; requests and answers carry the same.
func (n *Node) identify(h http.Header) {
	h.Set(headerProtocol, protocol)
	h.Set(headerActor, strconv.FormatUint(uint64(n.cfg.Store.Actor), 10))
	h.Set(headerReplica, n.actor.Replica().String())
	h.Set(headerBoot, string(n.boot))
	h.Set(headerCluster, n.cluster)
	n.ride(h)
}

// admit refuses what no route takes, and notes which peer speaks.
func (s *server) admit(w http.ResponseWriter, r *http.Request) error {
	rc := http.NewResponseController(w)
	deadline := time.Time{} // without a body, an open read must not end a long answer
	if r.ContentLength != 0 {
		deadline = time.Now().Add(s.n.cfg.tune.body)
	}
	_ = rc.SetReadDeadline(deadline) // not supported by test recorders only
	if err := s.checkHost(r); err != nil {
		return err
	}
	stranger := s.n.cfg.Trust.Admit(r)
	if bare := probes[r.URL.Path] && r.URL.RawQuery == ""; stranger != nil && !bare {
		return refuseStranger(w, r, stranger)
	}
	if err := s.cross.Check(r); err != nil {
		return problem(codeCrossOrigin, err.Error(), "requests that change something must come from this server's own pages")
	}
	if stranger != nil {
		return nil // a probe: nothing that it says of itself counts
	}
	s.n.identify(w.Header())
	return s.n.meet(r)
}

// checkHost keeps web pages out that made their own name point here.
func (s *server) checkHost(r *http.Request) error {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if !s.closed || isLoopback(host) {
		return nil
	}
	for _, allowed := range s.n.cfg.AllowHosts {
		if strings.EqualFold(host, allowed) || strings.EqualFold(r.Host, allowed) {
			return nil
		}
	}
	return problem(codeWrongHost, fmt.Sprintf("Host %q is not served here", r.Host), "--allow-host NAME")
}

// refuseStranger says what err, of package trust, means to who asks. Only the
// bare probes are answered to all: they say no more than that somebody is there.
func refuseStranger(w http.ResponseWriter, r *http.Request, err error) error {
	if r.TLS != nil { // another handshake may show a certificate that has been renewed since
		w.Header().Set("Connection", "close")
	}
	_, _, browser := r.BasicAuth()
	if browser || errors.Is(err, trust.ErrMissing) { // let it ask again
		w.Header().Add("WWW-Authenticate", `Bearer realm="crdt-genome"`)
		w.Header().Add("WWW-Authenticate", `Basic realm="crdt-genome: any user, the token as password", charset="UTF-8"`)
		return problem(codeAuthRequired, "this server wants a token: "+err.Error(), "--auth-token-file FILE, or Authorization: Bearer TOKEN")
	}
	return problem(codeNotMember, "this server wants another token: "+err.Error(), "--auth-token-file FILE with the token of this group")
}

// probes are the routes of a service manager.
var probes = map[string]bool{"/livez": true, "/readyz": true, "/healthz": true}

// unrouted tells 404 from 405 as the mux does.
func unrouted(h http.Handler, r *http.Request) error {
	rec := headerRecorder{header: http.Header{}}
	h.ServeHTTP(&rec, r)
	if rec.status == http.StatusMethodNotAllowed {
		p := problem(codeMethod, r.Method+" "+r.URL.Path, "allowed: "+rec.header.Get("Allow"))
		p.allow = rec.header.Get("Allow")
		return p
	}
	return problem(codeNotFound, "nothing at "+r.URL.Path, "GET / lists what there is")
}

// headerRecorder takes a status and headers and drops the body.
type headerRecorder struct {
	header http.Header
	status int
}

func (h *headerRecorder) Header() http.Header         { return h.header }
func (h *headerRecorder) Write(p []byte) (int, error) { return len(p), nil }
func (h *headerRecorder) WriteHeader(status int)      { h.status = status }

// guard turns a panic of h into an error. One is always a bug.
func (n *Node) guard(w http.ResponseWriter, r *http.Request, h handler) (err error) {
	defer func() {
		if v := recover(); v != nil {
			n.counts.panics.Add(1)
			n.log.Error().Str("event", "panic").Str("path", r.URL.Path).Interface("panic", v).
				Bytes("stack", debug.Stack()).Msg("handler panicked")
			err = problem(codeInternal, "this is a bug; the log has the details", "")
		}
	}()
	return h(w, r)
}

// refuse answers err: the one place where a request's error is logged.
func (n *Node) refuse(w http.ResponseWriter, r *http.Request, err error) {
	p := problemOf(err)
	n.counts.reject(p.Code)
	n.log.Debug().Str("code", p.Code).Int("status", p.Status).Str("method", r.Method).
		Str("path", r.URL.Path).Str("detail", p.Detail).Msg("request refused")
	p.write(w, r)
}

// An answerWriter remembers the status of the answer, 0 until it has begun,
// and carries the error of a handler past the mux, which knows none.
type answerWriter struct {
	http.ResponseWriter
	status int
	err    error
}

func (w *answerWriter) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *answerWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap serves http.ResponseController.
func (w *answerWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// writeJSON answers v.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)+1))
	w.WriteHeader(status)
	_, err = w.Write(append(b, '\n'))
	return err
}

// meet checks what a request says of who sends it, and notes the sign of life.
// Requests without these headers (curl, the command line) are welcome.
func (n *Node) meet(r *http.Request) error {
	if v := r.Header.Get(headerProtocol); v != "" && v != protocol {
		return problem(string(genome.CodeWireVersion), fmt.Sprintf("protocol %q; this program speaks %s", v, protocol), "upgrade the older of the two")
	}
	if c := r.Header.Get(headerCluster); c != "" && c != n.cluster {
		return problem(codeWrongCluster, fmt.Sprintf("this actor belongs to cluster %q, the sender to %q", n.cluster, c), "check the address")
	}
	from, ok := sender(r)
	if !ok {
		return nil
	}
	boot := bootID(r.Header.Get(headerBoot))
	if from == n.cfg.Store.Actor {
		return n.meetTwin(boot, sentAt(r))
	}
	p := n.peer(from)
	if p == nil {
		return nil
	}
	if p.cut.Load() {
		return problem(codeLinkCut, fmt.Sprintf("the link to actor %d is cut by hand", from), "")
	}
	older, inUse := n.twins.see(from, boot, sentAt(r), time.Now())
	if !inUse {
		p.signOfLife(boot)
		p.noteRide(r.Header, false)
		return nil
	}
	if r.Method == http.MethodGet && r.URL.Path != "/v1/vv" {
		return nil // it may still read
	}
	return problem(codeActorInUse, fmt.Sprintf("another process (boot %s) runs as actor %d since before this one (boot %s)", older, from, boot),
		"stop one of the two, or give it another --actor")
}

// sender returns the actor that a request claims to come from.
func sender(r *http.Request) (genome.ActorID, bool) {
	a, err := strconv.ParseUint(r.Header.Get(headerActor), 10, 32)
	return genome.ActorID(a), err == nil
}

// sentAt returns when the sender says that it sent r, to the second; zero if it
// does not say.
func sentAt(r *http.Request) time.Time {
	at, err := http.ParseTime(r.Header.Get("Date"))
	if err != nil {
		return time.Time{}
	}
	return at
}

// meetTwin deals with a process that speaks as our own actor.
func (n *Node) meetTwin(boot bootID, sent time.Time) error {
	if boot == n.boot {
		return nil // ourselves, through our own URL
	}
	if _, ok := boot.started(); !ok {
		return nil
	}
	if ours, _ := n.boot.started(); boot < n.boot && sent.After(ours) {
		n.fenceTwin(boot)
	}
	return problem(codeActorInUse, fmt.Sprintf("actor %d runs here as well (boot %s, yours %s); the later started one stops minting", n.cfg.Store.Actor, n.boot, boot),
		"stop one of the two, or give it another --actor")
}

// endStreams ends followed logs, so that Shutdown need not wait for them.
func (n *Node) endStreams() { n.streamsCancel() }

// serve runs until the listener is closed.
func (n *Node) serve() error {
	err := n.srv.Serve(n.cfg.Trust.Listener(n.ln))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve %s: %w", n.ln.Addr(), err)
}

// shutdown stops the server: gracefully until ctx ends, then at once.
func (n *Node) shutdown(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, serverTimeout)
	defer cancel()
	if n.srv.Shutdown(ctx) != nil {
		_ = n.srv.Close() // the listener is closed already
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"crdt-genome/genome"
	"crdt-genome/httpapi"
	"crdt-genome/store"
)

// A source is where an op log can be read: a file that nobody has open, or a
// server. Both give the same answers, so no command cares which it is.
type source interface {
	where() string // as the user named it, or where it was found
	view(ctx context.Context) (view, error)
	digestAt(ctx context.Context, v genome.Version) (genome.Digest, error)
	// records yields the log from a position; with follow it may wait for more.
	records(ctx context.Context, from uint64, follow bool) iter.Seq2[store.Record, error]
	stats(ctx context.Context) (store.Stats, error)
	backup(ctx context.Context, w io.Writer) error
	close() error
}

// A view is one replica at one instant.
type view struct {
	where   string
	actor   genome.ActorID
	version genome.Version
	digest  genome.Digest
	genes   int
}

// lockedAnswer bounds the question to the server that holds a log, so that
// inspecting a log in use never takes longer than a second.
const lockedAnswer = 600 * time.Millisecond

// openSources opens what an argument names: a URL, a log file, an actor's
// folder, or a folder of those. A log that a server holds is read through it.
func (a *app) openSources(ctx context.Context, arg string, fileOnly bool) ([]source, error) {
	if isURL(serverURL(arg)) && !exists(arg) {
		s, err := a.openServer(ctx, a.serverURL(arg))
		if err != nil {
			return nil, err
		}
		return []source{s}, nil
	}
	paths, err := store.Find(arg)
	if err != nil {
		return nil, err
	}
	var all []source
	for _, p := range paths {
		s, err := a.openLog(ctx, p, fileOnly)
		if err != nil {
			closeAll(all)
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// closeAll closes sources; nil stands for one that could not be opened.
func closeAll(all []source) {
	for _, s := range all {
		if s != nil {
			_ = s.close() // only read from
		}
	}
}

func (a *app) openLog(ctx context.Context, path string, fileOnly bool) (source, error) {
	log, err := store.OpenReadOnly(ctx, path)
	if err == nil {
		return &fileSource{path: path, log: log}, nil
	}
	locked, ok := errors.AsType[*store.LockedError](err)
	if !ok {
		return nil, err
	}
	if fileOnly {
		if log, err = store.OpenCopy(ctx, path); err != nil {
			return nil, err
		}
		a.note("(read from a copy made just now: the file itself is locked)")
		return &fileSource{path: path, log: log}, nil
	}
	if locked.Addr == "" {
		return nil, &cliError{exit: exitLocked, code: "locked", cause: err, msg: locked.Error(),
			hint: "it is starting: try again, or copy the file and inspect the copy with --file"}
	}
	ctx, cancel := context.WithTimeout(ctx, lockedAnswer)
	defer cancel()
	client := a.client(locked.Addr)
	info, err := client.LogInfo(ctx)
	if err != nil || info.PID != locked.PID {
		return nil, &cliError{exit: exitLocked, code: "locked", cause: err,
			msg:  fmt.Sprintf("log %s is locked by pid %d, and %s does not answer", path, locked.PID, locked.Addr),
			hint: "stop it, or copy the file and inspect the copy with --file"}
	}
	a.note("(live: read from actor %d, pid %d, %s; the file itself is locked)", info.Actor, info.PID, locked.Addr)
	return &serverSource{name: path, client: client, actor: info.Actor}, nil
}

func (a *app) openServer(ctx context.Context, url string) (source, error) {
	ctx, cancel := context.WithTimeout(ctx, a.opts.timeout)
	defer cancel()
	client := a.client(url)
	v, err := client.Version(ctx)
	if err != nil {
		return nil, serverError(url, err)
	}
	return &serverSource{name: url, client: client, actor: v.Actor}, nil
}

// serverError says that nobody answered at url, unless somebody did.
func serverError(url string, err error) error {
	if _, ok := errors.AsType[*httpapi.Problem](err); ok {
		return err
	}
	if _, ok := errors.AsType[*httpapi.NotGenomeError](err); ok {
		return err
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	return &cliError{exit: exitServer, code: "unreachable", cause: err,
		msg:  fmt.Sprintf("no server at %s: %s", url, why(err)),
		hint: "start one: crdt-genome run --count 3"}
}

// why returns the reason in an error of net/http, without what is known.
func why(err error) string {
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, context.DeadlineExceeded), os.IsTimeout(err):
		return "no answer in time"
	}
	if d, ok := errors.AsType[*net.DNSError](err); ok {
		return "no host " + d.Name + " is known (" + d.Err + ")"
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err.Error()
	}
	return err.Error()
}

func isURL(s string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return false
	}
	if u.Port() == "" {
		return true
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	return err == nil && port > 0
}

// serverURL completes "127.0.0.1:8000" and ":8000" to a URL.
func serverURL(s string) string {
	s = strings.TrimSuffix(s, "/")
	host, port, ok := strings.Cut(s, ":")
	if !ok || port == "" || strings.Trim(port, "0123456789") != "" || strings.ContainsRune(host, filepath.Separator) {
		return s
	}
	if host == "" {
		host = "127.0.0.1"
	}
	return "http://" + host + ":" + port
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// serverSource reads through a server.
type serverSource struct {
	name   string
	client *httpapi.Client
	actor  genome.ActorID
}

func (s *serverSource) where() string { return s.name }
func (s *serverSource) close() error  { return nil }

func (s *serverSource) view(ctx context.Context) (view, error) {
	d, err := s.client.Digest(ctx)
	if err != nil {
		return view{}, serverError(s.client.URL(), err)
	}
	return view{s.name, d.Actor, d.VV, d.State, d.Genes}, nil
}

func (s *serverSource) digestAt(ctx context.Context, v genome.Version) (genome.Digest, error) {
	d, err := s.client.StateAt(ctx, v)
	return d.State, err
}

func (s *serverSource) records(ctx context.Context, from uint64, follow bool) iter.Seq2[store.Record, error] {
	return s.client.Records(ctx, from, follow)
}

func (s *serverSource) stats(ctx context.Context) (store.Stats, error) { return s.client.LogStats(ctx) }

func (s *serverSource) backup(ctx context.Context, w io.Writer) error { return s.client.Backup(ctx, w) }

// fileSource reads a log that nobody has open for writing.
type fileSource struct {
	path string
	log  *store.Log
}

func (s *fileSource) where() string { return s.path }
func (s *fileSource) close() error  { return s.log.Close() }

func (s *fileSource) view(ctx context.Context) (view, error) {
	g, err := replay(s.records(ctx, 1, false), everything)
	if err != nil {
		return view{}, err
	}
	return view{s.path, s.log.Info().Actor, g.Version(), g.Digest(), g.Len()}, nil
}

func (s *fileSource) digestAt(ctx context.Context, v genome.Version) (genome.Digest, error) {
	g, err := replay(s.records(ctx, 1, false), within(v))
	if err != nil {
		return 0, err
	}
	return g.Digest(), nil
}

// records ignores follow: nothing is added to a file that nobody has open.
func (s *fileSource) records(ctx context.Context, from uint64, _ bool) iter.Seq2[store.Record, error] {
	return s.log.Records(ctx, from)
}

func (s *fileSource) stats(ctx context.Context) (store.Stats, error) { return s.log.Stats(ctx) }

// backup copies the file: the shared lock keeps writers away.
func (s *fileSource) backup(ctx context.Context, w io.Writer) error {
	f, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

// A cut says how much of a record to replay: its first n events.
type cut func(store.Record) (n int)

func everything(r store.Record) int { return r.Op.Len() }

// within keeps what a version includes.
func within(v genome.Version) cut {
	return func(r store.Record) int {
		have := v.Get(r.Op.Dot.Replica)
		if have < r.Op.Dot.Seq {
			return 0
		}
		return int(min(have-r.Op.Dot.Seq+1, uint64(r.Op.Len())))
	}
}

// upTo keeps the positions 1 … lsn.
func upTo(lsn uint64) cut {
	return func(r store.Record) int {
		if lsn < r.LSN {
			return 0
		}
		return int(min(lsn-r.LSN+1, uint64(r.Op.Len())))
	}
}

// replay builds the genome that the records give.
func replay(records iter.Seq2[store.Record, error], keep cut) (*genome.Genome, error) {
	g := genome.NewFromConfig(genome.Config{NoHistory: true})
	for rec, err := range records {
		if err != nil {
			return nil, err
		}
		n := keep(rec)
		if n == 0 {
			continue
		}
		op := rec.Op
		if n < op.Len() {
			op = op.Head(n)
		}
		res, err := g.Apply(op)
		if err != nil {
			return nil, fmt.Errorf("op %d of the log: %w", rec.LSN, err)
		}
		if res.Parked {
			return nil, fmt.Errorf("op %d of the log (%v) stands before what it needs: the log is damaged", rec.LSN, op.Dot)
		}
	}
	return g, nil
}

// names writes ids short, "0.57", for the actors that have one epoch only.
type names map[genome.ActorID]genome.Epoch // 0: more than one

func newNames(v genome.Version) names {
	n := names{}
	for _, e := range v {
		n.add(e.Replica)
	}
	return n
}

func (n names) add(r genome.ReplicaID) {
	if old, ok := n[r.Actor()]; ok && old != r.Epoch() {
		n[r.Actor()] = 0
		return
	}
	n[r.Actor()] = r.Epoch()
}

func (n names) replica(r genome.ReplicaID) string {
	if n[r.Actor()] == r.Epoch() {
		return fmt.Sprint(uint32(r.Actor()))
	}
	return r.String()
}

func (n names) dot(d genome.Dot) string { return fmt.Sprintf("%s.%d", n.replica(d.Replica), d.Seq) }

func (n names) gene(g genome.GeneID) string {
	return fmt.Sprintf("%s#%d", n.replica(g.Replica), g.Gene)
}

func (n names) span(r genome.Range) string {
	if r.From == r.To {
		return n.dot(genome.Dot{Replica: r.Replica, Seq: r.From})
	}
	return fmt.Sprintf("%s.%d-%d", n.replica(r.Replica), r.From, r.To)
}

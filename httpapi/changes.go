package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"crdt-genome/genome"
)

const (
	// heartbeatEvery is the pause between two comments in a stream without
	// events, so that both ends notice when the other is gone.
	heartbeatEvery = 15 * time.Second

	// changesPace is the least time between two looks of one stream: what
	// happens meanwhile goes out together, so a busy node is not slowed down
	// by those who look on.
	changesPace = 20 * time.Millisecond

	// statusEvery is how often an actor is told of although only its times
	// have changed.
	statusEvery = 2 * time.Second

	// stallTimeout is how long a reader may take nothing before it is dropped:
	// it comes back with Last-Event-ID and goes on where it was.
	stallTimeout = 10 * time.Second

	// streamSend bounds what the kernel keeps for a reader that takes nothing;
	// Linux doubles it for its own needs. Without a bound it keeps megabytes,
	// for each of maxStreams. Nothing is sent in bulk here that this slows down.
	streamSend = 32 << 10

	// streamChunk is how much of the log is made ready for a reader at a time,
	// in bytes. One op may be longer.
	streamChunk = 32 << 10

	// sseRetry is the pause after which a browser comes back.
	sseRetry = time.Second
)

// Events of GET /v1/changes, in the order in which a stream begins with them.
// Only op carries an id, the position of its last unit event in the log of
// this node; Last-Event-ID, or ?since=, resumes behind it.
const (
	eventReset    = "reset"    // [ResetEvent]: the log is shorter than the reader thinks; load /v1/elements again
	eventPeer     = "peer"     // [PeerEvent]: an actor has changed, the node itself included
	eventVerdict  = "verdict"  // [ClusterView]
	eventOp       = "op"       // [LogRecord]
	eventDelivery = "delivery" // [DeliveryEvent]
)

// A ResetEvent says that the position asked for is beyond the end of the log.
type ResetEvent struct {
	Pos uint64 `json:"pos"` // the end
}

// A PeerEvent is what is known of one actor.
type PeerEvent struct {
	ActorView
	At time.Time `json:"at"`
}

// A DeliveryEvent says that events of one replica were seen to have reached an
// actor. It is derived from the vectors: At is when this node learnt of it.
// What reaches the node itself is told by op events.
type DeliveryEvent struct {
	Op    string         `json:"op"`    // dot of the first event
	Count uint64         `json:"count"` // events
	From  genome.ActorID `json:"from"`  // the author; over whom they came is not known
	To    genome.ActorID `json:"to"`
	At    time.Time      `json:"at"`
}

// getChanges streams what happens: SSE to who accepts text/event-stream, else
// NDJSON of {"event","id","data"}. A reader costs one goroutine and a few KiB:
// nothing is queued for it. A stream reads the log and the present view when it
// can write, so a slow reader skips views, never ops.
func (n *Node) getChanges(w http.ResponseWriter, r *http.Request) error {
	s, err := n.newChangeStream(w, r)
	if err != nil {
		return err
	}
	select {
	case n.streams <- struct{}{}:
		defer func() { <-n.streams }()
	default:
		return problem(codeBusy, fmt.Sprintf("%d streams are open", maxStreams), "try again later, or close a tab")
	}
	n.conns.boundSend(r.Context(), streamSend)
	n.watch.join()
	defer n.watch.leave()
	if s.sse {
		w.Header().Set("Content-Type", mediaEvents)
	} else {
		w.Header().Set("Content-Type", mediaNDJSON)
	}
	w.WriteHeader(http.StatusOK)
	return s.run(r.Context())
}

// newChangeStream reads the query: since (a position, or now, the default),
// feed (live, the default, or normal, which ends with the present), author,
// kind, limit and heartbeat (a duration).
func (n *Node) newChangeStream(w http.ResponseWriter, r *http.Request) (*changeStream, error) {
	q := r.URL.Query()
	s := &changeStream{n: n, sse: strings.Contains(r.Header.Get("Accept"), mediaEvents), once: q.Get("feed") == "normal",
		kind: q.Get("kind"), heartbeat: heartbeatEvery, actors: map[genome.ActorID]told{}}
	rc := http.NewResponseController(w)
	s.w = bufio.NewWriter(&stallingWriter{w, rc, n.cfg.tune.stall})
	s.flushHTTP = rc.Flush
	if feed := q.Get("feed"); feed != "" && feed != "normal" && feed != "live" {
		return nil, problem(codeBadRequest, fmt.Sprintf("feed=%q", feed), "normal or live")
	}
	if s.kind != "" && s.kind != genome.Insert.String() && s.kind != genome.Delete.String() {
		return nil, problem(codeBadRequest, fmt.Sprintf("kind=%q", s.kind), "insert or delete")
	}
	if h := q.Get("heartbeat"); h != "" {
		d, err := time.ParseDuration(h)
		if err != nil || d < time.Second {
			return nil, problem(codeBadRequest, fmt.Sprintf("heartbeat=%q", h), "a duration of at least 1s")
		}
		s.heartbeat = d
	}
	var err error
	if s.limit, err = intParam(r, "limit", 0); err != nil {
		return nil, err
	}
	if a := q.Get("author"); a != "" {
		id, err := strconv.ParseUint(a, 10, 32)
		if err != nil {
			return nil, problem(codeBadRequest, fmt.Sprintf("author=%q: not an actor number", a), "")
		}
		s.author, s.byAuthor = genome.ActorID(id), true
	}
	return s, s.begin(r)
}

// begin finds the position from which on ops are sent.
func (s *changeStream) begin(r *http.Request) error {
	since := r.URL.Query().Get("since")
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		since = id // a reconnecting browser repeats the URL as well: the id is newer
	}
	end := s.n.actor.LSN()
	if since == "" || since == "now" {
		s.next = end + 1
		return nil
	}
	pos, err := strconv.ParseUint(since, 10, 63)
	if err != nil {
		return problem(codeBadRequest, fmt.Sprintf("since=%q: not a position", since), "a position in the log, or now")
	}
	s.reset = pos > end
	s.next = min(pos, end) + 1
	return nil
}

// changeStream is one answer of getChanges.
type changeStream struct {
	n         *Node
	w         *bufio.Writer
	flushHTTP func() error
	sse, once bool
	heartbeat time.Duration

	next     uint64 // position of the next op
	reset    bool   // the reader was told more than there is
	byAuthor bool
	author   genome.ActorID
	kind     string // "": both
	limit    uint64 // ops still to send; 0: all
	chunk    []byte // of ops, while they are sent

	actors  map[genome.ActorID]told // what the reader knows of each; looked up only
	verdict []byte
	sent    bool // something, since the last heartbeat
}

// told is what a reader was told last of an actor.
type told struct {
	key  []byte // without what changes all the time
	vv   genome.Version
	boot string
	at   time.Time
}

func (s *changeStream) run(ctx context.Context) error {
	if s.sse {
		fmt.Fprintf(s.w, "retry: %d\n\n", sseRetry.Milliseconds())
	}
	if s.reset {
		if err := s.send(eventReset, 0, ResetEvent{s.next - 1}); err != nil {
			return err
		}
	}
	beat := time.NewTimer(s.heartbeat)
	defer beat.Stop()
	for {
		committed, changed := s.n.actor.Changed(), s.n.watch.next()
		done, err := s.look(ctx)
		if err != nil || done {
			return err
		}
		if s.sent {
			beat.Reset(s.heartbeat)
			s.sent = false
		}
		select {
		case <-committed:
		case <-changed:
		case <-beat.C:
			if err := s.comment(); err != nil {
				return err
			}
			beat.Reset(s.heartbeat)
		case <-s.n.streamsCtx.Done():
			return nil
		case <-s.n.actor.Done():
			return nil
		case <-ctx.Done():
			return nil
		}
		if !sleep(ctx, changesPace) {
			return nil
		}
	}
}

// look sends all that is new.
func (s *changeStream) look(ctx context.Context) (done bool, err error) {
	if err := s.states(ctx); err != nil {
		return false, err
	}
	if done, err = s.ops(ctx); err != nil {
		return false, err
	}
	return done || s.once, s.flush()
}

// ops sends the records from s.next on, a chunk at a time: while a slow reader
// takes one, nothing else is held for it, least of all what of the log has been
// decoded.
func (s *changeStream) ops(ctx context.Context) (done bool, err error) {
	defer func() { s.chunk = nil }()
	for more := true; more && !done && err == nil; {
		if more, done, err = s.readChunk(ctx); err == nil {
			_, err = s.w.Write(s.chunk)
		}
	}
	return done, err
}

// readChunk makes a chunk of the next records; more: there may be others
// behind it.
func (s *changeStream) readChunk(ctx context.Context) (more, done bool, err error) {
	s.chunk = s.chunk[:0]
	for rec, err := range s.n.actor.Records(ctx, s.next) {
		if err != nil {
			return false, false, err
		}
		s.next = rec.LSN + uint64(rec.Op.Len())
		if s.byAuthor && rec.Op.Dot.Replica.Actor() != s.author || s.kind != "" && s.kind != rec.Op.Kind.String() {
			continue
		}
		if s.chunk == nil {
			s.chunk = make([]byte, 0, streamChunk+streamChunk/8)
		}
		if s.chunk, err = s.appendEvent(s.chunk, eventOp, s.next-1, NewLogRecord(rec)); err != nil {
			return false, false, err
		}
		if s.limit > 0 {
			if s.limit--; s.limit == 0 {
				return false, true, nil
			}
		}
		if len(s.chunk) >= streamChunk {
			return true, false, nil
		}
	}
	return false, false, nil
}

// states sends the actors that have changed, then the verdict if it has.
func (s *changeStream) states(ctx context.Context) error {
	v, err := s.n.clusterView(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	for i := range v.actors {
		if err := s.actor(&v.actors[i], now); err != nil {
			return err
		}
	}
	b, err := json.Marshal(v)
	if err != nil || bytes.Equal(b, s.verdict) {
		return err
	}
	s.verdict = b
	return s.send(eventVerdict, 0, json.RawMessage(b))
}

func (s *changeStream) actor(a *ActorView, now time.Time) error {
	key := *a
	key.OldestMS, key.SinceMS, key.RTTMS, key.UptimeMS, key.LogBytes = 0, 0, 0, 0, 0
	b, err := json.Marshal(&key)
	if err != nil {
		return err
	}
	last, known := s.actors[a.Actor]
	if known && bytes.Equal(b, last.key) && now.Sub(last.at) < statusEvery {
		return nil
	}
	vv := a.VV
	if known && last.boot == a.Boot { // an answer that was overtaken may show less than is known
		vv = vv.Merge(last.vv)
	}
	s.actors[a.Actor] = told{b, vv, a.Boot, now}
	if known && !a.Self {
		if err := s.deliveries(last.vv, a, now); err != nil {
			return err
		}
	}
	return s.send(eventPeer, 0, PeerEvent{*a, now.UTC()})
}

// deliveries tells what a has that it had not when the reader was told last.
func (s *changeStream) deliveries(had genome.Version, a *ActorView, now time.Time) error {
	for _, r := range had.Lacks(a.VV) {
		if r.Replica.Actor() == a.Actor {
			continue
		}
		err := s.send(eventDelivery, 0, DeliveryEvent{Op: genome.Dot{Replica: r.Replica, Seq: r.From}.String(), Count: r.Len(),
			From: r.Replica.Actor(), To: a.Actor, At: now.UTC()})
		if err != nil {
			return err
		}
	}
	return nil
}

// send writes one event; id 0: none.
func (s *changeStream) send(event string, id uint64, data any) error {
	b, err := s.appendEvent(nil, event, id, data)
	if err == nil {
		_, err = s.w.Write(b)
	}
	return err
}

// appendEvent appends one event to out; id 0: none.
func (s *changeStream) appendEvent(out []byte, event string, id uint64, data any) ([]byte, error) {
	b, err := json.Marshal(data)
	if err != nil {
		return out, fmt.Errorf("encode %s event: %w", event, err)
	}
	s.sent = true
	switch {
	case !s.sse && id > 0:
		out = fmt.Appendf(out, "{\"event\":%q,\"id\":%d,\"data\":%s}\n", event, id, b)
	case !s.sse:
		out = fmt.Appendf(out, "{\"event\":%q,\"data\":%s}\n", event, b)
	case id > 0:
		out = fmt.Appendf(out, "id: %d\nevent: %s\ndata: %s\n\n", id, event, b)
	default:
		out = fmt.Appendf(out, "event: %s\ndata: %s\n\n", event, b)
	}
	return out, nil
}

// comment writes what readers ignore: an SSE comment, or an empty line.
func (s *changeStream) comment() error {
	line := "\n"
	if s.sse {
		line = ":\n\n"
	}
	if _, err := io.WriteString(s.w, line); err != nil {
		return err
	}
	return s.flush()
}

func (s *changeStream) flush() error {
	if err := s.w.Flush(); err != nil {
		return err
	}
	return s.flushHTTP()
}

// stallingWriter gives up on a reader that takes nothing for a while.
type stallingWriter struct {
	w     io.Writer
	rc    *http.ResponseController
	stall time.Duration
}

func (w *stallingWriter) Write(b []byte) (int, error) {
	_ = w.rc.SetWriteDeadline(time.Now().Add(w.stall))
	return w.w.Write(b)
}

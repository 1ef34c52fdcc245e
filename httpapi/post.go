package httpapi

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"crdt-genome/genome"
	"crdt-genome/store"
	"crdt-genome/store/signed"
)

// postGenome takes ops. The order of steps keeps H2 and H3: read all, check
// all, hand over, and answer only what Receive says is durable.
func (n *Node) postGenome(w http.ResponseWriter, r *http.Request) error {
	start := time.Now()
	body, err := n.readBody(w, r)
	if err != nil {
		return err
	}
	block, err := decodeOps(r, body)
	if err != nil {
		return err
	}
	src := n.source(r)
	rec, err := n.actor.Receive(r.Context(), src, block.Block, block.Points...)
	if err != nil {
		return n.storeProblem(err)
	}
	if n.proc != nil && n.leads() && r.Header.Get(headerProcess) != "" && rec.Pending == 0 {
		if err := n.proc.held(r.Context(), n.actor.LSN(), block.Block); err != nil {
			return err
		}
	}
	// What found no room in the parking, which somebody may keep full, is
	// fetched in an order that needs none.
	if rec.SelfAhead || rec.Pending > 0 || slices.ContainsFunc(rec.Refused, unparked) {
		n.wantPull(src)
	}
	if p := n.peer(src.From); src.Known && p != nil && n.relaying() && len(rec.Refused) == 0 {
		p.brought(block.Block)
	}
	n.pending.note(rec.Pending > 0, time.Now())
	if age, err := strconv.ParseInt(r.Header.Get(headerAge), 10, 64); err == nil && rec.Applied > 0 {
		n.metrics.age.Observe((time.Duration(age)*time.Millisecond + time.Since(start)).Seconds())
	}
	n.stampHeads(w)
	return answerReceipt(w, rec)
}

func unparked(e *genome.OpError) bool { return e.Code == genome.CodePendingFull }

// A pendingClock tells for how long some op has been parked, at most. The
// parking itself has no clock.
type pendingClock struct {
	mu    sync.Mutex
	since time.Time // zero: nothing was parked when last seen
}

// note starts the clock when ops are parked.
func (c *pendingClock) note(parked bool, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if parked && c.since.IsZero() {
		c.since = now
	}
}

// pendingFor returns the age of the clock, and stops it if none is parked.
func (n *Node) pendingFor(parked int) time.Duration {
	n.pending.mu.Lock()
	defer n.pending.mu.Unlock()
	if parked == 0 || n.pending.since.IsZero() {
		n.pending.since = time.Time{}
		return 0
	}
	return time.Since(n.pending.since)
}

// source says whom a batch comes from. Only configured peers have a parking
// account of their own; everybody else shares account 0, so that nobody can
// open accounts by inventing actors.
func (n *Node) source(r *http.Request) store.Source {
	src := store.Source{Via: store.ViaPost}
	if from, ok := sender(r); ok && n.peer(from) != nil {
		src.From, src.Known, src.Peer = from, true, account(from)
	}
	return src
}

func account(a genome.ActorID) uint64 { return uint64(a) + 1 }

// stampHeads tells the sender what is held here now.
func (n *Node) stampHeads(w http.ResponseWriter) {
	v := n.actor.Version()
	w.Header().Set(headerOps, strconv.FormatUint(v.Ops(), 10))
	w.Header().Set(headerVV, hash16(v.Hash()))
}

func hash16(h uint64) string { return fmt.Sprintf("%016x", h) }

// readBody reads all of a body, decompressed, within the limits.
func (n *Node) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	return n.readUpTo(w, r, maxBody)
}

// readUpTo is readBody with another limit.
func (n *Node) readUpTo(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	var body io.Reader = http.MaxBytesReader(w, r.Body, limit)
	switch enc := strings.ToLower(strings.Join(r.Header.Values("Content-Encoding"), ",")); enc {
	case "", "identity":
	case "gzip":
		z, err := gzip.NewReader(body)
		if err != nil {
			return nil, bodyProblem(err)
		}
		body = io.LimitReader(z, limit+1)
	default: // also gzip twice over
		p := problem(codeBadEncodingName, fmt.Sprintf("Content-Encoding %q", enc), "send gzip, once, or nothing")
		p.close = true
		return nil, p
	}
	data, err := io.ReadAll(body)
	if err == nil && int64(len(data)) > limit {
		err = &http.MaxBytesError{Limit: limit}
	}
	if err != nil {
		return nil, bodyProblem(err)
	}
	// The body is here; what follows may take longer than it may have taken.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	n.conns.work(r.Context(), true)
	return data, nil
}

// decodeOps decodes a body by its type. curl -d without -H says that it sends
// a form: it is taken for JSON, as nothing here takes forms. Only the binary form
// can carry signed points.
func decodeOps(r *http.Request, body []byte) (signed.Batch, error) {
	mt, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		mt = ""
	}
	switch mt {
	case genome.MediaType:
		return signed.DecodeBatch(body, maxBatchOps)
	case "application/json", "application/x-ndjson", "application/x-www-form-urlencoded":
		ops, err := genome.DecodeJSON(body, maxBatchOps)
		if err != nil && endsEarly(body) {
			return signed.Batch{}, problem(codeUnexpectedEOF, err.Error()+": the JSON ends too early; nothing of it was applied", "send it again")
		}
		return signed.Batch{Block: genome.Block{Ops: ops}}, err
	}
	return signed.Batch{}, problem(codeBadMediaType, fmt.Sprintf("Content-Type %q", r.Header.Get("Content-Type")),
		"send application/json, application/x-ndjson or "+genome.MediaType)
}

// endsEarly reports whether body is the beginning of JSON and nothing else.
func endsEarly(body []byte) bool {
	dec := json.NewDecoder(bytes.NewReader(body))
	for {
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil {
			return errors.Is(err, io.ErrUnexpectedEOF)
		}
	}
}

// answerReceipt answers 200, 202, or what was wrong with the refused ops.
func answerReceipt(w http.ResponseWriter, rec store.Receipt) error {
	reply := PostReply{Applied: rec.Applied, Duplicate: rec.Duplicate, Pending: rec.Pending}
	for _, m := range rec.Missing {
		if reply.Missing == nil {
			reply.Missing = map[string]string{}
		}
		reply.Missing[m.Replica.String()] = m.String()
	}
	if len(rec.Refused) > 0 {
		return refusedProblem(reply, rec.Refused)
	}
	if rec.Pending > 0 {
		return writeJSON(w, http.StatusAccepted, reply)
	}
	return writeJSON(w, http.StatusOK, reply)
}

// refusedProblem answers for a batch of which some ops were refused. The
// status is that of the refusal which the sender can do most about: 503 says
// that the rest may be sent again, a fork is more than a bad op.
func refusedProblem(reply PostReply, refused []*genome.OpError) *Problem {
	worst := refused[0]
	for _, e := range refused {
		if rank(e.Code) > rank(worst.Code) {
			worst = e
		}
	}
	p := opProblem(worst)
	p.PostReply = &reply
	for _, e := range refused[:min(len(refused), maxRefusals)] {
		one := Refusal{Code: string(e.Code), Detail: e.Error(), Ours: e.Ours, Theirs: e.Theirs}
		if e.Dot.Seq != 0 {
			one.Op = e.Dot.String()
		}
		p.Refused = append(p.Refused, one)
	}
	return p
}

func rank(c genome.Code) int {
	switch c {
	case genome.CodePendingFull:
		return 2
	case genome.CodeDotConflict:
		return 1
	}
	return 0
}

// storeProblem maps an error of the store; one that ended it is a 503.
func (n *Node) storeProblem(err error) error {
	select {
	case <-n.actor.Done():
		if errors.Is(err, store.ErrStoreFull) {
			return err
		}
		if n.stopping.Load() {
			return problem(codeStopping, "this actor is stopping", "")
		}
		return problem(codeStoreFailed, err.Error(), "the log is in an unknown state; a restart reads it again")
	default:
		return err
	}
}

// postEdit mints ops as this actor: the index is looked up in the writer, on a
// list that nobody changes meanwhile.
func (n *Node) postEdit(w http.ResponseWriter, r *http.Request) error {
	body, err := n.readBody(w, r)
	if err != nil {
		return err
	}
	edit, err := parseEdit(body)
	if err != nil {
		return err
	}
	if err := n.mayMint(r.Context()); err != nil {
		return err
	}
	match := r.Header.Get("If-Match")
	ops, err := n.actor.Edit(r.Context(), func(g *genome.Genome) (store.Edit, error) {
		if match != "" && !etagMatches(match, etag(g.Digest())) {
			return store.Edit{}, problem(codePrecondition, "the genome is "+etag(g.Digest())+" now", "GET /genome and try again")
		}
		return edit, nil
	})
	if err != nil {
		return n.storeProblem(err)
	}
	reply := EditReply{}
	for _, op := range ops {
		reply.Ops = append(reply.Ops, op.Dot)
	}
	return writeJSON(w, http.StatusCreated, reply)
}

func parseEdit(body []byte) (store.Edit, error) {
	var req EditRequest
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&req); err != nil {
		if endsEarly(body) {
			return store.Edit{}, problem(codeUnexpectedEOF, "the JSON ends too early", "send it again")
		}
		return store.Edit{}, badEdit(err.Error())
	}
	if _, err := dec.Token(); err != io.EOF { // a second edit would be lost
		return store.Edit{}, badEdit("more than one edit")
	}
	switch {
	case (req.Insert == nil) == (req.Delete == nil):
		return store.Edit{}, badEdit("want one of insert and delete")
	case req.Delete != nil:
		if req.Delete.N < 1 || req.Delete.N > genome.MaxRun {
			return store.Edit{}, badEdit(fmt.Sprintf("n is 1 … %d", genome.MaxRun))
		}
		return store.Edit{Delete: true, At: req.Delete.At, N: req.Delete.N}, nil
	}
	genes, err := parseHex(req.Insert.Hex)
	if err != nil {
		return store.Edit{}, err
	}
	return store.Edit{At: req.Insert.At, Genes: genes}, nil
}

func badEdit(detail string) *Problem {
	return problem(codeBadRequest, detail, `send {"insert":{"at":3,"hex":"2a"}} or {"delete":{"at":3,"n":1}}`)
}

// mayMint waits for the join phase and refuses where this node must not mint.
func (n *Node) mayMint(ctx context.Context) error {
	select {
	case <-n.joined:
	case <-ctx.Done():
		return ctx.Err()
	}
	switch {
	case n.stopping.Load():
		return problem(codeStopping, "this actor is stopping", "")
	case n.fencedBy() != "":
		return problem(codeActorInUse, fmt.Sprintf("an older process (boot %s) runs as actor %d; this one mints nothing", n.fencedBy(), n.cfg.Store.Actor),
			n.twinHint())
	}
	return nil
}

func parseHex(s string) ([]byte, error) {
	genes, err := hex.DecodeString(s)
	if err != nil || len(genes) == 0 || len(genes) > genome.MaxRun {
		return nil, badEdit(fmt.Sprintf("hex: two hex digits a gene, 1 … %d genes", genome.MaxRun))
	}
	return genes, nil
}

package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"crdt-genome/genome"
	"crdt-genome/store"
	"crdt-genome/store/signed"
)

func etag(d genome.Digest) string { return `"` + d.String() + `"` }

// etagMatches reports whether the list of an If-Match or If-None-Match header
// holds tag. Weak tags count: our tags name the content itself.
func etagMatches(list, tag string) bool {
	for one := range strings.SplitSeq(list, ",") {
		one = strings.TrimPrefix(strings.TrimSpace(one), "W/")
		if one == "*" || one == tag {
			return true
		}
	}
	return false
}

// tagged sets the headers of an answer that names a state, and answers 304 if
// the reader has it.
func tagged(w http.ResponseWriter, r *http.Request, d genome.Digest) (done bool) {
	w.Header().Set("ETag", etag(d))
	w.Header().Set("Cache-Control", "no-cache") // ask again, but 304 is fine
	if etagMatches(r.Header.Get("If-None-Match"), etag(d)) {
		w.WriteHeader(http.StatusNotModified)
		return true
	}
	return false
}

// getGenome answers the hex string and nothing else, as the original did.
func (n *Node) getGenome(w http.ResponseWriter, r *http.Request) error {
	st, err := n.actor.State(r.Context())
	if err != nil {
		return n.storeProblem(err)
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set(headerOps, strconv.FormatUint(st.Ops, 10))
	h.Set(headerVV, hash16(st.VVHash))
	h.Set(headerLogBytes, strconv.FormatInt(n.logBytes(), 10))
	if n.proc != nil {
		h.Set(headerProcess, fmt.Sprintf("%d %d", len(n.proc.nodes), n.proc.holding(st.VVHash)))
	}
	if tagged(w, r, st.Digest) {
		return nil
	}
	h.Set("Content-Length", strconv.Itoa(len(st.Hex)))
	_, err = io.WriteString(w, st.Hex)
	return err
}

// getDigest answers the state now, or at an older vector.
func (n *Node) getDigest(w http.ResponseWriter, r *http.Request) error {
	st, err := n.actor.State(r.Context())
	if err != nil {
		return n.storeProblem(err)
	}
	reply := n.digestReply(st.Version, st.Digest, len(st.Genes))
	if q := r.URL.Query(); q.Has("at") {
		v, err := genome.ParseVersion(q.Get("at"))
		if err != nil {
			return err
		}
		if reply, err = n.digestAt(r.Context(), v, st); err != nil {
			return err
		}
	}
	if tagged(w, r, reply.State) {
		return nil
	}
	return writeJSON(w, http.StatusOK, reply)
}

func (n *Node) digestReply(v genome.Version, d genome.Digest, genes int) DigestReply {
	self := n.actor.Replica()
	return DigestReply{Actor: self.Actor(), Epoch: self.Epoch().String(), Replica: self, Ops: v.Ops(), Genes: genes,
		VVHash: hash16(v.Hash()), State: d, VV: v, At: time.Now().UTC()}
}

func (n *Node) getHeads(w http.ResponseWriter, r *http.Request) error {
	return writeJSON(w, http.StatusOK, headsReply(n.actor.Heads()))
}

// getOps answers what the vector in the URL lacks.
func (n *Node) getOps(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	since, err := genome.ParseVersion(q.Get("since"))
	if err != nil {
		return err
	}
	limit, err := intParam(r, "limit", maxBatchOps)
	if err != nil {
		return err
	}
	return n.answerOps(w, r, OpsQuery{Since: since, Limit: int(limit)})
}

// queryOps is getOps for vectors that are too long for a URL. One that is longer
// than any other body may be must say so before.
func (n *Node) queryOps(w http.ResponseWriter, r *http.Request) error {
	limit := int64(maxBody)
	if r.ContentLength > maxBody {
		select {
		case n.vectors <- struct{}{}:
			defer func() { <-n.vectors }()
			limit = maxVector
		default:
			return problem(codeBusy, fmt.Sprintf("%d vectors of this size are being looked at", maxVectors), "try again")
		}
	}
	body, err := n.readUpTo(w, r, limit)
	if err != nil {
		return err
	}
	var q OpsQuery
	if err := json.Unmarshal(body, &q); err != nil {
		return problem(codeBadRequest, err.Error(), `send {"since":{"0@9c41e2b7":431},"limit":1000}`)
	}
	return n.answerOps(w, r, q)
}

// answerOps sends one chunk: at most Limit ops and maxChunk. Whoever asks
// goes on with the vector that results, so a chunk that got lost costs nothing.
func (n *Node) answerOps(w http.ResponseWriter, r *http.Request, q OpsQuery) error {
	if q.Limit < 1 || q.Limit > maxBatchOps {
		q.Limit = maxBatchOps
	}
	block, more, err := n.opsSince(r, q)
	if err != nil {
		return n.storeProblem(err)
	}
	w.Header().Set(headerMore, strconv.FormatBool(more))
	if !strings.Contains(r.Header.Get("Accept"), genome.MediaType) {
		return writeNDJSON(w, block.Ops)
	}
	data, err := signed.AppendBatch(nil, block)
	if err != nil {
		return fmt.Errorf("encode %d ops: %w", len(block.Ops), err)
	}
	w.Header().Set("Content-Type", genome.MediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	_, err = w.Write(data)
	return err
}

// opsSince adds signed points for whoever asks for them, who is then given a
// little less: an answer that ends where it can be checked.
func (n *Node) opsSince(r *http.Request, q OpsQuery) (b signed.Batch, more bool, err error) {
	if r.Header.Get(headerSigned) != "" {
		return n.actor.SignedSince(r.Context(), q.Since, q.Limit, maxChunk)
	}
	b.Block, more, err = n.actor.Since(r.Context(), q.Since, q.Limit, maxChunk)
	return b, more, err
}

func writeNDJSON(w http.ResponseWriter, ops []genome.Op) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	for _, op := range ops {
		if err := enc.Encode(op); err != nil {
			return err
		}
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	_, err := w.Write(b.Bytes())
	return err
}

// intParam returns a query parameter, a decimal ≥ 0.
func intParam(r *http.Request, name string, missing uint64) (uint64, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return missing, nil
	}
	v, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0, problem(codeBadRequest, fmt.Sprintf("%s=%q: not a number", name, s), "")
	}
	return v, nil
}

// An olderDigests answers for states of the past. It replays the log, which
// costs as much as a start does, so it does one at a time and remembers.
type olderDigests struct {
	turn   chan struct{} // holds one token
	cached []DigestReply // the oldest first, ≤ digestCache; only with the token
}

func newOlderDigests() *olderDigests {
	o := &olderDigests{turn: make(chan struct{}, 1)}
	o.turn <- struct{}{}
	return o
}

// take waits for its turn.
func (o *olderDigests) take(ctx context.Context) error {
	select {
	case <-o.turn:
		return nil
	case <-ctx.Done():
		return problem(codeBusy, "another look at the past is running", "")
	}
}

func (o *olderDigests) give() { o.turn <- struct{}{} }

// digestAt returns the digest at v, which st must cover.
func (n *Node) digestAt(ctx context.Context, v genome.Version, st *store.State) (DigestReply, error) {
	if v.Equal(st.Version) {
		return n.digestReply(v, st.Digest, len(st.Genes)), nil
	}
	if !st.Version.Covers(v) {
		return DigestReply{}, problem(codeVectorAhead, "this actor lacks "+rangesText(st.Version.Lacks(v)), "ask for the greatest common vector")
	}
	if err := n.older.take(ctx); err != nil {
		return DigestReply{}, err
	}
	defer n.older.give()
	for _, c := range n.older.cached {
		if c.VV.Equal(v) {
			return c, nil
		}
	}
	g, err := n.replay(ctx, v)
	if err != nil {
		return DigestReply{}, err
	}
	if !g.Version().Equal(v) {
		return DigestReply{}, problem(codeVectorNotClosed, "some ops in it need others that are not", "ask for a vector that an actor has had, or the greatest common of two")
	}
	reply := n.digestReply(v, g.Digest(), g.Len())
	if len(n.older.cached) == digestCache {
		n.older.cached = n.older.cached[1:]
	}
	n.older.cached = append(n.older.cached, reply)
	return reply, nil
}

// replay builds the genome of v from the log.
func (n *Node) replay(ctx context.Context, v genome.Version) (*genome.Genome, error) {
	g := genome.NewFromConfig(genome.Config{NoHistory: true})
	for rec, err := range n.actor.Records(ctx, 1) {
		if err != nil {
			return nil, n.storeProblem(err)
		}
		op, some := within(rec.Op, v)
		if !some {
			continue
		}
		if _, err := g.Apply(op); err != nil {
			return nil, fmt.Errorf("replay record %d: %w", rec.LSN, err)
		}
	}
	return g, nil
}

// within returns the events of op that v holds.
func within(op genome.Op, v genome.Version) (genome.Op, bool) {
	seq := v.Get(op.Dot.Replica)
	switch {
	case seq < op.Dot.Seq:
		return op, false
	case seq < op.Last():
		return op.Head(int(seq - op.Dot.Seq + 1)), true
	}
	return op, true
}

// rangesText names up to eight ranges.
func rangesText(ranges []genome.Range) string {
	var parts []string
	for i, r := range ranges {
		if i == 8 {
			parts = append(parts, fmt.Sprintf("and %d more", len(ranges)-i))
			break
		}
		parts = append(parts, r.String())
	}
	return strings.Join(parts, " ")
}

// getRoot greets people.
func (n *Node) getRoot(w http.ResponseWriter, r *http.Request) error {
	st, err := n.actor.State(r.Context())
	if err != nil {
		return n.storeProblem(err)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, err = fmt.Fprintf(w, "crdt-genome %s: actor %d, replica %s, %d ops, %d genes, digest %s\n"+
		"GET /genome shows the genome, POST /genome takes ops\n"+
		"GET /v1/cluster shows the %d peers, /v1/digest /v1/vv /v1/ops /v1/log /livez /readyz the rest\n",
		n.cfg.Version, n.cfg.Store.Actor, n.actor.Replica(), st.Ops, len(st.Genes), st.Digest, len(n.peers()))
	return err
}

// hashOf names content in an ETag.
func hashOf(content []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(content) // never fails
	return h.Sum64()
}

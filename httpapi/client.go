package httpapi

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"crdt-genome/genome"
	"crdt-genome/httpapi/trust"
	"crdt-genome/store"
	"crdt-genome/store/signed"
)

// replayTimeout bounds questions that make the server read its log again.
const replayTimeout = 5 * time.Minute

// A Client asks one node. It is safe for concurrent use. Every call is bounded
// by its context and, unless it follows a log, by a timeout of its own.
//
// A call fails with a [*Problem] if the node refused, with a
// [*NotGenomeError] if something else answers at the address, and otherwise
// with the error of net/http: nobody answered.
type Client struct {
	base     string
	http     *http.Client
	identify func(http.Header)          // adds who asks; nil for the command line
	check    func(*http.Response) error // looks at who answers; may be nil
	trust    *trust.Trust               // how the node knows us, and we it
}

// NewClient returns a client of the node at base, "http://127.0.0.1:8000".
func NewClient(base string) *Client { return NewTrustedClient(base, nil) }

// NewTrustedClient is NewClient for a node that wants a token or speaks TLS.
func NewTrustedClient(base string, t *trust.Trust) *Client {
	tr := newTransport()
	t.Configure(tr, dialTimeout)
	return newClient(base, tr, t)
}

func newClient(base string, rt http.RoundTripper, t *trust.Trust) *Client {
	return &Client{
		base:  strings.TrimSuffix(base, "/"),
		trust: t,
		http: &http.Client{Transport: rt, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // a node never redirects: show what answers
		}},
	}
}

// newTransport keeps a few connections to each peer and lets go of them before
// the peer does (idleTimeout), so that no POST meets a closing connection.
// No proxy: peers are dialled as they are given.
func newTransport() *http.Transport {
	return &http.Transport{
		DialContext:           (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:   dialTimeout,
		ResponseHeaderTimeout: replayTimeout,
		IdleConnTimeout:       idleTimeout - 10*time.Second,
		MaxIdleConns:          maxConns,
		MaxIdleConnsPerHost:   4,
		DisableCompression:    true,
	}
}

// URL returns the address of the node.
func (c *Client) URL() string { return c.base }

// A NotGenomeError says that something else than crdt-genome answered.
type NotGenomeError struct{ URL, Got string }

func (e *NotGenomeError) Error() string {
	return fmt.Sprintf("%s answers, but is not crdt-genome (got %s)", e.URL, e.Got)
}

// call is one request.
type call struct {
	method  string // default GET
	path    string
	body    []byte
	header  map[string]string
	timeout time.Duration // default askTimeout
}

// do sends the request and hands an answer below 400 to read, which must not
// keep its body.
func (c *Client) do(ctx context.Context, q call, read func(*http.Response) error) error {
	if q.timeout >= 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, cmp.Or(q.timeout, askTimeout))
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, cmp.Or(q.method, http.MethodGet), c.base+q.path, bytes.NewReader(q.body))
	if err != nil {
		return err
	}
	for k, v := range q.header {
		req.Header.Set(k, v)
	}
	c.trust.Authorize(req.Header)
	if c.identify != nil {
		c.identify(req.Header)
		req.Header.Set("Date", time.Now().UTC().Format(http.TimeFormat)) // for twins.see
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer func() {
		if q.timeout >= 0 { // of a stream, the rest may never come
			_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // a short rest, so that the connection can be kept
		}
		_ = resp.Body.Close()
	}()
	if q.timeout >= 0 { // a stream has no end to bound
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxReply), resp.Body}
	}
	if err := c.accept(resp); err != nil {
		return err
	}
	return read(resp)
}

// accept checks who answers, then whether it refuses.
func (c *Client) accept(resp *http.Response) error {
	if resp.Header.Get(headerProtocol) == "" {
		return &NotGenomeError{URL: c.base + "/", Got: describe(resp)}
	}
	// Who refuses a stranger does not say who it is.
	unnamed := resp.StatusCode >= 400 && resp.Header.Get(headerActor) == ""
	if c.check != nil && !unnamed {
		if err := c.check(resp); err != nil {
			return err
		}
	}
	if resp.StatusCode < 400 {
		return nil
	}
	p := &Problem{}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxProblem)).Decode(p); err != nil || p.Code == "" {
		p = &Problem{Status: resp.StatusCode, Code: "http_" + strconv.Itoa(resp.StatusCode), Title: resp.Status, Detail: resp.Status}
	}
	p.Status = resp.StatusCode
	return p
}

// describe says in a word what kind of answer came.
func describe(resp *http.Response) string {
	mt, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch mt {
	case "text/html":
		return "HTML"
	case "":
		return resp.Status
	}
	return mt
}

// getJSON decodes the answer to q into v.
func (c *Client) getJSON(ctx context.Context, q call, v any) error {
	return c.do(ctx, q, func(resp *http.Response) error {
		if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
			return fmt.Errorf("%s%s: %w", c.base, q.path, err)
		}
		return nil
	})
}

// Digest returns the node's state now.
func (c *Client) Digest(ctx context.Context) (DigestReply, error) {
	var d DigestReply
	return d, c.getJSON(ctx, call{path: "/v1/digest"}, &d)
}

// StateAt returns the node's state at the older vector v: two nodes that agree
// there are equal up to there, whatever came after. A [*Problem] with code
// vector_ahead says that the node has not reached v.
func (c *Client) StateAt(ctx context.Context, v genome.Version) (DigestReply, error) {
	var d DigestReply
	return d, c.getJSON(ctx, call{path: "/v1/digest?at=" + url.QueryEscape(v.String()), timeout: replayTimeout}, &d)
}

// Heads returns how far the node holds each replica, with chains.
func (c *Client) Heads(ctx context.Context) (HeadsReply, error) {
	var h HeadsReply
	return h, c.getJSON(ctx, call{path: "/v1/vv"}, &h)
}

// Genome returns the genome in hex.
func (c *Client) Genome(ctx context.Context) (string, error) {
	r, err := c.GenomeIfNot(ctx, 0)
	return r.Hex, err
}

// Elements returns the first elements of the node's list, at most limit of
// them, tombstones included; nil if the node still has the digest that is
// known. 0 is never known.
func (c *Client) Elements(ctx context.Context, known genome.Digest, limit int) (r *ElementsReply, err error) {
	q := call{path: "/v1/elements?limit=" + strconv.Itoa(limit), timeout: replayTimeout}
	if known != 0 {
		q.header = map[string]string{"If-None-Match": etag(known)}
	}
	err = c.do(ctx, q, func(resp *http.Response) error {
		if resp.StatusCode == http.StatusNotModified {
			return nil
		}
		r = &ElementsReply{}
		return json.NewDecoder(resp.Body).Decode(r)
	})
	return r, err
}

// A GenomeReply is the answer to GET /genome: one instant of the node.
type GenomeReply struct {
	NotModified bool   // the node has the digest asked for; Hex is left out
	Hex         string // two digits a gene
	Digest      genome.Digest
	VVHash      string
	Ops         uint64
	LogBytes    int64
	Same        int // actors of the process that hold what this one does, itself included
	RTT         time.Duration
}

// GenomeIfNot returns the genome unless its digest is known; 0: always.
func (c *Client) GenomeIfNot(ctx context.Context, known genome.Digest) (GenomeReply, error) {
	q := call{path: "/genome"}
	if known != 0 {
		q.header = map[string]string{"If-None-Match": etag(known)}
	}
	start := time.Now()
	var g GenomeReply
	err := c.do(ctx, q, func(resp *http.Response) error {
		g.RTT = time.Since(start)
		h := resp.Header
		if err := g.Digest.UnmarshalText([]byte(strings.Trim(h.Get("ETag"), `"`))); err != nil {
			return fmt.Errorf("%s/genome: ETag: %w", c.base, err)
		}
		g.VVHash = h.Get(headerVV)
		g.Ops, _ = strconv.ParseUint(h.Get(headerOps), 10, 64) // only shown
		g.LogBytes, _ = strconv.ParseInt(h.Get(headerLogBytes), 10, 64)
		g.Same = 1
		if _, same, ok := strings.Cut(h.Get(headerProcess), " "); ok {
			g.Same, _ = strconv.Atoi(same)
		}
		if g.NotModified = resp.StatusCode == http.StatusNotModified; g.NotModified {
			if g.Digest != known {
				return fmt.Errorf("%s/genome: 304 for a genome that we have not got", c.base)
			}
			return nil
		}
		b, err := io.ReadAll(resp.Body)
		if err == nil && resp.ContentLength >= 0 && int64(len(b)) != resp.ContentLength {
			err = io.ErrUnexpectedEOF // maxReply
		}
		g.Hex = string(b)
		return err
	})
	return g, err
}

// Since returns a chunk of what v lacks of the node; more says that there is
// more. Ask again with the vector that results.
func (c *Client) Since(ctx context.Context, v genome.Version) (b genome.Block, more bool, err error) {
	batch, more, err := c.since(ctx, v, false)
	return batch.Block, more, err
}

// SignedSince is Since with the signed points of an actor that signs.
func (c *Client) SignedSince(ctx context.Context, v genome.Version) (b signed.Batch, more bool, err error) {
	return c.since(ctx, v, true)
}

func (c *Client) since(ctx context.Context, v genome.Version, points bool) (b signed.Batch, more bool, err error) {
	q := call{path: "/v1/ops?since=" + url.QueryEscape(v.String()), timeout: bulkTimeout,
		header: map[string]string{"Accept": genome.MediaType}}
	if points {
		q.header[headerSigned] = "true"
	}
	if len(q.path) > maxQuery {
		body, err := json.Marshal(OpsQuery{Since: v})
		if err != nil {
			return b, false, err
		}
		q.method, q.path, q.body = http.MethodPost, "/v1/ops/query", body
		q.header["Content-Type"] = "application/json"
	}
	err = c.do(ctx, q, func(resp *http.Response) error {
		data, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		more = resp.Header.Get(headerMore) == "true"
		b, err = signed.DecodeBatch(data, maxBatchOps)
		return err
	})
	return b, more, err
}

// Post sends ops, with signed points by ascending replica where the node wants
// them. If some were refused, the error is a [*Problem] whose
// PostReply says what became of the others.
func (c *Client) Post(ctx context.Context, b genome.Block, points ...signed.Point) (PostReply, error) {
	data, err := signed.AppendBatch(nil, signed.Batch{Block: b, Points: points})
	if err != nil {
		return PostReply{}, err
	}
	return c.postBlock(ctx, data, 0)
}

// postBlock sends an encoded block; age is that of its oldest op. A POST whose
// answer is lost is never sent again by net/http, only by the caller, who
// knows: it has neither an Idempotency-Key nor another sign that it may be.
func (c *Client) postBlock(ctx context.Context, data []byte, age time.Duration) (PostReply, error) {
	var reply PostReply
	return reply, c.getJSON(ctx, call{method: http.MethodPost, path: "/genome", body: data, timeout: bulkTimeout,
		header: map[string]string{"Content-Type": genome.MediaType, headerAge: strconv.FormatInt(age.Milliseconds(), 10), headerProcess: "all"}}, &reply)
}

// Edit makes the node mint an edit.
func (c *Client) Edit(ctx context.Context, req EditRequest) (EditReply, error) {
	var reply EditReply
	body, err := json.Marshal(req)
	if err != nil {
		return reply, err
	}
	return reply, c.getJSON(ctx, call{method: http.MethodPost, path: "/v1/edit", body: body, timeout: bulkTimeout,
		header: map[string]string{"Content-Type": "application/json"}}, &reply)
}

// Records yields the node's log from a position, counted from 1; with follow
// it goes on until ctx ends. The error, if any, comes last.
func (c *Client) Records(ctx context.Context, from uint64, follow bool) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		q := call{path: fmt.Sprintf("/v1/log?from=%d&follow=%t", from, follow), timeout: -1}
		stopped := false
		err := c.do(ctx, q, func(resp *http.Response) error {
			lines := bufio.NewReaderSize(resp.Body, 64<<10)
			for {
				line, err := lines.ReadBytes('\n')
				if err == io.EOF && len(line) == 0 {
					return nil
				}
				if err != nil {
					return err
				}
				var l LogRecord
				if err := json.Unmarshal(line, &l); err != nil {
					return err
				}
				rec, err := l.Record()
				if err != nil {
					return err
				}
				if stopped = !yield(rec, nil); stopped {
					return nil
				}
			}
		})
		if err != nil && !stopped {
			yield(store.Record{}, err)
		}
	}
}

// Cluster returns how the node sees itself and its peers, asked again for this
// answer unless that was done a moment ago.
func (c *Client) Cluster(ctx context.Context) (ClusterReply, error) {
	var r ClusterReply
	return r, c.getJSON(ctx, call{path: "/v1/cluster?fresh=true", timeout: bulkTimeout}, &r)
}

// Members returns the processes of the group, as the node knows them.
func (c *Client) Members(ctx context.Context) (MembersReply, error) {
	var r MembersReply
	return r, c.getJSON(ctx, call{path: "/v1/members"}, &r)
}

// Mutator pauses or resumes the node's own mutations.
func (c *Client) Mutator(ctx context.Context, paused bool) error {
	body, err := json.Marshal(MutatorRequest{paused})
	if err != nil {
		return err
	}
	return c.getJSON(ctx, call{method: http.MethodPut, path: "/v1/mutator", body: body}, &MutatorRequest{})
}

// LogLevel sets the level of the node's log: trace, debug, info, warn, error.
func (c *Client) LogLevel(ctx context.Context, level string) error {
	body, err := json.Marshal(map[string]string{"level": level})
	if err != nil {
		return err
	}
	return c.getJSON(ctx, call{method: http.MethodPut, path: "/v1/log-level", body: body}, &struct{}{})
}

// LogInfo returns whose log the node has.
func (c *Client) LogInfo(ctx context.Context) (LogInfo, error) {
	var r LogInfo
	return r, c.getJSON(ctx, call{path: "/v1/log/info"}, &r)
}

// LogStats returns the size and contents of the node's log.
func (c *Client) LogStats(ctx context.Context) (store.Stats, error) {
	var r store.Stats
	return r, c.getJSON(ctx, call{path: "/v1/log/stats"}, &r)
}

// LogVerify makes the node read its log again.
func (c *Client) LogVerify(ctx context.Context) (LogVerification, error) {
	var r LogVerification
	return r, c.getJSON(ctx, call{path: "/v1/log/verify", timeout: replayTimeout}, &r)
}

// Backup writes a consistent copy of the node's log file to w.
func (c *Client) Backup(ctx context.Context, w io.Writer) error {
	return c.do(ctx, call{path: "/v1/backup", timeout: -1}, func(resp *http.Response) error {
		n, err := io.Copy(w, resp.Body)
		if err == nil && n != resp.ContentLength {
			err = io.ErrUnexpectedEOF
		}
		return err
	})
}

// Version returns who the node is.
func (c *Client) Version(ctx context.Context) (VersionReply, error) {
	var r VersionReply
	return r, c.getJSON(ctx, call{path: "/v1/version"}, &r)
}

// Live asks for a sign of life.
func (c *Client) Live(ctx context.Context) error {
	return c.do(ctx, call{path: "/livez"}, func(*http.Response) error { return nil })
}

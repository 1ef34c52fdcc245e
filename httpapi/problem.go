package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"crdt-genome/genome"
	"crdt-genome/store"
)

// A Problem is the answer to a request that was not done (RFC 9457). Code is
// the contract: it never changes meaning. Detail and Hint are for people.
type Problem struct {
	Type   string `json:"type"` // "/v1/problems/<code>"
	Title  string `json:"title"`
	Status int    `json:"status"`
	Code   string `json:"code"`
	Detail string `json:"detail,omitempty"`
	Hint   string `json:"hint,omitempty"`

	Op     string `json:"op,omitempty"`     // the dot of the op refused
	Ours   string `json:"ours,omitempty"`   // dot_conflict: what is held here
	Theirs string `json:"theirs,omitempty"` // dot_conflict: what was offered

	// Of a batch of which some ops were refused. The others were taken.
	*PostReply
	Refused []Refusal `json:"refused,omitempty"`

	allow      string // Allow header
	retryAfter int    // seconds; 0: no Retry-After header
	close      bool   // the connection is in an unknown state
}

// A Refusal is one refused op of a batch.
type Refusal struct {
	Op     string `json:"op,omitempty"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
	Ours   string `json:"ours,omitempty"`
	Theirs string `json:"theirs,omitempty"`
}

// Error returns "409 dot_conflict: detail".
func (p *Problem) Error() string {
	s := strconv.Itoa(p.Status) + " " + p.Code
	if p.Detail != "" {
		s += ": " + p.Detail
	}
	return s
}

// The codes of this package; those of single ops are genome's.
const (
	codeUnexpectedEOF    = "unexpected_eof"
	codeBadRequest       = "bad_request"
	codeBodyTooLarge     = "body_too_large"
	codeBodyTimeout      = "body_timeout"
	codeBadEncodingName  = "unsupported_encoding"
	codeBadMediaType     = "unsupported_media_type"
	codeNotFound         = "not_found"
	codeMethod           = "method_not_allowed"
	codeWrongHost        = "wrong_host"
	codeCrossOrigin      = "cross_origin"
	codeAuthRequired     = "auth_required"
	codeNotMember        = "not_a_member"
	codeActorInUse       = "actor_in_use"
	codeWrongCluster     = "wrong_cluster"
	codeFenced           = "fenced"
	codeStopping         = "stopping"
	codeStoreFailed      = "store_failed"
	codeStoreFull        = "store_full"
	codeQueueFull        = "queue_full"
	codeIndex            = "index_out_of_range"
	codePrecondition     = "precondition_failed"
	codeVectorAhead      = "vector_ahead"
	codeVectorNotClosed  = "vector_not_closed"
	codeBusy             = "busy"
	codeTimeout          = "timeout"
	codeChaosOff         = "chaos_off"
	codeLinkCut          = "link_cut"
	codeInternal         = "internal"
	problemContentType   = "application/problem+json"
	problemTypePrefix    = "/v1/problems/"
	retrySoon            = 1 // seconds
	statusClientWentAway = 499
)

// kinds says, for each code, its status and title.
var kinds = map[string]struct {
	status int
	title  string
}{
	string(genome.CodeBadEncoding):      {400, "Not an op"},
	string(genome.CodeBadID):            {422, "Bad id"},
	string(genome.CodeOpInvalid):        {422, "Op out of bounds"},
	string(genome.CodeUnknownTarget):    {422, "No such gene"},
	string(genome.CodeSeqTooFar):        {422, "Op too far ahead"},
	string(genome.CodeForeignOp):        {422, "Op of another program"},
	string(genome.CodeDotConflict):      {409, "Another op has this id"},
	string(genome.CodePendingFull):      {503, "No room for more early ops"},
	string(genome.CodeTooManyOps):       {413, "Too many ops"},
	string(genome.CodeTooManyReplicas):  {422, "Too many replicas"},
	string(genome.CodeGenomeFull):       {422, "Genome full"},
	string(genome.CodeWireVersion):      {426, "Newer format"},
	string(store.CodeSignatureRequired): {403, "Not signed"},
	string(store.CodeSignatureInvalid):  {403, "Wrong signature"},
	string(store.CodeNotInRoster):       {403, "Author not in the roster"},
	codeUnexpectedEOF:                   {400, "Body cut short"},
	codeBadRequest:                      {400, "Bad request"},
	codeBodyTooLarge:                    {413, "Body too large"},
	codeBodyTimeout:                     {408, "Body too slow"},
	codeBadEncodingName:                 {415, "Unsupported encoding"},
	codeBadMediaType:                    {415, "Unsupported media type"},
	codeNotFound:                        {404, "Not found"},
	codeMethod:                          {405, "Method not allowed"},
	codeWrongHost:                       {421, "Wrong host"},
	codeCrossOrigin:                     {403, "Cross-origin request"},
	codeAuthRequired:                    {401, "Authentication required"},
	codeNotMember:                       {403, "Not a member"},
	codeActorInUse:                      {409, "Actor number in use"},
	codeWrongCluster:                    {409, "Another cluster"},
	codeFenced:                          {503, "Not minting"},
	codeStopping:                        {503, "Stopping"},
	codeStoreFailed:                     {503, "Log failed"},
	codeStoreFull:                       {507, "Log not writable"},
	codeQueueFull:                       {429, "Too many writes at once"},
	codeIndex:                           {422, "Index out of range"},
	codePrecondition:                    {412, "Genome has changed"},
	codeVectorAhead:                     {409, "Vector not reached"},
	codeVectorNotClosed:                 {422, "Not a possible state"},
	codeBusy:                            {503, "Busy"},
	codeChaosOff:                        {403, "Not in play"},
	codeLinkCut:                         {503, "Link cut"},
	codeTimeout:                         {503, "Took too long"},
	codeInternal:                        {500, "Internal error"},
}

// problem makes the answer for code.
func problem(code, detail, hint string) *Problem {
	k, ok := kinds[code]
	if !ok {
		k = kinds[codeInternal]
	}
	p := &Problem{Type: problemTypePrefix + code, Title: k.title, Status: k.status, Code: code, Detail: detail, Hint: hint}
	if k.status == http.StatusServiceUnavailable || k.status == http.StatusTooManyRequests {
		p.retryAfter = retrySoon
	}
	return p
}

// problemOf maps any error of a handler to its answer.
func problemOf(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	if op, ok := errors.AsType[*genome.OpError](err); ok {
		return opProblem(op)
	}
	switch {
	case errors.Is(err, genome.ErrIndex):
		return problem(codeIndex, err.Error(), "GET /genome shows how long the genome is")
	case errors.Is(err, store.ErrFenced):
		return problem(codeFenced, err.Error(), "it goes on by itself once its own ops are back")
	case errors.Is(err, store.ErrStoreFull):
		return problem(codeStoreFull, err.Error(), "free some space; writing resumes by itself")
	case errors.Is(err, store.ErrFull):
		return problem(codeQueueFull, err.Error(), "")
	case errors.Is(err, store.ErrClosed):
		return problem(codeStopping, "this actor is stopping", "")
	case errors.Is(err, context.DeadlineExceeded):
		return problem(codeTimeout, err.Error(), "")
	case errors.Is(err, context.Canceled):
		p := problem(codeStopping, "the request was given up", "")
		p.Status = statusClientWentAway // nobody reads it; for the log
		return p
	}
	return problem(codeInternal, err.Error(), "")
}

func opProblem(e *genome.OpError) *Problem {
	p := problem(string(e.Code), e.Error(), e.Hint)
	p.Ours, p.Theirs = e.Ours, e.Theirs
	if e.Dot.Seq != 0 {
		p.Op = e.Dot.String()
	}
	if p.Hint == "" && e.Code == genome.CodeDotConflict {
		p.Hint = fmt.Sprintf("two processes may run as actor %d", e.Dot.Replica.Actor())
	}
	return p
}

// bodyProblem maps an error of reading a request's body.
func bodyProblem(err error) *Problem {
	var p *Problem
	size, tooLarge := errors.AsType[*http.MaxBytesError](err)
	switch {
	case errors.As(err, &p):
	case tooLarge:
		p = problem(codeBodyTooLarge, fmt.Sprintf("a body has at most %d bytes, also after decompression", size.Limit), "send fewer ops at a time")
	case errors.Is(err, os.ErrDeadlineExceeded):
		p = problem(codeBodyTimeout, fmt.Sprintf("a body must arrive within %v", bodyTimeout), "")
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		p = problem(codeUnexpectedEOF, "the body ends before its length; nothing of it was applied", "send it again")
	default:
		p = problem(string(genome.CodeBadEncoding), "the body cannot be read: "+err.Error(), "")
	}
	p.close = true
	return p
}

// write sends p as problem+json, or as text to who asks for that.
func (p *Problem) write(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	for _, name := range []string{"ETag", "Last-Modified", "Content-Encoding", "Content-Length"} {
		h.Del(name) // of the answer that did not come about
	}
	h.Set("Cache-Control", "no-store")
	if p.allow != "" {
		h.Set("Allow", p.allow)
	}
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.retryAfter))
	}
	if p.Status == http.StatusUpgradeRequired {
		h.Set("Upgrade", "genome/"+protocol) // RFC 9110 §15.5.22 wants it
	}
	if p.close {
		h.Set("Connection", "close")
	}
	if strings.Contains(r.Header.Get("Accept"), "text/plain") {
		h.Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(p.Status)
		fmt.Fprintf(w, "error: %s: %s\n", p.Code, p.Detail)
		if p.Hint != "" {
			fmt.Fprintf(w, "hint: %s\n", p.Hint)
		}
		return
	}
	h.Set("Content-Type", problemContentType)
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client may have gone
}

package httpapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"crdt-genome/genome"
)

// A route is one method and path of the API. The table of all routes is the
// only place that names them: the mux, the OpenAPI document and the labels of
// the metrics are made from it.
type route struct {
	pattern string // as http.ServeMux has it, with a method
	summary string // one line for GET /v1/openapi.json
	handle  handler
	query   []string // parameters, "name: what it says"
	accepts []string // media types of the body; none: no body
	answers []int    // statuses besides those that any request may get
	sends   []string // media types of a 2xx answer
}

const (
	mediaJSON   = "application/json"
	mediaNDJSON = "application/x-ndjson"
	mediaText   = "text/plain"
	mediaBytes  = "application/octet-stream"
	mediaEvents = "text/event-stream"
)

// routes returns the table. Entries are added and never changed: see the
// package comment.
func (n *Node) routes() []route {
	ops := []string{mediaNDJSON, genome.MediaType}
	js, text := []string{mediaJSON}, []string{mediaText}
	return []route{
		{pattern: "GET /{$}", summary: "The page for browsers, for others a greeting in text", handle: n.getHome, answers: []int{304}, sends: []string{mediaText, "text/html"}},
		{pattern: "GET /app.css", summary: "How the page looks", handle: n.getAsset, answers: []int{304}, sends: []string{"text/css"}},
		{pattern: "GET /app.js", summary: "The page's program", handle: n.getAsset, answers: []int{304}, sends: []string{"text/javascript"}},
		{pattern: "GET /icon.svg", summary: "The page's icon", handle: n.getAsset, answers: []int{304}, sends: []string{"image/svg+xml"}},
		{pattern: "GET /genome", summary: "The genome in lower-case hex and nothing else", handle: n.getGenome, answers: []int{304}, sends: text},
		{pattern: "POST /genome", summary: "Take ops; 200 means durable here, 202 kept until what they need arrives", handle: n.postGenome,
			accepts: []string{mediaJSON, mediaNDJSON, genome.MediaType}, answers: []int{202, 403, 408, 409, 413, 415, 422, 426, 429, 507}, sends: js},
		{pattern: "GET /v1/digest", summary: "The state, now or at an older vector", handle: n.getDigest,
			query: []string{"at: a version vector"}, answers: []int{304, 409, 422}, sends: js},
		{pattern: "GET /v1/vv", summary: "How far each replica is held, with chains", handle: n.getHeads, sends: js},
		{pattern: "GET /v1/ops", summary: "Ops that a vector lacks", handle: n.getOps,
			query: []string{"since: a version vector", "limit: most ops"}, sends: ops},
		{pattern: "POST /v1/ops/query", summary: "Ops that a vector lacks, for vectors too long for a URL", handle: n.queryOps,
			accepts: js, answers: []int{408, 413, 415}, sends: ops},
		{pattern: "POST /v1/edit", summary: "Mint an edit by index, on the state that If-Match names if that is given", handle: n.postEdit,
			accepts: js, answers: []int{201, 408, 409, 412, 413, 415, 422, 429, 507}, sends: js},
		{pattern: "GET /v1/members", summary: "The processes of the group", handle: n.getMembers, sends: js},
		{pattern: "GET /v1/cluster", summary: "Every actor as this one sees it", handle: n.getCluster,
			query: []string{"fresh: true asks the peers again"}, sends: js},
		{pattern: "GET /v1/elements", summary: "The list with its tombstones, as columns", handle: n.getElements,
			query: []string{"from: first element, from 0", "limit: most elements", "whole: a list of at most so many elements is sent whole"}, answers: []int{304}, sends: js},
		{pattern: "GET /v1/elements/overview", summary: "The whole list from afar: who wrote what, and where actors differ", handle: n.getOverview,
			query: []string{"slots: most parts"}, sends: js},
		{pattern: "GET /v1/changes", summary: "What happens, as it happens", handle: n.getChanges,
			query: []string{"since: position in the log, or now", "feed: normal ends with the present", "author: an actor",
				"kind: insert or delete", "limit: most ops", "heartbeat: a duration"}, sends: []string{mediaEvents, mediaNDJSON}},
		{pattern: "GET /v1/log", summary: "The records of the log", handle: n.getLog,
			query: []string{"from: position, from 1", "limit: most records", "follow: true waits for more"}, sends: []string{mediaNDJSON}},
		{pattern: "GET /v1/log/info", summary: "Whose log it is", handle: n.getLogInfo, sends: js},
		{pattern: "GET /v1/log/stats", summary: "Size and contents of the log", handle: n.getLogStats, sends: js},
		{pattern: "GET /v1/log/verify", summary: "Read the log again and compare", handle: n.getLogVerify, sends: js},
		{pattern: "GET /v1/backup", summary: "A consistent copy of the log file", handle: n.getBackup, sends: []string{mediaBytes}},
		{pattern: "PUT /v1/mutator", summary: "Pause or resume the actor's own mutations", handle: n.putMutator,
			accepts: js, answers: []int{408, 413, 415}, sends: js},
		{pattern: "PUT /v1/links/{actor}", summary: "Cut or heal the link to a peer, with --chaos only", handle: n.putLink,
			accepts: js, answers: []int{408, 413, 415}, sends: js},
		{pattern: "PUT /v1/log-level", summary: "Set the level of the program's log", handle: n.putLogLevel,
			accepts: js, answers: []int{408, 413, 415}, sends: js},
		{pattern: "GET /v1/version", summary: "Which program, actor and process this is", handle: n.getVersion, sends: js},
		{pattern: "GET /v1/openapi.json", summary: "This document", handle: n.getOpenAPI, answers: []int{304}, sends: js},
		{pattern: "GET /metrics", summary: "Metrics in Prometheus' text format, or OpenMetrics when asked for", handle: n.getMetrics, sends: text},
		{pattern: "GET /livez", summary: "Does the process answer and the apply loop move", handle: n.getLive, query: []string{"verbose: name the checks"}, sends: text},
		{pattern: "GET /healthz", summary: "The older name of livez", handle: n.getLive, query: []string{"verbose: name the checks"}, sends: text},
		{pattern: "GET /readyz", summary: "Is the log writable and not far behind", handle: n.getReady, query: []string{"verbose: name the checks"}, sends: text},
	}
}

// split returns the method and the path, the latter as OpenAPI writes it.
func (r *route) split() (method, path string) {
	method, path, _ = strings.Cut(r.pattern, " ")
	return method, strings.TrimSuffix(path, "{$}")
}

// getOpenAPI describes the routes to programs (OpenAPI 3.1).
func (n *Node) getOpenAPI(w http.ResponseWriter, r *http.Request) error {
	doc, err := json.Marshal(n.openAPI())
	if err != nil {
		return fmt.Errorf("encode the API's description: %w", err)
	}
	w.Header().Set("Content-Type", mediaJSON)
	if tagged(w, r, genome.Digest(hashOf(doc))) {
		return nil
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(doc)))
	_, err = w.Write(doc)
	return err
}

// openAPI makes the document from the table. Maps are written with their keys
// in order, so it is the same every time.
func (n *Node) openAPI() any {
	type object = map[string]any
	schema := func(types []string) object {
		content := object{}
		for _, t := range types {
			content[t] = object{}
		}
		return content
	}
	problem := object{"description": "problem document (RFC 9457); its code is the contract", "content": object{problemContentType: object{
		"schema": object{"$ref": "#/components/schemas/Problem"}}}}
	paths := map[string]object{}
	for _, r := range n.routes() {
		method, path := r.split()
		responses := object{"default": problem}
		if !slices.Contains(r.answers, http.StatusCreated) {
			responses["200"] = object{"description": "done", "content": schema(r.sends)}
		}
		for _, status := range r.answers {
			switch {
			case status < 300:
				responses[strconv.Itoa(status)] = object{"description": http.StatusText(status), "content": schema(r.sends)}
			case status == http.StatusNotModified:
				responses["304"] = object{"description": "If-None-Match names the present state"}
			default:
				responses[strconv.Itoa(status)] = problem
			}
		}
		op := object{"summary": r.summary, "responses": responses}
		if len(r.accepts) > 0 {
			op["requestBody"] = object{"required": true, "content": schema(r.accepts)}
		}
		var params []object
		for _, q := range r.query {
			name, what, _ := strings.Cut(q, ": ")
			params = append(params, object{"name": name, "in": "query", "description": what, "schema": object{"type": "string"}})
		}
		for rest := path; ; {
			_, after, ok := strings.Cut(rest, "{")
			if !ok {
				break
			}
			var param string
			param, rest, _ = strings.Cut(after, "}")
			params = append(params, object{"name": param, "in": "path", "required": true, "schema": object{"type": "string"}})
		}
		if params != nil {
			op["parameters"] = params
		}
		if paths[path] == nil {
			paths[path] = object{}
		}
		paths[path][strings.ToLower(method)] = op
	}
	return object{
		"openapi": "3.1.0",
		"info":    object{"title": "crdt-genome", "version": protocol, "description": "A running actor of a replicated genome."},
		"paths":   paths,
		"components": object{"schemas": object{"Problem": object{
			"type": "object", "required": []string{"type", "title", "status", "code"},
			"properties": object{
				"type": object{"type": "string"}, "title": object{"type": "string"}, "status": object{"type": "integer"},
				"code":   object{"type": "string", "enum": slices.Sorted(maps.Keys(kinds))},
				"detail": object{"type": "string"}, "hint": object{"type": "string"}, "op": object{"type": "string"},
				"ours": object{"type": "string"}, "theirs": object{"type": "string"},
			}}}},
	}
}

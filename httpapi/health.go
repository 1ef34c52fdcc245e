package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// What becomes of an apply loop that stands still: /livez fails and the
// goroutines are logged after stallAfter, and after Config.StallTimeout the
// node is given up, which ends the process: nothing that was acknowledged is
// lost by that, and a restart replays the log. The second is longer since a busy
// disk may take seconds for a sync, which no restart makes quicker.
const (
	stallAfter          = 10 * time.Second
	defaultStallTimeout = 30 * time.Second
	// beatsPerStall is how often the loop is asked for a sign of life, and found
	// without, before it counts as standing still.
	beatsPerStall = 8
)

// A StallError says that the apply loop has stood still for too long.
type StallError struct{ For time.Duration }

func (e *StallError) Error() string { return fmt.Sprintf("apply loop stalled %v", e.For) }

// heart remembers when the apply loop last answered.
type heart struct {
	mu   sync.Mutex
	last time.Time
}

func (h *heart) beat(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = now
}

func (h *heart) lastBeat() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

// beatLoop asks the apply loop for signs of life.
func (n *Node) beatLoop(ctx context.Context) {
	for sleep(ctx, n.stallAfter()/beatsPerStall) {
		if n.actor.Ping(ctx) == nil {
			n.heart.beat(time.Now())
		}
	}
}

// stallAfter is never longer than a third of the time after which the node is
// given up.
func (n *Node) stallAfter() time.Duration { return min(stallAfter, n.cfg.StallTimeout/3) }

// stallLoop notices that there are none. It counts how often it has looked in
// vain and not the time: a process that was frozen, or a machine that slept,
// has stood still without being stuck. It goes on while the node stops, when
// there is nobody left to ask the loop: then that must not take longer than
// StallTimeout in all.
func (n *Node) stallLoop(ctx context.Context) {
	var last time.Time
	vain := 0
	giveUp := int(n.cfg.StallTimeout * beatsPerStall / n.stallAfter())
	for sleep(ctx, n.stallAfter()/beatsPerStall) {
		if beat := n.heart.lastBeat(); beat.After(last) {
			last, vain = beat, 0
			continue
		}
		vain++
		switch vain {
		case beatsPerStall:
			n.logStall()
		case giveUp:
			close(n.stuck)
			return
		}
	}
}

// logStall leaves the goroutines in the log, for whoever looks for the cause.
func (n *Node) logStall() {
	n.counts.stalls.Add(1)
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	n.log.Error().Str("event", "apply_stalled").Dur("after_ms", n.stallAfter()).Bytes("stacks", stacks).Msg("apply loop stalled")
}

// Stuck is closed when the apply loop has stood still for StallTimeout. Then
// the node can no longer be closed, as that waits for the loop: the process
// should end, with a [StallError].
func (n *Node) Stuck() <-chan struct{} { return n.stuck }

// A check is one line of a health answer.
type check struct {
	name string
	ok   bool
	text string
}

func (n *Node) getLive(w http.ResponseWriter, r *http.Request) error {
	return n.answerChecks(w, r, "livez", []check{n.checkApply()})
}

func (n *Node) checkApply() check {
	if still := time.Since(n.heart.lastBeat()); still > stallAfter {
		return check{"apply", false, fmt.Sprintf("failed: no sign of life for %v", still.Round(time.Second))}
	}
	return check{"apply", true, "ok"}
}

func (n *Node) getReady(w http.ResponseWriter, r *http.Request) error {
	return n.answerChecks(w, r, "readyz", []check{n.checkLog(), n.checkSync(), n.checkApply()})
}

func (n *Node) checkLog() check {
	if err := n.writable(); err != nil {
		return check{"log", false, "failed: " + err.Error()}
	}
	if s := n.actor.Shortage(); len(s.Missing) > 0 || s.Quarantined > 0 || s.Unknown > 0 && !n.pulled.Load() {
		return check{"log", false, "failed: since its repair it lacks ops: " + s.String()}
	}
	return check{"log", true, fmt.Sprintf("ok: %d ops, writable", n.actor.LSN())}
}

// checkSync fails until the first pull is done and while too much is missing.
func (n *Node) checkSync() check {
	if !n.leads() {
		return n.leader().checkSync()
	}
	if !n.pulled.Load() && !n.cfg.ReadyAlone && len(n.peers()) > 0 {
		return check{"sync", false, "failed: no peer has answered yet"}
	}
	for _, p := range n.peers() {
		if lag := p.lacked(); lag > n.cfg.ReadyLag {
			return check{"sync", false, fmt.Sprintf("failed: %d ops behind peer %d (limit %d)", lag, p.actor, n.cfg.ReadyLag)}
		}
	}
	return check{"sync", true, "ok"}
}

// answerChecks answers 200 or 503 in the form of Kubernetes' own components.
// What is wrong is told only to those who are let in.
func (n *Node) answerChecks(w http.ResponseWriter, r *http.Request, name string, checks []check) error {
	var b strings.Builder
	healthy := true
	for _, c := range checks {
		healthy = healthy && c.ok
		mark := '+'
		if !c.ok {
			mark = '-'
		}
		fmt.Fprintf(&b, "[%c]%s %s\n", mark, c.name, c.text)
	}
	verdict, status := name+" check passed\n", http.StatusOK
	if !healthy {
		verdict, status = name+" check failed\n", http.StatusServiceUnavailable
	}
	text := b.String() + verdict
	switch {
	case healthy && !r.URL.Query().Has("verbose"):
		text = "ok\n"
	case n.cfg.Trust.Admit(r) != nil:
		text = verdict
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, err := w.Write([]byte(text))
	return err
}

func (n *Node) getVersion(w http.ResponseWriter, r *http.Request) error {
	return writeJSON(w, http.StatusOK, VersionReply{
		Version: n.cfg.Version, Go: runtime.Version(), Protocol: 1, Actor: n.cfg.Store.Actor, Replica: n.actor.Replica(),
		Cluster: n.cluster, Boot: string(n.boot), PID: os.Getpid(), Started: n.started.UTC(), Paused: n.mutator.paused(),
	})
}

func (n *Node) putMutator(w http.ResponseWriter, r *http.Request) error {
	var req struct {
		Paused *bool `json:"paused"`
	}
	if err := n.readJSON(w, r, &req); err != nil || req.Paused == nil {
		return cmpErr(err, problem(codeBadRequest, "paused is missing", `send {"paused":true}`))
	}
	n.mutator.pause(*req.Paused)
	n.watch.bump()
	return writeJSON(w, http.StatusOK, MutatorRequest{Paused: n.mutator.paused()})
}

func (n *Node) putLogLevel(w http.ResponseWriter, r *http.Request) error {
	var req struct {
		Level string `json:"level"`
	}
	if err := n.readJSON(w, r, &req); err != nil {
		return err
	}
	level, err := zerolog.ParseLevel(req.Level)
	if err != nil || level < zerolog.TraceLevel || level > zerolog.ErrorLevel {
		return problem(codeBadRequest, fmt.Sprintf("level %q", req.Level), "trace, debug, info, warn or error")
	}
	n.cfg.SetLevel(level)
	return writeJSON(w, http.StatusOK, map[string]string{"level": level.String()})
}

// readJSON reads a small JSON body into v.
func (n *Node) readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	body, err := n.readBody(w, r)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return problem(codeBadRequest, err.Error(), "")
	}
	return nil
}

// cmpErr returns the first of its errors that is one.
func cmpErr(err error, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

func (n *Node) getCluster(w http.ResponseWriter, r *http.Request) error {
	if fresh, _ := strconv.ParseBool(r.URL.Query().Get("fresh")); fresh {
		n.freshen(r.Context())
	}
	reply, err := n.clusterReply(r.Context())
	if err != nil {
		return n.storeProblem(err)
	}
	return writeJSON(w, http.StatusOK, reply)
}

package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"crdt-genome/genome"
)

// States of the link to a peer, as in ActorStatus and LinkRequest. They are
// there with Config.Chaos only.
const (
	LinkUp  = "up"
	LinkCut = "cut"
)

// errLinkCut is what every request over a link that is cut fails with.
var errLinkCut = errors.New("link cut by hand")

// A LinkRequest is the body of PUT /v1/links/{actor}, and its answer.
type LinkRequest struct {
	State string `json:"state"` // up or cut
}

// putLink cuts or heals the link to one peer, in both directions: nothing is
// sent to it, and what it sends is refused. It is for demonstrations and tests,
// so that a partition needs no firewall and no root.
func (n *Node) putLink(w http.ResponseWriter, r *http.Request) error {
	if !n.cfg.Chaos {
		return problem(codeChaosOff, "links are cut in play only", "start this actor with --chaos")
	}
	id, err := strconv.ParseUint(r.PathValue("actor"), 10, 32)
	p := n.peer(genome.ActorID(id))
	if err != nil || p == nil {
		return problem(codeNotFound, fmt.Sprintf("no link to actor %q", r.PathValue("actor")), "GET /v1/cluster lists the actors")
	}
	var req LinkRequest
	if err := n.readJSON(w, r, &req); err != nil {
		return err
	}
	if req.State != LinkUp && req.State != LinkCut {
		return problem(codeBadRequest, fmt.Sprintf("state %q", req.State), `send {"state":"cut"} or {"state":"up"}`)
	}
	p.cut.Store(req.State == LinkCut)
	n.log.Info().Uint32("peer", uint32(p.actor)).Str("state", req.State).Msg("link set by hand")
	if req.State == LinkUp { // what waits for its next try need not
		wake(p.wakePush)
		wake(p.wakePull)
	}
	n.watch.bump()
	return writeJSON(w, http.StatusOK, req)
}

// link returns the state of the link to p, "" without Config.Chaos.
func (p *peer) link() string {
	switch {
	case !p.n.cfg.Chaos:
		return ""
	case p.cut.Load():
		return LinkCut
	}
	return LinkUp
}

// cuttable is the way to a peer whose link can be cut.
type cuttable struct {
	http.RoundTripper
	p *peer
}

func (c *cuttable) RoundTrip(r *http.Request) (*http.Response, error) {
	if c.p.cut.Load() {
		return nil, errLinkCut
	}
	return c.RoundTripper.RoundTrip(r)
}

func (c *cuttable) CloseIdleConnections() {
	if t, ok := c.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// Link cuts or heals the node's link to another actor. The node must run with
// Config.Chaos.
func (c *Client) Link(ctx context.Context, to genome.ActorID, cut bool) error {
	req := LinkRequest{LinkUp}
	if cut {
		req.State = LinkCut
	}
	body, err := json.Marshal(req)
	if err != nil {
		return err
	}
	return c.getJSON(ctx, call{method: http.MethodPut, path: fmt.Sprintf("/v1/links/%d", to), body: body}, &req)
}

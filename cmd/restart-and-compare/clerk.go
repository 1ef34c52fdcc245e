package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"crdt-genome/genome"
	"crdt-genome/httpapi"
)

// clerkBase is the actor number of the first clerk's own replica, beyond those
// of all actors.
const clerkBase = 1_000_000

// clerkPause is the longest pause between two things that a clerk does.
const clerkPause = 40 * time.Millisecond

// An ack is an op that an actor has acknowledged, as far as its clerk knows it.
type ack struct {
	dot   genome.Dot
	kind  genome.Kind
	genes []byte // of an insert; a delete is of one gene
}

// in reports whether a log has the op with this content.
func (a ack) in(events map[genome.Dot]genome.Event) bool {
	if a.kind == genome.Delete {
		e, ok := events[a.dot]
		return ok && e.Kind == genome.Delete
	}
	for i, g := range a.genes {
		e, ok := events[genome.Dot{Replica: a.dot.Replica, Seq: a.dot.Seq + uint64(i)}]
		if !ok || e.Kind != genome.Insert || e.Value != g {
			return false
		}
	}
	return true
}

// A clerk works at one actor, whether that is up or not, and writes down what
// was acknowledged to it.
type clerk struct {
	client *httpapi.Client
	rng    *rand.Rand

	// Only work uses these: the clerk's own replica, and how much of it the
	// actor is known to hold.
	own  *genome.Genome
	sent genome.Version

	mu   sync.Mutex // guards the fields below
	acks []ack
	last httpapi.DigestReply // the newest state that the actor has shown
}

func newClerk(client *httpapi.Client, actor int, rng *rand.Rand) *clerk {
	// The epoch is random even if the choices are not: a data folder that is
	// used again must not meet the same replica with other ops.
	id := genome.NewReplicaID(clerkBase+genome.ActorID(actor), genome.Epoch(1+rand.Uint32N(1<<32-1)))
	return &clerk{client: client, rng: rng, own: genome.New(id)}
}

// work goes on until ctx ends. An actor that is down refuses everything, which
// is no reason to stop.
func (c *clerk) work(ctx context.Context) {
	for {
		select {
		case <-time.After(time.Duration(c.rng.Int64N(int64(clerkPause)))):
		case <-ctx.Done():
			return
		}
		var err error
		switch c.rng.IntN(3) {
		case 0:
			err = c.edit(ctx)
		case 1:
			err = c.post(ctx)
		case 2:
			err = c.look(ctx)
		}
		if err != nil {
			c.sent = nil // the actor may have lost its disk: ask before the next POST
		}
	}
}

// edit has the actor mint an insert or a delete.
func (c *clerk) edit(ctx context.Context) error {
	c.mu.Lock()
	genes := c.last.Genes
	c.mu.Unlock()
	if genes > 20 && c.rng.IntN(2) == 0 {
		reply, err := c.client.Edit(ctx, httpapi.EditRequest{Delete: &httpapi.DeleteRequest{At: c.rng.IntN(genes), N: 1}})
		if err != nil {
			return err
		}
		return c.write(ack{kind: genome.Delete}, reply.Ops)
	}
	run := c.genes()
	reply, err := c.client.Edit(ctx, httpapi.EditRequest{Insert: &httpapi.InsertRequest{At: c.rng.IntN(genes + 1), Hex: hex.EncodeToString(run)}})
	if err != nil {
		return err
	}
	return c.write(ack{kind: genome.Insert, genes: run}, reply.Ops)
}

func (c *clerk) genes() []byte {
	run := make([]byte, 1+c.rng.IntN(4))
	for i := range run {
		run[i] = byte(c.rng.Uint32())
	}
	return run
}

// write notes an acknowledged edit, which is one op.
func (c *clerk) write(a ack, dots []genome.Dot) error {
	if len(dots) != 1 {
		return fmt.Errorf("one edit was answered with %d ops", len(dots))
	}
	a.dot = dots[0]
	c.mu.Lock()
	defer c.mu.Unlock()
	c.acks = append(c.acks, a)
	return nil
}

// post sends the actor what it lacks of the clerk's own replica, with one op
// more. Ops whose answer was lost are sent again, as a peer would.
func (c *clerk) post(ctx context.Context) error {
	if c.sent == nil {
		heads, err := c.client.Heads(ctx)
		if err != nil {
			return err
		}
		c.sent = heads.Version()
	}
	if _, err := c.own.Insert(c.rng.IntN(c.own.Len()+1), c.genes()); err != nil {
		return err
	}
	var b genome.Block
	for op := range c.own.Since(c.sent) {
		if b.Ops = append(b.Ops, op); len(b.Ops) == genome.MaxBatchOps {
			break
		}
	}
	reply, err := c.client.Post(ctx, b)
	if err != nil {
		return err
	}
	if reply.Pending > 0 {
		return fmt.Errorf("%d ops wait for what the actor has lost", reply.Pending)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, op := range b.Ops {
		c.acks = append(c.acks, ack{dot: op.Dot, kind: op.Kind, genes: op.Genes})
		c.sent = c.sent.With(genome.Dot{Replica: op.Dot.Replica, Seq: op.Last()})
	}
	return nil
}

// look notes what the actor shows.
func (c *clerk) look(ctx context.Context) error {
	d, err := c.client.Digest(ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = d
	return nil
}

// noted returns what the actor has acknowledged and shown so far.
func (c *clerk) noted() ([]ack, httpapi.DigestReply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.acks[:len(c.acks):len(c.acks)], c.last
}

// forget gives up what the log does not hold, and returns how many ops that is.
func (c *clerk) forget(h *history) (lost int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var kept []ack
	for _, a := range c.acks {
		if a.in(h.events) {
			kept = append(kept, a)
		}
	}
	lost = len(c.acks) - len(kept)
	c.acks = kept
	return lost
}

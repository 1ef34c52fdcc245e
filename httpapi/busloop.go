package httpapi

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"

	"crdt-genome/genome"
	"crdt-genome/store"
	"crdt-genome/store/signed"
)

// A Bus carries blocks to all other members at once, in place of the POSTs. It
// may lose, repeat and reorder them; see package bus.
type Bus interface {
	// Publish hands over a block of own ops; first is its first dot. It is
	// called again with the same two until it returns nil.
	Publish(ctx context.Context, first genome.Dot, block []byte) error
	// Listen calls take with each block that comes until ctx ends or the bus
	// fails; then it is called again.
	Listen(ctx context.Context, take func(from genome.ReplicaID, block []byte)) error
}

// busSender publishes our own ops. As with a pusher the log is the outbox. It
// begins at the end of the log: what an earlier run could not publish is
// brought by pull, as is all that the bus loses.
type busSender struct {
	n      *Node
	cursor uint64 // position in our log up to which all is published

	// The batch to publish next, nil if there is none. It stays as it is until
	// the bus has it, since the bus knows it by its first dot.
	data  []byte
	first genome.Dot
	next  uint64 // cursor behind it
}

// newBusSender returns one that begins here and now.
func (n *Node) newBusSender() *busSender {
	s := &busSender{n: n, cursor: n.actor.LSN()}
	n.busTo.Store(s.cursor)
	return s
}

func (s *busSender) loop(ctx context.Context) {
	n := s.n
	pause := newBackoff()
	for ctx.Err() == nil {
		changed := n.actor.Changed() // before looking, so that no commit is missed
		more, err := s.step(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			n.counts.busFailed.Add(1)
			d := pause.NextBackOff()
			n.log.Debug().Err(err).Int64("next_try_ms", d.Milliseconds()).Msg("publish failed")
			sleep(ctx, d)
		case err == nil && !more:
			pause.Reset()
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	}
}

// newBackoff is the full-jitter pause of a sender.
func newBackoff() backoff.ExponentialBackOff {
	// A factor of 1 spreads each pause over 0 … twice the interval: full jitter.
	return backoff.ExponentialBackOff{InitialInterval: backoffFirst / 2, RandomizationFactor: 1, Multiplier: 2, MaxInterval: backoffMax / 2}
}

// step publishes one batch, if there is one; more says that there may be another.
func (s *busSender) step(ctx context.Context) (more bool, err error) {
	if s.data == nil {
		block, next, err := s.outgoing(ctx)
		if err != nil {
			return false, err
		}
		if len(block.Ops) == 0 {
			s.moveTo(max(s.cursor, next))
			return false, nil
		}
		if s.data, err = signed.AppendBatch(nil, block); err != nil {
			return false, err
		}
		s.first, s.next = block.Ops[0].Dot, next
	}
	if err := s.n.cfg.Bus.Publish(ctx, s.first, s.data); err != nil {
		return false, err
	}
	s.n.counts.busSent.Add(1)
	s.data = nil
	s.moveTo(s.next)
	return true, nil
}

// outgoing reads what this process minted next.
func (s *busSender) outgoing(ctx context.Context) (signed.Batch, uint64, error) {
	if s.n.proc == nil {
		return s.n.actor.SignedOwn(ctx, s.cursor, nil, maxBatchOps, maxPushBytes)
	}
	return s.n.actor.SignedNews(ctx, s.cursor, nil, func(a store.Arrival) bool { return s.n.ours(a.Last.Replica.Actor()) }, maxBatchOps, maxPushBytes)
}

// moveTo sets the cursor; flush watches it.
func (s *busSender) moveTo(lsn uint64) {
	s.cursor = lsn
	s.n.busTo.Store(lsn)
}

// busListenLoop takes what comes over the bus.
func (n *Node) busListenLoop(ctx context.Context) {
	pause := newBackoff()
	for ctx.Err() == nil {
		err := n.cfg.Bus.Listen(ctx, func(from genome.ReplicaID, block []byte) {
			pause.Reset()
			n.takeFromBus(ctx, from, block)
		})
		if ctx.Err() != nil {
			return
		}
		n.log.Debug().Err(err).Msg("bus stopped listening")
		sleep(ctx, pause.NextBackOff())
		n.pullAny() // what was published meanwhile is not heard again
	}
}

// takeFromBus logs and applies a block, as postGenome does; nobody waits for an
// answer. Whoever published it has not been authenticated by us.
func (n *Node) takeFromBus(ctx context.Context, from genome.ReplicaID, data []byte) {
	for _, m := range n.mates() {
		if from == m.actor.Replica() {
			return // this process published it
		}
	}
	n.counts.busTaken.Add(1)
	if len(data) > maxBody {
		n.refuseFromBus(from, problem(codeBodyTooLarge, "a message on the bus is too large", ""))
		return
	}
	block, err := signed.DecodeBatch(data, maxBatchOps)
	if err != nil {
		n.refuseFromBus(from, err)
		return
	}
	src := store.Source{Via: store.ViaPost}
	if n.peer(from.Actor()) != nil {
		src.From, src.Known, src.Peer = from.Actor(), true, account(from.Actor())
	}
	rec, err := n.actor.Receive(ctx, src, block.Block, block.Points...)
	for errors.Is(err, store.ErrFull) && sleep(ctx, backoffFirst) { // the bus keeps the rest for us
		rec, err = n.actor.Receive(ctx, src, block.Block, block.Points...)
	}
	if err != nil {
		if ctx.Err() == nil {
			n.refuseFromBus(from, err)
		}
		return
	}
	if rec.SelfAhead || rec.Pending > 0 || slices.ContainsFunc(rec.Refused, unparked) {
		n.wantPull(src)
	}
	n.pending.note(rec.Pending > 0, time.Now())
	for _, e := range rec.Refused {
		n.refuseFromBus(from, e)
	}
}

// refuseFromBus counts and logs what was not taken.
func (n *Node) refuseFromBus(from genome.ReplicaID, err error) {
	p := problemOf(err)
	n.counts.reject(p.Code)
	n.log.Debug().Str("code", p.Code).Stringer("replica", from).Str("detail", p.Detail).Msg("refused from the bus")
}

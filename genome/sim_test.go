package genome_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"crdt-genome/genome"
)

// A sim is a few replicas and a network that repeats, reorders, loses and
// re-cuts. Everything follows from what rand draws.
type sim struct {
	t        tb
	draw     func(n int) int // 0 … n-1
	mode     int             // where edits go
	replicas []*replica
	inbox    [][]genome.Op // under way to each replica
	epochs   genome.Epoch
}

func newSim(t tb, n int, draw func(n int) int) *sim {
	s := &sim{t: t, draw: draw, inbox: make([][]genome.Op, n)}
	s.mode = draw(4)
	for i := range n {
		s.replicas = append(s.replicas, newReplica(t, s.replicaID(i)))
	}
	return s
}

// replicaID returns a new epoch of actor i. Epochs go down and up, so that the
// later epoch is not always the greater id.
func (s *sim) replicaID(i int) genome.ReplicaID {
	s.epochs++
	e := s.epochs
	if e%2 == 0 {
		e = -e
	}
	return genome.NewReplicaID(genome.ActorID(i), e)
}

// place draws an index of 0 … n, by the mode of the simulation: anywhere,
// always the beginning, always the end, one of three places.
func (s *sim) place(n int) int {
	switch s.mode {
	case 0:
		return s.draw(n + 1)
	case 1:
		return 0
	case 2:
		return n
	}
	return n * s.draw(3) / 2
}

func (s *sim) step() {
	i := s.draw(len(s.replicas))
	switch k := s.draw(32); {
	case k < 12:
		s.edit(i)
	case k < 28:
		s.deliver(i)
	case k < 30:
		s.replicas[i].pull(s.replicas[s.draw(len(s.replicas))])
	case k < 31:
		s.restart(i)
	default:
		if err := s.replicas[i].g.SetSelf(s.replicaID(i)); err != nil {
			s.t.Fatalf("SetSelf: %v", err)
		}
	}
}

func (s *sim) edit(i int) {
	r := s.replicas[i]
	n := r.g.Len()
	if n > 0 && s.draw(3) == 0 {
		at := min(s.place(n), n-1)
		s.send(i, r.delete(at, 1+s.draw(min(n-at, 1+s.draw(8))))...)
		return
	}
	genes := make([]byte, []int{1, 1, 1, 6, 6, 6, 1 + s.draw(40)}[s.draw(7)])
	for k := range genes {
		genes[k] = byte(s.draw(256))
	}
	s.send(i, r.insert(s.place(n), genes))
}

// send puts ops on their way to everybody, some of them lost, doubled or cut.
func (s *sim) send(from int, ops ...genome.Op) {
	for _, op := range ops {
		for to := range s.replicas {
			if to == from || s.draw(8) == 0 {
				continue
			}
			s.inbox[to] = append(s.inbox[to], s.recut(op)...)
		}
	}
}

// recut returns op whole, in two pieces, in pieces that overlap, or twice; now
// and then without its gene number, as a person would write it.
func (s *sim) recut(op genome.Op) []genome.Op {
	n := op.Len()
	var out []genome.Op
	switch s.draw(6) {
	case 0:
		a := 1 + s.draw(n)
		out = append(out, op.Head(a))
		if a < n {
			out = append(out, op.TrimHead(a))
		}
	case 1:
		out = append(out, op.TrimHead(s.draw(n)), op.Head(1+s.draw(n)), op.Head(1+s.draw(n)).TrimHead(0))
	case 2:
		out = append(out, op, op)
	default:
		out = append(out, op)
	}
	if k := s.draw(4 * len(out)); k < len(out) {
		out[k].Gene = genome.NoGene
	}
	return out
}

// deliver hands replica i one of the ops that are under way to it.
func (s *sim) deliver(i int) {
	box := s.inbox[i]
	if len(box) == 0 {
		return
	}
	k := s.draw(len(box))
	op := box[k]
	if s.draw(10) > 0 { // else it will come again
		box[k] = box[len(box)-1]
		s.inbox[i] = box[:len(box)-1]
	}
	res, err := s.replicas[i].deliver(uint64(s.draw(3)), op)
	if err != nil || len(res.Refused) > 0 {
		s.t.Fatalf("Apply(%v) refuses: %v, %v", op.Dot, err, res.Refused)
	}
}

// restart replays the log, as a store does; what was parked is lost.
func (s *sim) restart(i int) {
	r := s.replicas[i]
	g := genome.NewFromConfig(genome.Config{})
	for _, op := range r.log {
		res, err := g.Apply(op)
		if err != nil || len(res.Applied) != 1 {
			s.t.Fatalf("replay of %v: %+v, %v", op.Dot, res, err)
		}
	}
	if err := g.SetSelf(r.g.Self()); err != nil {
		s.t.Fatalf("SetSelf: %v", err)
	}
	r.g = g
	r.m.check(s.t, g)
}

// TestConverges is the simulation: whatever the network does, replicas that
// have the same events are equal, and healing gives all the same events.
func TestConverges(t *testing.T) {
	seeds := uint64(60)
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			s := newSim(t, 2+int(seed%4), rnd.IntN)
			for range 150 {
				s.step()
			}
			heal(t, s.replicas...)
			for i, box := range s.inbox { // whatever is still under way is old news
				for _, op := range box {
					s.replicas[i].mustDeliver(op)
				}
			}
			checkEqual(t, s.replicas...)
		})
	}
}

// TestAnyOrder delivers the ops of three replicas to a fourth in many orders,
// each of them complete, with nothing but parking to put them right.
func TestAnyOrder(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 2))
			s := newSim(t, 3, rnd.IntN)
			for range 60 {
				s.edit(rnd.IntN(3))
				if rnd.IntN(3) == 0 {
					s.replicas[rnd.IntN(3)].pull(s.replicas[rnd.IntN(3)])
				}
			}
			heal(t, s.replicas...)
			var ops []genome.Op
			for _, op := range s.replicas[0].log {
				ops = append(ops, s.recut(op)...)
				ops = append(ops, op)
			}
			rnd.Shuffle(len(ops), func(i, j int) { ops[i], ops[j] = ops[j], ops[i] })
			late := newReplica(t, genome.NewReplicaID(9, 9))
			for _, op := range ops {
				late.mustDeliver(op)
			}
			checkEqual(t, s.replicas[0], late)
		})
	}
}

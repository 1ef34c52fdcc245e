package bench

import (
	"math/rand/v2"

	"crdt-genome/genome"
)

// A load makes ops as other replicas would send them.
type load struct {
	rng *rand.Rand
	g   *genome.Genome
	// typing: runs of some 20 to 60 single genes one after the other, by one
	// replica each; else every gene is at a random place.
	typing bool
	at     int // where the next gene is typed
	left   int // of the run
	self   int
}

const loadReplicas = 8

func newLoad(typing bool) *load {
	return &load{rng: rand.New(rand.NewPCG(1, 2)), g: genome.NewFromConfig(genome.Config{NoHistory: true}), typing: typing}
}

// ops returns the next n ops: nine genes inserted to one deleted, one op each.
func (l *load) ops(n int) (ops []genome.Op, err error) {
	for len(ops) < n {
		if l.left == 0 {
			l.left = 1
			if l.typing {
				l.left = 20 + l.rng.IntN(41)
			}
			l.at, l.self = l.rng.IntN(l.g.Len()+1), l.rng.IntN(loadReplicas)
			if err := l.g.SetSelf(genome.NewReplicaID(genome.ActorID(100+l.self), 1)); err != nil {
				return nil, err
			}
		}
		l.left--
		if l.g.Len() > 100 && l.rng.IntN(10) == 0 {
			at := l.rng.IntN(l.g.Len())
			if l.typing {
				at = max(0, min(l.at, l.g.Len())-1)
			}
			gone, err := l.g.Delete(at, 1)
			if err != nil {
				return nil, err
			}
			ops = append(ops, gone...)
			l.at = at
			continue
		}
		op, err := l.g.Insert(min(l.at, l.g.Len()), []byte{byte(l.rng.Uint32())})
		if err != nil {
			return nil, err
		}
		ops = append(ops, op)
		l.at++
	}
	return ops, nil
}

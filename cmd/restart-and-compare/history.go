package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"crdt-genome/genome"
	"crdt-genome/store"
)

// A history is what a log says: every unit event by its id, and the ops in the
// order in which they were taken in.
type history struct {
	ops     []genome.Op
	events  map[genome.Dot]genome.Event
	version genome.Version
	digest  genome.Digest
}

// readHistory replays records. Its error says that they give no genome.
func readHistory(records iter.Seq2[store.Record, error]) (*history, error) {
	h := &history{events: map[genome.Dot]genome.Event{}}
	for rec, err := range records {
		if err != nil {
			return nil, err
		}
		op := rec.Op
		op.Genes = slices.Clone(op.Genes)
		h.ops = append(h.ops, op)
		for i := range op.Len() {
			h.events[genome.Dot{Replica: op.Dot.Replica, Seq: op.Dot.Seq + uint64(i)}] = op.Event(i)
		}
	}
	g, err := h.replay(nil)
	if err != nil {
		return nil, err
	}
	h.version, h.digest = g.Version(), g.Digest()
	return h, nil
}

// readFile reads the log of an actor that does not run.
func readFile(ctx context.Context, dir string) (*history, error) {
	log, err := store.OpenReadOnly(ctx, dir)
	if err != nil {
		return nil, err
	}
	h, err := readHistory(log.Records(ctx, 1))
	return h, errors.Join(err, log.Close())
}

// replay gives the genome of all ops, or of those within v if v is given.
func (h *history) replay(v *genome.Version) (*genome.Genome, error) {
	g := genome.NewFromConfig(genome.Config{NoHistory: true})
	for _, op := range h.ops {
		if v != nil {
			have := v.Get(op.Dot.Replica)
			if have < op.Dot.Seq {
				continue
			}
			if n := have - op.Dot.Seq + 1; n < uint64(op.Len()) {
				op = op.Head(int(n))
			}
		}
		res, err := g.Apply(op)
		if err != nil {
			return nil, err
		}
		if res.Parked {
			return nil, fmt.Errorf("op %v stands in the log before what it needs", op.Dot)
		}
	}
	return g, nil
}

// A ledger knows what every id ever stood for.
type ledger map[genome.Dot]genome.Event

// add takes in a history and returns an id that had another content before.
func (l ledger) add(h *history) (bad genome.Dot, ok bool) {
	ok = true
	for d, e := range h.events {
		if old, known := l[d]; known && old != e && (ok || d.Compare(bad) < 0) {
			bad, ok = d, false
		}
	}
	maps.Copy(l, h.events)
	return bad, ok
}

// rebuild opens a copy of an actor's folder as the actor itself would, and
// returns the state that comes of it.
func rebuild(ctx context.Context, dir string, actor genome.ActorID) (*store.State, error) {
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "rebuild-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	if err := os.CopyFS(store.Dir(tmp, actor), os.DirFS(dir)); err != nil {
		return nil, err
	}
	a, err := store.Open(ctx, store.Config{Data: tmp, Actor: actor})
	if err != nil {
		return nil, err
	}
	s, err := a.State(ctx)
	return s, errors.Join(err, a.Close())
}

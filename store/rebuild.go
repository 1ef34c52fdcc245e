package store

import (
	"context"
	"errors"
	"fmt"

	"crdt-genome/genome"
)

// A rebuilding is how a genome comes back from a log and its checkpoints.
type rebuilding struct {
	folder   folder
	disk     disk
	meta     *meta
	upTo     uint64 // position to rebuild; it ends a segment or, unless partial, the log
	partial  bool   // the log goes on
	lookup   func(genome.Dot) (genome.Op, bool)
	progress func(done, total uint64)
	problems []problem
}

// A problem is why a checkpoint was passed over.
type problem struct {
	lsn uint64
	err error
}

func (p problem) String() string { return fmt.Sprintf("checkpoint at op %d: %v", p.lsn, p.err) }

func (b *rebuilding) replayer(ctx context.Context) *replayer {
	r := newReplayer(ctx, b.meta, b.lookup)
	r.upTo, r.partial, r.progress = b.upTo, b.partial, b.progress
	return r
}

// run replays the log from the newest checkpoint of ms that is good, else from
// the beginning.
func (b *rebuilding) run(ctx context.Context, ms []manifest) (*replayer, error) {
	for _, man := range ms {
		if man.lsn > b.upTo {
			continue
		}
		r := b.replayer(ctx)
		c, err := loadCheckpoint(b.folder, b.meta.uuid, man, b.lookup)
		if err == nil {
			r.g, r.x, r.from, r.at, r.first, r.last = c.g, c.x, c.lsn, c.lsn, c.first, c.last
			err = r.run(b.disk)
		}
		if err == nil {
			return r, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		b.problems = append(b.problems, problem{man.lsn, err})
	}
	r := b.replayer(ctx)
	return r, r.run(b.disk)
}

// compare replays the log from the beginning and compares what it comes to at
// the position of each checkpoint of ms with that checkpoint.
func (b *rebuilding) compare(ctx context.Context, ms []manifest) (*replayer, error) {
	r := b.replayer(ctx)
	r.marks = make(map[uint64]genome.Digest)
	for _, man := range ms {
		r.marks[man.lsn] = 0
	}
	if err := r.run(b.disk); err != nil {
		return nil, err
	}
	for _, man := range ms {
		if err := b.check(man, r.marks[man.lsn]); err != nil {
			b.problems = append(b.problems, problem{man.lsn, err})
		}
	}
	return r, nil
}

// check compares a checkpoint with the digest that replay gave at its position.
func (b *rebuilding) check(man manifest, want genome.Digest) error {
	if want == 0 {
		return errors.New("no op ends there")
	}
	c, err := loadCheckpoint(b.folder, b.meta.uuid, man, b.lookup)
	if err != nil {
		return err
	}
	if got := c.g.Digest(); got != want || c.digest != want {
		return fmt.Errorf("its digest is %v (it says %v), but replay gives %v", got, c.digest, want)
	}
	return nil
}

package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"crdt-genome/genome"
)

// A keeper does in the background what makes a long log small and quick to
// open: it packs segments and writes checkpoints. It works from what is on the
// disk, never from the genome that is in use, so that nobody waits for it; only
// its commits go through the writer. What it fails at stays as it was.
type keeper struct {
	a        *Actor
	packedTo uint64 // LSN up to which segments are packed
	stuck    bool   // a segment cannot be packed: none is, from there on
}

// keep runs until Close, and works each time segments were sealed.
func (a *Actor) keep(ctx context.Context) {
	defer close(a.kept)
	debug.SetPanicOnFault(true)
	k := &keeper{a: a}
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.sealed:
		}
		a.keeping.Store(true)
		for more := true; more; {
			start, end := time.Now(), a.LSN()
			more = k.work(ctx)
			rest := keeperRest * time.Since(start)
			if a.LSN() == end { // nobody is in a hurry
				rest = 0
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(rest):
			}
		}
		a.keeping.Store(false)
	}
}

// Idle reports whether nothing is left to do in the background: all that can be
// packed is, and no checkpoint is due. It is for measurements.
func (a *Actor) Idle() bool { return len(a.sealed) == 0 && !a.keeping.Load() }

// keeperRest is how many times as long as it worked the keeper rests if somebody
// appended meanwhile, so that it takes no more than a tenth of a core from them.
const keeperRest = 9

// work does a part of what is due, logs what went wrong, and reports whether
// there is more to do now.
func (k *keeper) work(ctx context.Context) (more bool) {
	before := k.packedTo
	for _, do := range []struct {
		what string
		fn   func(context.Context) error
	}{{"segments not packed", k.pack}, {"checkpoint not written", k.checkpoint}} {
		err := k.guarded(ctx, do.fn)
		if err != nil && ctx.Err() == nil && !errors.Is(err, ErrClosed) {
			k.a.log.Warn().Err(err).Msg(do.what)
			return false
		}
	}
	return k.packedTo > before
}

func (k *keeper) guarded(ctx context.Context, fn func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return fn(ctx)
}

// pack packs the next group of segments, if there are enough, in one
// transaction.
func (k *keeper) pack(context.Context) error {
	if k.stuck {
		return nil
	}
	group, err := k.group()
	if err != nil || len(group) == 0 {
		k.stuck = err != nil
		return err
	}
	writes, err := packGroup(group)
	if err != nil {
		k.stuck = true
		return err
	}
	if err := k.commit(writes, func() { k.a.counts.packed += uint64(len(group)) }); err != nil {
		return err
	}
	k.packedTo = group[len(group)-1].last()
	return nil
}

// commit has the writer write, and waits for it whatever happens: it answers.
func (k *keeper) commit(writes []write, then func()) error {
	size := 0
	for _, w := range writes {
		size += len(w.value)
	}
	return k.a.submit(background, 1, size, func() {
		k.a.also = append(k.a.also, writes...)
		then()
	})
}

// group returns the next segments to pack together, none if there are too few.
func (k *keeper) group() (group []part, err error) {
	full, size := false, 0
	err = k.a.disk.ascendFrom(bucketSeg, lsnKey(k.packedTo+1), func(key, data []byte) error {
		lsn, err := keyLSN(key)
		if err != nil {
			return err
		}
		if len(data) >= valueHeaderLen && data[3] == codecPacked {
			if full = len(group) > 0; full {
				return errEnough
			}
			k.packedTo = lsn + valueSpan(data) - 1
			return nil
		}
		parts, err := openValue(lsn, bytes.Clone(data))
		if err != nil {
			return err
		}
		group = append(group, parts...)
		size += len(data)
		if full = len(group) == k.a.cfg.packParts || size >= packBytes; full {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, withPath(err, k.a.folder.path())
	}
	if !full {
		return nil, nil
	}
	return group, nil
}

// packGroup returns the writes that put one packed value in the place of the
// plain ones, after the new one was unpacked and compared with them.
func packGroup(group []part) ([]write, error) {
	v, err := appendPacked(nil, group)
	if err != nil {
		return nil, err
	}
	parts, err := openValue(group[0].lsn, v)
	if err != nil {
		return nil, fmt.Errorf("a packed value cannot be read: %w", err)
	}
	same := len(parts) == len(group)
	for i := 0; same && i < len(parts); i++ {
		body, err := unpackBody(parts[i].data)
		same = err == nil && parts[i].lsn == group[i].lsn && parts[i].events == group[i].events && bytes.Equal(body, group[i].data)
	}
	if !same {
		return nil, fmt.Errorf("a packed value at op %d does not say what was packed", group[0].lsn)
	}
	writes := []write{{bucketSeg, lsnKey(group[0].lsn), v}}
	for i := range group[1:] {
		writes = append(writes, write{bucketSeg, lsnKey(group[i+1].lsn), nil})
	}
	return writes, nil
}

// checkpoint writes a checkpoint if one is due: it loads the newest one into a
// genome of its own, applies what was sealed since, and saves that.
func (k *keeper) checkpoint(ctx context.Context) error {
	a := k.a
	end := a.sealedEnd()
	last := uint64(0)
	if n := len(a.ckpts); n > 0 {
		last = a.ckpts[n-1]
	}
	every := a.cfg.CheckpointEvery
	if every == 0 {
		every = max(checkpointEvery, end/checkpointShare)
	}
	if end < last+every {
		return nil
	}
	ms, err := readManifests(a.disk)
	if err != nil {
		return err
	}
	b := rebuilding{folder: a.folder, disk: a.disk, meta: a.meta, upTo: end, partial: true}
	r, err := b.run(ctx, ms)
	if err != nil {
		return err
	}
	c := &checkpoint{uuid: a.meta.uuid, lsn: end, first: r.first, last: r.last, g: r.g, x: r.x}
	data, man := encodeCheckpoint(c)
	writes, err := a.saveCheckpoint(c, data, man)
	if err != nil {
		return err
	}
	if err := k.commit(writes, func() { a.counts.checkpoints++ }); err != nil {
		return err
	}
	a.keptCheckpoint(end)
	return nil
}

func (a *Actor) sealedEnd() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.x.sealedEnd()
}

// saveCheckpoint writes the file of a checkpoint, reads it back, and returns
// the writes that make it count: its manifest, and the end of all others but
// the newest.
func (a *Actor) saveCheckpoint(c *checkpoint, data []byte, man manifest) ([]write, error) {
	if err := a.folder.writeCheckpoint(c.lsn, data); err != nil {
		return nil, err
	}
	got, err := loadCheckpoint(a.folder, c.uuid, man, nil)
	if err != nil {
		return nil, fmt.Errorf("a new checkpoint cannot be read: %w", err)
	}
	if d := got.g.Digest(); d != man.digest {
		return nil, fmt.Errorf("a new checkpoint at op %d has digest %v, not %v", c.lsn, d, man.digest)
	}
	writes := []write{man.put()}
	err = a.disk.ascend(bucketCkpt, func(k, _ []byte) error {
		lsn, err := keyLSN(k)
		if err != nil || lsn != man.lsn && !slices.Contains(a.newestCheckpoints(keepCheckpoints-1), lsn) {
			writes = append(writes, write{bucketCkpt, bytes.Clone(k), nil})
		}
		return nil
	})
	return writes, err
}

// newestCheckpoints returns the positions of the newest n that count.
func (a *Actor) newestCheckpoints(n int) []uint64 { return a.ckpts[max(0, len(a.ckpts)-n):] }

// keptCheckpoint notes that the checkpoint at lsn counts, and removes the files
// of those that do not any more.
func (a *Actor) keptCheckpoint(lsn uint64) {
	a.ckpts = append(slices.Clone(a.newestCheckpoints(keepCheckpoints-1)), lsn)
	a.removeOldCheckpoints()
}

// removeOldCheckpoints removes the files that do not count. One that stays
// takes room and no more, until the next start removes it.
func (a *Actor) removeOldCheckpoints() {
	files, err := a.folder.checkpoints()
	for _, lsn := range files {
		if err == nil && !slices.Contains(a.ckpts, lsn) {
			err = a.folder.removeCheckpoint(lsn)
		}
	}
	if err != nil {
		a.log.Warn().Err(err).Msg("old checkpoint not removed")
	}
}

// loadCheckpoint reads the checkpoint that man speaks of.
func loadCheckpoint(f folder, uuid [16]byte, man manifest, lookup func(genome.Dot) (genome.Op, bool)) (*checkpoint, error) {
	data, err := f.readCheckpoint(man.lsn)
	if err != nil {
		return nil, err
	}
	if uint64(len(data)) != man.bytes || sum32(data) != man.crc {
		return nil, fmt.Errorf("the file is not the one that was written: %d bytes with checksum %08x, not %d with %08x",
			len(data), sum32(data), man.bytes, man.crc)
	}
	c, err := decodeCheckpoint(data, uuid, lookup)
	if err != nil {
		return nil, err
	}
	if c.lsn != man.lsn || c.digest != man.digest || c.g.Version().Hash() != man.vv {
		return nil, errors.New("it is not the one that the log speaks of")
	}
	return c, nil
}

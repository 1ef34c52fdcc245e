package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"crdt-genome/genome"
	"crdt-genome/store"
)

// startRuns is how often each start is measured; the median counts.
const startRuns = 5

// Starts builds a log of n ops (single genes at random places, or typed in
// runs), and measures its size and how long it takes to read it, and to start
// from it, with and without a checkpoint, when nothing of it is in memory.
func Starts(ctx context.Context, dir string, n int, typing bool, progress func(done, total uint64)) ([]Figure, error) {
	dir, err := os.MkdirTemp(dir, "bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	s := &starts{dir: dir, flat: filepath.Join(dir, "flat"), kind: "random"}
	if typing {
		s.kind = "typing"
	}
	s.group = fmt.Sprintf("log of %d %s ops", n, s.kind)
	if err := s.build(ctx, n, typing, progress); err != nil {
		return nil, err
	}
	for _, measure := range []func(context.Context) error{s.read, s.open} {
		if err := measure(ctx); err != nil {
			return nil, err
		}
	}
	return s.figures, nil
}

type starts struct {
	dir, flat   string // flat: the same blocks in a plain file
	group, kind string
	ops         int
	figures     []Figure
	digest      genome.Digest
}

func (s *starts) add(name string, value float64, unit string, goal float64, most bool) {
	s.figures = append(s.figures, Figure{Group: s.group, Name: name, Value: value, Unit: unit, Goal: goal, Most: most})
}

// build makes the log, once more in plain columns, and waits until the segments
// are packed.
func (s *starts) build(ctx context.Context, n int, typing bool, progress func(done, total uint64)) error {
	f, err := os.Create(s.flat)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	a, err := store.Open(ctx, store.Config{Data: s.dir})
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l := newLoad(typing)
	for done := 0; done < n && err == nil; done += genome.MaxBatchOps {
		progress(uint64(done), uint64(n))
		err = s.batch(ctx, a, w, l, min(genome.MaxBatchOps, n-done))
	}
	if err == nil {
		err = WaitIdle(ctx, a)
	}
	if err == nil {
		st, stateErr := a.State(ctx)
		if err = stateErr; err == nil {
			s.digest = st.Digest
		}
	}
	progress(uint64(n), uint64(n))
	return errors.Join(err, w.Flush(), f.Sync(), f.Close(), a.Close())
}

func (s *starts) batch(ctx context.Context, a *store.Actor, w io.Writer, l *load, n int) error {
	ops, err := l.ops(n)
	if err != nil {
		return err
	}
	s.ops += len(ops)
	for len(ops) > 0 {
		part := ops[:min(len(ops), genome.MaxBatchOps)]
		ops = ops[len(part):]
		block, err := genome.AppendBlock(make([]byte, 4), genome.Block{Ops: part})
		if err != nil {
			return err
		}
		binary.LittleEndian.PutUint32(block, uint32(len(block)-4))
		if _, err := w.Write(block); err != nil {
			return err
		}
		if _, err := a.Receive(ctx, store.Source{Via: store.ViaPull}, genome.Block{Ops: part}); err != nil {
			return err
		}
	}
	return nil
}

// WaitIdle returns when a has nothing left to do in the background.
func WaitIdle(ctx context.Context, a *store.Actor) error {
	for !a.Idle() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// read measures size, and reading and decoding alone, against the flat file.
func (s *starts) read(ctx context.Context) error {
	path := filepath.Join(store.Dir(s.dir, 0), "log.db")
	var logged, flat []float64
	var bytes int64
	for range startRuns {
		if err := errors.Join(dropCache(path), dropCache(s.flat)); err != nil {
			return err
		}
		start := time.Now()
		l, err := store.OpenReadOnly(ctx, path)
		if err != nil {
			return err
		}
		ops, _, err := l.Scan(ctx)
		logged = append(logged, millis(time.Since(start)))
		bytes = l.Info().Used
		if err = errors.Join(err, l.Close()); err != nil {
			return err
		}
		start = time.Now()
		n, err := readFlat(s.flat)
		flat = append(flat, millis(time.Since(start)))
		if err != nil || n != ops || n != s.ops {
			return errors.Join(err, fmt.Errorf("%d ops in the log, %d in the flat file, %d made", ops, n, s.ops))
		}
	}
	limit := 7.5
	if s.kind == "typing" {
		limit = 6
	}
	s.add("size, pages in use", float64(bytes)/float64(s.ops), "B/op", limit, true)
	s.add("read and decode, cold", float64(s.ops)/median(logged)*1e3, "ops/s", 25e6, false)
	s.add("the same, best", float64(s.ops)/slices.Min(logged)*1e3, "ops/s", 0, false)
	s.add("the same of a plain file", float64(s.ops)/median(flat)*1e3, "ops/s", 0, false)
	s.add("log ÷ plain file", median(flat)/median(logged), "×", .75, false)
	s.add("log ÷ plain file, best of each", slices.Min(flat)/slices.Min(logged), "×", 0, false)
	return nil
}

// readFlat decodes blocks from a plain file in order.
func readFlat(path string) (ops int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close() // only read
	r := bufio.NewReaderSize(f, 1<<20)
	var head [4]byte
	var buf []byte
	var block genome.BlockReader
	var op genome.Op
	for {
		if _, err := io.ReadFull(r, head[:]); err == io.EOF {
			return ops, nil
		} else if err != nil {
			return ops, err
		}
		n := int(binary.LittleEndian.Uint32(head[:]))
		if buf = append(buf[:0], make([]byte, n)...); len(buf) != n {
			return ops, io.ErrUnexpectedEOF
		}
		if _, err := io.ReadFull(r, buf); err != nil {
			return ops, err
		}
		if err := block.Open(buf, genome.MaxBatchOps); err != nil {
			return ops, err
		}
		for block.Next(&op) {
			ops++
		}
		if _, err := block.Close(); err != nil {
			return ops, err
		}
	}
}

// open measures cold starts: from the checkpoint of the clean stop, then
// without any.
func (s *starts) open(ctx context.Context) error {
	var from, all []float64
	dir := store.Dir(s.dir, 0)
	for range startRuns {
		took, err := s.start(ctx, store.Config{Data: s.dir}, dir, true)
		if err != nil {
			return err
		}
		from = append(from, took)
	}
	for range startRuns {
		files, err := filepath.Glob(filepath.Join(dir, "ckpt-*"))
		for _, f := range files {
			err = errors.Join(err, os.Remove(f))
		}
		if err != nil {
			return err
		}
		took, err := s.start(ctx, store.Config{Data: s.dir}, dir, false)
		if err != nil {
			return err
		}
		all = append(all, took)
	}
	goalAll, goalFrom := 0.0, 0.0
	if s.kind == "random" && s.ops < 1_100_000 {
		goalAll, goalFrom = 400, 80
	}
	s.add("cold start, all replayed", median(all), "ms", goalAll, true)
	s.add("cold start, all replayed, best", slices.Min(all), "ms", 0, true)
	s.add("cold start, from a checkpoint", median(from), "ms", goalFrom, true)
	s.add("cold start, from a checkpoint, best", slices.Min(from), "ms", 0, true)
	return nil
}

func (s *starts) start(ctx context.Context, cfg store.Config, dir string, checkpoint bool) (ms float64, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	for _, f := range files {
		err = errors.Join(err, dropCache(f))
	}
	if err != nil {
		return 0, err
	}
	start := time.Now()
	a, err := store.Open(ctx, cfg)
	ms = millis(time.Since(start))
	if err != nil {
		return 0, err
	}
	st, err := a.State(ctx)
	if err == nil && st.Digest != s.digest {
		err = fmt.Errorf("the digest is %v after a start, and was %v", st.Digest, s.digest)
	}
	if used := a.Opening().Checkpoint > 0; err == nil && used != checkpoint {
		err = fmt.Errorf("a checkpoint was used: %v; problems: %q", used, a.Opening().Problems)
	}
	return ms, errors.Join(err, a.Close())
}

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
	"time"

	"crdt-genome/genome"
	"crdt-genome/store"
)

// Starts are starts from one log.
type Starts struct {
	dir, flat   string // flat: the same blocks in a plain file
	group, kind string
	ops         int
	figures     []Figure // of this run
	digest      genome.Digest
}

// OpenStarts builds a log of n ops in dir: single genes at random places, or
// typed in runs. A run measures its size and how long it takes to read it, and
// to start from it, with and without a checkpoint, when nothing of it is in
// memory.
func OpenStarts(ctx context.Context, dir string, n int, typing bool) (*Starts, error) {
	dir, err := os.MkdirTemp(dir, "bench-")
	if err != nil {
		return nil, err
	}
	s := &Starts{dir: dir, flat: filepath.Join(dir, "flat"), kind: "random"}
	if typing {
		s.kind = "typing"
	}
	s.group = fmt.Sprintf("log of %d %s ops", n, s.kind)
	if err := s.build(ctx, n, typing); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

// Close removes all files.
func (s *Starts) Close() error { return os.RemoveAll(s.dir) }

// Run measures once.
func (s *Starts) Run(ctx context.Context) ([]Figure, error) {
	s.figures = nil
	if err := s.read(ctx); err != nil {
		return nil, err
	}
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	return s.figures, nil
}

func (s *Starts) add(name string, value float64, unit string, goal float64, most bool) {
	s.figures = append(s.figures, Figure{Group: s.group, Name: name, Value: value, Unit: unit, Goal: goal, Most: most})
}

// build makes the log, once more in plain columns, and waits until the segments
// are packed.
func (s *Starts) build(ctx context.Context, n int, typing bool) error {
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
		err = s.batch(ctx, a, w, l, min(genome.MaxBatchOps, n-done))
	}
	if err == nil {
		err = WaitIdle(ctx, a)
	}
	if err == nil {
		st, stateErr := a.State(ctx)
		if err = stateErr; err == nil {
			s.digest = st.Digest
			if s.digest != l.g.Digest() {
				err = fmt.Errorf("%w: the receiver of %d ops differs from their maker", ErrWrong, s.ops)
			}
		}
	}
	return errors.Join(err, w.Flush(), f.Sync(), f.Close(), a.Close())
}

func (s *Starts) batch(ctx context.Context, a *store.Actor, w io.Writer, l *load, n int) error {
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
func (s *Starts) read(ctx context.Context) error {
	path := filepath.Join(store.Dir(s.dir, 0), "log.db")
	if err := errors.Join(dropCache(path), dropCache(s.flat)); err != nil {
		return err
	}
	start := time.Now()
	l, err := store.OpenReadOnly(ctx, path)
	if err != nil {
		return err
	}
	ops, _, err := l.Scan(ctx)
	logged := time.Since(start)
	bytes := l.Info().Used
	if err = errors.Join(err, l.Close()); err != nil {
		return err
	}
	start = time.Now()
	n, err := readFlat(s.flat)
	flat := time.Since(start)
	if err == nil && (n != ops || n != s.ops) {
		err = fmt.Errorf("%w: %d ops in the log, %d in the flat file, %d made", ErrWrong, ops, n, s.ops)
	}
	if err != nil {
		return err
	}
	limit := 7.5
	if s.kind == "typing" {
		limit = 6
	}
	s.add("size, pages in use", float64(bytes)/float64(s.ops), "B/op", limit, true)
	s.add("read and decode, cold", float64(s.ops)/logged.Seconds(), "ops/s", 25e6, false)
	s.add("the same of a plain file", float64(s.ops)/flat.Seconds(), "ops/s", 0, false)
	s.figures[len(s.figures)-1].Baseline = true
	s.add("log ÷ plain file", float64(flat)/float64(logged), "×", .75, false)
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
func (s *Starts) open(ctx context.Context) error {
	dir := store.Dir(s.dir, 0)
	from, err := s.start(ctx, store.Config{Data: s.dir}, dir, true)
	if err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(dir, "ckpt-*"))
	for _, f := range files {
		err = errors.Join(err, os.Remove(f))
	}
	if err != nil {
		return err
	}
	all, err := s.start(ctx, store.Config{Data: s.dir}, dir, false)
	if err != nil {
		return err
	}
	goalAll, goalFrom := 0.0, 0.0
	if s.kind == "random" && s.ops < 1_100_000 {
		goalAll, goalFrom = 400, 80
	}
	s.add("cold start, all replayed", all, "ms", goalAll, true)
	s.add("cold start, from a checkpoint", from, "ms", goalFrom, true)
	return nil
}

func (s *Starts) start(ctx context.Context, cfg store.Config, dir string, checkpoint bool) (ms float64, err error) {
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
		err = fmt.Errorf("%w: the digest is %v after a start, and was %v", ErrWrong, st.Digest, s.digest)
	}
	if used := a.Opening().Checkpoint > 0; err == nil && used != checkpoint {
		err = fmt.Errorf("a checkpoint was used: %v; problems: %q", used, a.Opening().Problems)
	}
	return ms, errors.Join(err, a.Close())
}

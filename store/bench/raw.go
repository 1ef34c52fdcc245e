package bench

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"
)

const (
	pageSize = 4096
	// rawSize is the length of the raw file, written with zeros before the
	// first commit: a file that grows, or whose blocks were never written,
	// costs the file system's journal as well.
	rawSize = 64 << 20
	// rawBatch bounds a commit as the store does.
	rawBatch = 1 << 14
)

// raw is a writer that does nothing but make bytes durable, with the same
// group commit as the store: the measure of what the disk can do.
type raw struct {
	f     *os.File
	syncs int // of a commit: 1, or 2 as in bbolt
	at    int64
	tail  []byte // what the last page that was begun holds

	mu     sync.Mutex
	some   sync.Cond
	reqs   []*rawRequest
	closed bool
	done   chan struct{}
}

type rawRequest struct {
	data []byte
	err  error
	done chan struct{}
}

func newRaw(dir string, syncs int) (*raw, error) {
	f, err := os.CreateTemp(dir, "raw-*")
	if err != nil {
		return nil, err
	}
	zeros := make([]byte, 1<<20)
	for range rawSize/len(zeros) + 1 {
		if _, err = f.Write(zeros); err != nil {
			break
		}
	}
	if err = errors.Join(err, f.Sync()); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	r := &raw{f: f, syncs: syncs, at: pageSize, done: make(chan struct{})}
	r.some.L = &r.mu
	go r.write()
	return r, nil
}

func (r *raw) close() error {
	r.mu.Lock()
	r.closed = true
	r.some.Signal()
	r.mu.Unlock()
	<-r.done
	return errors.Join(r.f.Close(), os.Remove(filepath.Clean(r.f.Name())))
}

// append returns when data is durable.
func (r *raw) append(data []byte) error {
	req := &rawRequest{data: data, done: make(chan struct{})}
	r.mu.Lock()
	r.reqs = append(r.reqs, req)
	if len(r.reqs) == 1 {
		r.some.Signal()
	}
	r.mu.Unlock()
	<-req.done
	return req.err
}

func (r *raw) write() {
	defer close(r.done)
	for {
		batch := r.take()
		if batch == nil {
			return
		}
		var data []byte
		for _, req := range batch {
			data = append(data, req.data...)
		}
		err := r.commit(data)
		for _, req := range batch {
			req.err = err
			close(req.done)
		}
	}
}

func (r *raw) take() []*rawRequest {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.reqs) == 0 {
		if r.closed {
			return nil
		}
		r.some.Wait()
	}
	for before := 0; before != len(r.reqs) && len(r.reqs) < rawBatch; {
		before = len(r.reqs)
		r.mu.Unlock()
		runtime.Gosched()
		r.mu.Lock()
	}
	batch := r.reqs
	r.reqs = nil
	return batch
}

// commit writes whole pages, the last one again with what came since.
func (r *raw) commit(data []byte) error {
	r.tail = append(r.tail, data...)
	n := (len(r.tail) + pageSize - 1) / pageSize * pageSize
	if r.at+int64(n) > rawSize {
		r.at = pageSize
	}
	page := make([]byte, n)
	copy(page, r.tail)
	if _, err := r.f.WriteAt(page, r.at); err != nil {
		return err
	}
	if err := dataSync(r.f); err != nil {
		return err
	}
	whole := len(r.tail) / pageSize * pageSize
	r.at += int64(whole)
	r.tail = append(r.tail[:0], r.tail[whole:]...)
	if r.syncs < 2 {
		return nil
	}
	if _, err := r.f.WriteAt(page[:pageSize], 0); err != nil {
		return err
	}
	return dataSync(r.f)
}

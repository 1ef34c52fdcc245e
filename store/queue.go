package store

import (
	"runtime"
	"sync"
)

// Bounds on the writer's queue. Those of a batch bound how long one commit
// takes and what it may hold in memory.
const (
	// MaxQueuedOps is how many ops may wait for the writer; then [ErrFull].
	MaxQueuedOps = 1 << 16
	maxBatchOps  = 1 << 14
	maxBatchSize = 1 << 20 // bytes, counted as opBytes and the genes for each op
)

// A request is what a caller wants done in the writer. Each request's run is
// called once, with the actor's mutex held; finish of all requests of a batch
// is called when what they did and saw is durable, or err says why not.
type request struct {
	ops, bytes int
	run        func()
	err        error
	done       chan struct{} // closed when err is final
}

// A queue hands requests to the writer in batches.
type queue struct {
	mu     sync.Mutex
	some   sync.Cond // requests may have come, or closed was set
	reqs   []*request
	ops    int
	closed bool
}

func newQueue() *queue {
	q := &queue{}
	q.some.L = &q.mu
	return q
}

// put queues r. A request that is larger than the whole queue is let in when
// the queue is empty.
func (q *queue) put(r *request) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return ErrClosed
	case q.ops+r.ops > MaxQueuedOps && len(q.reqs) > 0:
		return ErrFull
	}
	q.reqs = append(q.reqs, r)
	q.ops += r.ops
	if len(q.reqs) == 1 {
		q.some.Signal()
	}
	return nil
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.some.Signal()
}

// take waits for requests and returns a batch of them; none when the queue is
// closed and empty. Before it takes, it lets others run until nobody has
// anything to add: those who were answered by the last commit come back in
// time for this one, which nearly doubles what a commit carries. A timer
// instead would only add its own latency.
func (q *queue) take() []*request {
	q.mu.Lock()
	for len(q.reqs) == 0 {
		if q.closed {
			q.mu.Unlock()
			return nil
		}
		q.some.Wait()
	}
	for before := 0; before != len(q.reqs) && q.ops < maxBatchOps; {
		before = len(q.reqs)
		q.mu.Unlock()
		runtime.Gosched()
		q.mu.Lock()
	}
	defer q.mu.Unlock()
	n, ops, bytes := 0, 0, 0
	for n < len(q.reqs) {
		r := q.reqs[n]
		if n > 0 && (ops+r.ops > maxBatchOps || bytes+r.bytes > maxBatchSize) {
			break
		}
		ops, bytes, n = ops+r.ops, bytes+r.bytes, n+1
	}
	batch := q.reqs[:n:n]
	q.reqs = q.reqs[n:]
	if len(q.reqs) == 0 {
		q.reqs = nil
	}
	q.ops -= ops
	return batch
}

// refuse closes the queue and returns what is left in it.
func (q *queue) refuse() []*request {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	left := q.reqs
	q.reqs, q.ops = nil, 0
	return left
}

// len returns how many ops wait.
func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.ops
}

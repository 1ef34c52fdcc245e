package store

import "sync"

// Bounds on the writer's queue. Those of a batch bound how long one commit
// takes and what it may hold in memory.
const (
	// MaxQueuedOps is how many ops may wait for the writer; then [ErrFull].
	MaxQueuedOps = 1 << 16
	maxBatchOps  = 1 << 14
	maxBatchSize = 1 << 20 // bytes, counted as opBytes and the genes for each op
)

// A request is what a caller wants done in the writer. Each request's run is
// called once, with the actor's mutex held; done is closed when what all
// requests of its commit did and saw is durable, or err says why not.
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

// wait returns true when there are requests, or false when the queue is closed
// and empty.
func (q *queue) wait() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.reqs) == 0 {
		if q.closed {
			return false
		}
		q.some.Wait()
	}
	return true
}

// take returns the requests that wait, as many as there is room for among so
// many ops and bytes: of those, or one that is larger, if it is the first of
// its commit. It does not wait.
func (q *queue) take(ops, bytes int, first bool) []*request {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, taken := 0, 0
	for n < len(q.reqs) {
		r := q.reqs[n]
		if (n > 0 || !first) && (r.ops > ops || r.bytes > bytes) {
			break
		}
		ops, bytes, taken, n = ops-r.ops, bytes-r.bytes, taken+r.ops, n+1
	}
	batch := q.reqs[:n:n]
	q.reqs = q.reqs[n:]
	if len(q.reqs) == 0 {
		q.reqs = nil
	}
	q.ops -= taken
	return batch
}

// back puts requests that were taken in front of all others again.
func (q *queue) back(reqs []*request) {
	if len(reqs) == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.reqs = append(reqs[:len(reqs):len(reqs)], q.reqs...)
	for _, r := range reqs {
		q.ops += r.ops
	}
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

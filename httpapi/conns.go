package httpapi

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// conns bounds the open connections of a server. A new one beyond the bound is
// let in, and the one that has kept us waiting longest is closed for it: idle,
// or in the middle of a header or a body. So slow clients push each other out
// and a quick one always gets its turn. Connections at work are not touched; if
// all are, the new one is closed.
//
//	new, idle, header, body    waiting: may be closed
//	from the body's end until the answer is written    at work
type conns struct {
	max int

	mu     sync.Mutex
	open   map[net.Conn]*conn // ≤ max and those that are being closed
	closed uint64             // because of the bound
}

// A conn is what is known of one connection. Its fields are guarded by conns.
type conn struct {
	nc      net.Conn // set once
	working bool
	since   time.Time // of working, or of its end
}

type connKey struct{}

func newConns(max int) *conns {
	return &conns{max: max, open: map[net.Conn]*conn{}}
}

// begin enters a new connection and lets its handlers find it in their
// context; see http.Server.ConnContext, which is called before ConnState.
func (c *conns) begin(ctx context.Context, nc net.Conn) context.Context {
	s := &conn{nc: nc, since: time.Now()}
	if victim := c.add(nc, s); victim != nil {
		closeNow(victim) // its own goroutine meets the error and ends
	}
	return context.WithValue(ctx, connKey{}, s)
}

// closeNow closes without the farewell of TLS, which waits for a slow reader.
func closeNow(nc net.Conn) { _ = bare(nc).Close() }

// bare returns what lies below TLS.
func bare(nc net.Conn) net.Conn {
	if t, ok := nc.(*tls.Conn); ok {
		return t.NetConn()
	}
	return nc
}

// boundSend bounds what the kernel keeps for the reader of the answer in ctx.
func (c *conns) boundSend(ctx context.Context, bytes int) {
	s, _ := ctx.Value(connKey{}).(*conn)
	if s == nil {
		return // a test's recorder has no connection
	}
	if t, ok := bare(s.nc).(interface{ SetWriteBuffer(int) error }); ok {
		_ = t.SetWriteBuffer(bytes) // else it keeps what the system allows
	}
}

// changed takes out what has ended; see http.Server.ConnState.
func (c *conns) changed(nc net.Conn, state http.ConnState) {
	if state == http.StateClosed || state == http.StateHijacked {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.open, nc)
	}
}

// add enters nc and returns the connection to close for it, if any.
func (c *conns) add(nc net.Conn, s *conn) (victim net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[nc] = s
	if len(c.open) <= c.max {
		return nil
	}
	victim = nc
	oldest := time.Now()
	for other, s := range c.open { // the oldest; any of equals
		if other != nc && !s.working && s.since.Before(oldest) {
			victim, oldest = other, s.since
		}
	}
	delete(c.open, victim) // it no longer counts
	c.closed++
	return victim
}

// work notes whether the request in ctx is at work; see conns.
func (c *conns) work(ctx context.Context, working bool) {
	s, _ := ctx.Value(connKey{}).(*conn)
	if s == nil {
		return // a test's recorder has no connection
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.working, s.since = working, time.Now()
}

// totals returns the number of open connections, and how many have been closed
// because there were too many.
func (c *conns) totals() (open int, closed uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open), c.closed
}

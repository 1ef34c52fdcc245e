package membership

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
)

// bindTries is how often a free port is looked for that is free for TCP and
// for UDP.
const bindTries = 10

// A transport is memberlist's own, but that what it dials ends with ctx: a
// stop does not wait for who does not answer.
type transport struct {
	*memberlist.NetTransport
	ctx   context.Context
	fixed int
	tap   func([]byte)
}

func newTransport(ctx context.Context, host string, port int, logger *log.Logger, tap func([]byte)) (*transport, error) {
	var err error
	for range bindTries {
		var nt *memberlist.NetTransport
		nt, err = memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{host}, BindPort: port, Logger: logger})
		if err == nil {
			return &transport{nt, ctx, port, tap}, nil
		}
		if port != 0 {
			break
		}
	}
	return nil, cause(err)
}

// cause returns what the system said: memberlist keeps its text only.
func cause(err error) error {
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		return errors.New(text[i+2:])
	}
	return err
}

// port is the one listened on.
func (t *transport) port() int {
	if t.fixed != 0 {
		return t.fixed
	}
	return t.GetAutoBindPort()
}

func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	s := &stream{Conn: c, tap: t.tap}
	s.stop = context.AfterFunc(t.ctx, func() { _ = c.Close() }) // whoever uses it meets that
	return s, nil
}

func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if t.tap != nil {
		t.tap(b)
	}
	return t.NetTransport.WriteToAddress(b, a)
}

// A stream is a connection that ends with its transport.
type stream struct {
	net.Conn
	stop func() bool
	tap  func([]byte)
}

func (s *stream) Write(b []byte) (int, error) {
	if s.tap != nil {
		s.tap(b)
	}
	return s.Conn.Write(b)
}

func (s *stream) Close() error {
	s.stop()
	return s.Conn.Close()
}

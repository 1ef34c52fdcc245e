//go:build linux

package netlab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Dial connects to a host from within that host. addr is "10.77.0.1:8000". It
// can be the DialContext of an http.Transport.
func (w *World) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	i := int(to.Addr().As4()[3]) - 1
	if i < 0 || i >= w.hosts || to.Addr() != w.IP(i) {
		return nil, fmt.Errorf("netlab: %s is no host", addr)
	}
	type result struct {
		conn net.Conn
		err  error
	}
	dialed := make(chan result, 1)
	go func() {
		// A socket belongs to the namespace of the thread that makes it. The
		// thread ends with this goroutine, since it is never unlocked.
		runtime.LockOSThread()
		if err := enter(w.host(i)); err != nil {
			dialed <- result{nil, err}
			return
		}
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		dialed <- result{conn, err}
	}()
	r := <-dialed
	return r.conn, r.err
}

// enter moves the calling thread to a namespace.
func enter(namespace string) error {
	f, err := os.Open("/run/netns/" + namespace)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter %s: %w", namespace, err)
	}
	return nil
}

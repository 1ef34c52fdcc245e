package fleet

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// A port is reserved by a socket that is bound to it but does not listen: the
// kernel gives it to nobody who asks for any free port, refuses dials, and lets
// a child that asks for this very port listen on it (both set SO_REUSEADDR, as
// package net does).
type port struct {
	fd     int
	number int
}

// reserve takes a free port of the loopback address.
func reserve() (*port, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("reserve a port: %w", err)
	}
	p := &port{fd: fd}
	if p.number, err = bindAny(fd); err != nil {
		p.release()
		return nil, fmt.Errorf("reserve a port: %w", err)
	}
	return p, nil
}

func bindAny(fd int) (number int, err error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return 0, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, err
	}
	addr, err := unix.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	return addr.(*unix.SockaddrInet4).Port, nil // bound to one above
}

func (p *port) release() { _ = unix.Close(p.fd) }

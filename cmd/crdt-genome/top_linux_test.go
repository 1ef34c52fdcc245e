package main

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"crdt-genome/cmd/internal/fleet"
)

// A pty is a terminal of our own: what is typed into master is read from slave,
// and the other way round.
type pty struct {
	master, slave *os.File
	mu            sync.Mutex
	seen          bytes.Buffer // what the program has drawn
}

func newPty(t *testing.T, width, height uint16) *pty {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	n, err := unix.IoctlGetUint32(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(int(n)), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	p := &pty{master: master, slave: slave}
	p.resize(t, width, height)
	go func() { // ends when master is closed
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			p.mu.Lock()
			p.seen.Write(buf[:n])
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return p
}

func (p *pty) resize(t *testing.T, width, height uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(p.slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height}); err != nil {
		t.Fatal(err)
	}
}

func (p *pty) drawn() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen.String()
}

// forget drops what has been drawn.
func (p *pty) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen.Reset()
}

func (p *pty) wait(t *testing.T, part string) {
	t.Helper()
	if !poll(func() bool { return strings.Contains(p.drawn(), part) }) {
		t.Fatalf("%q is not drawn:\n%q", part, p.drawn())
	}
}

func (p *pty) modes(t *testing.T) unix.Termios {
	t.Helper()
	m, err := unix.IoctlGetTermios(int(p.slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *m
}

// start runs crdt-genome on the terminal.
func (p *pty) start(t *testing.T, env []string, args ...string) (cmd *exec.Cmd, done chan struct{}) {
	t.Helper()
	cmd = exec.Command(program(t), args...)
	cmd.Env = append(append(os.Environ(), "TERM=xterm-256color", "NO_COLOR="), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.slave, p.slave, p.slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done = make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-done })
	return cmd, done
}

// TestTopTerminal runs top on a real terminal, and leaves it in each way that
// people do: the terminal is as it was before.
func TestTopTerminal(t *testing.T) {
	const enter, leave, showCursor = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"
	f := newGroup(t, fleet.Config{Count: 2, Args: []string{"--no-mutate", "--verify-interval", "100ms"}})
	start(t, f.Actors()...)
	url := f.Actors()[0].URL()
	for _, c := range []struct {
		name string
		env  []string
		quit func(t *testing.T, p *pty, cmd *exec.Cmd)
	}{
		{"q", nil, func(t *testing.T, p *pty, cmd *exec.Cmd) { p.typed(t, "q") }},
		{"Ctrl-C", []string{"NO_COLOR=1"}, func(t *testing.T, p *pty, cmd *exec.Cmd) { p.typed(t, "\x03") }},
		{"SIGTERM", nil, func(t *testing.T, p *pty, cmd *exec.Cmd) {
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPty(t, 100, 30)
			before := p.modes(t)
			cmd, done := p.start(t, c.env, "top", url, "--every", "100ms", "--timeout", "30s")
			p.wait(t, "CONVERGED")
			if p.modes(t) == before {
				t.Error("the terminal is not in raw mode: keys would need Enter")
			}
			p.forget()
			p.resize(t, 60, 20)
			if err := cmd.Process.Signal(syscall.SIGWINCH); err != nil { // as the kernel does for the foreground
				t.Fatal(err)
			}
			p.wait(t, "help") // drawn anew for the new size
			p.typed(t, "?")
			p.wait(t, "DIVERGED")
			c.quit(t, p, cmd)
			if !poll(func() bool { return ended(done) }) {
				t.Fatal("it goes on")
			}
			if code := cmd.ProcessState.ExitCode(); code != 0 {
				t.Errorf("exit code %d:\n%q", code, p.drawn())
			}
			p.wait(t, leave)
			out := p.drawn()
			if strings.LastIndex(out, showCursor) < 0 || strings.LastIndex(out, enter) > strings.LastIndex(out, leave) {
				t.Errorf("the screen or the cursor is not given back:\n%q", out)
			}
			if after := p.modes(t); after != before {
				t.Errorf("the terminal's modes are %+v, were %+v", after, before)
			}
			if colored := strings.Contains(out, "\x1b[38;"); colored == (len(c.env) > 0) {
				t.Errorf("coloured = %t with %v:\n%q", colored, c.env, out)
			}
		})
	}
}

// TestTopServerGone: the screen says that the server is gone, and goes on when
// it is back.
func TestTopServerGone(t *testing.T) {
	f := newGroup(t, fleet.Config{Count: 1, Args: []string{"--no-mutate"}})
	a := f.Actors()[0]
	start(t, a)
	p := newPty(t, 100, 30)
	_, done := p.start(t, nil, "top", a.URL(), "--every", "100ms", "--timeout", "30s")
	p.wait(t, "CONVERGED")
	if err := a.Kill(); err != nil {
		t.Fatal(err)
	}
	p.forget()
	p.wait(t, "STALE")
	p.wait(t, "connection refused")
	p.forget()
	start(t, a)
	p.wait(t, "CONVERGED")
	p.typed(t, "q")
	if !poll(func() bool { return ended(done) }) {
		t.Fatal("it goes on")
	}
}

func (p *pty) typed(t *testing.T, keys string) {
	t.Helper()
	if _, err := p.master.WriteString(keys); err != nil {
		t.Fatal(err)
	}
}

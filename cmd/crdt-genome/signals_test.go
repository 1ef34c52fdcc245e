package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"crdt-genome/httpapi"
)

// An under is a serve that was started by hand, as a service manager or a shell
// starts it.
type under struct {
	cmd *exec.Cmd
	log string
}

// startUnder starts serve with prepare's changes to its command.
func startUnder(t *testing.T, prepare func(*exec.Cmd)) *under {
	t.Helper()
	dir := t.TempDir()
	u := &under{log: filepath.Join(dir, "log")}
	log, err := os.Create(u.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() // the child has its own
	u.cmd = exec.Command(program(t), "serve", "-a", "0", "-c", "1", "-b", "0", "--no-mutate", "--data", filepath.Join(dir, "data"),
		"--addr-file", filepath.Join(dir, "addr"))
	u.cmd.Stderr = log
	if prepare != nil {
		prepare(u.cmd)
	}
	if err := u.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if u.cmd.ProcessState == nil {
			_ = u.cmd.Process.Kill()
			_ = u.cmd.Wait()
		}
		if t.Failed() {
			t.Logf("it printed:\n%s", u.said())
		}
	})
	return u
}

func (u *under) said() string {
	b, _ := os.ReadFile(u.log)
	return string(b)
}

// addr waits until it listens.
func (u *under) addr(t *testing.T) string {
	t.Helper()
	var addr string
	if !poll(func() bool {
		b, _ := os.ReadFile(filepath.Join(filepath.Dir(u.log), "addr"))
		addr = strings.TrimSpace(string(b))
		return addr != ""
	}) {
		t.Fatal("it does not listen")
	}
	return addr
}

// exit waits for its end and returns its code, or -1 for a killed one. It may
// be called on any goroutine.
func (u *under) exit(t *testing.T) int {
	t.Helper()
	err := u.cmd.Wait()
	if e, ok := errors.AsType[*exec.ExitError](err); !ok && err != nil {
		t.Error(err)
		return -1
	} else if ok {
		return e.ExitCode()
	}
	return 0
}

// hammer sends a signal again and again, as an impatient person does, until
// the process has ended, and returns its code.
func (u *under) hammer(t *testing.T, sig syscall.Signal) int {
	t.Helper()
	code := make(chan int, 1)
	go func() { code <- u.exit(t) }()
	for {
		u.signal(t, sig)
		select {
		case c := <-code:
			return c
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (u *under) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := u.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
}

// holdRequest begins a request whose body does not come, so that a stop waits
// for it, and returns when the server waits for the body.
func holdRequest(t *testing.T, addr string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := fmt.Fprintf(c, "POST /genome HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n", addr); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
		t.Fatalf("%q, %v", line, err)
	}
}

// stopAttempts bounds how often a signal may come after the stop is over: a
// machine may be too busy to send it within the three seconds that a stop waits.
const stopAttempts = 5

// TestSecondSignal: a further signal while a stop is under way ends the process at
// once, with the code of a process that the signal killed.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	for sig, want := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			for range stopAttempts {
				u := startUnder(t, nil)
				holdRequest(t, u.addr(t))
				u.signal(t, syscall.SIGINT)
				if !poll(func() bool { return strings.Contains(u.said(), `"stopping"`) }) {
					t.Fatal("it does not stop")
				}
				switch code := u.hammer(t, sig); {
				case code == exitOK:
					continue // it was faster than the second signal
				case code != want:
					t.Fatalf("exit code %d, want %d", code, want)
				}
				if said := u.said(); !strings.Contains(said, "stopped now: "+sig.String()) || strings.Contains(said, `"message":"stopped"`) {
					t.Errorf("it printed %s", said)
				}
				return
			}
			t.Fatalf("%d times it ended before the second signal, which a request under way should prevent", stopAttempts)
		})
	}
}

// TestSignalTwiceAtOnce: timeout(1) signals a process and then its group. That
// is one wish, and the stop a clean one.
func TestSignalTwiceAtOnce(t *testing.T) {
	t.Parallel()
	for range stopAttempts {
		u := startUnder(t, nil)
		u.addr(t)
		u.signal(t, syscall.SIGTERM)
		u.signal(t, syscall.SIGTERM)
		code := u.exit(t)
		if code == 143 {
			continue // this process may have stood still between the two
		}
		if code != exitOK || !strings.Contains(u.said(), `"message":"stopped"`) {
			t.Errorf("exit code %d, want a clean stop", code)
		}
		return
	}
	t.Errorf("%d times the second one of two signals ended it", stopAttempts)
}

// TestServiceManager: serve takes the socket that a service manager has opened,
// tells it when it is ready and when it stops, and a restart refuses nobody.
func TestServiceManager(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	handed, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer handed.Close()
	dir, err := os.MkdirTemp("", "notify") // the name of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	notified, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notified.Close()
	states := make(chan string, 64)
	go func() {
		defer close(states)
		buf := make([]byte, 4096)
		for {
			n, err := notified.Read(buf)
			if err != nil {
				return
			}
			states <- string(buf[:n])
		}
	}()
	for range 2 { // a start, and a restart on the same socket
		u := startUnder(t, func(cmd *exec.Cmd) {
			argv := cmd.Args
			cmd.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`}, argv...) // exec keeps the pid
			cmd.Path, err = exec.LookPath("sh")
			if err != nil {
				t.Fatal(err)
			}
			cmd.ExtraFiles = []*os.File{handed}
			cmd.Env = append(os.Environ(), "LISTEN_FDS=1", "NOTIFY_SOCKET="+notified.LocalAddr().String())
		})
		if got := u.addr(t); got != ln.Addr().String() {
			t.Fatalf("it listens on %s, want the socket that was handed over, %s", got, ln.Addr())
		}
		want := "READY=1\nSTATUS=actor 0 at http://" + ln.Addr().String()
		if got := <-states; got != want {
			t.Fatalf("told %q, want %q", got, want)
		}
		d, err := httpapi.NewClient("http://" + ln.Addr().String()).Digest(t.Context())
		if err != nil || d.Ops != 0 {
			t.Fatalf("%+v, %v", d, err)
		}
		u.signal(t, syscall.SIGTERM)
		if got := <-states; got != "STOPPING=1" {
			t.Fatalf("told %q, want STOPPING=1", got)
		}
		if code := u.exit(t); code != exitOK {
			t.Fatalf("exit code %d", code)
		}
		// Nobody is there, and still nobody is refused: the socket is open.
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
}

// TestRunCut: run --faults cuts the links between two groups of real processes
// and heals them; it says so while it lasts, and when all are equal again.
func TestRunCut(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(program(t), "run", "--count", "4", "--base", "0", "--no-mutate", "--every", "100ms", "--json",
		"--data", filepath.Join(t.TempDir(), "data"), "--faults", "cut 0,1|2,3 at 0s for 6s")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // its actors stop with it
	lines := json.NewDecoder(out)
	var said []runLine
	next := func() (l runLine) {
		if err := lines.Decode(&l); err != nil {
			t.Fatalf("%v after %+v", err, said)
		}
		said = append(said, l)
		return l
	}
	begin := next()
	if begin.Event != "start" || len(begin.Actors) != 4 {
		t.Fatalf("%+v", begin)
	}
	edited, partitioned, healed := false, false, false
	for end := false; !end; {
		l := next()
		switch {
		case !edited: // the cut is made before the first summary
			for _, i := range []int{0, 2} {
				c := httpapi.NewClient(strings.TrimSuffix(begin.Actors[i].URL, "/"))
				if _, err := c.Edit(t.Context(), httpapi.EditRequest{Insert: &httpapi.InsertRequest{Hex: "c0ffee"}}); err != nil {
					t.Fatal(err)
				}
			}
			edited = true
		case l.Verdict == "partitioned":
			if !strings.HasPrefix(l.Text, "{0,1} {2,3}, ") || healed {
				t.Errorf("%+v", l)
			}
			partitioned = true
		case strings.HasSuffix(l.Text, " after the heal"):
			if l.Verdict != "converged" || !partitioned {
				t.Errorf("%+v", l)
			}
			healed = true
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
		}
		if end = l.Event == "verdict"; end && (l.Verdict != "converged" || !healed || l.Ops != 6) {
			t.Errorf("%+v after %+v", l, said)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("run ends with %v", err)
	}
}

// A runLine has what the test wants of any line that run --json prints.
type runLine struct {
	Event, Verdict, Text string
	Ops                  uint64
	Actors               []struct{ URL string }
}

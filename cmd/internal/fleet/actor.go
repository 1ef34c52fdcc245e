package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"crdt-genome/httpapi"
)

// An Actor is one actor of a fleet, or one process with several (Config.Each;
// it then stands for the first of them), running or not. Its methods are safe for
// concurrent use, but a start and a stop at the same time have no set order.
type Actor struct {
	Index   int
	Addr    string // host:port, the same over restarts; with Each, that of the last start
	Gossip  string // … for finding other members; "" without Join
	Dir     string // of its op log
	LogPath string // of what it prints

	fleet    *Fleet
	addrFile string

	mu  sync.Mutex // guards run
	run *process   // the last one; nil: never started
}

// A process is one run of an actor.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	from  int64         // where its part of the log begins
	done  chan struct{} // closed when it has ended; then code is set
	code  int           // exit code; -1: ended by a signal
	asked bool          // Stop or Kill was called; guarded by Actor.mu
}

// URL returns where the actor is reached.
func (a *Actor) URL() string { return a.fleet.cfg.Trust.Scheme() + "://" + a.Addr }

// Client returns a client of the actor.
func (a *Actor) Client() *httpapi.Client { return httpapi.NewTrustedClient(a.URL(), a.fleet.cfg.Trust) }

// readyPoll is how often the address file is looked for.
const readyPoll = 10 * time.Millisecond

// Start starts the actor with further arguments of serve, and waits until it
// is ready. If it ends first, the error is an [*ExitError].
func (a *Actor) Start(ctx context.Context, args ...string) error {
	if err := os.Remove(a.addrFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	p, err := a.launch(args)
	if err != nil {
		return fmt.Errorf("start actor %d: %w", a.Index, err)
	}
	if err := a.waitReady(ctx, p); err != nil || a.fleet.cfg.Each == 1 {
		return err
	}
	addrs, err := a.Addrs()
	if err == nil {
		a.Addr = addrs[0]
	}
	return err
}

// Addrs returns where the actors of the process listen, in their order.
func (a *Actor) Addrs() ([]string, error) {
	data, err := os.ReadFile(a.addrFile)
	addrs := strings.Fields(string(data))
	if err == nil && len(addrs) != a.fleet.cfg.Each {
		err = fmt.Errorf("%s names %d addresses, want %d", a.addrFile, len(addrs), a.fleet.cfg.Each)
	}
	return addrs, err
}

func (a *Actor) launch(args []string) (*process, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.run != nil && !a.run.ended() {
		return nil, fmt.Errorf("it runs already, as pid %d", a.run.cmd.Process.Pid)
	}
	log, err := os.OpenFile(a.LogPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own
	st, err := log.Stat()
	if err != nil {
		return nil, err
	}
	argv := append(append([]string{a.fleet.cfg.Binary}, a.fleet.args(a.Index)...), args...)
	if a.fleet.cfg.Command != nil {
		argv = a.fleet.cfg.Command(a.Index, argv)
	}
	p := &process{cmd: exec.Command(argv[0], argv[1:]...), from: st.Size(), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Env = log, log, a.fleet.environment()
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C on the terminal is ours to pass on
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // ends with the child
		_ = p.cmd.Wait() // its code says the same
		p.code = p.cmd.ProcessState.ExitCode()
		close(p.done)
	}()
	a.run = p
	return p, nil
}

func (a *Actor) waitReady(ctx context.Context, p *process) error {
	limit := time.NewTimer(a.fleet.cfg.ReadyTimeout)
	defer limit.Stop()
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if _, err := os.Stat(a.addrFile); err == nil {
				return nil
			}
		case <-p.done:
			return a.exitError(p)
		case <-limit.C:
			return fmt.Errorf("actor %d is not ready after %v; see %s", a.Index, a.fleet.cfg.ReadyTimeout, a.LogPath)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// An ExitError says that an actor ended by itself.
type ExitError struct {
	Actor   int
	Code    int    // exit code; -1: ended by a signal
	Text    string // what it printed last, at most a few lines
	LogPath string
}

func (e *ExitError) Error() string {
	s := fmt.Sprintf("actor %d ended with exit code %d", e.Actor, e.Code)
	if e.Code < 0 {
		s = fmt.Sprintf("actor %d was killed", e.Actor)
	}
	if e.Text == "" {
		return s + "; see " + e.LogPath
	}
	return s + ": " + e.Text
}

func (a *Actor) exitError(p *process) *ExitError {
	return &ExitError{Actor: a.Index, Code: p.code, Text: lastWords(a.LogPath, p.from), LogPath: a.LogPath}
}

// lastWords returns the error and the hint that a run of the program ended
// with, "" if it said none: it was killed, say.
func lastWords(path string, from int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	const most = 64 << 10
	if st, err := f.Stat(); err == nil {
		from = max(from, st.Size()-most)
	}
	data, err := io.ReadAll(io.NewSectionReader(f, from, most))
	if err != nil {
		return ""
	}
	text := strings.TrimSpace(string(bytes.ToValidUTF8(data, []byte("?"))))
	if _, last, ok := strings.Cut("\n"+text, "\nerror: "); ok {
		return last
	}
	return ""
}

// current returns the last run, nil if there was none.
func (a *Actor) current() *process {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.run
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Running reports whether the actor's process lives.
func (a *Actor) Running() bool {
	p := a.current()
	return p != nil && !p.ended()
}

// PID returns the process id of the last run, 0 if there was none.
func (a *Actor) PID() int {
	if p := a.current(); p != nil {
		return p.cmd.Process.Pid
	}
	return 0
}

// Ended returns the error of a run that ended though nobody asked it to, nil if
// the actor runs, was never started, or was stopped by Stop, Kill or Signal.
func (a *Actor) Ended() error {
	p := a.current()
	if p == nil || !p.ended() {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if p.asked {
		return nil
	}
	return a.exitError(p)
}

// Signal sends a signal to the actor. It fails if the actor does not run.
func (a *Actor) Signal(sig os.Signal) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.run == nil || a.run.ended() {
		return fmt.Errorf("actor %d does not run", a.Index)
	}
	a.run.asked = true
	return a.run.cmd.Process.Signal(sig)
}

// Kill ends the actor as kill -9 does and waits for it. One that does not run
// is fine.
func (a *Actor) Kill() error {
	if !a.Running() {
		return nil
	}
	if err := a.Signal(syscall.SIGKILL); err != nil && a.Running() {
		return err
	}
	_, err := a.Wait(context.Background())
	return err
}

// Stop asks the actor to stop cleanly and waits. If ctx ends first it is
// killed. The error says that it did not stop cleanly; one that does not run is
// fine.
func (a *Actor) Stop(ctx context.Context) error {
	if !a.Running() {
		return nil
	}
	if err := a.Signal(syscall.SIGTERM); err != nil && a.Running() {
		return err
	}
	code, err := a.Wait(ctx)
	if err != nil {
		return errors.Join(fmt.Errorf("actor %d did not stop: %w", a.Index, err), a.Kill())
	}
	if code != 0 {
		return a.exitError(a.current())
	}
	return nil
}

// Wait waits for the actor's process to end and returns its exit code, -1 if a
// signal ended it.
func (a *Actor) Wait(ctx context.Context) (code int, err error) {
	p := a.current()
	if p == nil {
		return 0, fmt.Errorf("actor %d was never started", a.Index)
	}
	select {
	case <-p.done:
		return p.code, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

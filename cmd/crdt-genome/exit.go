package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"crdt-genome/httpapi"
	"crdt-genome/httpapi/membership"
	"crdt-genome/store"
)

// The exit codes, the same for every command. A service manager should not
// restart on 3, 4, 5, 9 and 64: trying again cannot help.
const (
	exitOK          = 0  // fine; converged
	exitNo          = 1  // the answer is no: diverged, damaged, a check failed
	exitUndecided   = 2  // behind or unreachable: ask again later
	exitLocked      = 3  // the log is held by another process
	exitCorrupt     = 4  // the log is damaged, or not a log
	exitNewer       = 5  // the log or an op has a newer format
	exitDisk        = 6  // disk full or not writable
	exitListen      = 7  // cannot listen
	exitServer      = 8  // the server does not answer
	exitWrongOwner  = 9  // the log or the server belongs to someone else
	exitUsage       = 64 // wrong flags or arguments
	exitInternal    = 70 // a bug
	exitInterrupted = 130
)

// A cliError is an error as it is shown: "error: What: Why" and a hint with the
// next command to type.
type cliError struct {
	exit   int
	code   string // for programs
	msg    string
	hint   string
	detail any   // more, in JSON only
	quiet  bool  // the verdict has been printed: nothing to add
	cause  error // may be nil
}

func (e *cliError) Error() string { return e.msg }
func (e *cliError) Unwrap() error { return e.cause }

// An errorReply is the JSON of an error, under "error".
type errorReply struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	Detail  any    `json:"detail,omitempty"`
}

func usageError(hint, format string, args ...any) error {
	return &cliError{exit: exitUsage, code: "usage", msg: fmt.Sprintf(format, args...), hint: hint}
}

// exitWith ends with a code whose reason has been printed as a result.
func exitWith(code int) error {
	if code == exitOK {
		return nil
	}
	return &cliError{exit: code, quiet: true, msg: "exit " + strconv.Itoa(code)}
}

// report prints err and returns the exit code.
func (a *app) report(err error) int {
	if err == nil {
		return exitOK
	}
	e := classify(err)
	if e.quiet {
		return e.exit
	}
	if a.opts.json {
		line, err := json.Marshal(map[string]errorReply{"error": {e.code, e.msg, e.hint, e.detail}})
		if err == nil {
			fmt.Fprintf(a.stderr, "%s\n", line)
			return e.exit
		}
	}
	fmt.Fprintf(a.stderr, "%s %s\n", a.paint(a.stderr, "1;31", "error:"), e.msg)
	if e.hint != "" {
		fmt.Fprintf(a.stderr, "hint: %s\n", e.hint)
	}
	return e.exit
}

// classify turns any error into its shown form. This is the one place that
// knows the errors of the packages below.
func classify(err error) *cliError {
	if e, ok := errors.AsType[*cliError](err); ok {
		return e
	}
	e := &cliError{exit: exitInternal, code: "internal", msg: err.Error(), cause: err}
	for _, known := range []func(error, *cliError) bool{classifyStore, classifyNode, classifySystem} {
		if known(err, e) {
			return e
		}
	}
	return e
}

func classifyStore(err error, e *cliError) bool {
	if l, ok := errors.AsType[*store.LockedError](err); ok {
		e.exit, e.code, e.msg = exitLocked, "locked", l.Error()
		e.hint = "stop the other process, or use another --data"
		if l.PID != 0 {
			e.hint = fmt.Sprintf("another process runs this actor: stop it (kill %d), or use another --data", l.PID)
		}
		return true
	}
	if o, ok := errors.AsType[*store.WrongOwnerError](err); ok {
		e.exit, e.code, e.msg = exitWrongOwner, "wrong_owner", o.Error()
		e.hint = fmt.Sprintf("--actor %d, or another --data", o.Actor)
		if o.Actor == o.Want {
			e.hint = fmt.Sprintf("--cluster %s, or another --data", o.Cluster)
		}
		return true
	}
	if c, ok := errors.AsType[*store.CorruptError](err); ok {
		e.exit, e.code, e.msg = exitCorrupt, "corrupt", c.Error()
		e.hint = "crdt-genome inspect-log verify says what is damaged"
		if c.Report != nil {
			e.hint = c.NotRepaired + "; serve --repair goes on with what is sound, keeps the file, and asks the peers for the rest"
			e.detail = c.Report
		}
		return true
	}
	if f, ok := errors.AsType[*store.FormatError](err); ok {
		e.exit, e.code, e.msg = exitNewer, "newer_format", f.Error()
		e.hint = "use the version of crdt-genome that wrote it, or a newer one"
		return true
	}
	if n, ok := errors.AsType[*store.NotLogError](err); ok {
		e.exit, e.code, e.msg = exitCorrupt, "not_a_log", n.Error()
		return true
	}
	if n, ok := errors.AsType[*store.NotInRosterError](err); ok {
		e.exit, e.code, e.msg = exitUsage, "not_in_roster", n.Error()
		e.hint = "add that line to the roster of all actors; those that run read it again on SIGHUP"
		return true
	}
	if errors.Is(err, store.ErrStoreFull) {
		e.exit, e.code = exitDisk, "store_full"
		e.hint = "free some space and start again; nothing that was acknowledged is lost"
		return true
	}
	return false
}

func classifyNode(err error, e *cliError) bool {
	if l, ok := errors.AsType[*httpapi.ListenError](err); ok {
		e.exit, e.code, e.msg, e.hint = exitListen, "cannot_listen", l.Error(), listenHint(l)
		if errors.Is(err, syscall.EADDRNOTAVAIL) {
			e.msg = fmt.Sprintf("cannot listen on %s: this machine has no such address", l.Addr)
		}
		if errors.Is(err, syscall.EADDRINUSE) && l.PID == 0 {
			e.msg = fmt.Sprintf("cannot listen on %s: in use by another program", l.Addr)
		}
		return true
	}
	if u, ok := errors.AsType[*httpapi.UnsafeBindError](err); ok {
		e.exit, e.code, e.msg = exitUsage, "unsafe_bind", u.Error()
		e.hint = "--tls-cert FILE --tls-key FILE, or --auth-token-file FILE, or --insecure for a closed network: whoever reaches the port can edit the genome"
		return true
	}
	if u, ok := errors.AsType[*httpapi.UnsafeTokenError](err); ok {
		e.exit, e.code, e.msg = exitUsage, "unsafe_token", u.Error()
		e.hint = "--tls-ca FILE with --tls-cert FILE --tls-key FILE, or --insecure for a closed network: who has the member key could get the token"
		return true
	}
	if s, ok := errors.AsType[*httpapi.StallError](err); ok {
		e.exit, e.code, e.msg = exitInternal, "apply_stalled", s.Error()
		e.hint = "a disk that hangs, or a bug: the log has all goroutines; nothing that was acknowledged is lost"
		return true
	}
	if k, ok := errors.AsType[*membership.NoKeyError](err); ok {
		e.exit, e.code, e.msg = exitUsage, "unsafe_join", k.Error()
		e.hint = "--member-key-file FILE; " + keyHint
		return true
	}
	if l, ok := errors.AsType[*membership.ListenError](err); ok {
		e.exit, e.code, e.msg = exitListen, "cannot_listen", l.Error()
		e.hint = "--member-listen HOST:PORT takes another address; it needs TCP and UDP"
		return true
	}
	if n, ok := errors.AsType[*httpapi.NotGenomeError](err); ok {
		e.exit, e.code, e.msg = exitWrongOwner, "not_crdt_genome", n.Error()
		return true
	}
	if p, ok := errors.AsType[*httpapi.Problem](err); ok {
		e.exit, e.code, e.msg, e.hint, e.detail = exitServer, p.Code, "the server answered "+p.Error(), p.Hint, p
		return true
	}
	return false
}

func listenHint(l *httpapi.ListenError) string {
	port := l.Addr[strings.LastIndexByte(l.Addr, ':')+1:]
	switch {
	case errors.Is(l, syscall.EADDRNOTAVAIL):
		return "--listen 127.0.0.1:" + port + " here, --advertise URL for what peers dial"
	case errors.Is(l, syscall.EACCES):
		return "ports below 1024 need a privilege: use --base 8000"
	case l.PID != 0:
		return fmt.Sprintf("another actor %d runs; use --base 9000, or stop it: kill %d", l.Actor, l.PID)
	}
	return fmt.Sprintf("find it with: ss -ltnp 'sport = :%s', or use --base 9000", port)
}

// classifySystem knows what the operating system says.
func classifySystem(err error, e *cliError) bool {
	path, _ := errors.AsType[*fs.PathError](err)
	switch {
	case errors.Is(err, context.Canceled):
		e.exit, e.code, e.msg = exitInterrupted, "interrupted", "interrupted"
	case errors.Is(err, syscall.ENOSPC):
		e.exit, e.code, e.hint = exitDisk, "store_full", "free some space and start again"
	case path != nil && path.Op == "mkdir" && errors.Is(err, fs.ErrNotExist):
		e.exit, e.code, e.hint = exitDisk, "not_writable", "use --data DIR with a folder of your own"
		e.msg = fmt.Sprintf("cannot make the folder %s: the system refuses it there", path.Path)
	case path != nil && errors.Is(err, fs.ErrPermission), path != nil && errors.Is(err, syscall.EROFS):
		e.exit, e.code = exitDisk, "not_writable"
		e.msg = fmt.Sprintf("cannot write %s: %v%s", path.Path, path.Err, ownership(path.Path))
		e.hint = "use --data DIR with a folder of your own"
		if unreadable(path) {
			e.msg = fmt.Sprintf("cannot read %s: %v%s", path.Path, path.Err, ownership(path.Path))
			e.hint = "run it as the owner, or name a log of your own"
		}
	case path != nil && (errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EISDIR)):
		e.exit, e.code = exitUsage, "usage"
		e.msg = fmt.Sprintf("cannot use %s: %v", path.Path, path.Err)
		e.hint = "--data DIR wants a folder, --output and the like a file"
	case path != nil && errors.Is(err, fs.ErrNotExist):
		e.exit, e.code, e.hint = exitUsage, "not_found", nearest(path.Path)
		e.msg = "no log at " + path.Path
	case errors.Is(err, fs.ErrNotExist):
		e.exit, e.code, e.hint = exitUsage, "not_found", "name a log.db, an actor's folder, a data folder such as "+defaultData+", or a server's URL"
		e.msg = strings.TrimSuffix(err.Error(), ": "+fs.ErrNotExist.Error())
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, context.DeadlineExceeded):
		e.exit, e.code = exitServer, "unreachable"
	default:
		return false
	}
	return true
}

// unreadable reports whether not even reading is allowed.
func unreadable(e *fs.PathError) bool {
	return e.Op == "stat" || e.Op == "lstat" || e.Op == "open" && exists(e.Path) && unix.Access(e.Path, unix.R_OK) != nil
}

// ownership says whose the file is and who asks, where that explains a refusal.
func ownership(path string) string {
	for path != "" {
		st, err := os.Stat(path)
		if err != nil {
			if parent := filepath.Dir(path); parent != path {
				path = parent
				continue
			}
			return ""
		}
		sys, ok := st.Sys().(*syscall.Stat_t)
		if !ok || int(sys.Uid) == os.Getuid() {
			return ""
		}
		return fmt.Sprintf(" (owned by %s, running as %s)", userName(int(sys.Uid)), userName(os.Getuid()))
	}
	return ""
}

func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return "uid " + strconv.Itoa(uid)
}

// nearest returns a hint with what does exist near a path that does not: a
// name that differs by a typing error, or the first folder that is there.
func nearest(path string) string {
	path = filepath.Clean(path)
	dir := filepath.Dir(path)
	entries, err := os.ReadDir(dir)
	for err != nil {
		if dir == filepath.Dir(dir) {
			return ""
		}
		path, dir = dir, filepath.Dir(dir)
		entries, err = os.ReadDir(dir)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if name := closest(filepath.Base(path), names); name != "" {
		return "did you mean " + filepath.Join(dir, name) + "?"
	}
	return "the nearest folder that exists is " + dir
}

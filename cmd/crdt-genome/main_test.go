package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"crdt-genome/cmd/internal/fleet"
	"crdt-genome/httpapi"
)

// TestMain makes this test binary also the programs that scripts and tests
// start: crdt-genome itself, and http, a small client.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"crdt-genome": main, "http": httpMain, "nobody": otherUserMain})
}

// patience bounds every wait in the tests. It is long since a machine may be
// slow, and no wait uses it up unless something is broken.
const patience = 60 * time.Second

// poll calls ok until it is true, or patience ends.
func poll(ok func() bool) bool {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return true
		}
	}
	return ok()
}

// TestScripts runs the scripts under testdata/script, each in an empty folder
// of its own, with the real program. Beside testscript's own commands they
// have:
//
//	actor NAME ARG…      start "serve ARG… --addr-file …", wait until it listens;
//	                     $NAME is its URL, $NAME_ADDR its host:port, $NAME_PID
//	                     its process, NAME.log what it prints
//	group N ARG…         start N actors that know each other, data in ./data;
//	                     $a0, $a1 … are their URLs
//	halt NAME SIGNAL N   send a signal, or NONE, and want exit code N, -1: killed by it
//	room NAME BYTES      from now on no file of the actor may become longer
//	freeze NAME          SIGSTOP; what is frozen is killed at the end
//	hangup NAME          SIGHUP
//	exits N PROGRAM ARG… run a program and want exit code N
//	until RE PROGRAM …   run a program again and again until its output matches
//	grows FILE RE        wait until the file matches
//	patch FILE HOW       damage a log; see patches
//	gossip NAME VAR      $VAR is where the actor listens for members
//	other VAR            some other program listens on port $VAR
//
// The program nobody is crdt-genome as that user; large.json is there for all: an edit of 48 Ki random genes.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Values[actorsKey{}] = map[string]*child{}
			var genes [48 << 10]byte // no packing makes these small
			_, _ = rand.NewChaCha8([32]byte{}).Read(genes[:])
			return os.WriteFile(filepath.Join(e.WorkDir, "large.json"), fmt.Appendf(nil, `{"insert":{"at":3,"hex":"%x"}}`, genes), 0o600)
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Getuid() == 0, nil
			}
			return false, fmt.Errorf("no condition %q", cond)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"actor": tsActor, "group": tsGroup, "halt": tsHalt, "freeze": tsFreeze, "hangup": tsHangup, "room": tsRoom, "exits": tsExits, "until": tsUntil, "grows": tsGrows, "patch": tsPatch,
			"other": tsOther, "gossip": tsGossip,
		},
	})
}

// actorsKey finds the actors of a script in its environment.
type actorsKey struct{}

// A child is an actor that a script has started.
type child struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

func childOf(ts *testscript.TestScript, name string) *child {
	c := ts.Value(actorsKey{}).(map[string]*child)[name]
	if c == nil {
		ts.Fatalf("no actor %q was started", name)
	}
	return c
}

func tsGossip(ts *testscript.TestScript, neg bool, args []string) {
	r, err := httpapi.NewClient(ts.Getenv(args[0])).Members(context.Background())
	ts.Check(err)
	for _, m := range r.Members {
		if m.Self {
			ts.Setenv(args[1], m.Addr)
		}
	}
}

func tsActor(ts *testscript.TestScript, neg bool, args []string) {
	name, addrFile := args[0], ts.MkAbs(args[0]+".addr")
	binary, err := exec.LookPath("crdt-genome")
	ts.Check(err)
	_ = os.Remove(addrFile)
	log, err := os.OpenFile(ts.MkAbs(name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	ts.Check(err)
	defer log.Close()
	c := &child{exec.Command(binary, append([]string{"serve", "--addr-file", addrFile}, args[1:]...)...), make(chan struct{})}
	c.cmd.Dir, c.cmd.Stderr = ts.MkAbs("."), log
	ts.Check(c.cmd.Start())
	go func() { _ = c.cmd.Wait(); close(c.done) }()
	ts.Defer(func() { _ = c.cmd.Process.Kill(); <-c.done })
	var addr []byte // a line for each actor of the process: the first
	if !poll(func() bool { addr, err = os.ReadFile(addrFile); return err == nil || ended(c.done) }) || err != nil {
		ts.Fatalf("actor %s is not ready:\n%s", name, ts.ReadFile(name+".log"))
	}
	first, _, _ := strings.Cut(string(addr), "\n")
	ts.Setenv(name, "http://"+first)
	ts.Setenv(name+"_ADDR", first)
	ts.Setenv(name+"_PID", strconv.Itoa(c.cmd.Process.Pid))
	ts.Value(actorsKey{}).(map[string]*child)[name] = c
}

func ended(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

func tsGroup(ts *testscript.TestScript, neg bool, args []string) {
	count, err := strconv.Atoi(args[0])
	ts.Check(err)
	binary, err := exec.LookPath("crdt-genome")
	ts.Check(err)
	f, err := fleet.New(fleet.Config{Binary: binary, Count: count, Data: ts.MkAbs("data"), Args: args[1:]})
	ts.Check(err)
	ts.Defer(func() { ts.Check(f.Close()) })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ts.Check(f.StartAll(ctx))
	for i, a := range f.Actors() {
		ts.Setenv("a"+strconv.Itoa(i), a.URL())
		ts.Setenv("a"+strconv.Itoa(i)+"_PID", strconv.Itoa(a.PID()))
	}
}

func tsHalt(ts *testscript.TestScript, neg bool, args []string) {
	c := childOf(ts, args[0])
	sig := map[string]os.Signal{"INT": os.Interrupt, "TERM": syscall.SIGTERM, "KILL": os.Kill}[args[1]]
	if sig != nil {
		ts.Check(c.cmd.Process.Signal(sig))
	}
	if !poll(func() bool { return ended(c.done) }) {
		ts.Fatalf("%s goes on:\n%s", args[0], ts.ReadFile(args[0]+".log"))
	}
	if code := c.cmd.ProcessState.ExitCode(); strconv.Itoa(code) != args[2] {
		ts.Fatalf("%s: exit code %d after SIG%s, want %s\n%s", args[0], code, args[1], args[2], ts.ReadFile(args[0]+".log"))
	}
}

func tsRoom(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.ParseUint(args[1], 10, 64)
	ts.Check(err)
	ts.Check(unix.Prlimit(childOf(ts, args[0]).cmd.Process.Pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: n, Max: 1 << 40}, nil))
}

func tsFreeze(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(childOf(ts, args[0]).cmd.Process.Signal(syscall.SIGSTOP))
}

func tsHangup(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(childOf(ts, args[0]).cmd.Process.Signal(syscall.SIGHUP))
}

func tsExits(ts *testscript.TestScript, neg bool, args []string) {
	code := 0
	err := ts.Exec(args[1], args[2:]...)
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		code = e.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s\n%s%s", code, args[0], ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

func tsOther(ts *testscript.TestScript, neg bool, args []string) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "<!DOCTYPE html><title>hello</title>")
	}))
	ts.Defer(srv.Close)
	_, port, err := net.SplitHostPort(srv.Listener.Addr().String())
	ts.Check(err)
	ts.Setenv(args[0], port)
}

func tsUntil(ts *testscript.TestScript, neg bool, args []string) {
	re := regexp.MustCompile("(?m)" + args[0])
	if !poll(func() bool {
		_ = ts.Exec(args[1], args[2:]...) // its output is what counts
		return re.MatchString(ts.ReadFile("stdout") + ts.ReadFile("stderr"))
	}) {
		ts.Fatalf("no match for %s in\n%s%s", args[0], ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

func tsGrows(ts *testscript.TestScript, neg bool, args []string) {
	re := regexp.MustCompile("(?m)" + args[1])
	var text []byte
	if !poll(func() bool { text, _ = os.ReadFile(ts.MkAbs(args[0])); return re.Match(text) }) {
		ts.Fatalf("no match for %s in %s:\n%s", args[1], args[0], text)
	}
}

// httpMain is the program "http METHOD URL [FILE [Header: value]…]": it prints
// the status and the body of the answer, and exits with 0 whatever they are.
func httpMain() {
	if err := httpDo(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func httpDo(args []string) error {
	var body io.Reader = http.NoBody
	if len(args) > 2 && args[2] != "-" {
		f, err := os.Open(args[2])
		if err != nil {
			return err
		}
		defer f.Close()
		body = f
	}
	req, err := http.NewRequest(args[0], args[1], body)
	if err != nil {
		return err
	}
	for _, h := range args[min(3, len(args)):] {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
		if name == "Host" {
			req.Host = value
		}
	}
	resp, err := (&http.Client{Timeout: patience}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	fmt.Println(resp.StatusCode, resp.Header.Get("Content-Type"))
	_, err = io.Copy(os.Stdout, resp.Body)
	return err
}

// otherUserMain is the program "nobody ARG…": crdt-genome as that user.
func otherUserMain() {
	const nobody = 65534
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(nobody), syscall.Setuid(nobody)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	main()
}

// script returns where a script lies.
func script(name string) string { return filepath.Join("testdata", "script", name+".txtar") }

// Command crdt-genome runs actors that edit one genome together, and looks at
// their logs. See the help of each command, and README.md.
//
// This package turns flags into Config values and results into text. Data goes
// to stdout; logs, banners, progress and errors go to stderr. The exit codes
// are in exit.go, the rules that all flags share in root.go and env.go.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := withSignals(context.Background())
	code := mainWithCode(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// mainWithCode is main without the process: what tests call.
func mainWithCode(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	app := &app{stdin: stdin, stdout: stdout, stderr: stderr, env: os.LookupEnv}
	root := newRootCmd(app)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	app.args = args
	return app.report(root.ExecuteContext(ctx))
}

// A signalError is the cause of a context that a signal ended.
type signalError struct{ sig os.Signal }

func (e signalError) Error() string { return e.sig.String() }

// sameWish is how soon after the first signal the same one again says nothing
// new: timeout(1) sends it to the process and then to its group. A person who
// presses Ctrl-C twice takes longer.
const sameWish = 50 * time.Millisecond

// withSignals returns a context that the first SIGINT or SIGTERM ends; a second
// one ends the process at once, with the code that shells give a killed one.
func withSignals(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() { // ends with the process
		first := <-signals
		cancel(signalError{first})
		at := time.Now()
		s := <-signals
		for s == first && time.Since(at) < sameWish {
			s = <-signals
		}
		fmt.Fprintln(os.Stderr, "stopped now:", s)
		os.Exit(128 + int(s.(syscall.Signal)))
	}()
	return ctx, func() { cancel(nil) }
}

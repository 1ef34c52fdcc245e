package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"

	"crdt-genome/httpapi"
)

type topOptions struct {
	server      string
	every       time.Duration
	once, plain bool
}

const topKeys = `Keys: q quit, p pause, s those that lack most first, g genes in hex and back,
Left and Right the genome as it was one op ago or later (Page Up and Page Down a
tenth of the log, Home the beginning, End the present), ? help.`

func newTopCmd(a *app) *cobra.Command {
	var o topOptions
	cmd := &cobra.Command{
		Use:   "top [SERVER]",
		Short: "The same table, live, in the terminal",
		Long: `Shows how one server sees itself and all others, again and again: the verdict in
one word, who lacks which ops of whom, how that was in the last minute, the
genome of each actor in the colours of its authors, and the last ops. Only that
server is asked: what the others hold is read from their version vectors. When
it does not answer, the screen says since when, and goes on by itself.

` + topKeys + `

Where the output is no terminal it prints the table of status once.`,
		Example: `  crdt-genome top
  crdt-genome top http://127.0.0.1:8002 --every 500ms
  crdt-genome top --plain --every 10s | tee status.txt`,
		Args: wantArgs(0, 1, "at most one server"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				o.server = args[0]
			}
			return a.top(cmd.Context(), o)
		},
	}
	cmd.Flags().StringVar(&o.server, "server", defaultServer, "URL of any one actor")
	cmd.Flags().DurationVar(&o.every, "every", time.Second, "time between two looks")
	cmd.Flags().BoolVar(&o.once, "once", false, "print the table of status once")
	cmd.Flags().BoolVar(&o.plain, "plain", false, "print the table of status again and again, each below the last")
	return cmd
}

func (a *app) top(ctx context.Context, o topOptions) error {
	if o.every <= 0 {
		return usageError("", "--every %v: must be above 0", o.every)
	}
	url := a.serverURL(o.server)
	if o.plain && !o.once {
		return a.topPlain(ctx, url, o.every)
	}
	if o.once || a.opts.json || !a.isTerminal(a.stdout) {
		return a.status(ctx, url)
	}
	if !isURL(url) {
		return notServer(url)
	}
	eye := &topEye{client: a.client(url), timeout: a.opts.timeout}
	first := eye.look(ctx, topKnown{})
	if first.err != nil {
		return serverError(url, first.err)
	}
	m := newTopModel(ctx, eye, url, o.every, a.colored(a.stdout))
	m.take(first)
	_, err := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(a.stdin), tea.WithOutput(a.stdout),
		tea.WithEnvironment(a.terminalEnv()), tea.WithoutSignalHandler()).Run()
	if ctx.Err() != nil {
		return nil // Ctrl-C is how one leaves
	}
	return err
}

// topPlain prints the table again and again, until ctx ends.
func (a *app) topPlain(ctx context.Context, url string, every time.Duration) error {
	for first := true; ; first = false {
		err := a.status(ctx, url)
		if e := classify(err); err != nil && !e.quiet {
			if first || e.exit == exitUsage {
				return err // most likely a wrong address
			}
			if ctx.Err() == nil {
				a.note("%s  %s", time.Now().Format(time.TimeOnly), e.msg)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(every):
		}
		if _, err := fmt.Fprintln(a.stdout); err != nil {
			return err
		}
	}
}

// terminalEnv is the environment from which the colours of the terminal are
// told. Whether there are any at all has been decided by --color and NO_COLOR.
func (a *app) terminalEnv() []string {
	env := slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "NO_COLOR=") })
	if !a.colored(a.stdout) {
		env = append(env, "NO_COLOR=1")
	}
	return env
}

// notServer says that url cannot be asked.
func notServer(url string) error {
	return usageError("for example http://127.0.0.1:8000, or 127.0.0.1:8000", "%q is not the URL of a server", url)
}

// A topKnown is what the screen has already, so that it is not asked for again.
type topKnown struct {
	elements *topElements
	notUntil time.Time // elements are not read again before
}

// A topLook is what one look at the server found.
type topLook struct {
	at       time.Time
	cluster  httpapi.ClusterReply
	elements *topElements // may be those that were known
	notUntil time.Time
	err      error // the server did not answer
}

// A topEye looks. It asks the given server and nobody else: a token must not
// go to the addresses that a server names.
type topEye struct {
	client  *httpapi.Client
	timeout time.Duration
}

const (
	// topElementsMost is the number of elements that are read, from the
	// beginning of the list; more cannot be told apart on a screen.
	topElementsMost = 20_000
	// topElementsShare: reading the elements, for which the server reads its
	// log, takes at most one part in this many of the time.
	topElementsShare = 10
)

func (e *topEye) look(ctx context.Context, known topKnown) topLook {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	l := topLook{at: time.Now(), elements: known.elements, notUntil: known.notUntil}
	if l.cluster, l.err = e.client.Cluster(ctx); l.err != nil {
		return l
	}
	if len(l.cluster.Actors) == 0 {
		l.err = errors.New("its answer names no actor")
		return l
	}
	start := time.Now()
	if start.Before(known.notUntil) {
		return l
	}
	var digest = l.elements.digest()
	reply, err := e.client.Elements(ctx, digest, topElementsMost)
	if err == nil && reply != nil {
		l.elements, err = newTopElements(reply)
	}
	if err != nil { // the strips stay as they were; the verdict is what counts
		l.elements = known.elements
	}
	now := time.Now()
	l.notUntil = now.Add((topElementsShare - 1) * now.Sub(start))
	return l
}

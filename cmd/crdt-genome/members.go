package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"crdt-genome/httpapi"
	"crdt-genome/httpapi/membership"
)

func newMembersCmd(a *app) *cobra.Command {
	var server string
	cmd := &cobra.Command{
		Use:   "members [SERVER]",
		Short: "Who the members of the group are, and who left or failed",
		Long: `Asks one server which processes form the group, as it knows them. A member
leaves when it is stopped, and fails when it does not answer, say the others
too. Exit code 0: all live, 2: some have failed lately, or another process
claims an actor of the server's.`,
		Example: `  crdt-genome members
  crdt-genome members http://127.0.0.1:8002
  crdt-genome members --json | jq -r '.members[].url'`,
		Args: wantArgs(0, 1, "at most one server"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				server = args[0]
			}
			return a.members(cmd.Context(), a.serverURL(server))
		},
	}
	cmd.Flags().StringVar(&server, "server", defaultServer, "URL of any one actor")
	return cmd
}

func (a *app) members(ctx context.Context, url string) error {
	if !isURL(url) {
		return usageError("", "%s is not the URL of a server", url)
	}
	ctx, cancel := context.WithTimeout(ctx, a.opts.timeout)
	defer cancel()
	r, err := a.client(url).Members(ctx)
	if err != nil {
		return serverError(url, err)
	}
	code, sentence := judgeMembers(r)
	if a.opts.json {
		if err := a.printJSON(r); err != nil {
			return err
		}
		return exitWith(code)
	}
	t := newTable("MEMBER", "ACTORS", "STATE", "FOR", "URL", "GOSSIP")
	for _, m := range append(r.Members, r.Gone...) {
		name, _, _ := strings.Cut(m.Name, "@")
		if m.Self {
			name += " (asked)"
		}
		t.row(name, m.Actors.String(), m.State, ago(time.Since(m.Since)), m.URL, m.Addr)
	}
	if err := t.print(a.stdout); err != nil {
		return err
	}
	fmt.Fprintln(a.stdout, sentence)
	return exitWith(code)
}

// judgeMembers sums up: is everybody there?
func judgeMembers(r httpapi.MembersReply) (code int, sentence string) {
	live, actors, failed := 0, uint64(0), 0
	for _, m := range append(r.Members, r.Gone...) {
		switch m.State {
		case membership.Alive:
			live++
			actors += m.Actors.Len()
		case membership.Dead:
			failed++
		}
	}
	sentence = fmt.Sprintf("%s, %s", plural(uint64(live), "member"), plural(actors, "actor"))
	if failed > 0 {
		code = exitUndecided
		sentence += fmt.Sprintf("; %d failed", failed)
	}
	for _, m := range r.Rivals {
		code = exitUndecided
		sentence += fmt.Sprintf("; %s claims an actor of this one", m.URL)
	}
	return code, sentence
}

package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rs/zerolog"

	"crdt-genome/cmd/internal/fleet"
	"crdt-genome/httpapi"
	"crdt-genome/httpapi/trust"
	"crdt-genome/httpapi/trust/trusttest"
)

// TestCertifiedFleet runs a group that shows certificates at both ends. One of
// them has an expired one and is not let in until that is replaced, for which
// no process has to be restarted.
func TestCertifiedFleet(t *testing.T) {
	dir := t.TempDir()
	ca := trusttest.NewAuthority(t, dir, "ca")
	good, mine := ca.Issue("good", trusttest.Options{}), ca.Issue("mine", trusttest.Options{Expired: true})
	other := trusttest.NewAuthority(t, dir, "other")
	stranger := other.Issue("stranger", trusttest.Options{})

	certify := func(p trusttest.Pair) []string {
		return []string{"--tls-ca", ca.Cert, "--tls-cert", p.Cert, "--tls-key", p.Key}
	}
	member, err := trust.Load(trust.Files{CA: ca.Cert, Cert: good.Cert, Key: good.Key})
	if err != nil {
		t.Fatal(err)
	}
	f := newGroup(t, fleet.Config{Count: 3, Args: append(quick, certify(good)...), Trust: member})
	a := f.Actors()
	start(t, a[0], a[1])
	if err := a[2].Start(t.Context(), certify(mine)...); err != nil {
		t.Fatal(err)
	}
	waitOps(t, a[0], 10)

	// Those whose certificate is sound converge; they do not believe the third.
	status := func(args ...string) (string, int) {
		cmd := exec.CommandContext(t.Context(), program(t), append([]string{"status"}, args...)...)
		out, err := cmd.CombinedOutput()
		if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
			t.Fatal(exit)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	asMember := append([]string{a[0].URL()}, certify(good)...)
	var out string
	if !poll(func() bool { out, _ = status(asMember...); return strings.Contains(out, "certificate has expired") }) {
		t.Fatalf("the expired certificate is not named:\n%s", out)
	}

	// Strangers get nothing.
	for what, args := range map[string][]string{
		"no certificate":       {a[0].URL(), "--tls-ca", ca.Cert},
		"another certificate":  {a[0].URL(), "--tls-ca", ca.Cert, "--tls-cert", stranger.Cert, "--tls-key", stranger.Key},
		"an unknown authority": {a[0].URL(), "--tls-ca", other.Cert, "--tls-cert", stranger.Cert, "--tls-key", stranger.Key},
	} {
		if out, code := status(args...); code != exitServer {
			t.Errorf("%s: exit %d, want %d:\n%s", what, code, exitServer, out)
		}
	}

	// A new certificate in place of the old one, and SIGHUP.
	ca.Issue("mine", trusttest.Options{})
	if err := a[2].Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	d := settle(t, f, certify(good)...)
	if d.Ops < 10 {
		t.Errorf("%d ops, want the ones of the first two at least", d.Ops)
	}
}

// TestRunWithTrust takes the flags of trust through run to its actors.
func TestRunWithTrust(t *testing.T) {
	dir := t.TempDir()
	ca := trusttest.NewAuthority(t, dir, "ca")
	cert := ca.Issue("all", trusttest.Options{})
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte("a-token-of-some-length\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, program(t), "run", "--count", "3", "--base", "0", "--data", filepath.Join(dir, "data"), "--ops", "30", "--mutate-max", "100ms",
		"--tls-ca", ca.Cert, "--tls-cert", cert.Cert, "--tls-key", cert.Key, "--auth-token-file", token).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "\nCONVERGED  3 of 3") || !strings.Contains(string(out), "https://127.0.0.1:") {
		t.Errorf("run: %v\n%s", err, out)
	}
}

// TestOtherToken: an actor with another token than its peers is told so, and
// counts as unreachable, which is never a match.
func TestOtherToken(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ours, theirs := write("ours", "a-token-of-some-length"), write("theirs", "something-else-of-the-kind")
	member, err := trust.Load(trust.Files{Token: ours})
	if err != nil {
		t.Fatal(err)
	}
	f := newGroup(t, fleet.Config{Count: 2, Args: append(quick, "--auth-token-file", ours), Trust: member})
	a := f.Actors()
	start(t, a[0])
	if err := a[1].Start(t.Context(), "--auth-token-file", theirs); err != nil {
		t.Fatal(err)
	}
	var c httpapi.ClusterReply
	if !poll(func() bool {
		var err error
		c, err = a[0].Client().Cluster(t.Context())
		return err == nil && len(c.Actors) == 2 && strings.Contains(c.Actors[1].Error, "not_a_member")
	}) {
		t.Fatalf("actor 0 sees %+v", c.Actors)
	}
	if s := c.Actors[1].State; s != httpapi.StateUnreachable {
		t.Errorf("state %s, want %s", s, httpapi.StateUnreachable)
	}
}

// TestHangupWhileStopping: a reload that comes when the actor is stopping does
// not end the process. If it did, this one would be gone.
func TestHangupWhileStopping(t *testing.T) {
	t.Cleanup(func() { signal.Reset(syscall.SIGHUP) })
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("a-token-of-some-length"), 0o600); err != nil {
		t.Fatal(err)
	}
	tr, err := trust.Load(trust.Files{Token: token})
	if err != nil {
		t.Fatal(err)
	}
	reloadOnHangup(zerolog.Nop(), reloads(tr, nil)...)()
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

package main

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"crdt-genome/cmd/internal/fleet"
	"crdt-genome/genome"
	"crdt-genome/httpapi"
	"crdt-genome/store"
	"crdt-genome/store/signed"
)

// command runs the program and returns what it prints and its exit code.
func command(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program(t), args...)
	b, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(exit, err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

// keysOf makes keys for actors and returns their lines of the roster.
func keysOf(t *testing.T, data, actors string) string {
	t.Helper()
	out, code := command(t, "key", "--actors", actors, "--data", data)
	if code != exitOK {
		t.Fatalf("key: exit %d\n%s", code, out)
	}
	return out
}

func writeRoster(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// flip changes the first gene of the last insert of each author in a batch, and
// leaves the signed points as they are.
func flip(b *signed.Batch) {
	met := map[genome.ReplicaID]bool{}
	for i := range slices.Backward(b.Ops) {
		op := &b.Ops[i]
		if r := op.Dot.Replica; op.Kind == genome.Insert && !met[r] {
			met[r] = true
			op.Genes = append([]byte{op.Genes[0] ^ 1}, op.Genes[1:]...)
		}
	}
	b.Heads = nil
}

// forgingProxy passes everything on to to, and changes the ops of each POST and
// of each pull while it forges.
func forgingProxy(t *testing.T, to string, forges *atomic.Bool, forged *atomic.Int64) string {
	t.Helper()
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	change := func(body []byte) []byte {
		b, err := signed.DecodeBatch(body, genome.MaxBatchOps)
		if err != nil || len(b.Ops) == 0 || !forges.Load() {
			return body
		}
		flip(&b)
		forged.Add(1)
		if out, err := signed.AppendBatch(nil, b); err == nil {
			return out
		}
		return body
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			if p.In.Method == http.MethodPost && p.In.URL.Path == "/genome" {
				body, _ := io.ReadAll(p.In.Body) // what is cut off is refused
				body = change(body)
				p.Out.Body, p.Out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			}
		},
		ModifyResponse: func(r *http.Response) error {
			if !strings.HasPrefix(r.Request.URL.Path, "/v1/ops") {
				return nil
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			body = change(body)
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			r.Header.Set("Content-Length", strconv.Itoa(len(body)))
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	srv := httptest.NewServer(proxy)
	t.Cleanup(srv.Close)
	return srv.URL
}

// TestSignedFleet: three actors sign, and whatever stands between two of them
// changes ops. Nobody takes one of those, and when it stops all become equal;
// after a kill and a restart too. A fourth is heard when the roster knows it.
func TestSignedFleet(t *testing.T) {
	var forges atomic.Bool
	var forged atomic.Int64
	forges.Store(true)
	proxies := map[int]string{}
	var f *fleet.Fleet
	roster := filepath.Join(t.TempDir(), "roster")
	args := append(slices.Clone(quick), "--sign", "--roster", roster)
	f = newGroup(t, fleet.Config{Count: 4, Args: args, Peers: func(from, to int) string {
		if from+to != 1 { // only between 0 and 1
			return ""
		}
		if proxies[to] == "" {
			proxies[to] = forgingProxy(t, f.Actor(to).URL(), &forges, &forged)
		}
		return proxies[to]
	}})
	a := f.Actors()
	data := filepath.Dir(a[0].Dir)
	known := keysOf(t, data, "0-2")
	if again := keysOf(t, data, "0-2"); again != known {
		t.Fatalf("another key the second time:\n%s\n%s", known, again)
	}
	writeRoster(t, roster, known)

	// Without a key, or with one that the roster has not, an actor does not start.
	for what, want := range map[string]string{"no key": "actor 3 has no key", "not in the roster": "the roster has not the key of this actor"} {
		err := a[3].Start(t.Context())
		if exit, ok := errors.AsType[*fleet.ExitError](err); !ok || exit.Code != exitUsage || !strings.Contains(exit.Text, want) {
			t.Fatalf("%s: %v", what, err)
		}
		keysOf(t, data, "3")
	}

	start(t, a[:3]...)
	for i := range 3 {
		waitOps(t, a[i], 20)
	}
	rejected := func(a *fleet.Actor) string {
		resp, err := http.Get(a.URL() + "/metrics")
		if err != nil {
			return ""
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return string(body)
	}
	if !poll(func() bool {
		return forged.Load() > 5 && strings.Contains(rejected(a[0])+rejected(a[1]), `genome_rejected_total{code="signature_invalid"}`)
	}) {
		t.Fatalf("%d messages were changed, and nobody has refused one", forged.Load())
	}

	// A member that has a key of its own makes ops in the name of another.
	op := genome.Op{Dot: genome.Dot{Replica: digest(t, a[2]).Replica}, Genes: []byte("forged")}
	forgeries := 0
	if !poll(func() bool { // until it is quicker than a[2] itself
		op.Dot.Seq = digest(t, a[0]).VV.Get(op.Dot.Replica) + 1
		mine, err := signed.ReadKey(store.KeyPath(data, 1))
		if err != nil {
			t.Fatal(err)
		}
		c := signed.NewChain("crdt-genome", op.Dot.Replica)
		p := c.Sign(mine)
		p.Seq = op.Last()
		_, err = a[0].Client().Post(t.Context(), genome.Block{Ops: []genome.Op{op}}, p)
		refused, ok := errors.AsType[*httpapi.Problem](err)
		if ok && refused.Status == http.StatusForbidden {
			forgeries++
		} else if err == nil {
			t.Fatal("a forged op was taken")
		}
		return forgeries >= 3
	}) {
		t.Fatal("no forged op has met an actor that was not ahead")
	}

	kill(t, a[1])
	start(t, a[1])
	waitOps(t, a[1], 40)
	forges.Store(false)
	writeRoster(t, roster, known+keysOf(t, data, "3"))
	for _, x := range a[:3] {
		if err := x.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	start(t, a[3])
	fourth := digest(t, a[3]).Replica
	if !poll(func() bool { d, err := a[0].Client().Digest(t.Context()); return err == nil && d.VV.Get(fourth) > 0 }) {
		t.Fatalf("nothing of the fourth is in %v", digest(t, a[0]).VV)
	}
	settle(t, f)
	for _, x := range a {
		key := store.KeyPath(data, genome.ActorID(x.Index))
		if st, err := os.Stat(key); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", key, st.Mode(), err)
		}
	}
}

// TestRunSigned: run makes keys and roster by itself.
func TestRunSigned(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	out, code := command(t, "run", "--count", "3", "--base", "0", "--data", data, "--ops", "30", "--mutate-max", "100ms", "--sign")
	if code != exitOK || !strings.Contains(out, "\nCONVERGED  3 of 3") {
		t.Errorf("run: exit %d\n%s", code, out)
	}
	text, err := os.ReadFile(filepath.Join(data, "roster"))
	if err != nil || string(text) != keysOf(t, data, "0-2") {
		t.Errorf("roster %q, %v", text, err)
	}
}

// TestSignUsage: what is missing is named.
func TestSignUsage(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"serve", "-a", "0", "-c", "1", "-b", "0", "--data", dir, "--sign"}, "--sign and --roster FILE go together"},
		{[]string{"serve", "-a", "0", "-c", "1", "-b", "0", "--data", dir, "--roster", "x"}, "--sign and --roster FILE go together"},
		{[]string{"serve", "-a", "0", "-c", "1", "-b", "0", "--data", dir, "--sign", "--roster", filepath.Join(dir, "none")}, "--roster: open "},
		{[]string{"key", "--data", dir}, "key needs --actor or --actors"},
		{[]string{"key", "--data", dir, "--actor", "0", "--actors", "0-2"}, "key needs --actor or --actors"},
		{[]string{"key", "--data", dir, "--actors", "x"}, "--actors x: "},
	} {
		if out, code := command(t, c.args...); code != exitUsage || !strings.Contains(out, c.want) {
			t.Errorf("%q: exit %d, want %d and %q\n%s", c.args, code, exitUsage, c.want, out)
		}
	}
	if out, code := command(t, "key", "--actor", "4", "--data", dir, "--json"); code != exitOK || !strings.HasPrefix(out, `{"actor":4,"key":"`) {
		t.Errorf("exit %d: %s", code, out)
	}
}

package trust_test

import (
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"crdt-genome/httpapi/trust"
	"crdt-genome/httpapi/trust/trusttest"
)

const token = "a-token-of-some-length"

func load(t *testing.T, f trust.Files) *trust.Trust {
	t.Helper()
	tr, err := trust.Load(f)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func tokenFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A server answers 204 to who is let in.
type server struct{ url string }

func serve(t *testing.T, tr *trust.Trust) server {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch err := tr.Admit(r); {
		case errors.Is(err, trust.ErrMissing):
			w.WriteHeader(http.StatusUnauthorized)
		case err != nil:
			w.WriteHeader(http.StatusForbidden)
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	}))
	addr := srv.Listener.Addr().String()
	srv.Listener = tr.Listener(srv.Listener)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // of refused handshakes
	srv.Start()
	t.Cleanup(srv.Close)
	return server{tr.Scheme() + "://" + addr}
}

// get asks as who would, and returns the status, or 0 and why there is none.
func (s server) get(t *testing.T, who *trust.Trust, change func(*http.Request)) (int, error) {
	t.Helper()
	transport := &http.Transport{DialContext: trusttest.Dial, DisableKeepAlives: true}
	who.Configure(transport, time.Minute)
	req, err := http.NewRequest(http.MethodGet, s.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	who.Authorize(req.Header)
	if change != nil {
		change(req)
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, nil
}

func (s server) want(t *testing.T, what string, status int, who *trust.Trust, change func(*http.Request)) {
	t.Helper()
	if got, err := s.get(t, who, change); err != nil || got != status {
		t.Errorf("%s: %d, %v; want %d", what, got, err, status)
	}
}

func TestNobodyIsKeptOutWithoutFiles(t *testing.T) {
	none := load(t, trust.Files{})
	if none != nil || none.TLS() || none.Closed() || none.Scheme() != "http" {
		t.Fatalf("no files: %v", none)
	}
	serve(t, none).want(t, "anybody", 204, nil, nil)
}

func TestToken(t *testing.T) {
	path := tokenFile(t, token+"\n")
	tr := load(t, trust.Files{Token: path})
	s := serve(t, tr)
	header := func(v string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", v) }
	}
	s.want(t, "a member", 204, tr, nil)
	s.want(t, "lower case", 204, nil, header("bearer "+token))
	s.want(t, "a browser", 204, nil, func(r *http.Request) { r.SetBasicAuth("me", token) })
	s.want(t, "a stranger", 401, nil, nil)
	s.want(t, "another scheme", 401, nil, header("Digest "+token))
	for _, wrong := range []string{"x", token + "x", token[1:], strings.ToUpper(token)} {
		s.want(t, "token "+wrong, 403, nil, header("Bearer "+wrong))
	}
	s.want(t, "a wrong password", 403, nil, func(r *http.Request) { r.SetBasicAuth("me", "wrong") })

	// While it is changed both are taken, then only the new one.
	const next = "another-token-of-some-length"
	rewrite := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := tr.Reload(); err != nil {
			t.Fatal(err)
		}
	}
	rewrite(next + "\n" + token + "\n")
	s.want(t, "the old one in a change", 204, nil, header("Bearer "+token))
	s.want(t, "the new one in a change", 204, nil, header("Bearer "+next))
	s.want(t, "the first is sent", 204, tr, nil)
	rewrite(next)
	s.want(t, "the old one after it", 403, nil, header("Bearer "+token))

	// A file that is wrong changes nothing.
	for _, wrong := range []string{"", "\n\n", "short", "with spaces in it, and long", strings.Repeat("x", 1025), strings.Repeat(token+"\n", 17), "ümläuts-are-not-for-headers"} {
		if err := os.WriteFile(path, []byte(wrong), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := tr.Reload(); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("token file %.20q: %v", wrong, err)
		}
		s.want(t, "after a bad reload", 204, tr, nil)
	}
}

func TestCertificates(t *testing.T) {
	dir := t.TempDir()
	ca := trusttest.NewAuthority(t, dir, "ours")
	other := trusttest.NewAuthority(t, dir, "other")
	cert := ca.Issue("server", trusttest.Options{})
	member := ca.Issue("member", trusttest.Options{})
	expired := ca.Issue("expired", trusttest.Options{Expired: true})
	foreign := other.Issue("foreign", trusttest.Options{})

	tr := load(t, trust.Files{Cert: cert.Cert, Key: cert.Key, CA: ca.Cert})
	s := serve(t, tr)
	if !strings.HasPrefix(s.url, "https://") || !tr.Closed() {
		t.Fatalf("%s, closed %t", s.url, tr.Closed())
	}
	s.want(t, "a member", 204, load(t, trust.Files{Cert: member.Cert, Key: member.Key, CA: ca.Cert}), nil)
	s.want(t, "no certificate", 401, load(t, trust.Files{CA: ca.Cert}), nil)
	s.want(t, "one of another authority, which is not even sent", 401, load(t, trust.Files{Cert: foreign.Cert, Key: foreign.Key, CA: ca.Cert}), nil)
	for _, c := range []struct {
		what string
		who  trust.Files
		says string
	}{
		{"expired", trust.Files{Cert: expired.Cert, Key: expired.Key, CA: ca.Cert}, "tls"},
		{"a caller that does not trust us", trust.Files{Cert: member.Cert, Key: member.Key, CA: other.Cert}, "unknown authority"},
	} {
		status, err := s.get(t, load(t, c.who), nil)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %d, %v; want an error with %q", c.what, status, err, c.says)
		}
	}

	// A server under a wrong name, and an expired one, are not believed.
	client := load(t, trust.Files{Cert: member.Cert, Key: member.Key, CA: ca.Cert})
	for name, opts := range map[string]trusttest.Options{"wrong name": {Host: "elsewhere.example"}, "expired server": {Expired: true}} {
		bad := ca.Issue(strings.ReplaceAll(name, " ", "-"), opts)
		s := serve(t, load(t, trust.Files{Cert: bad.Cert, Key: bad.Key, CA: ca.Cert}))
		if status, err := s.get(t, client, nil); err == nil {
			t.Errorf("%s: answered %d", name, status)
		}
	}
}

// A certificate or the token: either lets in.
func TestEitherIsEnough(t *testing.T) {
	dir := t.TempDir()
	ca := trusttest.NewAuthority(t, dir, "ca")
	cert, member := ca.Issue("server", trusttest.Options{}), ca.Issue("member", trusttest.Options{})
	path := tokenFile(t, token)
	s := serve(t, load(t, trust.Files{Cert: cert.Cert, Key: cert.Key, CA: ca.Cert, Token: path}))
	s.want(t, "token", 204, load(t, trust.Files{CA: ca.Cert, Token: path}), nil)
	s.want(t, "certificate", 204, load(t, trust.Files{Cert: member.Cert, Key: member.Key, CA: ca.Cert}), nil)
	s.want(t, "neither", 401, load(t, trust.Files{CA: ca.Cert}), nil)
	s.want(t, "wrong token", 403, load(t, trust.Files{CA: ca.Cert, Token: tokenFile(t, "another-token-of-some-length")}), nil)
}

// New connections use new files, without a restart.
func TestCertificateIsReplaced(t *testing.T) {
	dir := t.TempDir()
	ca := trusttest.NewAuthority(t, dir, "ca")
	cert := ca.Issue("server", trusttest.Options{Serial: 11})
	tr := load(t, trust.Files{Cert: cert.Cert, Key: cert.Key})
	if tr.Closed() {
		t.Error("a certificate alone keeps nobody out")
	}
	s := serve(t, tr)
	serial := func() int64 {
		t.Helper()
		c, err := tls.Dial("tcp", strings.TrimPrefix(s.url, "https://"), &tls.Config{RootCAs: ca.Pool(), ServerName: "127.0.0.1"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	if got := serial(); got != 11 {
		t.Fatalf("serial %d, want 11", got)
	}
	ca.Issue("server", trusttest.Options{Serial: 12}) // the same files
	if got := serial(); got != 11 {
		t.Fatalf("serial %d before the reload, want 11", got)
	}
	if err := tr.Reload(); err != nil {
		t.Fatal(err)
	}
	if got := serial(); got != 12 {
		t.Errorf("serial %d after the reload, want 12", got)
	}
	if err := os.WriteFile(cert.Key, []byte("not a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := tr.Reload(); err == nil {
		t.Error("a broken key was taken")
	}
	if got := serial(); got != 12 {
		t.Errorf("serial %d after a bad reload, want 12", got)
	}
}

func TestWrongFiles(t *testing.T) {
	dir := t.TempDir()
	ca := trusttest.NewAuthority(t, dir, "ca")
	a, b := ca.Issue("a", trusttest.Options{}), ca.Issue("b", trusttest.Options{})
	big := filepath.Join(dir, "big")
	if err := os.WriteFile(big, make([]byte, 1<<20+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, f := range []trust.Files{
		{Cert: a.Cert}, {Key: a.Key}, {Cert: a.Cert, Key: b.Key}, {Cert: a.Key, Key: a.Key},
		{Cert: filepath.Join(dir, "none"), Key: a.Key}, {Cert: a.Cert, Key: filepath.Join(dir, "none")},
		{CA: a.Key}, {CA: filepath.Join(dir, "none")}, {CA: big}, {Token: big}, {Token: dir},
	} {
		if _, err := trust.Load(f); err == nil {
			t.Errorf("%+v was taken", f)
		}
	}
}

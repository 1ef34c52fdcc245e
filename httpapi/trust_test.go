package httpapi

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"crdt-genome/genome"
	"crdt-genome/httpapi/trust"
	"crdt-genome/httpapi/trust/trusttest"
	"crdt-genome/store"
)

func writeToken(t testing.TB, token string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func loadTrust(t testing.TB, f trust.Files) *trust.Trust {
	t.Helper()
	tr, err := trust.Load(f)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// TestBindWithTrust: an address that others reach needs no Insecure if there
// is a token or TLS. Every route but the bare probes then keeps strangers out.
func TestBindWithTrust(t *testing.T) {
	token := loadTrust(t, trust.Files{Token: writeToken(t, "a-token-of-some-length")})
	n := alone(t, func(c *Config) { c.Listen, c.Trust, c.AllowHosts = "0.0.0.0:0", token, nil })
	for _, r := range n.routes() {
		method, path := r.split()
		want := http.StatusUnauthorized
		if probes[path] {
			want = http.StatusOK
		}
		a := ask(t, n, method, path, nil, "Host", "any.example")
		if a.status != want && !(probes[path] && a.status == http.StatusServiceUnavailable) {
			t.Errorf("%s by a stranger: %d, want %d", r.pattern, a.status, want)
		}
		for name := range a.header {
			if strings.HasPrefix(name, "Genome-") && name != headerProtocol {
				t.Errorf("%s tells a stranger %s: %s", r.pattern, name, a.header.Get(name))
			}
		}
		if !probes[path] {
			continue
		}
		if a := ask(t, n, method, path+"?verbose", nil); a.status != http.StatusUnauthorized {
			t.Errorf("%s?verbose by a stranger: %d, want 401", r.pattern, a.status)
		}
	}
	for _, path := range []string{"/livez", "/readyz", "/healthz"} { // says that it is an older process of this very actor
		ask(t, n, "GET", path, nil, "Genome-Protocol", protocol, "Genome-Actor", "0", "Genome-Boot", "000000000001-0000000000000001")
	}
	if by := n.fencedBy(); by != "" {
		t.Errorf("a stranger's probe has stopped minting: %s", by)
	}
	n.heart.beat(time.Now().Add(-time.Hour)) // something is wrong; the next beat is seconds away
	if a := ask(t, n, "GET", "/livez", nil); a.status == http.StatusServiceUnavailable && a.body != "livez check failed\n" {
		t.Errorf("a stranger learns what is wrong: %s", a.body)
	}
	a := ask(t, n, "GET", "/genome", nil)
	if got := a.header.Values("WWW-Authenticate"); len(got) != 2 {
		t.Errorf("WWW-Authenticate: %q, want Bearer and Basic", got)
	}
	if a := ask(t, n, "GET", "/genome", nil, "Authorization", "Bearer a-token-of-some-length"); a.status != 200 || a.header.Get(headerBoot) == "" {
		t.Errorf("with the token: %d, want 200; %v", a.status, a.header)
	}

	dir := t.TempDir()
	cert := trusttest.NewAuthority(t, dir, "ca").Issue("n", trusttest.Options{})
	open, err := Start(ctx, Config{Store: store.Config{Data: t.TempDir()}, Listen: "0.0.0.0:0", Mutate: MutateConfig{Off: true},
		Trust: loadTrust(t, trust.Files{Cert: cert.Cert, Key: cert.Key})})
	if err != nil {
		t.Fatalf("with TLS: %v", err)
	}
	if err := open.Close(ctx); err != nil {
		t.Error(err)
	}
}

// BenchmarkPostTrust is what TLS and certificates cost a POST of one op, both
// ends in this process; connections are kept, as between peers.
func BenchmarkPostTrust(b *testing.B) {
	dir := b.TempDir()
	ca := trusttest.NewAuthority(b, dir, "ca")
	cert := ca.Issue("n", trusttest.Options{})
	for name, files := range map[string]trust.Files{
		"plain": {},
		"token": {Token: writeToken(b, "a-token-of-some-length")},
		"mtls":  {Cert: cert.Cert, Key: cert.Key, CA: ca.Cert},
	} {
		b.Run(name, func(b *testing.B) {
			t := loadTrust(b, files)
			n, err := Start(ctx, Config{Store: store.Config{Data: b.TempDir()}, Listen: "127.0.0.1:0", Mutate: MutateConfig{Off: true}, Trust: t})
			if err != nil {
				b.Fatal(err)
			}
			defer n.Close(ctx)
			c := NewTrustedClient(n.URL(), t)
			from := genome.New(genome.NewReplicaID(7, 1))
			seq := 0
			start := cpuTime()
			for b.Loop() {
				op, err := from.Insert(seq, []byte{byte(seq)})
				if err != nil {
					b.Fatal(err)
				}
				seq++
				if r, err := c.Post(ctx, genome.Block{Ops: []genome.Op{op}}); err != nil || r.Applied != 1 {
					b.Fatal(r, err)
				}
			}
			b.ReportMetric(float64((cpuTime()-start).Microseconds())/float64(seq), "cpu-µs/op")
			if got, err := c.Genome(ctx); err != nil || len(got) != 2*seq {
				b.Fatalf("%d genes in the end, want %d; %v", len(got)/2, seq, err)
			}
		})
	}
}

// cpuTime is what this process has used so far.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

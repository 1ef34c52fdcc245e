package scripts

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"crdt-genome/httpapi/trust"
)

// TestCerts makes an authority and certificates, which must fit together.
func TestCerts(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("openssl is not installed")
		}
		t.Skip("openssl is not installed")
	}
	dir := filepath.Join(t.TempDir(), "certs")
	run := func(code int, args ...string) {
		t.Helper()
		cmd := exec.Command("./certs.sh", args...)
		if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != code {
			t.Fatalf("certs.sh %q: exit %d, want %d\n%s", args, cmd.ProcessState.ExitCode(), code, out)
		}
	}
	run(64)
	run(0, dir)
	run(0, dir, "actor-0", "127.0.0.1", "::1", "localhost")
	run(64, dir, "actor-1")
	file := func(name string) string { return filepath.Join(dir, name) }
	tr, err := trust.Load(trust.Files{Cert: file("actor-0.pem"), Key: file("actor-0.key"), CA: file("ca.pem"), Token: file("token")})
	if err != nil || !tr.TLS() || !tr.Closed() || !tr.HasToken() {
		t.Fatalf("%v, %v", tr, err)
	}
	out, err := exec.Command("openssl", "verify", "-CAfile", file("ca.pem"), "-purpose", "sslserver", "-verify_ip", "127.0.0.1", file("actor-0.pem")).CombinedOutput()
	if err != nil {
		t.Errorf("openssl verify: %v\n%s", err, out)
	}
	run(0, dir, "actor-0", "localhost") // again
	if err := tr.Reload(); err != nil {
		t.Error(err)
	}
}

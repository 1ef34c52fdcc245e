package trust_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"testing"

	"crdt-genome/httpapi/trust"
	"crdt-genome/httpapi/trust/trusttest"
)

// When the authority was replaced, who has a certificate of the old one does
// not get in any more: neither by resuming an earlier session, with a ticket,
// nor over a connection that is still open.
func TestOldAuthorityIsOut(t *testing.T) {
	dir := t.TempDir()
	old, next := trusttest.NewAuthority(t, dir, "old"), trusttest.NewAuthority(t, dir, "next")
	cert, member := old.Issue("server", trusttest.Options{}), old.Issue("member", trusttest.Options{})
	authority := dir + "/authority.pem"
	take := func(a *trusttest.Authority) {
		t.Helper()
		pem, err := os.ReadFile(a.Cert)
		if err == nil {
			err = os.WriteFile(authority, pem, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	take(old)
	tr := load(t, trust.Files{Cert: cert.Cert, Key: cert.Key, CA: authority})
	s := serve(t, tr)
	pair, err := tls.LoadX509KeyPair(member.Cert, member.Key)
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		name := tls.VersionName(version)
		take(old)
		if err := tr.Reload(); err != nil {
			t.Fatal(err)
		}
		conf := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: version, MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(4),
			// whatever authorities the server names
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }}
		conf.RootCAs = old.Pool()
		open := &http.Client{Transport: &http.Transport{TLSClientConfig: conf}}
		fresh := &http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
		get := func(c *http.Client) (int, bool) {
			t.Helper()
			resp, err := c.Get(s.url)
			if err != nil {
				return 0, false
			}
			defer resp.Body.Close()
			_, _ = io.Copy(io.Discard, resp.Body) // a ticket comes behind the handshake
			return resp.StatusCode, resp.TLS.DidResume
		}
		for range 2 {
			if status, resumed := get(fresh); status != http.StatusNoContent || resumed {
				t.Fatalf("%s: %d for a member, resumed %t", name, status, resumed)
			}
		}
		if status, _ := get(open); status != http.StatusNoContent {
			t.Fatalf("%s: %d for a member", name, status)
		}
		take(next)
		if err := tr.Reload(); err != nil {
			t.Fatal(err)
		}
		if status, resumed := get(fresh); status == http.StatusNoContent || resumed {
			t.Errorf("%s: %d over a new connection, resumed %t", name, status, resumed)
		}
		if status, _ := get(open); status == http.StatusNoContent {
			t.Errorf("%s: let in over a connection that was open", name)
		}
		open.CloseIdleConnections()
	}
}

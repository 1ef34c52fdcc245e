// Package trust is who may speak to an actor, and how the actor shows others
// that it is one of them: TLS, client certificates and bearer tokens, read from
// files that can be replaced while it runs.
//
//	--tls-cert, --tls-key     this end's certificate: a server speaks TLS with it,
//	                          and shows it to the servers that it calls
//	--tls-ca                  the authority of the group: servers called must have a
//	                          certificate of it, and callers that show one are let in
//	--auth-token-file         a secret of the group, one a line: the first is sent,
//	                          each is accepted, so that it can be changed actor by actor
//
// With an authority or a token a request is let in if it comes with a
// certificate of the authority or with one of the tokens: either is enough, so
// that actors can use certificates and people with a browser the token. With
// neither, everybody is let in.
//
// A token is sent as "Authorization: Bearer TOKEN" (RFC 6750). Browsers, which
// cannot do that by themselves, may send it as the password of any user
// (RFC 7617). Without TLS it can be read on the way.
//
// This keeps strangers out. It does not tell members apart: whoever has the
// token or a certificate may send ops of any replica, unless ops are signed
// (package store/signed).
package trust

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Bounds of the files.
const (
	maxFile   = 1 << 20 // bytes of one file; an authority may be a bundle
	maxTokens = 16      // old ones are there for a change only
	minToken  = 16      // bytes: shorter ones can be guessed
	maxToken  = 1024    // bytes: it is in every request's header
)

// Files are the paths of what a Trust is made of; "" is not given.
type Files struct {
	Cert, Key string // PEM; both or none
	CA        string // PEM, one or more certificates
	Token     string // text, one token a line
}

// A Trust is what the files said when they were last read. A nil *Trust is one
// of no files: plain HTTP, and everybody is let in. It is safe for concurrent
// use.
type Trust struct {
	files Files
	now   atomic.Pointer[contents]
}

// contents are one reading of the files; never changed.
type contents struct {
	server, client *tls.Config // server is nil without a certificate
	authority      bool
	roots          []*x509.Certificate // of the authority
	token          string              // sent; "" for none
	accepted       [][sha256.Size]byte // hashes, so that comparing takes one time for all
}

// Load reads the files. It returns nil if none is given.
func Load(f Files) (*Trust, error) {
	if f == (Files{}) {
		return nil, nil
	}
	t := &Trust{files: f}
	return t, t.Reload()
}

// Reload reads the files again. If one of them is wrong, all stays as it was.
// Connections that are open stay open; the next ones use what was read. But who
// has shown a certificate of an authority that is gone is not let in any more.
func (t *Trust) Reload() error {
	c, err := read(t.files)
	if err != nil {
		return err
	}
	t.now.Store(c)
	return nil
}

func read(f Files) (*contents, error) {
	c := &contents{client: &tls.Config{MinVersion: tls.VersionTLS12}}
	if (f.Cert == "") != (f.Key == "") {
		return nil, errors.New("a certificate needs its key, and a key its certificate")
	}
	if f.Cert != "" {
		cert, err := readCert(f.Cert, f.Key)
		if err != nil {
			return nil, err
		}
		c.client.Certificates = []tls.Certificate{cert}
		// No session is resumed: a ticket would speak for a certificate that
		// was checked before the files were replaced. Members keep their
		// connections anyway.
		c.server = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"},
			SessionTicketsDisabled: true}
	}
	if f.CA != "" {
		pool := x509.NewCertPool()
		var err error
		if c.roots, err = readAuthority(f.CA); err != nil {
			return nil, err
		}
		for _, root := range c.roots {
			pool.AddCert(root)
		}
		c.authority, c.client.RootCAs = true, pool
		if c.server != nil {
			c.server.ClientCAs, c.server.ClientAuth = pool, tls.VerifyClientCertIfGiven
		}
	}
	if f.Token != "" {
		tokens, err := readTokens(f.Token)
		if err != nil {
			return nil, err
		}
		c.token = tokens[0]
		for _, token := range tokens {
			c.accepted = append(c.accepted, sha256.Sum256([]byte(token)))
		}
	}
	return c, nil
}

func readCert(cert, key string) (tls.Certificate, error) {
	certPEM, err := readFile(cert)
	if err != nil {
		return tls.Certificate{}, err
	}
	keyPEM, err := readFile(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return pair, fmt.Errorf("%s with %s: %w", cert, key, err)
	}
	return pair, nil
}

func readAuthority(path string) (roots []*x509.Certificate, err error) {
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		root, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		roots = append(roots, root)
	}
	if len(roots) == 0 {
		return nil, fmt.Errorf("%s: no certificate in it", path)
	}
	return roots, nil
}

func readTokens(path string) (tokens []string, err error) {
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		token := strings.TrimSpace(line)
		if token == "" {
			continue
		}
		if len(token) < minToken || len(token) > maxToken {
			return nil, fmt.Errorf("%s: a token has %d to %d characters, not %d", path, minToken, maxToken, len(token))
		}
		if i := strings.IndexFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }); i >= 0 {
			return nil, fmt.Errorf("%s: a token has no spaces and only ASCII", path)
		}
		tokens = append(tokens, token)
	}
	if len(tokens) == 0 {
		return nil, fmt.Errorf("%s: no token in it", path)
	}
	if len(tokens) > maxTokens {
		return nil, fmt.Errorf("%s: %d tokens; at most %d", path, len(tokens), maxTokens)
	}
	return tokens, nil
}

// readFile reads at most maxFile bytes: somebody may name a device.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, maxFile)
	}
	return bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")), nil // as some editors begin a file
}

// TLS reports whether a server speaks TLS.
func (t *Trust) TLS() bool { return t != nil && t.now.Load().server != nil }

// Scheme is that of a server's own URL.
func (t *Trust) Scheme() string {
	if t.TLS() {
		return "https"
	}
	return "http"
}

// Closed reports whether strangers are kept out.
func (t *Trust) Closed() bool {
	return t != nil && (t.now.Load().authority || t.HasToken())
}

// Authority reports whether servers called must have a certificate of the
// group's authority: not of any that the machine trusts.
func (t *Trust) Authority() bool { return t != nil && t.now.Load().authority }

// HasToken reports whether there is a token.
func (t *Trust) HasToken() bool { return t != nil && t.now.Load().token != "" }

// Listener returns ln, with TLS if there is a certificate. Handshakes use the
// files as they were last read.
func (t *Trust) Listener(ln net.Listener) net.Listener {
	if !t.TLS() {
		return ln
	}
	return tls.NewListener(ln, &tls.Config{
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return t.now.Load().server, nil },
	})
}

// Configure makes tr check the servers that it calls, and show who calls.
// handshake bounds a TLS handshake.
func (t *Trust) Configure(tr *http.Transport, handshake time.Duration) {
	if t == nil {
		return
	}
	dial := tr.DialContext
	tr.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		raw, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		conf := t.now.Load().client.Clone()
		if conf.ServerName, _, err = net.SplitHostPort(addr); err != nil {
			return nil, errors.Join(err, raw.Close())
		}
		ctx, cancel := context.WithTimeout(ctx, handshake)
		defer cancel()
		c := tls.Client(raw, conf)
		if err := c.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, raw.Close())
		}
		return c, nil
	}
}

// Authorize adds the token to a request, if there is one.
func (t *Trust) Authorize(h http.Header) {
	if t.HasToken() {
		h.Set("Authorization", "Bearer "+t.now.Load().token)
	}
}

// What Admit says of a request that is not let in.
var (
	ErrMissing = errors.New("no token and no client certificate")
	ErrWrong   = errors.New("the token is not one of this group")
)

// Admit returns nil if r may be answered, ErrMissing if it says nothing of who
// sends it, and ErrWrong if what it says is not true.
func (t *Trust) Admit(r *http.Request) error {
	if !t.Closed() {
		return nil
	}
	c := t.now.Load()
	if r.TLS != nil && slices.ContainsFunc(r.TLS.VerifiedChains, c.vouches) {
		return nil
	}
	token, ok := bearer(r)
	if !ok {
		_, token, ok = r.BasicAuth()
	}
	if !ok {
		return ErrMissing
	}
	sum, found := sha256.Sum256([]byte(token)), 0
	for _, a := range c.accepted {
		found |= subtle.ConstantTimeCompare(sum[:], a[:])
	}
	if found == 0 {
		return ErrWrong
	}
	return nil
}

// vouches reports whether chain, which was checked when its connection began,
// ends at the authority of now.
func (c *contents) vouches(chain []*x509.Certificate) bool {
	return slices.ContainsFunc(c.roots, chain[len(chain)-1].Equal)
}

func bearer(r *http.Request) (token string, ok bool) {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	return strings.TrimSpace(token), ok && strings.EqualFold(scheme, "Bearer")
}

// ClientTLS returns what another client than HTTP's needs to check a server and
// to show who calls, as the files were last read; nil without a certificate and
// an authority.
func (t *Trust) ClientTLS() *tls.Config {
	if t == nil {
		return nil
	}
	c := t.now.Load()
	if !c.authority && c.server == nil {
		return nil
	}
	return c.client.Clone()
}

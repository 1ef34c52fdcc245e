package main

import (
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/rs/zerolog"
	"github.com/spf13/pflag"

	"crdt-genome/httpapi"
	"crdt-genome/httpapi/trust"
	"crdt-genome/store/signed"
)

// addTrustFlags adds the flags of package trust. They mean the same to an actor
// and to who asks one: how I show who I am, and whom I believe.
func addTrustFlags(f *pflag.FlagSet, files *trust.Files) {
	f.StringVar(&files.Cert, "tls-cert", "", "PEM file of this end's certificate; an actor then speaks TLS")
	f.StringVar(&files.Key, "tls-key", "", "PEM file of its key")
	f.StringVar(&files.CA, "tls-ca", "", "PEM file of the group's authority, for both ends of a connection")
	f.StringVar(&files.Token, "auth-token-file", "", "file with the group's secret, one a line: the first is sent, each is accepted")
}

func (a *app) loadTrust() error {
	t, err := trust.Load(a.opts.trust)
	if err != nil {
		return usageError("see --tls-cert, --tls-key, --tls-ca and --auth-token-file, or their variables CRDT_GENOME_…", "%v", err)
	}
	a.trust = t
	return nil
}

// trustArgs returns the flags again, for a child.
func (a *app) trustArgs() (args []string) {
	files := a.opts.trust
	for _, f := range []struct{ flag, path string }{
		{"--tls-cert", files.Cert}, {"--tls-key", files.Key}, {"--tls-ca", files.CA}, {"--auth-token-file", files.Token},
	} {
		if f.path != "" {
			args = append(args, f.flag, f.path)
		}
	}
	return args
}

func (a *app) client(url string) *httpapi.Client { return httpapi.NewTrustedClient(url, a.trust) }

// serverURL completes the address of a server: with an authority to check it
// by, what has no scheme speaks TLS.
func (a *app) serverURL(s string) string {
	u := serverURL(s)
	if a.opts.trust.CA != "" && (s == defaultServer || !strings.Contains(s, "://")) {
		return "https" + strings.TrimPrefix(u, "http")
	}
	return u
}

// A reload reads files again that may be replaced while an actor runs.
type reload struct {
	what string
	do   func() error
}

func reloads(t *trust.Trust, roster *signed.Roster) (all []reload) {
	if t != nil {
		all = append(all, reload{"certificates and tokens", t.Reload})
	}
	if roster != nil {
		all = append(all, reload{"roster", roster.Reload})
	}
	return all
}

// reloadOnHangup reads files again at each SIGHUP until the function
// returned is called. After that SIGHUP is ignored: a stop that takes its time
// must not be cut short by a reload that comes too late.
func reloadOnHangup(log zerolog.Logger, all ...reload) (stop func()) {
	if len(all) == 0 {
		return func() {}
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	done := make(chan struct{})
	go func() { // ends with stop
		for {
			select {
			case <-done:
				return
			case <-hangup:
			}
			for _, r := range all {
				if err := r.do(); err != nil {
					log.Error().Err(err).Str("event", "reload_failed").Msg(r.what + ": as before")
					continue
				}
				log.Info().Msg(r.what + " reloaded")
			}
		}
	}()
	return func() {
		signal.Ignore(syscall.SIGHUP) // signal.Stop would let it end the process
		close(done)
	}
}

// warnOpen says what an actor that others reach leaves open.
func warnOpen(log zerolog.Logger, o serveOptions) {
	if o.listen == "" {
		return // loopback
	}
	switch {
	case o.trust.HasToken() && !o.trust.TLS():
		log.Warn().Str("hint", "--tls-cert FILE --tls-key FILE").Msg("the token can be read on its way: no TLS")
	case o.trust.TLS() && !o.trust.Closed():
		log.Warn().Str("hint", "--tls-ca FILE, or --auth-token-file FILE").Msg("whoever reaches the port can edit the genome: no token, and no authority for certificates")
	}
}

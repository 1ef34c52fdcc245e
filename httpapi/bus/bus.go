// Package bus carries blocks of ops over NATS JetStream, for those who already
// run it. It replaces the POSTs between actors and nothing else: it may lose,
// repeat and reorder, as they may. JetStream acknowledges before it has synced
// by default, so what it acknowledged can be gone after a crash; pull, which
// compares vectors, brings what it lost.
//
//	stream   genome-<cluster>              on files, created if it is not there
//	subject  genome.<cluster>.<replica>    one for each replica, "0@5f3c1a2b"
//	message  a block as package genome encodes it, ≤ 256 KiB
//	id       <replica>.<first seq>         the server drops what comes twice within 2 minutes
//
// Each process reads all subjects with one consumer, which begins with what is
// published after it; what is older comes by pull.
package bus

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"crdt-genome/genome"
	"crdt-genome/httpapi/trust"
)

// Bounds. The stream is there for latency: what is older than its bounds, which
// drop the oldest first, is in everybody's log.
const (
	keepFor    = time.Hour        // how long the stream keeps a message
	keepBytes  = 1 << 30          // … and how much in all
	dedupFor   = 2 * time.Minute  // how long it knows a message's id
	ackTimeout = 5 * time.Second  // how long Publish waits; then it has failed
	fetchAhead = 64               // messages that are on their way to us at a time
	heartbeat  = 5 * time.Second  // a silent server counts as gone after twice this
	reconnect  = 2 * time.Second  // default of Config.Reconnect
	idleAfter  = 30 * time.Second // a consumer of a process that died is removed after this
)

// A Config says which bus. URL and Cluster are required.
type Config struct {
	URL      string       // "nats://host:4222", several with commas
	Cluster  string       // name of the group
	Replicas int          // copies of the stream in a NATS cluster, if it is to be created; default 1
	Creds    string       // file of NATS credentials; "": none
	Trust    *trust.Trust // its authority and certificate are used for tls:// URLs
	Log      zerolog.Logger

	Reconnect time.Duration // pause between two tries to reach a server; default 2s
}

// A Bus is a connection that is made again whenever it is lost. It is safe for
// concurrent use.
type Bus struct {
	cfg    Config
	nc     *nats.Conn
	js     jetstream.JetStream
	stream string
	prefix string // of subjects, with the dot
}

// Connect returns a Bus at once, whether or not a server answers yet: who
// cannot publish tries again. It fails if the configuration is wrong.
func Connect(cfg Config) (*Bus, error) {
	name := token(cfg.Cluster)
	b := &Bus{cfg: cfg, stream: "genome-" + name, prefix: "genome." + name + "."}
	opts := []nats.Option{
		nats.Name("crdt-genome"), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(cmp.Or(cfg.Reconnect, reconnect)),
		nats.ReconnectBufSize(-1),   // what cannot be sent is an error, and stays in the log
		nats.IgnoreAuthErrorAbort(), // who runs the bus may let us in again
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				cfg.Log.Warn().Err(err).Str("event", "bus_lost").Msg("bus unreachable: ops go by pull until it is back")
			}
		}),
		nats.ReconnectHandler(func(c *nats.Conn) { cfg.Log.Info().Str("server", c.ConnectedUrlRedacted()).Msg("bus back") }),
		nats.ConnectHandler(func(c *nats.Conn) { cfg.Log.Info().Str("server", c.ConnectedUrlRedacted()).Msg("bus connected") }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { cfg.Log.Debug().Err(err).Msg("bus") }),
	}
	if cfg.Creds != "" {
		opts = append(opts, nats.UserCredentials(cfg.Creds))
	}
	if strings.Contains(cfg.URL, "tls://") {
		opts = append(opts, secure(cfg.Trust)...)
	}
	nc, err := nats.Connect(cfg.URL, opts...)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // without the URL, which may hold a password
		}
		return nil, err
	}
	b.nc = nc
	if b.js, err = jetstream.New(nc); err != nil {
		nc.Close()
		return nil, err
	}
	return b, nil
}

// secure returns the options for what t has: each connection that is made uses
// its files as they were last read.
func secure(t *trust.Trust) (opts []nats.Option) {
	c := t.ClientTLS()
	if c == nil {
		return nil
	}
	if len(c.Certificates) > 0 {
		opts = append(opts, nats.ClientTLSConfig(func() (tls.Certificate, error) { return t.ClientTLS().Certificates[0], nil }, nil))
	}
	if c.RootCAs != nil {
		opts = append(opts, func(o *nats.Options) error {
			o.Secure, o.RootCAsCB = true, func() (*x509.CertPool, error) { return t.ClientTLS().RootCAs, nil }
			return nil
		})
	}
	return opts
}

// Close ends the connection; Publish and Listen fail from then on.
func (b *Bus) Close() { b.nc.Close() }

// token writes a name so that it can be part of subjects and of a stream's
// name: letters, digits, - and _ stay, any other byte becomes =XX.
func token(name string) string {
	var t strings.Builder
	for _, c := range []byte(name) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' {
			t.WriteByte(c)
			continue
		}
		fmt.Fprintf(&t, "=%02X", c)
	}
	return t.String()
}

// ensure creates the stream unless it is there. One that is there is left as
// it is: who runs the bus may have chosen other bounds.
func (b *Bus) ensure(ctx context.Context) error {
	_, err := b.js.CreateStream(ctx, jetstream.StreamConfig{
		Name: b.stream, Subjects: []string{b.prefix + ">"}, Description: "ops of the crdt-genome group " + b.cfg.Cluster,
		Storage: jetstream.FileStorage, Replicas: max(b.cfg.Replicas, 1), Discard: jetstream.DiscardOld,
		MaxAge: keepFor, MaxBytes: keepBytes, Duplicates: dedupFor,
	})
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return nil
	}
	return err
}

// Publish hands a block to the bus. first is its first dot, which names it:
// another try with the same block must give the same. nil says that the server
// has it, not that anybody else has.
func (b *Bus) Publish(ctx context.Context, first genome.Dot, block []byte) error {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	publish := func() error {
		_, err := b.js.Publish(ctx, b.prefix+first.Replica.String(), block, jetstream.WithMsgID(first.String()), jetstream.WithRetryAttempts(0))
		return err
	}
	err := publish()
	if errors.Is(err, jetstream.ErrNoStreamResponse) { // nobody takes the subject: there is no stream yet
		if err = b.ensure(ctx); err == nil {
			err = publish()
		}
	}
	return err
}

// Listen calls take with each block that comes, one after the other, until ctx
// ends or the bus fails. from is whose ops its sender says they are. Nothing
// has been checked of either.
func (b *Bus) Listen(ctx context.Context, take func(from genome.ReplicaID, block []byte)) error {
	setup, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	if err := b.ensure(setup); err != nil {
		return err
	}
	// Not one of the library's ordered consumers: those try for ever to find
	// their stream again, which nothing can end, and what they are for, to lose
	// nothing, is the task of pull.
	consumer, err := b.js.CreateConsumer(setup, b.stream, jetstream.ConsumerConfig{
		FilterSubject: b.prefix + ">", DeliverPolicy: jetstream.DeliverNewPolicy, AckPolicy: jetstream.AckNonePolicy,
		MemoryStorage: true, Replicas: 1, InactiveThreshold: idleAfter,
	})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(fetchAhead), jetstream.PullHeartbeat(heartbeat), jetstream.PullExpiry(2*heartbeat))
	if err != nil {
		return err
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		from, err := genome.ParseReplicaID(strings.TrimPrefix(m.Subject(), b.prefix))
		if err != nil {
			b.cfg.Log.Debug().Str("subject", m.Subject()).Msg("bus: a message of somebody else")
			continue
		}
		take(from, m.Data())
	}
}

package httpapi

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"crdt-genome/genome"
	"crdt-genome/httpapi/bus"
	"crdt-genome/httpapi/trust"
	"crdt-genome/httpapi/trust/trusttest"
)

// A broker is a NATS server with JetStream, or several.
type broker struct {
	t       testing.TB
	opts    []*natsserver.Options
	servers []*natsserver.Server
	trust   *trust.Trust // of the nodes; nil: none
}

// freePorts returns ports that were free a moment ago: NATS servers of a
// cluster must know each other's before they start.
func freePorts(t testing.TB, n int) (ports []int) {
	t.Helper()
	var open []net.Listener
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, ln)
		ports = append(ports, ln.Addr().(*net.TCPAddr).Port)
	}
	for _, ln := range open {
		_ = ln.Close()
	}
	return ports
}

// newBroker starts n servers; more than one form a cluster.
func newBroker(t testing.TB, n int) *broker {
	t.Helper()
	b := &broker{t: t, servers: make([]*natsserver.Server, n)}
	ports := freePorts(t, 2*n)
	var routes []*url.URL
	for i := range n {
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", ports[n+i])})
	}
	for i := range n {
		o := &natsserver.Options{ServerName: fmt.Sprintf("s%d", i), Host: "127.0.0.1", Port: ports[i], NoLog: true, NoSigs: true,
			JetStream: true, StoreDir: t.TempDir(), JetStreamMaxMemory: 64 << 20, JetStreamMaxStore: 2 << 30}
		if n > 1 {
			o.Cluster = natsserver.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: ports[n+i]}
			o.Routes = routes
		}
		b.opts = append(b.opts, o)
	}
	t.Cleanup(func() {
		for i := range b.servers {
			b.stop(i)
		}
	})
	for i := range n {
		b.start(i)
	}
	return b
}

// secure makes a broker of one server speak TLS with pair, and want
// certificates of ca, from its next start on.
func (b *broker) secure(pair trusttest.Pair, ca *trusttest.Authority) {
	b.t.Helper()
	cert, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		b.t.Fatal(err)
	}
	b.opts[0].TLS, b.opts[0].TLSVerify = true, true
	b.opts[0].TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: ca.Pool(), ClientAuth: tls.RequireAndVerifyClientCert}
}

func (b *broker) start(i int) {
	b.t.Helper()
	o := b.opts[i].Clone()
	s, err := natsserver.NewServer(o)
	if err != nil {
		b.t.Fatal(err)
	}
	b.servers[i] = s
	s.Start()
	if !s.ReadyForConnections(patience) {
		b.t.Fatal("the NATS server does not start")
	}
}

func (b *broker) stop(i int) {
	if s := b.servers[i]; s != nil {
		s.Shutdown()
		s.WaitForShutdown()
		b.servers[i] = nil
	}
}

// forget removes all that a stopped server had stored.
func (b *broker) forget(i int) {
	b.t.Helper()
	if err := os.RemoveAll(filepath.Join(b.opts[i].StoreDir, "jetstream")); err != nil {
		b.t.Fatal(err)
	}
}

func (b *broker) url() string {
	var urls []string
	for _, o := range b.opts {
		scheme := "nats"
		if o.TLSConfig != nil {
			scheme = "tls"
		}
		urls = append(urls, fmt.Sprintf("%s://127.0.0.1:%d", scheme, o.Port))
	}
	return strings.Join(urls, ",")
}

// connect returns a connection for one node.
func (b *broker) connect(replicas int) *bus.Bus {
	b.t.Helper()
	c, err := bus.Connect(bus.Config{URL: b.url(), Cluster: "crdt genome", Replicas: replicas, Trust: b.trust, Log: zerolog.Nop()})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(c.Close)
	return c
}

// edits makes every node mutate at once.
func edits(t *testing.T, l *lab, seed uint64, k int) {
	t.Helper()
	var all sync.WaitGroup
	for i, n := range l.nodes {
		all.Go(func() { mutateFor(t, n, seed+uint64(i), k) })
	}
	all.Wait()
}

// listening waits until every node hears the bus: what is published before is
// not for it.
func listening(t *testing.T, l *lab, b *broker) {
	t.Helper()
	nc, err := nats.Connect(b.url())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := nc.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		info, err := js.StreamInfo("genome-crdt=20genome")
		return err == nil && info.State.Consumers >= len(l.nodes)
	}, why("not all listen to the bus"))
}

const never = 24 * time.Hour

// With a bus no op is POSTed, and nothing else is needed while it is there:
// neither pull nor verification runs here.
func TestBusCarries(t *testing.T) {
	b := newBroker(t, 1)
	l := newLab(t, 3, func(c *Config) { c.Bus, c.PullInterval, c.VerifyInterval = b.connect(1), never, never })
	l.startAll()
	listening(t, l, b)
	edits(t, l, 1, 50)
	l.waitEqual()
	for i, n := range l.nodes { // the pulls of the start may have brought a part
		stats := n.actor.Stats().Live
		c := n.Counts()
		if c.Posts+c.PostsFailed != 0 || c.BusSent == 0 || c.BusTaken == 0 || stats.Post == 0 {
			t.Errorf("node %d: %d POSTs, %d batches published, %d taken, %d ops pushed to it", i, c.Posts, c.BusSent, c.BusTaken, stats.Post)
		}
	}
	// Anybody may still POST an op.
	if a := ask(t, l.nodes[0], "POST", "/genome", `{"Insert":{"id":"77@0000002a.1","parent":null,"side":"R","genes":"2a"}}`, "Content-Type", "application/json"); a.status != 200 {
		t.Errorf("POST: %d %s", a.status, a.body)
	}
}

// JetStream acknowledges before it has synced: here it forgets everything, in
// the middle of the work. Pull brings what it lost.
func TestBusForgets(t *testing.T) {
	b := newBroker(t, 1)
	l := newLab(t, 3, func(c *Config) { c.Bus = b.connect(1) })
	l.startAll()
	listening(t, l, b)
	for round := range uint64(3) {
		var work sync.WaitGroup
		work.Go(func() { edits(t, l, 10*round, 40) })
		b.stop(0)
		b.forget(0)
		edits(t, l, 10*round+5, 5) // while it is away
		b.start(0)
		work.Wait()
	}
	l.waitEqual()
	sent := l.nodes[0].Counts().BusSent
	edits(t, l, 100, 5) // it is used again
	eventually(t, func() bool { return l.nodes[0].Counts().BusSent > sent }, why("nothing is published any more"))
	l.waitEqual()
}

// lossyBus loses every other block that comes.
type lossyBus struct {
	Bus
	mu   sync.Mutex
	lost int
}

func (b *lossyBus) Listen(ctx context.Context, take func(genome.ReplicaID, []byte)) error {
	lose := false
	return b.Bus.Listen(ctx, func(from genome.ReplicaID, block []byte) {
		if lose = !lose; !lose {
			take(from, block)
			return
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.lost++
	})
}

func TestBusLoses(t *testing.T) {
	b := newBroker(t, 1)
	var all []*lossyBus
	l := newLab(t, 3, func(c *Config) {
		lossy := &lossyBus{Bus: b.connect(1)}
		all = append(all, lossy)
		c.Bus = lossy
	})
	l.startAll()
	listening(t, l, b)
	for round := range uint64(5) {
		edits(t, l, round, 5)
	}
	l.waitEqual()
	lost := 0
	for _, b := range all {
		b.mu.Lock()
		lost += b.lost
		b.mu.Unlock()
	}
	if lost == 0 {
		t.Error("nothing was lost: the test shows nothing")
	}
}

// What comes over the bus is believed no more than what comes by POST.
func TestBusStrangeMessages(t *testing.T) {
	b := newBroker(t, 1)
	l := newLab(t, 2, func(c *Config) { c.Bus = b.connect(1) })
	l.startAll()
	listening(t, l, b)
	nc, err := nats.Connect(b.url())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for _, m := range []struct {
		subject string
		data    []byte
	}{
		{"genome.crdt=20genome.0@00000001", nil},
		{"genome.crdt=20genome.7@00000001", []byte("hello")},
		{"genome.crdt=20genome.7@00000001", make([]byte, 512<<10)},
		{"genome.crdt=20genome.not-a-replica", []byte("hello")},
		{"genome.crdt=20genome.deep.er", []byte("hello")},
	} {
		if err := nc.Publish(m.subject, m.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, n := range l.nodes {
		eventually(t, func() bool {
			refused := uint64(0)
			for _, k := range n.Counts().Rejected {
				refused += k
			}
			return refused >= 3
		}, why("the bad messages are not counted"))
	}
	edits(t, l, 1, 20)
	l.waitEqual()
	for _, n := range l.nodes {
		if c := n.Counts(); c.Panics != 0 {
			t.Errorf("%d panics", c.Panics)
		}
	}
}

// A cluster of three NATS servers, of which one is killed: the others go on.
func TestBusClusterLosesOne(t *testing.T) {
	if testing.Short() {
		t.Skip("three NATS servers")
	}
	b := newBroker(t, 3)
	l := newLab(t, 3, func(c *Config) { c.Bus = b.connect(3) })
	l.startAll()
	listening(t, l, b)
	edits(t, l, 1, 20)
	l.waitEqual()
	sent := make([]uint64, len(l.nodes))
	for i, n := range l.nodes {
		eventually(t, func() bool { return n.Counts().BusSent > 0 }, why("nothing is published"))
		sent[i] = n.Counts().BusSent
	}
	b.stop(0)
	edits(t, l, 50, 20)
	l.waitEqual()
	for i, n := range l.nodes {
		eventually(t, func() bool { return n.Counts().BusSent > sent[i] }, why(fmt.Sprintf("node %d publishes nothing to the two servers that are left", i)))
	}
}

// publishes waits until n's ops are on the bus again.
func publishes(t *testing.T, n *Node) {
	t.Helper()
	sent := n.Counts().BusSent
	mustInsert(t, n, 0, 1)
	eventually(t, func() bool { return n.Counts().BusSent > sent }, why("nothing is published"))
}

// When the certificates of the group are replaced, the connections to the bus
// that are made from then on use the new ones.
func TestBusCertificatesAreReplaced(t *testing.T) {
	dir, b := t.TempDir(), newBroker(t, 1)
	authority := filepath.Join(dir, "ca.pem")
	issue := func(name string) (server trusttest.Pair, ca *trusttest.Authority) {
		t.Helper()
		ca = trusttest.NewAuthority(t, dir, name)
		pem, err := os.ReadFile(ca.Cert)
		if err == nil {
			err = os.WriteFile(authority, pem, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		ca.Issue("node", trusttest.Options{}) // the same files each time
		return ca.Issue("nats", trusttest.Options{}), ca
	}
	restart := func(server trusttest.Pair, ca *trusttest.Authority) {
		t.Helper()
		b.stop(0)
		b.secure(server, ca)
		b.start(0)
	}
	server, ca := issue("old")
	restart(server, ca)
	b.trust = loadTrust(t, trust.Files{Cert: filepath.Join(dir, "node.pem"), Key: filepath.Join(dir, "node.key"), CA: authority})
	n := alone(t, func(c *Config) { c.Bus = b.connect(1) })
	publishes(t, n)
	server, ca = issue("next")
	if err := b.trust.Reload(); err != nil {
		t.Fatal(err)
	}
	restart(server, ca)
	publishes(t, n)
}

// A bus that refuses who we are is tried again: its owner may have made a
// mistake.
func TestBusRefusesForAWhile(t *testing.T) {
	b := newBroker(t, 1)
	set := func(user string) {
		b.stop(0)
		b.opts[0].Username, b.opts[0].Password = user, "secret"
		b.start(0)
	}
	set("other")
	c, err := bus.Connect(bus.Config{URL: strings.Replace(b.url(), "//", "//genome:secret@", 1), Cluster: "c", Log: zerolog.Nop(), Reconnect: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	n := alone(t, func(cfg *Config) { cfg.Bus = c })
	mustInsert(t, n, 0, 1)
	eventually(t, func() bool { // twice the same refusal is what NATS clients give up at by themselves
		v, err := b.servers[0].Varz(nil)
		return err == nil && v.TotalConnections > 2 && n.Counts().BusFailed > 0
	}, why("it does not try"))
	set("genome")
	publishes(t, n)
}

// A bus that is not there keeps nobody from starting, editing and converging.
func TestBusAway(t *testing.T) {
	nobody := freePorts(t, 1)[0]
	l := newLab(t, 2, func(c *Config) {
		away, err := bus.Connect(bus.Config{URL: fmt.Sprintf("nats://127.0.0.1:%d", nobody), Cluster: "c", Log: zerolog.Nop()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(away.Close)
		c.Bus = away
	})
	l.startAll()
	edits(t, l, 1, 20)
	l.waitEqual()
	for _, n := range l.nodes {
		eventually(t, func() bool { return n.Counts().BusFailed > 0 }, why("it published to nobody"))
	}
	if _, err := bus.Connect(bus.Config{URL: "nats://bad url\n", Cluster: "c"}); err == nil {
		t.Error("a bad URL was taken")
	}
}

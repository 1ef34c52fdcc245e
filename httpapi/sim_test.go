package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"crdt-genome/genome"
	"crdt-genome/store"
	"crdt-genome/store/signed"
)

// The whole simulation runs real nodes: their handlers, senders, pulls and
// comparisons, with real stores on simulated disks, over a network that a seed
// makes lose, repeat, delay and reorder. The loops of the nodes are not started:
// one step of one of them runs at a time, and where a pull uses two goroutines,
// each request waits until the other stands still. So a seed always gives the
// same run. Each step has dice of its own, so a failing run can be shrunk by
// leaving steps out.

const (
	simSeedsEnv = "CRDT_GENOME_WHOLE_SEEDS" // "from-to" or a single one
	wholeSeeds  = 100
	wholeSteps  = 70
	healRounds  = 3
)

// wholeRare must all happen in some run.
var wholeRare = []string{"edit", "lost", "answer lost", "repeated", "late", "cut one way", "power cut", "kill -9", "clean stop", "old copy", "twin", "disk full",
	"parked", "self ahead", "fenced edit", "forged heads", "forged ops", "forged digest", "forged own head", "other protocol refused", "clock jump", "pulled", "pushed", "compared equal", "compared behind",
	"flip named"}

var errSimFull = fmt.Errorf("simulated: %w", syscall.ENOSPC)

type simWorld struct {
	seed   uint64
	dir    string
	rng    *rand.Rand // of the step
	nodes  []*simNode // those that are reached, then twins
	n      int        // how many are reached; number n is hostile
	cut    map[[2]int]bool
	calm   bool
	mail   []simMail
	shown  map[genome.Dot]genome.Event
	count  map[string]int
	trace  []string
	err    error
	posts  int
	checks int
}

type simMail struct {
	to int
	r  *http.Request
	b  []byte
}

// simNode is one process with its disk.
type simNode struct {
	w        *simWorld
	i        int // its actor
	disk     *store.SimDisk
	node     *Node // nil: not running
	push     []*pusher
	held     map[genome.Dot]genome.Event
	acked    map[genome.Dot]genome.Event
	lsn      uint64
	old      *store.SimDisk
	oldAcked map[genome.Dot]genome.Event
	other    bool // speaks another protocol
}

func (w *simWorld) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
	}
}

func (w *simWorld) say(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

// chance is true once in n.
func (w *simWorld) chance(n int) bool { return !w.calm && w.rng.IntN(n) == 0 }

type simDice struct{ w *simWorld }

func (d simDice) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(d.w.rng.Uint32())
	}
	return len(p), nil
}

// simListener has an address and no connections.
type simListener struct{}

func (simListener) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (simListener) Close() error              { return nil }
func (simListener) Addr() net.Addr            { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }

func (s *simNode) config() Config {
	w := s.w
	cfg := Config{Store: store.Config{Data: w.dir, Actor: genome.ActorID(s.i), Rand: simDice{w}, CheckpointEvery: 12},
		Listener: simListener{}, Mutate: MutateConfig{Off: true, Seeded: true}, Log: zerolog.Nop(), SetLevel: func(zerolog.Level) {}, Version: "test",
		Transport: &simLink{w, s}, tune: tuning{grace: 10 * time.Millisecond}}
	for j := range w.n + 1 {
		cfg.AllowHosts = append(cfg.AllowHosts, name(j))
		cfg.Peers = append(cfg.Peers, Peer{Actor: genome.ActorID(j), URL: "http://" + name(j)})
	}
	return cfg
}

// start opens the log and asks the others, as a node does before it mints.
func (s *simNode) start() {
	w := s.w
	time.Sleep(5 * time.Millisecond) // no two processes start at one instant
	cfg, err := s.config().withDefaults()
	if err != nil {
		w.fail("config: %v", err)
		return
	}
	_ = os.MkdirAll(store.Dir(w.dir, genome.ActorID(s.i)), 0o700)
	a, err := s.disk.Open(ctx, cfg.Store)
	if err != nil {
		if !s.disk.Down() && !errors.Is(err, store.ErrStoreFull) {
			w.fail("actor %d does not open: %v", s.i, err)
		}
		if s.disk.Down() {
			s.disk.Cut(w.rng)
		}
		return
	}
	n, err := newNode(ctx, cfg, a, newMetrics())
	if err != nil {
		w.fail("newNode %d: %v", s.i, err)
		return
	}
	var peers []*peer
	s.push = nil
	for _, q := range cfg.Peers {
		p := n.newPeer(q, n.rt)
		peers = append(peers, p)
		u := &pusher{peer: p, since: time.Now()}
		u.link.ProbeAfter = probeAfter
		s.push = append(s.push, u)
	}
	n.group.peers.Store(&peers)
	s.node, s.lsn, s.held = n, 0, map[genome.Dot]genome.Event{}
	for _, p := range peers {
		if int(p.actor) < w.n {
			_ = p.ask(ctx)
		}
	}
	close(n.joined)
	w.say("  %d runs as %v", s.i, a.Replica())
	s.settle()
}

// gone ends the process; clean: as a stop does.
func (s *simNode) gone(clean bool) {
	if s.node == nil {
		return
	}
	n := s.node
	s.node = nil
	n.cancel()
	if !clean {
		s.disk.Kill(n.actor)
		return
	}
	if err := n.actor.Close(); err != nil && !s.disk.Down() && !errors.Is(err, store.ErrStoreFull) && !errors.Is(err, syscall.ENOSPC) {
		s.w.fail("actor %d does not stop: %v", s.i, err)
	}
}

// settle buries a process whose disk has stopped.
func (s *simNode) settle() {
	if s.disk.Down() {
		s.gone(false)
		s.disk.Cut(s.w.rng)
		s.w.count["power cut"]++
		s.w.say("  power of %d is cut", s.i)
	}
}

// check looks at every promise of one node.
func (s *simNode) check() {
	w, n := s.w, s.node
	if n == nil {
		return
	}
	for rec, err := range n.actor.Records(ctx, s.lsn+1) {
		if err != nil {
			w.fail("records of %d: %v", s.i, err)
			return
		}
		for i := range rec.Op.Len() {
			d, ev := genome.Dot{Replica: rec.Op.Dot.Replica, Seq: rec.Op.Dot.Seq + uint64(i)}, rec.Op.Event(i)
			if was, ok := w.shown[d]; ok && was != ev {
				w.fail("%v is %v and %v", d, was, ev)
			}
			if d.Replica.Actor() == genome.ActorID(w.n) {
				w.fail("actor %d took %v of the hostile peer", s.i, d)
			}
			w.shown[d], s.held[d] = ev, ev
		}
	}
	s.lsn = n.actor.LSN()
	for d, ev := range s.acked {
		if s.held[d] != ev {
			w.fail("actor %d acknowledged %v and lacks it", s.i, d)
		}
	}
	for _, p := range n.peers() {
		if int(p.actor) < w.n && p.hasForks() {
			w.fail("actor %d names a fork of honest actor %d", s.i, p.actor)
		}
		p.mu.Lock()
		false_ := p.alarm && int(p.actor) < w.n
		p.mu.Unlock()
		if false_ {
			w.fail("false alarm of actor %d about %d", s.i, p.actor)
		}
	}
	if n.counts.panics.Load() > 0 {
		w.fail("actor %d: a handler panicked", s.i)
	}
}

// check compares all that run, pairwise.
func (w *simWorld) check() {
	w.checks++
	byVector := map[string]*store.State{}
	for _, s := range w.nodes {
		s.settle()
		s.check()
		if s.node == nil {
			continue
		}
		st, err := s.node.actor.State(ctx)
		if err != nil {
			w.fail("state of %d: %v", s.i, err)
			return
		}
		if o := byVector[st.Version.String()]; o != nil && (o.Digest != st.Digest || o.Hex != st.Hex || !slices.Equal(o.Heads, st.Heads)) {
			w.fail("diverged at %v", st.Version)
		}
		byVector[st.Version.String()] = st
	}
}

// simLink is how one process reaches the others.
type simLink struct {
	w *simWorld
	s *simNode
}

func (k *simLink) RoundTrip(r *http.Request) (*http.Response, error) {
	synctest.Wait() // the other half of a pull stands still
	w := k.w
	var to int
	_, _ = fmt.Sscanf(r.URL.Host, "actor-%d", &to)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if k.s.other && r.Header.Get(headerProtocol) != "" {
		r.Header.Set(headerProtocol, "9")
	}
	if to == w.n {
		return w.hostile(k.s, r), nil
	}
	if !w.calm {
		time.Sleep(time.Duration(w.rng.IntN(300)) * time.Millisecond)
	}
	if w.cut[[2]int{k.s.i, to}] && !w.calm || w.chance(8) {
		w.count["lost"]++
		return nil, errLost
	}
	if r.Method == http.MethodPost && r.URL.Path == "/genome" && w.chance(4) {
		w.mail = append(w.mail, simMail{to, r.Clone(context.Background()), body})
	}
	if w.chance(10) {
		w.count["repeated"]++
		w.nodes[to].serve(r, body)
	}
	resp := w.nodes[to].serve(r, body)
	if resp == nil || w.chance(10) || w.cut[[2]int{to, k.s.i}] && !w.calm {
		w.count["answer lost"]++
		return nil, errLost
	}
	return resp, nil
}

// serve hands a request over; nil: nobody is there.
func (s *simNode) serve(r *http.Request, body []byte) (resp *http.Response) {
	w := s.w
	if s.node == nil {
		return nil
	}
	defer func() {
		if recover() == http.ErrAbortHandler {
			resp = nil
		}
	}()
	q := r.Clone(context.Background())
	q.Body, q.ContentLength, q.Host = io.NopCloser(bytes.NewReader(body)), int64(len(body)), r.URL.Host
	rec := httptest.NewRecorder()
	s.node.srv.Handler.ServeHTTP(rec, q)
	if s.disk.Down() {
		return nil // it lost its power on the way
	}
	resp = rec.Result()
	if s.other {
		resp.Header.Set(headerProtocol, "9")
	}
	switch {
	case r.Header.Get(headerProtocol) == "9": // whatever it asks for
		if resp.StatusCode != http.StatusUpgradeRequired {
			w.fail("another protocol was answered %d", resp.StatusCode)
		}
		w.count["other protocol refused"]++
	case r.Method != http.MethodPost || r.URL.Path != "/genome":
	case resp.StatusCode == http.StatusAccepted:
		w.count["parked"]++
	case resp.StatusCode == http.StatusOK:
		w.count["pushed"]++
		if b, err := signed.DecodeBatch(body, maxBatchOps); err == nil {
			for i := range b.Ops {
				s.ack(&b.Ops[i])
			}
		}
	}
	w.posts++
	return resp
}

func (s *simNode) ack(op *genome.Op) {
	for i := range op.Len() {
		s.acked[genome.Dot{Replica: op.Dot.Replica, Seq: op.Dot.Seq + uint64(i)}] = op.Event(i)
	}
}

// hostile answers in the name of actor n: heads beyond anything, of whoever
// asks too, ops with gaps, and a digest of nothing under the asker's own vector.
func (w *simWorld) hostile(s *simNode, r *http.Request) *http.Response {
	n := s.node
	rec := httptest.NewRecorder()
	h := rec.Header()
	h.Set(headerProtocol, protocol)
	h.Set(headerActor, strconv.Itoa(w.n))
	h.Set(headerCluster, defaultCluster)
	h.Set(headerBoot, "000000000001-0000000000000001")
	evil := genome.NewReplicaID(genome.ActorID(w.n), 7)
	switch {
	case r.URL.Path == "/v1/vv":
		w.count["forged heads"]++
		heads := HeadsReply{evil: {Seq: 1 + w.rng.Uint64N(1<<40), Chain: 1}}
		if n != nil && w.rng.IntN(3) == 0 {
			w.count["forged own head"]++
			heads[n.actor.Replica()] = HeadReply{Seq: n.actor.Version().Get(n.actor.Replica()) + 5, Chain: 2}
		}
		if o := w.nodes[w.rng.IntN(w.n)]; o.node != nil {
			heads[o.node.actor.Replica()] = HeadReply{Seq: 1 << 30, Chain: 3}
		}
		_ = writeJSON(rec, 200, heads)
	case strings.HasPrefix(r.URL.Path, "/v1/ops"):
		w.count["forged ops"]++
		h.Set(headerMore, "true")
		h.Set("Content-Type", genome.MediaType)
		data, err := genome.AppendBlock(nil, genome.Block{Ops: []genome.Op{{Kind: genome.Insert, Dot: genome.Dot{Replica: evil, Seq: 2 + w.rng.Uint64N(1<<20)}, Genes: []byte{1}, Gene: 9}}})
		if err != nil {
			data = []byte("not a block")
		}
		_, _ = rec.Write(data)
	case r.URL.Path == "/genome" && r.Method == http.MethodGet:
		w.count["forged digest"]++
		h.Set("ETag", etag(genome.Digest(1+w.rng.Uint64()>>1)))
		if n != nil {
			h.Set(headerVV, hash16(n.actor.Version().Hash()))
		}
		_, _ = io.WriteString(rec, "00")
	default:
		_ = writeJSON(rec, 200, PostReply{})
	}
	return rec.Result()
}

func (s *simNode) edit() {
	w := s.w
	var body string
	l := 0
	if st, err := s.node.actor.State(ctx); err == nil {
		l = len(st.Genes)
	}
	if l > 0 && w.rng.IntN(3) == 0 {
		at := w.rng.IntN(l)
		body = fmt.Sprintf(`{"delete":{"at":%d,"n":%d}}`, at, 1+w.rng.IntN(min(3, l-at)))
	} else {
		body = fmt.Sprintf(`{"insert":{"at":%d,"hex":"%x"}}`, w.rng.IntN(l+1), make([]byte, 1+w.rng.IntN(4)))
		body = strings.Replace(body, "00", fmt.Sprintf("%02x", w.rng.IntN(256)), 1)
	}
	r := httptest.NewRequest(http.MethodPost, "http://"+name(s.i)+"/v1/edit", nil)
	r.Header.Set("Content-Type", "application/json")
	before := s.lsn
	resp := s.serve(r, []byte(body))
	if resp == nil {
		return
	}
	w.say("  %d", resp.StatusCode)
	if resp.StatusCode != http.StatusCreated {
		if _, fenced := s.node.actor.Fenced(); fenced {
			w.count["fenced edit"]++
		}
		return
	}
	w.count["edit"]++
	for rec, err := range s.node.actor.Records(ctx, before+1) { // alone: all that is new are its ops
		if err == nil {
			op := rec.Op
			s.ack(&op)
		}
	}
	var reply EditReply
	if err := json.NewDecoder(resp.Body).Decode(&reply); err != nil || len(reply.Ops) == 0 {
		w.fail("answer to an edit: %v", err)
	}
}

func (s *simNode) peerAt(i int) *peer { return s.node.peers()[i] }

func (s *simNode) pull(p *peer) {
	before := s.node.actor.Version().Ops()
	self := s.node.actor.Replica()
	err := p.pull(ctx, false)
	s.w.say("  pull from %d: %v", p.actor, err)
	if s.node.actor.Version().Ops() > before {
		s.w.count["pulled"]++
	}
	if s.node.actor.Replica() != self {
		s.w.count["self ahead"]++
	}
}

func (s *simNode) compare(p *peer) {
	st, err := s.node.actor.State(ctx)
	if err != nil {
		return
	}
	v := p.compare(ctx, st)
	s.w.say("  compare with %d: %s", p.actor, v)
	if int(p.actor) < s.w.n {
		s.w.count["compared "+v]++
		if v == StateDiverged {
			s.w.fail("actor %d: false alarm about %d", s.i, p.actor)
		}
	}
}

// step does one thing, by the dice of its number.
func (w *simWorld) step(k int) {
	w.rng = rand.New(rand.NewPCG(w.seed, uint64(k)+1))
	time.Sleep(time.Duration(w.rng.IntN(1500)) * time.Millisecond)
	s := w.nodes[w.rng.IntN(len(w.nodes))]
	what := w.rng.IntN(48)
	w.say("%d: actor %d, %d", k, s.i, what)
	if s.node == nil {
		if w.chance(3) {
			s.disk.CrashAfter(w.rng.IntN(12))
		}
		s.start()
		return
	}
	if w.chance(16) {
		s.disk.CrashAfter(w.rng.IntN(8))
	}
	p := s.peerAt(w.rng.IntN(len(s.node.peers())))
	switch what {
	case 0:
		w.count["clean stop"]++
		s.gone(true)
	case 1:
		w.count["kill -9"]++
		s.gone(false)
		s.disk.Keep()
	case 2:
		if s.old == nil {
			s.old, s.oldAcked = s.disk.Copy(), maps.Clone(s.acked)
			break
		}
		w.count["old copy"]++
		s.gone(false)
		s.disk, s.acked, s.old = s.old, s.oldAcked, nil
	case 3:
		if len(w.nodes) == w.n {
			w.count["twin"]++
			t := &simNode{w: w, i: s.i, disk: s.disk.Copy(), acked: maps.Clone(s.acked)}
			w.nodes = append(w.nodes, t)
			t.start()
		}
	case 4, 5:
		full := w.rng.IntN(2) == 0
		s.disk.SetFull(nil)
		if full {
			w.count["disk full"]++
			s.disk.SetFull(errSimFull)
		}
	case 6, 7:
		a, b := w.rng.IntN(w.n), w.rng.IntN(w.n)
		if w.cut[[2]int{a, b}] = !w.cut[[2]int{a, b}]; w.cut[[2]int{a, b}] && a != b && !w.cut[[2]int{b, a}] {
			w.count["cut one way"]++
		}
	case 8:
		clear(w.cut)
	case 9:
		w.count["clock jump"]++
		time.Sleep(time.Duration(w.rng.IntN(400)) * time.Second)
	case 10:
		s.other = !s.other
	case 11, 12, 13, 14, 15, 16:
		if len(w.mail) > 0 {
			i := w.rng.IntN(len(w.mail))
			m := w.mail[i]
			w.mail = slices.Delete(w.mail, i, i+1)
			w.count["late"]++
			w.nodes[m.to].serve(m.r, m.b)
		}
	case 17, 18, 19, 20, 21, 22, 23:
		s.pull(p)
	case 24, 25, 26, 27:
		s.compare(p)
	case 28, 29, 30, 31, 32, 33, 34, 35, 36:
		u := s.push[w.rng.IntN(len(s.push))]
		for range 4 {
			if more, err := u.step(ctx); !more || err != nil {
				break
			}
		}
	default:
		s.edit()
	}
}

// heal ends all faults; after few rounds of pulls all must hold what any held.
func (w *simWorld) heal() {
	w.rng = rand.New(rand.NewPCG(w.seed, 1<<40))
	w.calm, w.mail = true, nil
	for _, s := range w.nodes[w.n:] {
		s.gone(false)
	}
	w.nodes = w.nodes[:w.n]
	for _, s := range w.nodes {
		s.disk.SetFull(nil)
		s.other = false
		s.gone(false) // whatever was about to stop it
		s.disk.Keep()
	}
	time.Sleep(time.Hour)
	for _, s := range w.nodes {
		s.start()
	}
	w.check()
	all := map[genome.Dot]genome.Event{}
	for _, s := range w.nodes {
		maps.Copy(all, s.held)
	}
	for range healRounds {
		for _, s := range w.nodes {
			for _, p := range s.node.peers() {
				if int(p.actor) < w.n {
					s.pull(p)
				}
			}
		}
		w.check()
	}
	for _, s := range w.nodes {
		for d, ev := range all {
			if s.held[d] != ev {
				w.fail("after %d rounds actor %d lacks %v", healRounds, s.i, d)
			}
		}
		for _, p := range s.node.peers() {
			if int(p.actor) < w.n {
				s.compare(p)
			}
		}
	}
	if w.err == nil && w.seed%4 == 0 {
		w.flip()
	}
}

// flip changes one byte of one actor's log, with all its checksums: every other
// must name it in one comparison, and it them.
func (w *simWorld) flip() {
	s := w.nodes[w.rng.IntN(w.n)]
	b, _, err := s.node.actor.Since(ctx, nil, 0, 0)
	if err != nil {
		w.fail("since: %v", err)
		return
	}
	was, err := s.node.actor.State(ctx)
	if err != nil {
		w.fail("state: %v", err)
		return
	}
	done := false
	for i := range b.Ops {
		if op := &b.Ops[i]; op.Kind == genome.Insert && !done {
			op.Genes = bytes.Clone(op.Genes)
			op.Genes[w.rng.IntN(len(op.Genes))] ^= 1 << w.rng.IntN(8)
			done = true
		}
	}
	if !done {
		return
	}
	s.gone(true)
	s.disk, s.acked = store.NewSimDisk(), nil
	cfg := s.config().Store
	a, err := s.disk.Open(ctx, cfg)
	if err != nil {
		w.fail("open: %v", err)
		return
	}
	if rec, err := a.Receive(ctx, store.Source{Via: store.ViaPull}, genome.Block{Ops: b.Ops}); err != nil || rec.Pending > 0 || len(rec.Refused) > 0 || rec.SelfAhead {
		w.fail("flip: %+v, %v", rec, err)
	}
	_ = a.Close()
	s.start()
	if s.node == nil {
		return
	}
	if st, err := s.node.actor.State(ctx); err != nil || st.Digest == was.Digest {
		w.count["flip of a deleted gene"]++ // no state has its value: only the chain tells
		return
	}
	for _, o := range w.nodes {
		for _, p := range o.node.peers() {
			if o != s && int(p.actor) != s.i || int(p.actor) == w.n {
				continue
			}
			st, err := o.node.actor.State(ctx)
			if err != nil {
				w.fail("state: %v", err)
				return
			}
			if v := p.compare(ctx, st); v != StateDiverged {
				w.fail("a flipped byte of %d: %d says of %d: %s", s.i, o.i, p.actor, v)
			}
			w.count["flip named"]++
		}
		if files, _ := filepath.Glob(filepath.Join(store.Dir(w.dir, genome.ActorID(o.i)), "diverged-*.json")); len(files) == 0 {
			w.fail("actor %d has no evidence of the flipped byte", o.i)
		}
	}
}

// runWhole runs the steps of a seed that are given, and returns a hash of all
// that happened.
func runWhole(t *testing.T, seed uint64, steps []int, count map[string]int) (hash uint64, w *simWorld) {
	dir, err := os.MkdirTemp("", "whole")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	synctest.Test(t, func(*testing.T) {
		w = &simWorld{seed: seed, dir: dir, cut: map[[2]int]bool{}, shown: map[genome.Dot]genome.Event{}, count: count, rng: rand.New(rand.NewPCG(seed, 0))}
		w.n = 2 + int(min(w.rng.Uint64N(8), w.rng.Uint64N(8))) // 2 … 9, mostly few
		for i := range w.n {
			w.nodes = append(w.nodes, &simNode{w: w, i: i, disk: store.NewSimDisk(), acked: map[genome.Dot]genome.Event{}})
		}
		for _, s := range w.nodes {
			s.start()
		}
		for _, k := range steps {
			w.step(k)
			if w.check(); w.err != nil {
				break
			}
		}
		if w.err == nil {
			w.heal()
		}
		for _, s := range w.nodes {
			s.gone(false)
		}
	})
	h := fnv.New64a()
	for _, l := range w.trace {
		_, _ = io.WriteString(h, l+"\n")
	}
	for _, d := range slices.SortedFunc(maps.Keys(w.shown), genome.Dot.Compare) {
		fmt.Fprint(h, d, w.shown[d])
	}
	return h.Sum64(), w
}

// shrinkWhole leaves out steps while the run fails.
func shrinkWhole(t *testing.T, seed uint64, steps []int) []int {
	for size := len(steps) / 2; size > 0; size /= 2 {
		for at := 0; at+size <= len(steps); {
			fewer := slices.Delete(slices.Clone(steps), at, at+size)
			if _, w := runWhole(t, seed, fewer, map[string]int{}); w.err != nil {
				steps = fewer
			} else {
				at += size
			}
		}
	}
	return steps
}

// TestWhole is the simulation; with CRDT_GENOME_WHOLE_SEEDS of other seeds.
func TestWhole(t *testing.T) {
	from, to := uint64(1), uint64(wholeSeeds)
	if testing.Short() {
		to = 30
	}
	if s := os.Getenv(simSeedsEnv); s != "" {
		a, b, isRange := strings.Cut(s, "-")
		var err error
		if from, err = strconv.ParseUint(a, 10, 64); err != nil {
			t.Fatal(err)
		}
		if to = from; isRange {
			if to, err = strconv.ParseUint(b, 10, 64); err != nil {
				t.Fatal(err)
			}
		}
	}
	var steps []int
	for k := range wholeSteps {
		steps = append(steps, k)
	}
	count, posts, checks, start := map[string]int{}, 0, 0, time.Now()
	for seed := from; seed <= to; seed++ {
		hash, w := runWhole(t, seed, steps, count)
		posts, checks = posts+w.posts, checks+w.checks
		if w.err != nil {
			_, w = runWhole(t, seed, shrinkWhole(t, seed, steps), map[string]int{})
			t.Fatalf("seed %d, %d actors: %v\n%s\nagain with: %s=%d go test -run '^TestWhole$' ./httpapi", seed, w.n, w.err, strings.Join(w.trace, "\n"), simSeedsEnv, seed)
		}
		if seed%25 == 1 {
			if again, _ := runWhole(t, seed, steps, map[string]int{}); again != hash {
				t.Fatalf("seed %d gives another run", seed)
			}
		}
	}
	for _, what := range wholeRare {
		if count[what] == 0 && to-from+1 >= wholeSeeds {
			t.Errorf("never seen: %s", what)
		}
	}
	took := time.Since(start)
	t.Logf("%d schedules, %d deliveries, %d crashes, %d checks, %.0f/s; %v", to-from+1, posts, count["power cut"]+count["kill -9"], checks, float64(to-from+1)/took.Seconds(), count)
}

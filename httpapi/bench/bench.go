// Package bench measures nodes over loopback HTTP: a group that edits at a
// given rate, and a late joiner. Each run ends with a comparison, so that a
// fast wrong answer is an error.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"crdt-genome/genome"
	"crdt-genome/httpapi"
	"crdt-genome/store"
	logbench "crdt-genome/store/bench"
)

// settle bounds the wait for all to be equal.
const settle = 2 * time.Minute

// A group is some nodes on this machine, each a peer of all others.
type group struct {
	dir   string
	peers []httpapi.Peer
	lns   []net.Listener
	nodes []*httpapi.Node
}

func newGroup(dir string, count int) (g *group, err error) {
	g = &group{}
	if g.dir, err = os.MkdirTemp(dir, "bench-http-*"); err != nil {
		return nil, err
	}
	for i := range count {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, errors.Join(err, g.close())
		}
		g.lns = append(g.lns, ln)
		g.peers = append(g.peers, httpapi.Peer{Actor: genome.ActorID(i), URL: "http://" + ln.Addr().String()})
	}
	return g, nil
}

// start starts the next node.
func (g *group) start(ctx context.Context) (*httpapi.Node, error) {
	i := len(g.nodes)
	n, err := httpapi.Start(ctx, httpapi.Config{
		Store:    store.Config{Data: filepath.Join(g.dir, strconv.Itoa(i)), Actor: genome.ActorID(i)},
		Listener: g.lns[i], Peers: g.peers, Mutate: httpapi.MutateConfig{Off: true},
	})
	if err == nil {
		g.nodes = append(g.nodes, n)
	}
	return n, err
}

// close stops the nodes and removes what they wrote.
func (g *group) close() error {
	var err error
	for _, n := range g.nodes {
		err = errors.Join(err, n.Close(context.Background()))
	}
	for _, ln := range g.lns[len(g.nodes):] {
		err = errors.Join(err, ln.Close())
	}
	return errors.Join(err, os.RemoveAll(g.dir))
}

// equal waits until all nodes hold ops events and the same state.
func (g *group) equal(ctx context.Context, ops uint64) error {
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	for {
		same := true
		var first *store.State
		for _, n := range g.nodes {
			if n.Actor().LSN() != ops {
				same = false
				break
			}
			st, err := n.Actor().State(ctx)
			if err != nil {
				return err
			}
			if first == nil {
				first = st
			}
			if st.Digest != first.Digest {
				return fmt.Errorf("%w: %v and %v hold the same %d ops and differ", logbench.ErrWrong, n.URL(), g.nodes[0].URL(), ops)
			}
		}
		if same {
			return nil
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("not all nodes have got %d ops: %w", ops, ctx.Err())
		}
	}
}

// served compares what the nodes answer to GET /genome with the genome that
// they hold.
func (g *group) served(ctx context.Context) error {
	for _, n := range g.nodes {
		st, err := n.Actor().State(ctx)
		if err != nil {
			return err
		}
		got, err := get(ctx, n.URL()+"/genome", int64(len(st.Hex)))
		if err != nil {
			return err
		}
		if got != st.Hex {
			return fmt.Errorf("%w: %v serves another genome than it holds", logbench.ErrWrong, n.URL())
		}
	}
	return nil
}

// get returns the body of an answer, up to one byte more than wanted.
func get(ctx context.Context, url string, want int64) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, want+1))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return string(body), err
}

// Edits lets actors edit for a while at rate edits a second in all, at random
// places, and waits until all are equal.
func Edits(ctx context.Context, dir string, actors, rate int, long time.Duration) (figures []logbench.Figure, err error) {
	g, err := newGroup(dir, actors)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	for range actors {
		if _, err := g.start(ctx); err != nil {
			return nil, err
		}
	}
	each := max(1, int(float64(rate)*long.Seconds()/float64(actors)))
	every := long / time.Duration(each)
	failedBefore := g.failed()
	w := newArrivals(g.nodes, lookClosely)
	durable := &times{}
	cpu, start := processTime(), time.Now()
	stop := w.watch(ctx)
	defer stop()
	eg, ectx := errgroup.WithContext(ctx)
	for i, n := range g.nodes {
		eg.Go(func() error {
			return edit(ectx, n, uint64(i), each, every, start, func(d genome.Dot, took time.Duration) {
				w.note(d, time.Now())
				durable.note(took)
			})
		})
	}
	if err := eg.Wait(); err != nil {
		return nil, err
	}
	made := time.Since(start)
	if err := g.equal(ctx, uint64(actors*each)); err != nil {
		return nil, err
	}
	all := time.Since(start)
	cpu = processTime() - cpu
	if err := errors.Join(w.wait(ctx, actors*each), g.served(ctx)); err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%d actors, %d edits/s", actors, rate)
	edits := float64(actors * each)
	return []logbench.Figure{
		{Group: name, Name: "edits", Value: edits, Unit: "ops"},
		{Group: name, Name: "rate reached", Value: edits / made.Seconds(), Unit: "ops/s"},
		{Group: name, Name: "an edit durable, p50", Value: durable.quantile(0.5), Unit: "ms"},
		{Group: name, Name: "an edit durable, p99", Value: durable.quantile(0.99), Unit: "ms"},
		{Group: name, Name: "until all have it, p50", Value: w.took.quantile(0.5), Unit: "ms"},
		{Group: name, Name: "until all have it, p99", Value: w.took.quantile(0.99), Unit: "ms"},
		{Group: name, Name: "until all have it, most", Value: w.took.quantile(1), Unit: "ms"},
		{Group: name, Name: "equal after the last edit", Value: (all - made).Seconds() * 1000, Unit: "ms"},
		{Group: name, Name: "CPU for an edit, all actors", Value: cpu.Seconds() * 1000 / edits, Unit: "ms"},
		{Group: name, Name: "failed deliveries", Value: float64(g.failed() - failedBefore), Unit: "posts"},
	}, nil
}

func (g *group) failed() (failed uint64) {
	for _, n := range g.nodes {
		failed += n.Counts().PostsFailed
	}
	return failed
}

// edit makes k single edits on n, one each time that every has passed, and
// tells made of each and how long it took to be durable.
func edit(ctx context.Context, n *httpapi.Node, seed uint64, k int, every time.Duration, start time.Time, made func(genome.Dot, time.Duration)) error {
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range k {
		if d := time.Until(start.Add(time.Duration(i) * every)); d > 0 {
			select {
			case <-time.After(d):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		began := time.Now()
		ops, err := n.Actor().Edit(ctx, func(g *genome.Genome) (store.Edit, error) {
			if g.Len() > 10 && rng.IntN(2) == 0 {
				return store.Edit{Delete: true, At: rng.IntN(g.Len()), N: 1}, nil
			}
			return store.Edit{At: rng.IntN(g.Len() + 1), Genes: []byte{byte(rng.Uint32())}}, nil
		})
		if err != nil {
			return err
		}
		made(ops[0].Dot, time.Since(began))
	}
	return nil
}

// Joiner measures how long a node without a log takes to hold ops single-gene
// ops that another one has.
func Joiner(ctx context.Context, dir string, ops int) (figures []logbench.Figure, err error) {
	g, err := newGroup(dir, 2)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	first, err := g.start(ctx)
	if err != nil {
		return nil, err
	}
	want, err := fill(ctx, first, ops)
	if err != nil {
		return nil, err
	}
	// The other node would be a machine of its own, long done with this.
	if err := logbench.WaitIdle(ctx, first.Actor()); err != nil {
		return nil, err
	}
	cpu, start := processTime(), time.Now()
	if _, err := g.start(ctx); err != nil {
		return nil, err
	}
	if err := g.equal(ctx, uint64(ops)); err != nil {
		return nil, err
	}
	took := time.Since(start)
	cpu = processTime() - cpu
	st, err := g.nodes[1].Actor().State(ctx)
	if err == nil && st.Digest != want {
		err = fmt.Errorf("%w: the late joiner of %d ops differs from their maker", logbench.ErrWrong, ops)
	}
	if err = errors.Join(err, g.served(ctx)); err != nil {
		return nil, err
	}
	name := fmt.Sprintf("late joiner, %d ops", ops)
	return []logbench.Figure{
		{Group: name, Name: "time", Value: took.Seconds() * 1000, Unit: "ms"},
		{Group: name, Name: "rate", Value: float64(ops) / took.Seconds(), Unit: "ops/s", Goal: 1e6},
		{Group: name, Name: "CPU for an op, both actors", Value: float64(cpu.Nanoseconds()) / 1e3 / float64(ops), Unit: "µs"},
	}, nil
}

// fill gives n that many single-gene inserts at random places, and returns the
// digest of their maker.
func fill(ctx context.Context, n *httpapi.Node, ops int) (genome.Digest, error) {
	rng := rand.New(rand.NewPCG(5, 5))
	g := genome.NewFromConfig(genome.Config{Self: genome.NewReplicaID(100, 1), NoHistory: true})
	for made := 0; made < ops; {
		var b genome.Block
		for ; made < ops && len(b.Ops) < genome.MaxBatchOps; made++ {
			op, err := g.Insert(rng.IntN(g.Len()+1), []byte{byte(made)})
			if err != nil {
				return genome.Digest(0), err
			}
			b.Ops = append(b.Ops, op)
		}
		if _, err := n.Actor().Receive(ctx, store.Source{Via: store.ViaPost}, b); err != nil {
			return genome.Digest(0), err
		}
	}
	return g.Digest(), nil
}

package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"crdt-genome/httpapi/trust"
)

// A Config says what to run. Binary, Count and Data are required.
type Config struct {
	Binary string       // of crdt-genome; see Build
	Count  int          // actors 0 … Count-1
	Data   string       // data directory of all; their logs go here too
	Base   int          // port of actor 0, actor n has Base+n; 0: any free ports
	Args   []string     // further arguments of serve, for every actor
	Env    []string     // NAME=VALUE, for every actor: what others on the machine must not see
	Trust  *trust.Trust // what Args say of TLS and a token; nil: nothing

	// Each is the number of actors in each process; default 1. With more, actor
	// i of the fleet is a process and member with actors i·Each … i·Each+Each-1,
	// and, without Addr, gets other ports at each start.
	Each int
	// Join lets members find each other by gossip, through the first few of
	// them, instead of being told. It is needed for Each > 1.
	Join bool

	// Peers are addresses at which actor from shall reach actor to, where that
	// is not to's own: a proxy that loses requests, say. nil: all direct. It is
	// asked at each start.
	Peers func(from, to int) (url string)

	// Addr says where actor i listens, if that is not a loopback port which the
	// fleet keeps for it: in a network namespace nobody else takes its ports.
	Addr func(i int) (hostPort string)

	// Command returns the command line that runs argv as actor i, within a
	// network namespace, say. The process must stay the same one. nil: argv.
	Command func(i int, argv []string) []string

	ReadyTimeout time.Duration // how long a start may take; default 60s
}

const defaultReadyTimeout = 60 * time.Second

// A Fleet is a group of actors on this machine. Close it to stop them all.
type Fleet struct {
	cfg    Config
	actors []*Actor
	ports  []*port
}

// New reserves the addresses of the actors and starts none of them.
func New(cfg Config) (*Fleet, error) {
	cfg.ReadyTimeout, cfg.Each = cmp.Or(cfg.ReadyTimeout, defaultReadyTimeout), max(cfg.Each, 1)
	if cfg.Each > 1 && !cfg.Join {
		return nil, errors.New("fleet: several actors in each process find each other by gossip only")
	}
	if cfg.Binary == "" || cfg.Data == "" || cfg.Count < 1 {
		return nil, errors.New("fleet: binary, data directory and a count above 0 are required")
	}
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return nil, err
	}
	f := &Fleet{cfg: cfg}
	for i := range cfg.Count {
		addr, err := f.address(i)
		if err != nil {
			f.release()
			return nil, err
		}
		a := f.newActor(i, addr)
		if cfg.Join {
			if a.Gossip, err = f.gossipAddress(i); err != nil {
				f.release()
				return nil, err
			}
		}
		f.actors = append(f.actors, a)
	}
	return f, nil
}

// gossipPort is where members listen for each other on hosts of their own.
const gossipPort = 7946

// address is where actor i listens.
func (f *Fleet) address(i int) (string, error) {
	switch {
	case f.cfg.Addr != nil:
		return f.cfg.Addr(i), nil
	case f.cfg.Each > 1:
		return anyPort, nil
	case f.cfg.Base > 0:
		return loopback(f.cfg.Base + i), nil
	}
	return f.reserve()
}

// gossipAddress is where actor i listens for other members.
func (f *Fleet) gossipAddress(i int) (string, error) {
	if f.cfg.Addr == nil {
		return f.reserve()
	}
	host, _, err := net.SplitHostPort(f.cfg.Addr(i))
	return net.JoinHostPort(host, strconv.Itoa(gossipPort)), err
}

// reserve takes a port that is the fleet's until it is closed.
func (f *Fleet) reserve() (string, error) {
	p, err := reserve()
	if err != nil {
		return "", err
	}
	f.ports = append(f.ports, p)
	return loopback(p.number), nil
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

var anyPort = loopback(0)

func (f *Fleet) newActor(i int, addr string) *Actor {
	path := func(format string) string { return filepath.Join(f.cfg.Data, fmt.Sprintf(format, i)) }
	return &Actor{
		Index: i, Addr: addr, Dir: filepath.Join(f.cfg.Data, fmt.Sprintf("actor-%d", i*f.cfg.Each)),
		LogPath: path("actor-%d.log"), addrFile: path("actor-%d.addr"), fleet: f,
	}
}

// Actors returns all actors, by index.
func (f *Fleet) Actors() []*Actor { return f.actors }

// Actor returns actor i.
func (f *Fleet) Actor(i int) *Actor { return f.actors[i] }

// URLs returns the addresses of all actors.
func (f *Fleet) URLs() (urls []string) {
	for _, a := range f.actors {
		urls = append(urls, a.URL())
	}
	return urls
}

// StartAll starts every actor that does not run, and waits until all are ready.
func (f *Fleet) StartAll(ctx context.Context) error {
	return f.each(func(a *Actor) error {
		if a.Running() {
			return nil
		}
		return a.Start(ctx)
	})
}

// StopAll stops every actor that runs; see [Actor.Stop].
func (f *Fleet) StopAll(ctx context.Context) error {
	return f.each(func(a *Actor) error { return a.Stop(ctx) })
}

// each calls do for all actors at once.
func (f *Fleet) each(do func(*Actor) error) error {
	errs := make([]error, len(f.actors))
	var wg sync.WaitGroup
	for i, a := range f.actors {
		wg.Go(func() { errs[i] = do(a) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Close kills what still runs and gives the ports back. Data and logs stay.
func (f *Fleet) Close() error {
	err := f.each((*Actor).Kill)
	f.release()
	return err
}

func (f *Fleet) release() {
	for _, p := range f.ports {
		p.release()
	}
	f.ports = nil
}

// args returns the arguments of serve for actor i.
func (f *Fleet) args(i int) []string {
	a := f.actors[i]
	args := []string{"serve", "--data", f.cfg.Data, "--addr-file", a.addrFile, "--stop-on-eof"}
	if f.cfg.Each > 1 {
		args = append(args, "--actors", fmt.Sprintf("%d-%d", i*f.cfg.Each, (i+1)*f.cfg.Each-1))
	} else {
		args = append(args, "--actor", strconv.Itoa(i))
	}
	switch {
	case f.cfg.Join:
		listen := a.Addr
		if f.cfg.Each > 1 && f.cfg.Addr == nil {
			listen = anyPort
		}
		args = append(args, "--listen", listen, "--member-listen", a.Gossip)
		if seeds := f.seeds(i); seeds != "" {
			args = append(args, "--join", seeds)
		}
	case f.cfg.Base > 0 && f.cfg.Peers == nil:
		args = append(args, "--count", strconv.Itoa(f.cfg.Count), "--base", strconv.Itoa(f.cfg.Base))
	default:
		args = append(args, "--count", strconv.Itoa(f.cfg.Count), "--listen", a.Addr, "--peers", strings.Join(f.peers(i), ","))
	}
	return append(args, f.cfg.Args...)
}

// environment is ours without the variables that stand for flags, which Args
// and Env decide.
func (f *Fleet) environment() (env []string) {
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "CRDT_GENOME_") {
			env = append(env, v)
		}
	}
	return append(env, f.cfg.Env...)
}

// maxSeeds is how many members another one is told of.
const maxSeeds = 3

// seeds are the members that member i asks for the others.
func (f *Fleet) seeds(i int) string {
	var seeds []string
	for _, a := range f.actors[:min(len(f.actors), maxSeeds)] {
		if a.Index != i {
			seeds = append(seeds, a.Gossip)
		}
	}
	return strings.Join(seeds, ",")
}

func (f *Fleet) peers(from int) (peers []string) {
	for to, a := range f.actors {
		url := a.URL()
		if f.cfg.Peers != nil && to != from {
			url = cmp.Or(f.cfg.Peers(from, to), url)
		}
		peers = append(peers, fmt.Sprintf("%d=%s", to, url))
	}
	return peers
}

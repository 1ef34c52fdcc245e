package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"crdt-genome/genome"
	"crdt-genome/httpapi"
	"crdt-genome/httpapi/membership"
	"crdt-genome/httpapi/rings"
	"crdt-genome/httpapi/trust"
	"crdt-genome/store"
)

// closeTimeout is how long a clean stop may take, after which the actor stops
// waiting for others; its log is closed properly all the same.
const closeTimeout = 3 * time.Second

// maxCount is the number of actors: each has a port and asks all others.
const maxCount = 10000

// nodeOptions are the flags that serve and run share; run hands them on to
// its children.
type nodeOptions struct {
	data                         string
	mutateMin, mutateMax         time.Duration
	noMutate                     bool
	minLen                       int
	seed                         uint64
	verifyInterval, pullInterval time.Duration
	readyLag                     uint64
	readyAlone                   bool
	chaos                        bool
	cluster                      string
	bus                          busOptions
	sign                         signOptions
	fanout                       string
	pace                         time.Duration

	seeded bool // --seed was given: 0 is a seed too
}

func (o *nodeOptions) addFlags(f *pflag.FlagSet) {
	dataFlag(f, &o.data)
	f.DurationVar(&o.mutateMin, "mutate-min", 0, "shortest pause before a mutation")
	f.DurationVar(&o.mutateMax, "mutate-max", 20*time.Second, "longest pause before a mutation")
	f.BoolVar(&o.noMutate, "no-mutate", false, "start with mutation paused")
	f.IntVar(&o.minLen, "min-len", 10, "below this many genes always insert")
	f.Uint64Var(&o.seed, "seed", 0, "repeat the choices of an earlier run (default: random)")
	f.DurationVar(&o.verifyInterval, "verify-interval", 5*time.Second, "time between comparisons with all others")
	f.DurationVar(&o.pullInterval, "pull-interval", 10*time.Second, "time between pulls of what is missing, ± 25 %")
	f.Uint64Var(&o.readyLag, "ready-lag", 1000, "not ready while more ops than this are missing")
	f.BoolVar(&o.chaos, "chaos", false, "let links be cut by hand, from the page or with PUT /v1/links/N")
	f.BoolVar(&o.readyAlone, "ready-alone", false, "be ready before any peer has answered")
	f.StringVar(&o.fanout, "fanout", "auto", "members that ops are sent to: all, a number (which pass them on), or auto: all up to 64 members, above it 6")
	f.DurationVar(&o.pace, "pace", 0, "least time between two POSTs to one member (default 5ms, with --fanout below all 200ms)")
	f.StringVar(&o.cluster, "cluster", "crdt-genome", "name of the group; actors of another group are refused")
	o.bus.addFlags(f)
	o.sign.addFlags(f)
}

// args returns the flags again, for a child.
func (o *nodeOptions) args() []string {
	args := []string{"--data", o.data, "--mutate-min", o.mutateMin.String(), "--mutate-max", o.mutateMax.String(),
		"--min-len", strconv.Itoa(o.minLen), "--verify-interval", o.verifyInterval.String(), "--pull-interval", o.pullInterval.String(),
		"--ready-lag", strconv.FormatUint(o.readyLag, 10), "--cluster", o.cluster, "--fanout", o.fanout, "--pace", o.pace.String()}
	if o.seeded {
		args = append(args, "--seed", strconv.FormatUint(o.seed, 10))
	}
	if o.noMutate {
		args = append(args, "--no-mutate")
	}
	if o.readyAlone {
		args = append(args, "--ready-alone")
	}
	if o.chaos {
		args = append(args, "--chaos")
	}
	return append(append(args, o.bus.args()...), o.sign.args()...)
}

func (o *nodeOptions) check() error {
	switch {
	case o.mutateMin < 0 || o.mutateMax < o.mutateMin:
		return usageError("", "--mutate-min %v, --mutate-max %v: the first must not be below 0 or above the second", o.mutateMin, o.mutateMax)
	case o.verifyInterval <= 0:
		return usageError("", "--verify-interval %v: must be above 0", o.verifyInterval)
	case o.pullInterval <= 0:
		return usageError("", "--pull-interval %v: must be above 0", o.pullInterval)
	case o.minLen < 1:
		return usageError("", "--min-len %d: must be at least 1", o.minLen)
	case o.pace < 0:
		return usageError("", "--pace %v: must not be negative", o.pace)
	}
	_, err := o.fanoutNumber()
	return err
}

// fanoutNumber reads --fanout.
func (o *nodeOptions) fanoutNumber() (int, error) {
	switch o.fanout {
	case "auto":
		return httpapi.FanoutAuto, nil
	case "all":
		return httpapi.FanoutAll, nil
	}
	k, err := strconv.Atoi(o.fanout)
	if err != nil || k < 1 || k > rings.MaxFanout {
		return 0, usageError("", "--fanout %s: want auto, all, or a number from 1 to %d", o.fanout, rings.MaxFanout)
	}
	return k, nil
}

type serveOptions struct {
	nodeOptions
	actor      uint32
	actors     string
	count      int
	base       int
	listen     string
	advertise  string
	allowHosts []string
	peers      []string
	join       joinOptions
	insecure   bool
	addrFile   string
	mutations  int
	newEpoch   bool
	repair     bool
	acceptLoss bool
	stopOnEOF  bool
	stall      time.Duration

	hasActor, hasCount, hasBase bool
	set                         membership.Set // of actors
	trust                       *trust.Trust
}

func (o *serveOptions) addFlags(f *pflag.FlagSet) {
	f.Uint32VarP(&o.actor, "actor", "a", 0, "this actor, 0..count-1")
	f.StringVar(&o.actors, "actors", "", "run several actors in this process, such as 0-49,60; each with its own log, port and API")
	f.IntVarP(&o.count, "count", "c", 0, "number of actors")
	f.IntVarP(&o.base, "base", "b", 0, "port of actor 0; actor N listens on base+N (0 = any free port)")
	f.StringVar(&o.listen, "listen", "", "address to listen on, HOST:PORT or HOST (default 127.0.0.1)")
	f.StringVar(&o.advertise, "advertise", "", "URL that others reach this actor at")
	f.StringSliceVar(&o.allowHosts, "allow-host", nil, "further name to be served under (Host header)")
	f.StringSliceVar(&o.peers, "peers", nil, "URLs of all actors in the order of their numbers, or N=URL")
	o.join.addFlags(f)
	f.BoolVar(&o.insecure, "insecure", false, "listen where other machines can reach it, without TLS or a token")
	f.StringVar(&o.addrFile, "addr-file", "", "write HOST:PORT here once listening")
	f.IntVar(&o.mutations, "mutations", 0, "stop mutating after this many (0 = never)")
	f.BoolVar(&o.repair, "repair", false, "repair a damaged log also if own ops may be lost by it; the damaged file is kept")
	f.BoolVar(&o.acceptLoss, "accept-loss", false, "give up what a repaired log still lacks, and be ready without")
	f.DurationVar(&o.stall, "stall-timeout", 30*time.Second, "end with exit code 70 when nothing has been applied for so long although something waits")
	f.BoolVar(&o.newEpoch, "new-epoch", false, "start under a new epoch, whatever the log says")
	f.BoolVar(&o.stopOnEOF, "stop-on-eof", false, "stop cleanly when stdin ends")
	_ = f.MarkHidden("stop-on-eof") // exists: defined above
	o.nodeOptions.addFlags(f)
}

// given returns o with what only the flag set knows: which flags were given.
func (o *serveOptions) given(a *app, f *pflag.FlagSet) serveOptions {
	a.stateDirectory(f, &o.data)
	o.hasActor, o.hasCount, o.hasBase = f.Changed("actor"), f.Changed("count"), f.Changed("base")
	o.seeded = f.Changed("seed")
	o.trust = a.trust
	return *o
}

func newServeCmd(a *app) *cobra.Command {
	var opts serveOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run one actor until stopped",
		Long: `Runs one actor: its log under --data, its HTTP API, and the exchange of ops with
the other actors. Who these are is said by --count and --base, by --peers, or,
with --member-listen or --join, found out by gossip: any member that lives is
enough to meet all others, and crdt-genome members lists them. With --actors the
process runs several actors, and is one member. SIGINT or SIGTERM stops it
cleanly within 3 s, a second one at once. It can be killed at any moment: what
it has acknowledged is in its log.`,
		Example: `  crdt-genome serve --actor 0 --count 3 --base 8000
  crdt-genome serve -a 1 -c 3 -b 8000 --mutate-max 500ms --data /var/lib/genome
  crdt-genome serve -a 0 --listen 0.0.0.0:8000 --peers 1=https://b.example:8000 --tls-cert a.pem --tls-key a.key --tls-ca ca.pem
  crdt-genome serve --actor 2 --listen 127.0.0.1:9002 --peers 0=http://127.0.0.1:9000,1=http://127.0.0.1:9001
  crdt-genome serve --actors 0-49 --base 8000 --peers 50-99=http://127.0.0.1:8050
  crdt-genome serve --actor 0 --listen 127.0.0.1:9000 --member-listen 127.0.0.1:7946
  crdt-genome serve --actor 1 --listen 127.0.0.1:9001 --member-listen 127.0.0.1:7947 --join 127.0.0.1:7946`,
		Args: wantArgs(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.serve(cmd.Context(), opts.given(a, cmd.Flags()))
		},
	}
	opts.addFlags(cmd.Flags())
	return cmd
}

// config checks the flags and turns them into a Config.
func (o *serveOptions) config() (httpapi.Config, error) {
	cfg := httpapi.Config{
		Store:          store.Config{Data: o.data, Actor: genome.ActorID(o.actor), Cluster: o.cluster, NewEpoch: o.newEpoch, AcceptLoss: o.acceptLoss},
		Advertise:      o.advertise,
		AllowHosts:     o.allowHosts,
		Trust:          o.trust,
		Insecure:       o.insecure,
		VerifyInterval: o.verifyInterval,
		PullInterval:   o.pullInterval,
		Mutate: httpapi.MutateConfig{Off: o.noMutate, Min: o.mutateMin, Max: o.mutateMax, MinLen: o.minLen,
			Seed: o.seed, Seeded: o.seeded, Ops: o.mutations},
		ReadyLag:     o.readyLag,
		ReadyAlone:   o.readyAlone,
		StallTimeout: o.stall,
		Chaos:        o.chaos,
		Version:      version,
		Pace:         o.pace,
	}
	if o.repair {
		cfg.Store.Repair = store.RepairAlways
	}
	if err := o.readActors(); err != nil {
		return cfg, err
	}
	cfg.Store.Actor = genome.ActorID(o.actor)
	if err := o.checkMembers(); err != nil {
		return cfg, err
	}
	if err := o.check(); err != nil {
		return cfg, err
	}
	if err := o.sign.check(); err != nil {
		return cfg, err
	}
	if o.stall <= 0 {
		return cfg, usageError("", "--stall-timeout %v: must be above 0", o.stall)
	}
	var err error
	if cfg.Fanout, err = o.fanoutNumber(); err != nil {
		return cfg, err
	}
	if cfg.Peers, err = o.peerList(); err != nil {
		return cfg, err
	}
	if cfg.Listen, err = o.listenAddr(); err != nil || !o.join.wanted() {
		return cfg, err
	}
	cfg.Join, err = o.join.config(cfg.Listen)
	return cfg, err
}

func (o *serveOptions) checkMembers() error {
	const tryOut = "to try it out: crdt-genome run --count 3"
	named := o.hasActor || o.actors != ""
	byPeers := named && (len(o.peers) > 0 || o.join.wanted()) && (o.hasBase || o.listen != "")
	if o.join.wanted() && len(o.peers) > 0 {
		return usageError("", "--join finds the members by itself: leave out --peers")
	}
	if host, _, err := net.SplitHostPort(o.listen); o.join.wanted() && o.advertise == "" && (isAny(o.listen) || err == nil && isAny(host)) {
		return usageError("--advertise http://HOST:PORT", "--listen %s says not where others reach this actor", o.listen)
	}
	if !byPeers && !(named && o.hasCount && o.hasBase) {
		return usageError(tryOut, "serve needs --actor or --actors, --count and --base (or --listen and --peers or --join instead)")
	}
	if o.hasCount && (o.count < 1 || o.count > maxCount) {
		return usageError("", "--count %d: must be 1..%d", o.count, maxCount)
	}
	highest := o.set[len(o.set)-1].Last
	if o.hasCount && int64(highest) >= int64(o.count) {
		return usageError("", "--actor %d: must be 0..%d with --count %d", highest, o.count-1, o.count)
	}
	if o.hasBase && (o.base < 0 || o.base > 65535) {
		return usageError("", "--base %d: must be 0..65535", o.base)
	}
	if last := o.base + max(o.count-1, int(highest)); o.base > 0 && last > 65535 && len(o.peers) == 0 && !o.join.wanted() {
		return usageError("", "actor %d needs port %d: base %d + %d is above 65535", last-o.base, last, o.base, last-o.base)
	}
	if o.base == 0 && o.count > 1 && uint64(o.count) > o.set.Len() && len(o.peers) == 0 && !o.join.wanted() {
		return usageError("crdt-genome run --count 3 --base 0 does this for you", "--base 0 takes any free port, which the other actors cannot know: name them with --peers")
	}
	return nil
}

// peerList is --peers, or what --count and --base say.
func (o *serveOptions) peerList() ([]httpapi.Peer, error) {
	var peers []httpapi.Peer
	if o.join.wanted() {
		return nil, nil
	}
	if len(o.peers) == 0 {
		for i := range o.count {
			if !o.set.Has(uint32(i)) {
				peers = append(peers, httpapi.Peer{Actor: genome.ActorID(i), URL: fmt.Sprintf("%s://127.0.0.1:%d", o.trust.Scheme(), o.base+i)})
			}
		}
		return peers, nil
	}
	for i, p := range o.peers {
		set, url := membership.One(uint32(i)), p
		if n, rest, ok := strings.Cut(p, "="); ok && !strings.Contains(n, "/") {
			var err error
			if set, err = membership.ParseSet(n); err != nil {
				return nil, usageError("", "--peers %s: %q is not an actor number, or a range of one process", p, n)
			}
			url = rest
		}
		if url = serverURL(url); o.trust.TLS() && !strings.Contains(p, "://") {
			url = "https" + strings.TrimPrefix(url, "http")
		}
		if !isURL(url) {
			return nil, usageError("for example --peers http://a.example:8000,http://b.example:8000 in the order of the actors, or 1=http://b.example:8000",
				"--peers %s: not an http URL", p)
		}
		peers = append(peers, httpapi.Peer{Actor: genome.ActorID(set.First()), URL: url, Actors: set})
	}
	return peers, nil
}

// readActors reads --actors; without it, the set is --actor.
func (o *serveOptions) readActors() (err error) {
	if o.set = membership.One(o.actor); o.actors == "" {
		return nil
	}
	if o.hasActor {
		return usageError("", "--actors names all actors of the process: leave out --actor")
	}
	if o.set, err = membership.ParseSet(o.actors); err != nil {
		return usageError("", "--actors %s: %v", o.actors, err)
	}
	o.actor = o.set.First()
	return nil
}

// configs returns cfg for each actor of the set.
func (o *serveOptions) configs(cfg httpapi.Config) (all []httpapi.Config) {
	host, port, _ := net.SplitHostPort(cfg.Listen) // as listenAddr made it
	first, _ := strconv.Atoi(port)
	for a := range o.set.All() {
		c := cfg
		c.Store.Actor = genome.ActorID(a)
		if a != o.actor {
			c.Advertise = "" // it is the first one's
			if first > 0 {
				c.Listen = net.JoinHostPort(host, strconv.Itoa(first+int(a-o.actor)))
			}
		}
		all = append(all, c)
	}
	return all
}

// isAny reports whether host means every address of this machine.
func isAny(host string) bool {
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.IsUnspecified()
}

func (o *serveOptions) listenAddr() (string, error) {
	port := 0
	if o.base > 0 {
		port = o.base + int(o.actor)
	}
	if o.listen == "" {
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), nil
	}
	if _, _, err := net.SplitHostPort(o.listen); err == nil {
		return o.listen, nil
	}
	if strings.ContainsAny(o.listen, "/ ") {
		return "", usageError("", "--listen %s: want HOST:PORT or HOST", o.listen)
	}
	return net.JoinHostPort(strings.Trim(o.listen, "[]"), strconv.Itoa(port)), nil
}

// serve runs one actor until ctx ends or its log fails.
func (a *app) serve(ctx context.Context, o serveOptions) error {
	cfg, err := o.config()
	if err != nil {
		return err
	}
	if err := checkFiles(len(cfg.Peers) + int(o.set.Len()) - 1); err != nil {
		return err
	}
	if cfg.Listener, err = a.handedListener(); err != nil {
		return err
	}
	if cfg.Listener != nil && o.set.Len() > 1 {
		return errors.Join(usageError("", "LISTEN_FDS: --actors opens its sockets itself"), cfg.Listener.Close())
	}
	// A closed terminal or log reader does not stop a server, and a log that
	// may not grow (ulimit -f) is an error of the write, not a crash.
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGXFSZ)
	log := a.logger()
	roster, err := o.sign.load()
	if err != nil {
		return err
	}
	defer reloadOnHangup(log, reloads(o.trust, roster)...)()
	warnOpen(log, o)
	cfg.Log, cfg.SetLevel = log, zerolog.SetGlobalLevel
	cfg.Store.Progress = a.progress("replaying the log: op")
	if o.stopOnEOF {
		var stop context.CancelCauseFunc
		ctx, stop = context.WithCancelCause(ctx)
		defer stop(nil)
		go func() { // ends with the process: a read of stdin cannot be given up
			_, _ = io.Copy(io.Discard, a.stdin)
			stop(errors.New("stdin closed"))
		}()
	}
	closeBus, err := o.bus.connect(&cfg, o.cluster)
	if err != nil {
		return err
	}
	defer closeBus()
	cfgs := o.configs(cfg)
	if err := signEach(cfgs, roster); err != nil {
		return err
	}
	proc, err := httpapi.StartProcess(ctx, cfgs)
	if err != nil {
		return err
	}
	node := proc.Nodes()[0]
	a.banner(o, cfg, node)
	noteCount(ctx, log, o, node)
	if o.addrFile != "" {
		var addrs strings.Builder // a line for each actor, in their order
		for _, n := range proc.Nodes() {
			fmt.Fprintln(&addrs, n.Addr())
		}
		if err := writeFileAtomic(o.addrFile, []byte(addrs.String())); err != nil {
			return errors.Join(err, proc.Close(ctx))
		}
	}
	notify(log, daemon.SdNotifyReady+"\n"+statusLine(o, node))
	feedCtx, stopFeed := context.WithCancel(ctx)
	defer stopFeed()
	go feedWatchdog(feedCtx, log, node)
	select {
	case <-ctx.Done():
		notify(log, daemon.SdNotifyStopping)
		log.Info().Uint32("actor", o.actor).Str("signal", context.Cause(ctx).Error()).Msg("stopping")
	case <-proc.Stuck(): // it cannot even be closed
		return &httpapi.StallError{For: o.stall}
	case <-proc.Done():
		return proc.Err()
	}
	closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	return closeOrStall(closeCtx, proc, o.stall)
}

// closeOrStall closes proc, which may never end: not when the disk hangs.
func closeOrStall(ctx context.Context, proc interface {
	Close(context.Context) error
	Stuck() <-chan struct{}
}, stall time.Duration) error {
	closed := make(chan error, 1)
	go func() { closed <- proc.Close(ctx) }()
	select {
	case err := <-closed:
		return err
	case <-proc.Stuck():
		return &httpapi.StallError{For: stall}
	}
}

// noteCount tells, once at the start, that the log knows actors whom --count
// leaves out: their ops stay, but nobody is asked for more of them.
func noteCount(ctx context.Context, log zerolog.Logger, o serveOptions, node *httpapi.Node) {
	st, err := node.Actor().State(ctx)
	if err != nil || !o.hasCount {
		return
	}
	actors := 0 // as many as the highest number says
	for _, e := range st.Version {
		actors = max(actors, int(e.Replica.Actor())+1)
	}
	if actors > o.count {
		log.Info().Uint32("actor", o.actor).Int("log_actors", actors).Int("count", o.count).
			Msg("log was made for more actors than --count says")
	}
}

// banner tells a person where everything is; a program reads the log.
func (a *app) banner(o serveOptions, cfg httpapi.Config, node *httpapi.Node) {
	if a.opts.quiet || a.opts.json {
		return
	}
	op := node.Actor().Opening()
	of := ""
	if o.hasCount {
		of = fmt.Sprintf(" of %d", o.count)
	}
	epoch := op.Epoch.String()
	if !op.New {
		epoch += " (" + op.EpochReason + ")"
	}
	var b strings.Builder
	if o.set.Len() > 1 {
		fmt.Fprintf(&b, "crdt-genome %s · actors %v%s, led by actor %d · epoch %s\n", version, o.set, of, o.actor, epoch)
	} else {
		fmt.Fprintf(&b, "crdt-genome %s · actor %d%s · epoch %s\n", version, o.actor, of, epoch)
	}
	fmt.Fprintf(&b, "  page   %s/\n", node.URL())
	fmt.Fprintf(&b, "  api    %s/genome\n", node.URL())
	state := "new"
	if !op.New {
		state = fmt.Sprintf("%s ops (%s own) · %s · replayed in %d ms",
			thousands(op.Ops), thousands(op.Own), plural(uint64(op.Genes), "gene"), op.Took.Milliseconds())
	}
	fmt.Fprintf(&b, "  log    %s   %s\n", filepath.Join(op.Dir, "log.db"), state)
	var hosts []string
	for _, p := range cfg.Peers {
		if p.Actor != cfg.Store.Actor {
			hosts = append(hosts, strings.TrimPrefix(strings.TrimPrefix(p.URL, "http://"), "https://"))
		}
	}
	switch {
	case cfg.Join != nil:
		for _, m := range node.Members().Members {
			if m.Self {
				fmt.Fprintf(&b, "  member %s   join with: --join %s\n", m.Addr, m.Addr)
			}
		}
	case len(hosts) == 0:
		b.WriteString("  peers  none: this actor is alone\n")
	case len(hosts) > 8:
		fmt.Fprintf(&b, "  peers  %s … (%d in all)\n", strings.Join(hosts[:8], "  "), len(hosts))
	default:
		fmt.Fprintf(&b, "  peers  %s\n", strings.Join(hosts, "  "))
	}
	b.WriteString("  Ctrl-C stops cleanly, twice stops now\n")
	fmt.Fprint(a.stderr, b.String())
}

// writeFileAtomic writes a file that a reader sees whole or not at all.
func writeFileAtomic(path string, data []byte) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

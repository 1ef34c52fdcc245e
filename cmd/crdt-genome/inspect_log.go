package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"crdt-genome/genome"
	"crdt-genome/httpapi"
	"crdt-genome/store"
)

type inspectOptions struct {
	path         string
	since, until string
	from, author []uint
	kind         string
	limit        int
	reverse      bool
	raw          bool
	follow       bool
	file         bool
	peers        []string
	index        bool
}

const inspectLong = `Prints the ops in an actor's log, oldest first. PATH is a log.db, an actor's
folder or a data folder; URL is a server. A log that a running server holds is
read through that server.

SEQ is the position in this log, counting one for every gene inserted or
deleted; OP is the same everywhere, "actor.number". AT is the index at which the
op took effect. PLACE is the gene that an insert stands beside, or the first one
deleted.`

func newInspectLogCmd(a *app) *cobra.Command {
	var opts inspectOptions
	cmd := &cobra.Command{
		Use:   "inspect-log PATH|URL",
		Short: "Read an op log: list, stats, verify, at, export",
		Long:  inspectLong,
		Example: `  crdt-genome inspect-log ./genome-data/actor-0 --limit 20
  crdt-genome inspect-log http://127.0.0.1:8000 --follow --json
  crdt-genome inspect-log ./genome-data --author 2 --kind delete --since 10m`,
		Args: wantArgs(1, 1, "a log file, a folder or a server"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.path = args[0]
			return a.inspectLog(cmd.Context(), opts)
		},
	}
	f := cmd.Flags()
	f.StringVar(&opts.since, "since", "", "from here on: a position, an op (0.57), a duration (2m), a time (RFC 3339)")
	f.StringVar(&opts.until, "until", "", "up to here, inclusive; the same forms")
	f.UintSliceVar(&opts.from, "actor", nil, "only ops that came from these actors")
	f.UintSliceVar(&opts.author, "author", nil, "only ops minted by these actors")
	f.StringVar(&opts.kind, "kind", "", "insert or delete")
	f.IntVar(&opts.limit, "limit", 0, "at most this many (0 = all)")
	f.BoolVar(&opts.reverse, "reverse", false, "newest first")
	f.BoolVar(&opts.raw, "raw", false, "whole ids and all genes of a run")
	f.BoolVarP(&opts.follow, "follow", "f", false, "go on as ops arrive")
	f.BoolVar(&opts.index, "index", false, "fill in AT also for long logs, which have to be read from the beginning for it")
	cmd.PersistentFlags().BoolVar(&opts.file, "file", false, "read the file itself, never ask a server")
	cmd.AddCommand(newInspectStatsCmd(a, &opts), newInspectVerifyCmd(a, &opts), newInspectAtCmd(a, &opts), newInspectExportCmd(a, &opts))
	return cmd
}

// indexLimit is the number of ops up to which AT is filled in unasked: it
// costs a replay from the beginning.
const indexLimit = 50_000

func (a *app) inspectLog(ctx context.Context, o inspectOptions) error {
	if o.kind != "" {
		if err := oneOf("--kind", o.kind, "insert", "delete"); err != nil {
			return err
		}
	}
	if o.limit < 0 {
		return usageError("", "--limit %d: must not be below 0", o.limit)
	}
	if o.follow && o.reverse {
		return usageError("", "--follow and --reverse cannot go together")
	}
	sources, err := a.openSources(ctx, o.path, o.file)
	if err != nil {
		return err
	}
	defer closeAll(sources)
	if o.follow && len(sources) > 1 {
		return usageError("", "--follow takes one log: name one, such as %s", sources[0].where())
	}
	for i, s := range sources {
		l, err := a.newLister(ctx, o, s, len(sources) > 1)
		if err != nil {
			return err
		}
		if len(sources) > 1 && !a.opts.json {
			if i > 0 {
				fmt.Fprintln(a.stdout)
			}
			fmt.Fprintln(a.stdout, s.where())
		}
		if err := l.list(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// A lister prints the records of one log that a filter lets pass.
type lister struct {
	a       *app
	o       inspectOptions
	names   names
	log     string // field "log" of the JSON, if several logs are listed
	index   *indexer
	since   bound
	until   bound
	started bool // the record that --since names by its op has been seen
	printed int
	kept    []listed // --reverse
	columns columns
	header  bool
}

// A listed is a record with where it took effect; -1: not known.
type listed struct {
	rec store.Record
	at  int
}

// A bound is one end of a range of records; at most one field is set.
type bound struct {
	lsn  uint64
	dot  genome.Dot
	time time.Time
}

func (a *app) newLister(ctx context.Context, o inspectOptions, s source, many bool) (*lister, error) {
	st, err := s.stats(ctx)
	if err != nil {
		return nil, err
	}
	l := &lister{a: a, o: o, names: names{}}
	var v genome.Version
	for _, au := range st.Authors {
		l.names.add(au.Replica)
		v = v.With(genome.Dot{Replica: au.Replica, Seq: au.Ops})
	}
	if many {
		l.log = s.where()
	}
	l.columns = l.listColumns(st)
	if o.index || st.Ops <= indexLimit {
		l.index = newIndexer()
	} else if !a.opts.json {
		a.note("(AT is left out: this log has %s ops; --index reads it all)", thousands(st.Ops))
	}
	if l.since, err = parseBound("--since", o.since, v); err != nil {
		return nil, err
	}
	l.until, err = parseBound("--until", o.until, v)
	return l, err
}

// parseBound reads a position, an op, a duration back from now, or a time.
func parseBound(flag, s string, v genome.Version) (b bound, err error) {
	if s == "" {
		return b, nil
	}
	if n, err := strconv.ParseUint(s, 10, 64); err == nil {
		return bound{lsn: max(n, 1)}, nil
	}
	if d, err := genome.ParseDot(s); err == nil {
		return bound{dot: d}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return bound{time: time.Now().Add(-d)}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return bound{time: t}, nil
	}
	actor, seq, _ := strings.Cut(s, ".")
	n, err1 := strconv.ParseUint(actor, 10, 32)
	q, err2 := strconv.ParseUint(seq, 10, 64)
	if err1 != nil || err2 != nil || q == 0 {
		return b, usageError("", "%s %s: want a position (1281), an op (0.57), a duration (2m) or a time (2026-11-22T22:10:00Z)", flag, s)
	}
	var found []genome.ReplicaID
	for _, e := range v {
		if e.Replica.Actor() == genome.ActorID(n) {
			found = append(found, e.Replica)
		}
	}
	switch len(found) {
	case 1:
		return bound{dot: genome.Dot{Replica: found[0], Seq: q}}, nil
	case 0:
		return b, usageError("", "%s %s: this log has no op of actor %d", flag, s, n)
	}
	return b, usageError("", "%s %s: actor %d has %d epochs: write %v.%d", flag, s, n, len(found), found[len(found)-1], q)
}

// list prints what there is, and with --follow what comes. A server that goes
// away while it is followed is waited for.
func (l *lister) list(ctx context.Context, s source) error {
	next := uint64(1)
	if l.index == nil && l.since.lsn > 0 {
		next = l.since.lsn
	}
	for {
		stop := false
		for rec, err := range s.records(ctx, next, l.o.follow) {
			if err != nil {
				if l.o.follow && ctx.Err() == nil {
					break // the server may come back
				}
				if ctx.Err() != nil && l.o.follow {
					return nil
				}
				return err
			}
			next = rec.LSN + uint64(rec.Op.Len())
			if stop = l.record(rec); stop {
				break
			}
		}
		if !l.o.follow || stop || ctx.Err() != nil {
			return l.finish()
		}
		select {
		case <-ctx.Done():
			return nil // Ctrl-C is how one stops following
		case <-time.After(300 * time.Millisecond):
		}
		if s = l.reopen(ctx, s); s == nil {
			return nil
		}
	}
}

// reopen looks again who has the log: a server may have started or gone.
func (l *lister) reopen(ctx context.Context, s source) source {
	if server, ok := s.(*serverSource); ok && isURL(serverURL(l.o.path)) {
		return server
	}
	_ = s.close() // only read from
	for ctx.Err() == nil {
		quiet := *l.a
		quiet.opts.quiet = true // who is asked has been said
		if again, err := quiet.openSources(ctx, l.o.path, l.o.file); err == nil && len(again) == 1 {
			return again[0]
		}
		select {
		case <-ctx.Done():
		case <-time.After(300 * time.Millisecond):
		}
	}
	return nil
}

// record takes the next record in order; stop says that no more are wanted.
func (l *lister) record(rec store.Record) (stop bool) {
	at := -1
	if l.index != nil {
		at = l.index.apply(rec.Op)
	}
	l.names.add(rec.Op.Dot.Replica)
	if cut, ok := l.afterUntil(&rec); ok {
		return true
	} else if cut {
		stop = true
	}
	if !l.wanted(&rec) {
		return stop
	}
	if l.o.reverse {
		l.kept = append(l.kept, listed{rec, at})
		return stop
	}
	l.print(listed{rec, at})
	return stop || l.o.limit > 0 && l.printed == l.o.limit
}

// afterUntil applies --until: past says that rec is beyond it, cut that rec
// was the last one and has been shortened if need be.
func (l *lister) afterUntil(rec *store.Record) (cut, past bool) {
	first, last := rec.LSN, rec.LSN+uint64(rec.Op.Len())-1
	u := l.until
	switch {
	case u.lsn > 0 && first > u.lsn:
		return false, true
	case u.lsn > 0 && last >= u.lsn:
		if last > u.lsn {
			rec.Op = rec.Op.Head(int(u.lsn - first + 1))
		}
		return true, false
	case u.dot.Seq > 0 && u.dot.Replica == rec.Op.Dot.Replica && u.dot.Seq >= rec.Op.Dot.Seq && u.dot.Seq <= rec.Op.Last():
		rec.Op = rec.Op.Head(int(u.dot.Seq - rec.Op.Dot.Seq + 1))
		return true, false
	case !u.time.IsZero() && rec.Time.After(u.time):
		return false, true
	}
	return false, false
}

// wanted applies --since and the filters; it cuts off what lies before.
func (l *lister) wanted(rec *store.Record) bool {
	s := l.since
	switch {
	case s.lsn > 0:
		if before := int64(s.lsn) - int64(rec.LSN); before >= int64(rec.Op.Len()) {
			return false
		} else if before > 0 {
			rec.Op, rec.LSN = rec.Op.TrimHead(int(before)), s.lsn
		}
	case s.dot.Seq > 0 && !l.started:
		if rec.Op.Dot.Replica != s.dot.Replica || rec.Op.Last() < s.dot.Seq {
			return false
		}
		l.started = true
		if skip := int64(s.dot.Seq) - int64(rec.Op.Dot.Seq); skip > 0 {
			rec.Op, rec.LSN = rec.Op.TrimHead(int(skip)), rec.LSN+uint64(skip)
		}
	case !s.time.IsZero() && rec.Time.Before(s.time):
		return false
	}
	o := l.o
	return (o.kind == "" || o.kind == rec.Op.Kind.String()) &&
		(len(o.from) == 0 || slices.Contains(o.from, uint(rec.From))) &&
		(len(o.author) == 0 || slices.Contains(o.author, uint(rec.Op.Dot.Replica.Actor())))
}

func (l *lister) finish() error {
	slices.Reverse(l.kept)
	for i, r := range l.kept {
		if l.o.limit > 0 && i == l.o.limit {
			break
		}
		l.print(r)
	}
	if !l.header && !l.a.opts.json {
		l.a.note("no op to show")
	}
	return nil
}

// inspectRecord is the JSON of a listed record.
type inspectRecord struct {
	Log string `json:"log,omitempty"`
	httpapi.LogRecord
}

// listColumns returns the columns of a log with these figures, wide enough for
// all that it holds. Records are printed at once, so that a pipe sees them, and
// what --follow brings may be wider: from there on, so are the columns.
func (l *lister) listColumns(st store.Stats) columns {
	later := 0 // digits that numbers may gain
	if l.o.follow {
		later = 1
	}
	op, place := len("OP"), len("PLACE")
	for _, au := range st.Authors {
		op = max(op, len(l.dot(genome.Dot{Replica: au.Replica, Seq: au.Ops}))+later)
		place = max(place, len("before ")+len(l.gene(genome.GeneID{Replica: au.Replica, Gene: au.Inserts}))+later)
	}
	c := columns{
		{name: "SEQ", width: len(strconv.FormatUint(st.Ops, 10)) + later}, {name: "TIME (UTC)", width: len(listTime)}, {name: "OP", width: op},
		{name: "KIND", width: len("insert")}, {name: "AT", width: len(strconv.Itoa(st.Genes+st.Tombstones)) + later, right: true},
		{name: "GENES", width: 2*shownGenes + len("…+999999") - len("…") + 1}, {name: "PLACE", width: place},
		{name: "VIA", width: len("local")}, {name: "BYTES", width: len("1048576"), right: true},
	}
	if l.o.raw { // all genes of a run, however long, come last
		c = slices.Delete(append(c, column{name: "GENES"}), 5, 6)
	}
	c.begin()
	return c
}

const listTime = "2006-01-02T15:04:05.000Z"

// print prints one record at once, so that a pipe sees it: columns have fixed
// widths, as what comes is not known.
func (l *lister) print(r listed) {
	l.printed++
	if l.a.opts.json {
		out := inspectRecord{l.log, httpapi.NewLogRecord(r.rec)}
		if r.at >= 0 {
			out.Index = &r.at
		}
		if err := l.a.printJSON(out); err != nil {
			l.printed = l.o.limit
		}
		return
	}
	if !l.header {
		l.header = true
		fmt.Fprintln(l.a.stdout, l.columns.header())
	}
	op, at, when := r.rec.Op, "–", "–"
	if r.at >= 0 {
		at = strconv.Itoa(r.at)
	}
	if !r.rec.Time.IsZero() {
		when = r.rec.Time.UTC().Format(listTime)
	}
	cells := []string{strconv.FormatUint(r.rec.LSN, 10), when, l.dot(op.Dot), op.Kind.String(), at, l.genes(op), l.place(op), r.rec.Via.String(), strconv.Itoa(r.rec.Bytes)}
	if l.o.raw {
		cells = slices.Delete(append(cells, cells[5]), 5, 6)
	}
	fmt.Fprintln(l.a.stdout, l.columns.line(cells))
}

func (l *lister) dot(d genome.Dot) string {
	if l.o.raw {
		return d.String()
	}
	return l.names.dot(d)
}

// shownGenes is how many genes of a run fit the column.
const shownGenes = 6

func (l *lister) genes(op genome.Op) string {
	if op.Kind == genome.Delete {
		return fmt.Sprintf("×%d", op.Count)
	}
	if len(op.Genes) > shownGenes && !l.o.raw {
		return fmt.Sprintf("%x…+%d", op.Genes[:shownGenes], len(op.Genes)-shownGenes)
	}
	return fmt.Sprintf("%x", op.Genes)
}

func (l *lister) gene(g genome.GeneID) string {
	if l.o.raw {
		return g.String()
	}
	return l.names.gene(g)
}

func (l *lister) place(op genome.Op) string {
	switch {
	case op.Kind == genome.Delete:
		return l.gene(op.Ref)
	case op.Ref.IsRoot():
		return "start"
	case op.Side == genome.Left:
		return "before " + l.gene(op.Ref)
	}
	return "after " + l.gene(op.Ref)
}

// An indexer replays a log to find the index at which each op takes effect.
type indexer struct{ g *genome.Genome }

func newIndexer() *indexer {
	return &indexer{genome.NewFromConfig(genome.Config{NoHistory: true})}
}

// apply returns the index of the first gene of op, or -1.
func (x *indexer) apply(op genome.Op) int {
	at := -1
	if op.Kind == genome.Delete {
		if i, live, known := x.g.IndexOf(op.Ref); known && live {
			at = i
		}
	}
	if _, err := x.g.Apply(op); err != nil {
		return -1 // the log is damaged here; verify says how
	}
	if op.Kind == genome.Insert {
		if i, live, known := x.g.IndexOf(genome.GeneID{Replica: op.Dot.Replica, Gene: op.Gene}); known && live {
			at = i
		}
	}
	return at
}

// openOne opens exactly one log.
func (a *app) openOne(ctx context.Context, o *inspectOptions) (source, error) {
	sources, err := a.openSources(ctx, o.path, o.file)
	if err != nil {
		return nil, err
	}
	if len(sources) != 1 {
		defer closeAll(sources)
		return nil, usageError("", "%s holds %d logs: name one, such as %s", o.path, len(sources), sources[0].where())
	}
	return sources[0], nil
}

// position turns a bound into the position of the last op within it.
func (b bound) position(ctx context.Context, s source) (uint64, error) {
	if b.lsn > 0 {
		return b.lsn, nil
	}
	var last uint64
	for rec, err := range s.records(ctx, 1, false) {
		if err != nil {
			return 0, err
		}
		if !b.time.IsZero() && rec.Time.After(b.time) {
			return last, nil
		}
		if b.dot.Seq > 0 && rec.Op.Dot.Replica == b.dot.Replica && rec.Op.Last() >= b.dot.Seq {
			return rec.LSN + b.dot.Seq - rec.Op.Dot.Seq, nil
		}
		last = rec.LSN + uint64(rec.Op.Len()) - 1
	}
	if b.dot.Seq > 0 {
		return 0, &cliError{exit: exitUsage, code: "not_found", msg: fmt.Sprintf("op %v is not in %s", b.dot, s.where())}
	}
	return last, nil
}

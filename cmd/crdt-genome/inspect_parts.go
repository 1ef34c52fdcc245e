package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"crdt-genome/genome"
	"crdt-genome/httpapi"
	"crdt-genome/store"
)

func newInspectStatsCmd(a *app, o *inspectOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "stats PATH|URL",
		Short: "Count what is in a log, by author",
		Example: `  crdt-genome inspect-log stats ./genome-data
  crdt-genome inspect-log stats http://127.0.0.1:8000 --json`,
		Args: wantArgs(1, 1, "a log file, a folder or a server"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.path = args[0]
			return a.inspectStats(cmd.Context(), *o)
		},
	}
}

func (a *app) inspectStats(ctx context.Context, o inspectOptions) error {
	sources, err := a.openSources(ctx, o.path, o.file)
	if err != nil {
		return err
	}
	defer closeAll(sources)
	t := newTable("LOG", "ACTOR", "EPOCH", "OPS", "OWN", "INSERTS", "DELETES", "GENES", "TOMBSTONES", "FILE", "BYTES/OP", "FREE", "FIRST", "LAST")
	var all []store.Stats
	for _, s := range sources {
		st, err := s.stats(ctx)
		if err != nil {
			return err
		}
		if a.opts.json {
			if err := a.printJSON(st); err != nil {
				return err
			}
			continue
		}
		all = append(all, st)
		t.row(s.where(), fmt.Sprint(uint32(st.Actor)), st.Epoch, fmt.Sprint(st.Ops), fmt.Sprint(st.Own), fmt.Sprint(st.Inserts),
			fmt.Sprint(st.Deletes), fmt.Sprint(st.Genes), fmt.Sprint(st.Tombstones), size(st.LogBytes), fmt.Sprintf("%.1f", st.BytesPerOp), plural(uint64(st.FreePages), "page"), timeCell(st.First), timeCell(st.Last))
	}
	if a.opts.json {
		return nil
	}
	if err := t.print(a.stdout); err != nil {
		return err
	}
	for i, st := range all {
		fmt.Fprintln(a.stdout)
		if len(all) > 1 {
			fmt.Fprintln(a.stdout, sources[i].where())
		}
		if err := authorTable(st).print(a.stdout); err != nil {
			return err
		}
	}
	return nil
}

func authorTable(st store.Stats) *table {
	n := names{}
	for _, au := range st.Authors {
		n.add(au.Replica)
	}
	t := newTable("AUTHOR", "OPS", "INSERTS", "DELETES", "LAST OP", "GENES LIVE")
	for _, au := range st.Authors {
		t.row(n.replica(au.Replica), fmt.Sprint(au.Ops), fmt.Sprint(au.Inserts), fmt.Sprint(au.Deletes),
			n.dot(genome.Dot{Replica: au.Replica, Seq: au.Ops}), fmt.Sprint(au.GenesLive))
	}
	return t
}

func timeCell(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func newInspectVerifyCmd(a *app, o *inspectOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify PATH|URL",
		Short: "Is a log undamaged? Exit 0 if so, 1 if not",
		Long: `Reads a whole log again: pages, checksums, the history of every author, and the
genome that it gives. Of a running server it asks that the log gives the genome
that the server shows.`,
		Example: `  crdt-genome inspect-log verify ./genome-data
  crdt-genome inspect-log verify http://127.0.0.1:8000
  crdt-genome inspect-log verify ./genome-data/actor-0 --peers :8001,:8002`,
		Args: wantArgs(1, 1, "a log file, a folder or a server"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.path = args[0]
			return a.inspectVerify(cmd.Context(), *o)
		},
	}
	cmd.Flags().StringSliceVar(&o.peers, "peers", nil, "servers to ask who holds what a damaged log lacks")
	return cmd
}

func (a *app) inspectVerify(ctx context.Context, o inspectOptions) error {
	sources, err := a.openSources(ctx, o.path, o.file)
	if err != nil {
		if e := classify(err); e.exit == exitCorrupt && e.code == "corrupt" {
			return a.damaged(ctx, o, e) // so badly that it cannot be opened
		}
		return err
	}
	defer closeAll(sources)
	worst := exitOK
	for i, s := range sources {
		if i > 0 && !a.opts.json {
			fmt.Fprintln(a.stdout)
		}
		ok, err := a.verifyOne(ctx, o, s, len(sources) > 1)
		if err != nil {
			return err
		}
		if !ok {
			worst = exitNo
		}
	}
	return exitWith(worst)
}

// damaged answers the question about a log that cannot even be opened.
func (a *app) damaged(ctx context.Context, o inspectOptions, e *cliError) error {
	v := store.Verification{Problems: []string{e.msg}}
	if c, ok := errors.AsType[*store.CorruptError](e.cause); ok {
		v.Path = c.Path
		v.Report, _ = store.Survey(ctx, c.Path) // what it cannot say, it cannot
	}
	if err := a.printVerification(ctx, o, v); err != nil {
		return err
	}
	return exitWith(exitNo)
}

func (a *app) verifyOne(ctx context.Context, o inspectOptions, s source, named bool) (ok bool, err error) {
	if named && !a.opts.json {
		fmt.Fprintln(a.stdout, s.where())
	}
	if server, isServer := s.(*serverSource); isServer {
		v, err := server.client.LogVerify(ctx)
		if err != nil {
			return false, serverError(server.client.URL(), err)
		}
		return v.OK, a.printServerVerification(v)
	}
	v, err := s.(*fileSource).log.Verify(ctx)
	if err != nil {
		return false, err
	}
	return v.OK(), a.printVerification(ctx, o, v)
}

func (a *app) printServerVerification(v httpapi.LogVerification) error {
	if a.opts.json {
		return a.printJSON(v)
	}
	fmt.Fprintf(a.stdout, "records    %s replayed\n", plural(v.Records, "op"))
	if v.OK {
		_, err := fmt.Fprintf(a.stdout, "replay     %s, digest %v = served\nOK\n", plural(uint64(v.Genes), "gene"), v.Replayed)
		return err
	}
	_, err := fmt.Fprintf(a.stdout, "replay     digest %v, served %v\nDAMAGED  %s\n", v.Replayed, v.Served, v.Problem)
	return err
}

// lostRange is events that a damaged log lacks, and who was seen to hold them.
type lostRange struct {
	Ops    genome.Range     `json:"ops"`
	HeldBy []genome.ActorID `json:"held_by"`
}

// lost asks the servers of --peers who holds what a damaged log lacks.
func (a *app) lost(ctx context.Context, o inspectOptions, v store.Verification) (all []lostRange, err error) {
	if v.Report == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, a.opts.timeout)
	defer cancel()
	var peers []httpapi.Peer
	for _, p := range o.peers {
		url := a.serverURL(p)
		version, err := a.client(url).Version(ctx)
		if err != nil {
			return nil, serverError(url, err)
		}
		peers = append(peers, httpapi.Peer{Actor: version.Actor, URL: url})
	}
	for i, by := range httpapi.HeldBy(ctx, a.trust, peers, v.Report.Missing) {
		all = append(all, lostRange{v.Report.Missing[i], by})
	}
	return all, nil
}

func (a *app) printVerification(ctx context.Context, o inspectOptions, v store.Verification) error {
	lost, err := a.lost(ctx, o, v)
	if err != nil {
		return err
	}
	if a.opts.json {
		return a.printJSON(struct {
			OK bool `json:"ok"`
			store.Verification
			Lost []lostRange `json:"lost,omitempty"`
		}{v.OK(), v, lost})
	}
	if v.Report != nil {
		return a.printReport(o, v, lost)
	}
	fmt.Fprintf(a.stdout, "pages      %d sound\n", v.Pages)
	fmt.Fprintf(a.stdout, "records    %d of %d checksums match\n", v.Sound, v.Records)
	fmt.Fprintf(a.stdout, "history    %s, %s without a gap\n", plural(uint64(v.Authors), "author"), plural(v.Ops, "op"))
	fmt.Fprintf(a.stdout, "replay     %s, digest %v\n", plural(uint64(v.Genes), "gene"), v.Digest)
	if v.OK() {
		_, err := fmt.Fprintln(a.stdout, "OK")
		return err
	}
	return a.printProblems(v)
}

func (a *app) printProblems(v store.Verification) error {
	for _, p := range v.Problems {
		if _, err := fmt.Fprintln(a.stdout, "DAMAGED ", p); err != nil {
			return err
		}
	}
	return nil
}

// shownDamage is how many damaged places are printed.
const shownDamage = 20

// printReport says what of a damaged log is left.
func (a *app) printReport(o inspectOptions, v store.Verification, lost []lostRange) error {
	r := v.Report
	fmt.Fprintf(a.stdout, "sound      %s can be read, %d wait for others\n", plural(r.Sound, "op"), r.Waiting)
	for _, l := range lost {
		held := "held by nobody asked"
		if len(o.peers) == 0 {
			held = "name servers with --peers to see who holds them"
		}
		for i, by := range l.HeldBy {
			if i == 0 {
				held = "held by actor"
			}
			held += fmt.Sprintf(" %d", by)
		}
		fmt.Fprintf(a.stdout, "missing    %v  %s\n", l.Ops, held)
	}
	if r.Unknown > 0 {
		fmt.Fprintf(a.stdout, "missing    %s of which nothing is known\n", plural(r.Unknown, "more op"))
	}
	for i, d := range r.Damage {
		if i == shownDamage {
			fmt.Fprintf(a.stdout, "damage     and %s more (--json has all)\n", plural(uint64(len(r.Damage)-i), "place"))
			break
		}
		fmt.Fprintf(a.stdout, "damage     %v\n", d)
	}
	return a.printProblems(v)
}

func newInspectAtCmd(a *app, o *inspectOptions) *cobra.Command {
	var until string
	cmd := &cobra.Command{
		Use:   "at PATH|URL --until WHEN",
		Short: "The genome as it was: hex on stdout",
		Example: `  crdt-genome inspect-log at ./genome-data/actor-0 --until 600
  crdt-genome inspect-log at http://127.0.0.1:8000 --until 5m --json`,
		Args: wantArgs(1, 1, "a log file, an actor's folder or a server"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.path, o.until = args[0], until
			return a.inspectAt(cmd.Context(), *o)
		},
	}
	cmd.Flags().StringVar(&until, "until", "", "after this position (600), op (0.57), time ago (2m) or time (RFC 3339); default now")
	return cmd
}

// atReply is the JSON of inspect-log at.
type atReply struct {
	Seq    uint64         `json:"seq"` // events of the log that were applied
	Genes  int            `json:"genes"`
	Digest genome.Digest  `json:"digest"`
	VV     genome.Version `json:"vv"`
	Genome string         `json:"genome"` // hex
}

func (a *app) inspectAt(ctx context.Context, o inspectOptions) error {
	s, err := a.openOne(ctx, &o)
	if err != nil {
		return err
	}
	defer s.close()
	keep := cut(everything)
	if o.until == "0" {
		keep = upTo(0)
	} else if o.until != "" {
		st, err := s.stats(ctx)
		if err != nil {
			return err
		}
		var v genome.Version
		for _, au := range st.Authors {
			v = v.With(genome.Dot{Replica: au.Replica, Seq: au.Ops})
		}
		b, err := parseBound("--until", o.until, v)
		if err != nil {
			return err
		}
		lsn, err := b.position(ctx, s)
		if err != nil {
			return err
		}
		keep = upTo(lsn)
	}
	g, err := replay(s.records(ctx, 1, false), keep)
	if err != nil {
		return err
	}
	if a.opts.json {
		return a.printJSON(atReply{g.Ops(), g.Len(), g.Digest(), g.Version(), g.String()})
	}
	_, err = fmt.Fprintln(a.stdout, g.String())
	return err
}

func newInspectExportCmd(a *app, o *inspectOptions) *cobra.Command {
	var format, out string
	cmd := &cobra.Command{
		Use:   "export PATH|URL",
		Short: "Write a log in another form, or a backup",
		Long: `Writes a whole log: ndjson has one op a line, as POST /genome takes them; csv is
the listing; hex is the genome; bolt is a consistent copy of the log file, also
of a running server's. To restore a backup, put it back as actor-N/log.db while
that actor is stopped: it goes on under a new epoch.`,
		Example: `  crdt-genome inspect-log export ./genome-data/actor-0 > ops.ndjson
  crdt-genome inspect-log export http://127.0.0.1:8000 --format bolt -o backup.db
  crdt-genome inspect-log export ./genome-data/actor-0 --format csv -o ops.csv`,
		Args: wantArgs(1, 1, "a log file, an actor's folder or a server"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.path = args[0]
			return a.inspectExport(cmd.Context(), *o, format, out)
		},
	}
	cmd.Flags().StringVar(&format, "format", "ndjson", "ndjson, csv, hex or bolt")
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write (default stdout)")
	return cmd
}

func (a *app) inspectExport(ctx context.Context, o inspectOptions, format, out string) error {
	if err := oneOf("--format", format, "ndjson", "csv", "hex", "bolt"); err != nil {
		return err
	}
	if format == "bolt" && out == "" && a.isTerminal(a.stdout) {
		return usageError("", "a copy of the log is not for a terminal: give -o FILE")
	}
	s, err := a.openOne(ctx, &o)
	if err != nil {
		return err
	}
	defer s.close()
	if out == "" {
		return exportTo(ctx, a.stdout, s, format)
	}
	// Written beside its place and moved there whole: a half export, or a
	// half backup, must not look like one.
	tmp, err := os.OpenFile(out+".part", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = exportTo(ctx, tmp, s, format)
	if err == nil {
		err = tmp.Sync()
	}
	if e := tmp.Close(); err == nil {
		err = e
	}
	if err != nil {
		_ = os.Remove(tmp.Name()) // the error before matters more
		return err
	}
	return os.Rename(tmp.Name(), out)
}

func exportTo(ctx context.Context, w io.Writer, s source, format string) error {
	switch format {
	case "bolt":
		return s.backup(ctx, w)
	case "hex":
		g, err := replay(s.records(ctx, 1, false), everything)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(w, g.String())
		return err
	case "csv":
		return exportCSV(ctx, w, s)
	}
	buf := bufio.NewWriter(w)
	for rec, err := range s.records(ctx, 1, false) {
		if err != nil {
			return err
		}
		line, err := json.Marshal(rec.Op)
		if err != nil {
			return err
		}
		if _, err := buf.Write(append(line, '\n')); err != nil {
			return err
		}
	}
	return buf.Flush()
}

func exportCSV(ctx context.Context, w io.Writer, s source) error {
	c := csv.NewWriter(w)
	if err := c.Write([]string{"seq", "time", "op", "kind", "index", "genes", "parent", "side", "target", "count", "via", "from", "bytes"}); err != nil {
		return err
	}
	x := newIndexer()
	for rec, err := range s.records(ctx, 1, false) {
		if err != nil {
			return err
		}
		l, index := httpapi.NewLogRecord(rec), ""
		if at := x.apply(rec.Op); at >= 0 {
			index = strconv.Itoa(at)
		}
		parent := ""
		if l.Parent != nil {
			parent = *l.Parent
		}
		row := []string{strconv.FormatUint(l.Seq, 10), l.Time.Format(time.RFC3339Nano), l.Op, l.Kind, index, l.Genes, parent, l.Side,
			l.Target, strconv.FormatUint(l.Count, 10), l.Via, strconv.FormatUint(uint64(l.From), 10), strconv.Itoa(l.Bytes)}
		if err := c.Write(row); err != nil {
			return err
		}
	}
	c.Flush()
	return c.Error()
}

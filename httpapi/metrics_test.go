package httpapi

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"crdt-genome/genome"
)

// metricNames are the names that dashboards and alerts are written to.
var metricNames = strings.Fields(`
genome_build_info genome_ops_total genome_ops_duplicate_total genome_dot_conflict_total
genome_pending_ops genome_ops_pending genome_pending_bytes genome_pending_oldest_seconds
genome_genes genome_live_genes genome_tombstones genome_log_bytes genome_log_commit_seconds genome_replay_seconds
genome_log_corrupt_records_total genome_quarantined_ops genome_op_age_seconds genome_epoch genome_store_writable genome_write_queue_ops genome_writer_fenced
genome_http_conns genome_http_conns_closed_total genome_http_request_duration_seconds genome_sse_streams
genome_panics_total genome_apply_stall_total genome_rejected_total
genome_verify_rounds_total genome_sync_rounds_total genome_divergence_total genome_forks_total
genome_converged genome_converged_timestamp_seconds
genome_peer_up genome_peer_lag_ops genome_peer_lag_seconds genome_peer_post_total genome_peer_queue_bytes
genome_peer_queue_dropped_total genome_peer_backoff_seconds`)

// metric returns the value of one series of n, as written in /metrics.
func metric(t testing.TB, n *Node, series string) (v float64, ok bool) {
	t.Helper()
	for line := range strings.Lines(ask(t, n, "GET", "/metrics", nil).body) {
		if rest, found := strings.CutPrefix(line, series+" "); found {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			return v, true
		}
	}
	return 0, false
}

func wantMetric(t testing.TB, n *Node, series string, want float64) {
	t.Helper()
	if got, ok := metric(t, n, series); !ok || got != want {
		t.Errorf("%s %v (present: %v), want %v", series, got, ok, want)
	}
}

func TestMetrics(t *testing.T) {
	l := newLab(t, 2, nil)
	n := l.start(0)
	mustInsert(t, n, 0, 1, 2, 3)
	if _, err := n.actor.Delete(ctx, 0, 1); err != nil {
		t.Fatal(err)
	}
	l.start(1)
	l.waitEqual()
	g := stranger(t, "9@5f3c1a2b")
	first, second := insert(t, g, 0, 1), insert(t, g, 1, 2)
	post(t, n, jsonOps(t, first))
	post(t, n, jsonOps(t, first))
	post(t, n, jsonOps(t, insert(t, g, 2, 3)))
	post(t, n, "{")
	forged := first
	forged.Genes = []byte{9}
	post(t, n, jsonOps(t, forged))
	_ = second

	text := ask(t, n, "GET", "/metrics", nil).body
	for _, name := range metricNames {
		if !strings.Contains(text, "# TYPE "+name+" ") {
			t.Errorf("%s is missing", name)
		}
	}
	for line := range strings.Lines(text) {
		name, ok := strings.CutPrefix(line, "# TYPE genome_")
		name, _, _ = strings.Cut(name, " ")
		if ok && !strings.Contains(strings.Join(metricNames, " ")+" ", "genome_"+name+" ") {
			t.Errorf("genome_%s is not in the list of promised names", name)
		}
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "genome_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	wantMetric(t, n, `genome_ops_total{kind="insert",via="local"}`, 3)
	wantMetric(t, n, `genome_ops_total{kind="delete",via="local"}`, 1)
	wantMetric(t, n, `genome_ops_total{kind="insert",via="post"}`, 1)
	wantMetric(t, n, `genome_ops_duplicate_total`, 1)
	wantMetric(t, n, `genome_dot_conflict_total`, 1)
	wantMetric(t, n, `genome_rejected_total{code="dot_conflict"}`, 1)
	wantMetric(t, n, `genome_rejected_total{code="unexpected_eof"}`, 1)
	wantMetric(t, n, `genome_pending_ops`, 1)
	wantMetric(t, n, `genome_genes`, 3)
	wantMetric(t, n, `genome_tombstones`, 1)
	wantMetric(t, n, `genome_store_writable`, 1)
	wantMetric(t, n, `genome_panics_total`, 0)
	wantMetric(t, n, `genome_epoch`, 1)
	wantMetric(t, n, `genome_peer_up{peer="1"}`, 1)
	wantMetric(t, n, `genome_http_request_duration_seconds_count{code="400",method="POST",route="POST /genome"}`, 1)
	if v, _ := metric(t, n, `genome_pending_oldest_seconds`); v <= 0 {
		t.Errorf("something is pending since %v s", v)
	}
	if v, _ := metric(t, n, `genome_log_commit_seconds_count`); v < 3 {
		t.Errorf("%v commits are timed", v)
	}
	post(t, n, jsonOps(t, second))
	wantMetric(t, n, `genome_pending_ops`, 0)
	wantMetric(t, n, `genome_pending_oldest_seconds`, 0)
	l.waitEqual()
	eventually(t, func() bool {
		c, _ := metric(t, n, "genome_converged")
		at, _ := metric(t, n, "genome_converged_timestamp_seconds")
		lag, _ := metric(t, n, `genome_peer_lag_ops{peer="1"}`)
		age, _ := metric(t, n, `genome_peer_lag_seconds{peer="1"}`)
		return c == 1 && at > float64(time.Now().Add(-time.Hour).Unix()) && lag == 0 && age == 0
	}, why("not converged in the metrics"))
	eventually(t, func() bool { // one of them is pushed, however many are pulled
		mustInsert(t, n, 0, 1)
		v, _ := metric(t, l.nodes[1], "genome_op_age_seconds_count")
		return v > 0
	}, why("no push was timed"))
	if a := ask(t, n, "GET", "/metrics", nil, "Accept", "application/openmetrics-text"); !strings.HasSuffix(a.body, "# EOF\n") {
		t.Error("no OpenMetrics when asked for")
	}
}

// Labels come from the routes, not from who asks.
func TestMetricLabelsAreBounded(t *testing.T) {
	n := alone(t, nil)
	for i := range 50 {
		ask(t, n, "M"+strconv.Itoa(i), "/x"+strconv.Itoa(i), nil)
	}
	text := ask(t, n, "GET", "/metrics", nil).body
	if k := strings.Count(text, "genome_http_request_duration_seconds_count"); k > 3 {
		t.Errorf("%d series of requests", k)
	}
	wantMetric(t, n, `genome_http_request_duration_seconds_count{code="404",method="other",route="other"}`, 50)
}

// A lag is the age of what is lacking, not the time since the last moment at
// which nothing was: events that go out as fast as they come are no lag.
func TestLag(t *testing.T) {
	v := func(seq uint64) (v genome.Version) {
		if seq > 0 {
			v = genome.Version{{Replica: genome.NewReplicaID(1, 1), Seq: seq}}
		}
		return v
	}
	start := time.Now()
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	var l lag
	for _, step := range []struct {
		have, want genome.Version
		second     int
		age        int
	}{
		{v(0), v(0), 0, 0},
		{v(0), v(5), 10, 0},
		{v(0), v(9), 20, 10},
		{v(4), v(9), 30, 20}, // 5 is still lacking since 10
		{v(6), v(12), 40, 0}, // all that was lacking at 10 is there
		{v(6), v(13), 50, 10},
		{v(13), v(13), 60, 0},
		{v(0), v(13), 70, 0},
	} {
		l.update(step.have, step.want, at(step.second))
		if got := int(l.age(at(step.second)).Seconds()); got != step.age {
			t.Errorf("at %d s: age %d s, want %d", step.second, got, step.age)
		}
	}
}

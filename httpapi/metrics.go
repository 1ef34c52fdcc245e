package httpapi

import (
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"crdt-genome/store"
)

const (
	// maxPeerMetrics is the number of peers, by ascending actor, that have
	// metrics of their own: a label is a time series for ever. The others are
	// in GET /v1/cluster.
	maxPeerMetrics = 64

	// maxScrapes is the number of readers of /metrics at a time. More: 503.
	maxScrapes = 4
)

// metrics are what GET /metrics shows of one node. What is counted elsewhere
// is collected when asked for; only distributions are kept here.
type metrics struct {
	registry *prometheus.Registry
	commit   prometheus.Histogram
	age      prometheus.Histogram
	requests *prometheus.HistogramVec
}

// commitBuckets reach from a fast SSD's sync to a disk that is about to fail.
var commitBuckets = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// ageBuckets reach from one hop on a quiet machine to a peer that was away.
var ageBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 3600}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "genome_log_commit_seconds", Buckets: commitBuckets,
			Help: "Time that the disk took for one commit, sync included."}),
		age: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "genome_op_age_seconds", Buckets: ageBuckets,
			Help: "Age of the oldest op of a pushed batch when it was durable here, since it was durable where it was made; the way there is left out, as clocks differ."}),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "genome_http_request_duration_seconds", Buckets: prometheus.DefBuckets,
			Help: "Time to answer a request, by route."}, []string{"route", "method", "code"}),
	}
	m.registry.MustRegister(m.commit, m.age, m.requests, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) committed(took time.Duration) { m.commit.Observe(took.Seconds()) }

// observe counts one request. Methods and paths that are not routes share a
// label, so that nobody can make labels up.
func (m *metrics) observe(pattern, method string, status int, took time.Duration) {
	if pattern == "" {
		pattern = "other"
	}
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions:
	default:
		method = "other"
	}
	m.requests.WithLabelValues(pattern, method, strconv.Itoa(status)).Observe(took.Seconds())
}

// getMetrics serves Prometheus' text format, or OpenMetrics when asked for.
func (n *Node) getMetrics(w http.ResponseWriter, r *http.Request) error {
	n.scrape.ServeHTTP(w, r)
	return nil
}

func (n *Node) newScrape() http.Handler {
	n.metrics.registry.MustRegister(collector{n})
	return promhttp.HandlerFor(n.metrics.registry, promhttp.HandlerOpts{
		EnableOpenMetrics: true, MaxRequestsInFlight: maxScrapes, DisableCompression: true, Timeout: askTimeout,
		ErrorHandling: promhttp.ContinueOnError,
	})
}

// A collector shows what the node, its peers and its log count.
type collector struct{ n *Node }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("genome_"+name, help, labels, nil)
}

var (
	descBuild      = desc("build_info", "The program; always 1.", "version", "go")
	descOps        = desc("ops_total", "Unit events taken into the log since the start.", "kind", "via")
	descDuplicate  = desc("ops_duplicate_total", "Unit events that came again.")
	descConflict   = desc("dot_conflict_total", "Ops and batches refused because another op has their dot.")
	descParked     = desc("pending_ops", "Ops kept in memory until what they need arrives.")
	descParkedToo  = desc("ops_pending", "The same as genome_pending_ops.")
	descParkedSize = desc("pending_bytes", "Size of the ops kept in memory until what they need arrives.")
	descParkedAge  = desc("pending_oldest_seconds", "For how long some op has been pending, at most; 0 if none is.")
	descGenes      = desc("genes", "Genes in the list.")
	descLive       = desc("live_genes", "The same as genome_genes.")
	descTombstones = desc("tombstones", "Deleted genes that are kept.")
	descLogBytes   = desc("log_bytes", "Size of the log file.")
	descCorrupt    = desc("log_corrupt_records_total", "Places in the log that were found damaged and repaired at this start.")
	descQuarantine = desc("quarantined_ops", "Unit events that the log holds and cannot apply: what they need was lost, or they are not possible.")
	descReplay     = desc("replay_seconds", "Time that the log's replay took at the start.")
	descEpoch      = desc("epoch", "Epochs that this log has gone through; rises when the actor goes on under a new one.")
	descWritable   = desc("store_writable", "1 if ops can be taken.")
	descQueued     = desc("write_queue_ops", "Ops that wait for the writer.")
	descFenced     = desc("writer_fenced", "1 if nothing is minted: an older process runs as this actor, or own ops are being pulled back.")

	descConns    = desc("http_conns", "Open connections.")
	descCut      = desc("http_conns_closed_total", "Connections closed for a newer one because too many were open.")
	descStreams  = desc("sse_streams", "Streams that follow the log or the changes.")
	descPanics   = desc("panics_total", "Requests that panicked. Each is a bug.")
	descStalls   = desc("apply_stall_total", "Times that the apply loop stood still for 10 s.")
	descRejected = desc("rejected_total", "Requests and ops refused, by code.", "code")

	descRounds      = desc("verify_rounds_total", "Verifications of all peers.")
	descSyncRounds  = desc("sync_rounds_total", "Pulls that the timer started; grows also when nothing happens.")
	descDivergence  = desc("divergence_total", "Alarms: a peer with the same ops and another genome. Each is a bug or damage.")
	descForks       = desc("forks_total", "Replicas found with two histories.")
	descConverged   = desc("converged", "1 if the last verification found all peers equal.")
	descConvergedAt = desc("converged_timestamp_seconds", "When all peers were last found equal; 0: never.")

	descPeerUp      = desc("peer_up", "1 if the peer answered the last time it was asked.", "peer")
	descPeerLag     = desc("peer_lag_ops", "Unit events held here that the peer is not known to hold.", "peer")
	descPeerLagAge  = desc("peer_lag_seconds", "For how long the peer has been lacking the oldest of them; 0 when caught up.", "peer")
	descPeerPosts   = desc("peer_post_total", "Batches sent to the peer, by what became of them.", "peer", "result")
	descPeerQueue   = desc("peer_queue_bytes", "Size of the batch that is on its way to the peer; nothing else is queued, the log is the outbox.", "peer")
	descPeerDropped = desc("peer_queue_dropped_total", "Unit events that the peer refused for good and that are not sent again; a pull may still bring them.", "peer")
	descPeerBackoff = desc("peer_backoff_seconds", "Pause that the sender chose after its last failure; 0 when the peer answers.", "peer")
)

// Describe sends nothing: what is collected depends on the peers.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect sends everything.
func (c collector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	c.store(gauge, count)
	c.node(gauge, count)
	mine := c.n.actor.Version()
	peers := c.n.peers()
	for _, p := range peers[:min(len(peers), maxPeerMetrics)] {
		p.collect(mine, gauge, count)
	}
}

type (
	gaugeFunc func(d *prometheus.Desc, v float64, labels ...string)
	countFunc func(d *prometheus.Desc, v uint64, labels ...string)
)

func (c collector) store(gauge gaugeFunc, count countFunc) {
	n := c.n
	s := n.actor.Stats()
	l := s.Live
	for _, via := range []struct {
		via          store.Via
		ops, deletes uint64
	}{{store.ViaLocal, l.Local, l.LocalDeletes}, {store.ViaPost, l.Post, l.PostDeletes}, {store.ViaPull, l.Pull, l.PullDeletes}} {
		count(descOps, via.ops-via.deletes, "insert", via.via.String())
		count(descOps, via.deletes, "delete", via.via.String())
	}
	count(descDuplicate, l.Duplicates)
	count(descConflict, l.Conflicts)
	gauge(descParked, float64(l.PendingOps))
	gauge(descParkedToo, float64(l.PendingOps))
	gauge(descParkedSize, float64(l.PendingBytes))
	gauge(descParkedAge, n.pendingFor(l.PendingOps).Seconds())
	gauge(descGenes, float64(s.Genes))
	gauge(descLive, float64(s.Genes))
	gauge(descTombstones, float64(s.Tombstones))
	gauge(descLogBytes, float64(s.LogBytes))
	count(descCorrupt, n.corruptRecords())
	gauge(descQuarantine, float64(s.Quarantined))
	gauge(descReplay, n.actor.Opening().Took.Seconds())
	gauge(descEpoch, float64(s.Epochs))
	gauge(descWritable, truth(n.writable() == nil))
	gauge(descQueued, float64(l.Queued))
	gauge(descFenced, truth(n.fencedWhy() != ""))
}

// corruptRecords counts what this start has repaired. Damage that is met later
// ends the process, and is counted by its next start.
func (n *Node) corruptRecords() uint64 {
	r := n.actor.Opening().Repaired
	if r == nil {
		return 0
	}
	return uint64(len(r.Damage))
}

func (c collector) node(gauge gaugeFunc, count countFunc) {
	n := c.n
	gauge(descBuild, 1, n.cfg.Version, runtime.Version())
	counts := n.Counts()
	open, closed := n.conns.totals()
	gauge(descConns, float64(open))
	count(descCut, closed)
	gauge(descStreams, float64(len(n.streams)))
	count(descPanics, counts.Panics)
	count(descStalls, counts.Stalls)
	for code, k := range counts.Rejected {
		count(descRejected, k, code)
	}
	count(descRounds, counts.Rounds)
	count(descSyncRounds, counts.PullRounds)
	count(descDivergence, counts.Diverged)
	count(descForks, counts.Forks)
	converged, at := n.convergedAt()
	gauge(descConverged, truth(converged))
	gauge(descConvergedAt, at)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

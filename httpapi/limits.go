package httpapi

import (
	"time"

	"crdt-genome/genome"
	"crdt-genome/httpapi/rings"
)

// Limits of the server. Each bounds what one stranger can cost us; the comment
// says what happens when it is reached.
const (
	// maxBody is the size of a request body, before and after decompression:
	// room for 4,096 ops of 256 bytes. More: 413 body_too_large.
	maxBody = 1 << 20

	// maxVector is the size of the body of POST /v1/ops/query: a vector of
	// genome.MaxReplicas, at the most that one takes. So whatever a group holds,
	// its members can ask each other for it. More: 413 body_too_large.
	maxVector = 48 << 20

	// maxVectors is how many bodies above maxBody are read at a time. More: 503
	// busy.
	maxVectors = 2

	// maxHeader is the size of a request's header: the longest we send is a
	// vector of maxQuery bytes. More: 431, by net/http.
	maxHeader = 16 << 10

	// netHTTPSlop is what net/http adds to MaxHeaderBytes before it refuses.
	netHTTPSlop = 4 << 10

	// maxConns is the number of open connections: ten for each of 50 peers.
	// More: one that waits for its client is closed; see conns.
	maxConns = 512

	// headerTimeout, bodyTimeout, idleTimeout: a slow client is cut off. A
	// header is one packet and a body of maxBody takes 10 s at 0.8 Mbit/s.
	headerTimeout = 5 * time.Second
	bodyTimeout   = 10 * time.Second // 408 body_timeout
	idleTimeout   = 60 * time.Second

	// writeTimeout is how long a reader may take for one answer, or for one
	// step of a stream. Slower ones are cut off.
	writeTimeout = 60 * time.Second

	// maxStreams is the number of followed logs at a time. More: 503 busy.
	maxStreams = 64

	// maxBatchOps is the number of ops in one body. More: 413 too_many_ops.
	maxBatchOps = genome.MaxBatchOps

	// maxRefusals is how many refused ops an answer names; the rest are only
	// counted, or a body of 4,096 bad ops would make an answer of 1 MiB.
	maxRefusals = 16

	// maxTwins is the number of processes of one actor that are remembered.
	maxTwins = 8

	// maxComplaints is the number of different complaints about one process of
	// a peer that are logged; it chooses some of the words itself.
	maxComplaints = 64

	// digestCache is the number of answers about older vectors that are kept.
	digestCache = 16
)

// Limits of what a node asks of others.
const (
	// maxPushBytes bounds the one batch that is on its way to a peer, which is
	// all that is ever queued for it: the rest stays in the log.
	maxPushBytes = 256 << 10

	// maxChunk bounds a chunk of /v1/ops. It leaves the block's table of
	// replicas room below maxBody.
	maxChunk = maxBody - 64<<10

	// maxQuery is the longest vector put into a URL; longer ones are POSTed.
	maxQuery = 4 << 10

	// maxReply bounds what is read of a peer's answer: a genome of 32 Mi genes.
	maxReply = 64 << 20

	// maxProblem bounds what is read of a refusal.
	maxProblem = 1 << 20

	// dialTimeout, askTimeout, bulkTimeout: nothing waits for a peer longer.
	dialTimeout = 2 * time.Second
	askTimeout  = 3 * time.Second  // a small question
	bulkTimeout = 15 * time.Second // up to maxBody one way

	// verifyParallel is how many peers are asked at a time in a round.
	verifyParallel = 16

	// backoffFirst and backoffMax bound the full-jitter pause of a sender:
	// between 0 and 100 ms after the first failure, 0 and 30 s in the end.
	backoffFirst = rings.PauseFirst
	backoffMax   = rings.PauseMax

	// probeAfter failures in a row a sender asks for /livez before it sends
	// a body, and the peer counts as unreachable.
	probeAfter = rings.MeshProbes

	// wakeAtMost: a sender that waits is woken early by a sign of life of its
	// peer, but not more often than this, or a one-way partition would turn
	// each of the peer's requests into one of ours.
	wakeAtMost = time.Second

	// unreachableEvery is how often a peer that stays away is logged.
	unreachableEvery = 5 * time.Minute

	// slowPass is how long a pull from one peer waits for that from another.
	slowPass = 2 * time.Second

	// pullRetries is how often a pull that failed is tried again before it is
	// left to the next interval.
	pullRetries = 4

	// flushTimeout and serverTimeout are the shares of a graceful stop.
	flushTimeout  = time.Second
	serverTimeout = 3 * time.Second

	// lonelyAfter: time without an answer from any peer until that is logged.
	lonelyAfter = 10 * time.Second
)

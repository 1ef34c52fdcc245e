// Package httpapi is a running actor: the HTTP server that others talk to, and
// the loops that push, pull, verify and mutate.
//
// A [Node] is the one type that the command line and the tests start and stop.
// It owns a [store.Actor], a net/http server, one push and one pull loop for
// each peer, one verify loop and one mutator. [Client] is the other end: what
// the command line uses to ask a node, and what nodes use among themselves.
//
// # What always holds
//
//	H1. Nothing leaves the process before it is durable: every answer is made
//	    from what store has committed (its State, Receipt and Own promise it).
//	H2. 200 for a POST means committed and synced here. 202 means kept in
//	    memory only: it is not an acknowledgement.
//	H3. Nothing of a body is applied before all of it has been read and
//	    checked as far as it can be without the genome.
//	H4. Push may lose, repeat and reorder anything: it is there for latency.
//	    All correctness rests on pull, which compares vectors also when
//	    nothing seems to be missing.
//	H5. A peer that did not answer is never equal to anything.
//	H6. Every queue, body, batch, stream and connection count has a bound,
//	    named in limits.go with what happens when it is reached.
//	H7. Every goroutine belongs to a Node and has ended when Close returns.
//	H8. A fork or a divergence is named and counted, never merged.
//	H9. A node mints nothing before it has asked its peers what they hold of
//	    its own replica (or JoinTimeout has passed), and nothing from when it
//	    has learnt that an older process runs under its actor number until
//	    that one has not been heard of for five minutes.
//
// # Routes
//
//	GET  /genome            the genome in lower-case hex and nothing else; ETag, 304
//	POST /genome            ops: a JSON object, an array, NDJSON, or a binary block
//	GET  /v1/digest         [DigestReply]; ?at=VV: the state at an older vector
//	GET  /v1/vv             [HeadsReply]
//	GET  /v1/ops            ?since=VV&limit=N: what VV lacks, NDJSON or binary by Accept
//	POST /v1/ops/query      the same for vectors too long for a URL: {"since":{...},"limit":N}
//	POST /v1/edit           [EditRequest] -> 201 [EditReply]
//	GET  /v1/members        [MembersReply]: the processes of the group
//	GET  /v1/cluster        [ClusterReply]: every peer as this node sees it
//	GET  /v1/elements       [ElementsReply]: the list with its tombstones; ?from=&limit=&whole=; gzip, ETag
//	GET  /v1/elements/overview  [OverviewReply]: all of it from afar; ?slots=; gzip
//	GET  /v1/changes        ?since=LSN: what happens, as SSE or NDJSON; see getChanges
//	GET  /v1/log            ?from=LSN&limit=N&follow=true: [LogRecord] as NDJSON
//	GET  /v1/log/info       [LogInfo]; /v1/log/stats [LogStats]; /v1/log/verify [LogVerification]
//	GET  /v1/backup         a consistent copy of the log file
//	PUT  /v1/mutator        [MutatorRequest]
//	PUT  /v1/links/{actor}  [LinkRequest]: cut or heal a link, with Config.Chaos only
//	PUT  /v1/log-level      {"level":"debug"}
//	GET  /v1/version        [VersionReply]
//	GET  /v1/openapi.json   all of this for programs
//	GET  /metrics           for Prometheus; metrics.go lists them
//	GET  /livez /readyz /healthz   ?verbose
//	GET  /                  the page for browsers (package observatory), for others three lines of text
//	GET  /app.css /app.js /icon.svg   the rest of the page
//
// Routes below /v1/ are added to and never changed; /genome stays as it is.
// Errors are RFC 9457 problem documents ([Problem]) whose code is the contract.
//
// # A bus instead of POSTs
//
// With Config.Bus (package bus, NATS JetStream) a process publishes its ops
// once for all others and POSTs none. Nothing else changes: POST /genome is
// served, pull repairs, and all that arrives is checked as a POST is.
//
// # Who is let in
//
// On a loopback address everybody is, unless Config.Trust says otherwise: with
// an authority or a token (package trust) each request but the bare probes
// must come with one of the two, or gets 401 auth_required or 403 not_a_member.
// An address that others reach wants TLS or a token, or Config.Insecure. Who is
// not let in learns from the answer that crdt-genome is here, and no more.
//
// A token is sent to the members that the configuration names. To those that
// gossip names it goes only if they are on this machine or show a certificate
// of the authority, as whoever has the gossip key could name an address of its
// own; off loopback, gossip with a token and without TLS and an authority is
// refused, but for Config.Insecure.
//
// # Who has made an op
//
// That does not tell members apart. With store.Config.Sign each actor signs what
// it mints, and takes of others only what its author has signed, by a roster of
// keys; what comes without is refused with 403 signature_required,
// signature_invalid or not_in_roster, and nothing is lost, as a pull asks again.
// Signatures (package signed) ride on binary batches, on POST /genome as on
// answers of /v1/ops to who sends Genome-Signed: true, so that whoever stands
// between two members can carry ops or keep them back, but neither change nor
// invent one. What such a one says of itself (vectors, digests, heads) is not signed.
//
// # Headers between peers
//
// Both directions carry Genome-Protocol, Genome-Actor, Genome-Replica,
// Genome-Boot and Genome-Cluster. A boot id is made anew by every process,
// "<start, unix ms, 12 hex digits>-<16 random hex digits>", and orders
// processes by their start. Requests carry Date as well: it tells an older
// process that still runs from what a dead one has left in the network.
package httpapi

// Package genome implements a replicated list of genes: a list CRDT in Fugue
// order, with the state machine of one replica around it.
//
// A gene is one byte. A [Genome] is the list that one replica sees. It changes
// by local edits, which return ops, and by applying the ops of others. The
// package does no I/O, reads no clock, draws no random number, starts no
// goroutine and depends on no map's order: the same calls give the same bytes
// everywhere, so the same code runs in a daemon, in a simulation and in replay.
//
// # Invariants
//
//	G1. A dot is issued once: seq counts 1, 2, 3, … per replica without gaps.
//	G2. What is applied is closed: with an event all earlier events of its
//	    replica and the gene that it names are applied. Anything else is parked.
//	G3. Applying is idempotent: events that Version includes change nothing.
//	G4. The list depends only on the set of applied events.
//	G5. A refused op has changed nothing.
//	G6. Parked ops never advance the version and are bounded.
//
// # Order
//
// Concurrent inserts are ordered as Fugue orders them (Weidner and Kleppmann,
// "The Art of the Fugue: Minimizing Interleaving in Collaborative Text
// Editing", 2023): two people who type at one place never get their words
// interleaved. Every gene hangs on one side of one parent; the list is the
// tree read left children, gene, right children. Children of one side ascend
// by (ReplicaID, gene number). An op therefore names one gene and one side.
//
// # Events and ops
//
// A unit event is one gene inserted or one gene deleted, and takes one seq of
// its replica. The sequence of a replica's events is immutable; an [Op] is a
// run of them, and may be cut or joined by whoever stores or sends it.
//
// # What comes from outside
//
// An op from elsewhere is checked twice: [Op.Check] needs no genome and is done
// by every decoder, [Genome.ApplyFrom] checks what depends on the state. Each
// refusal is an [*OpError] with a [Code]. Every number that a sender controls has
// a bound: [MaxRun], [MaxSeq], [MaxSeqAhead], [MaxBatchOps], [MaxReplicas],
// [MaxGenes], [MaxParkedOps], [MaxParkedBytes], [MaxParkedPeers]. What is full
// refuses the newest. An op names at most one gene and ids have a fixed size, so
// there is no list of dependencies to bound.
//
// Decoding allocates at most 4 bytes for each byte of input and a fixed sum for
// each op that the caller allows (maxOps): 80 bytes for an op and at most 160
// for the replicas it names. Only DecodeJSON allocates more over its run, 32
// bytes for each byte of input, most of it garbage at once.
//
// # Layers above
//
// One goroutine owns a Genome. It makes an op durable before anybody else can
// see it, and acknowledges an op from elsewhere when what [Result.Applied] says
// is durable. A log holds the ops in the order of application and is read back
// with [Genome.Replay] or [Genome.ReplayBlock], which believe no more than
// [Genome.Apply] does. Two replicas compare [Version], then [Head] by
// head, then [Digest]: unequal versions are repaired with [Genome.Since], equal
// seqs with unequal chains are a fork, equal versions with unequal digests are
// damage.
//
// # JSON
//
// For people; see [Op.MarshalJSON] and [DecodeJSON]. The envelope is that of
// the original Rust program, the ids are not: its ids are rational paths that
// say where but not between which genes, so its ops are refused with
// [CodeForeignOp]. There is no version in it: the names of the fields never change
// their meaning, and a field that a reader does not know is an error, never
// skipped.
//
//	{"Insert":{"id":"0@5f3c1a2b.17","gene":12,"parent":"1@00c0ffee#4","side":"R","genes":"c0ffee"}}
//	{"Delete":{"id":"0@5f3c1a2b.20","target":"1@00c0ffee#4","count":2,"reverse":true}}
//
// # Binary block, version 1
//
// For peers and logs; see [AppendBlock] and [DecodeBlock]. uvarint is LEB128
// in its shortest form, svarint the same of a zigzag-coded difference.
//
//	u8       version = 1
//	u8       flags: bit 0 = chains present, others 0
//	uvarint  R, replicas in the table, in the order of first use
//	R times  uvarint actor
//	         u32 LE  epoch
//	         uvarint seq of its first op in this block; 0 = only referred to
//	         if seq > 0:
//	           uvarint number of genes it had inserted before that op
//	           u64 LE  chain after its last op in this block (if bit 0)
//	uvarint  N, ops
//	uvarint  M, bytes of the records
//	M bytes  N records
//	rest     the genes of all inserts, in order
//	u32 LE   CRC-32C of everything before
//
//	record:  u8 tag   bits 0-1  0 insert right, 1 insert left, 2 delete, 3 delete reverse
//	                  bit 2     another author than the record before
//	                  bit 3     the gene named belongs to another replica than the cursor's
//	                  bits 4-7  n if 1 … 15 and there is no gap, else 0
//	         [uvarint n<<1 | gap     if bits 4-7 are 0]
//	         [uvarint seqs skipped, uvarint gene numbers skipped     if gap]
//	         [uvarint author, a table index     if bit 2]
//	         [uvarint replica of the gene named, table index + 1; 0 = root     if bit 3]
//	         [svarint number of the gene named - cursor's     if not root]
//
// The seq and gene number of a record follow from the table and the records
// before; a gap says how much is left out. The cursor is the gene that the
// record before touched last: the last one inserted or deleted. Before the
// first record the author is table index 0 and the cursor its gene 0. The gene
// named is the parent, or the gene that the first event deletes.
//
// There is one encoding of a block, and only that is decoded: no integer, index
// or length in a longer form, no line of the table that no record names, no table
// in another order, nothing left over.
//
// A block of one typed gene takes some 30 bytes, a typed gene within a larger
// block 3, a gene at a random place about 5.
//
// # Packed block, version 2
//
// A block with its records sorted into columns of like bytes, each deflated
// (RFC 1951): the form for history at rest; see [AppendPacked] and
// [AppendUnpacked]. The deflated bytes may differ from one version of the
// compressor to the next; the block that comes out does not.
//
//	u8       version = 2
//	uvarint  H
//	H bytes  the block from its flags to N
//	4 times  uvarint length of the column, uvarint of its packed form, 0 = not deflated
//	         the column or its packed form
//	         columns: tags; numbers (run lengths, gaps, table indices);
//	         differences of the genes named; genes
//	u32 LE   the block's CRC-32C
//
// # Snapshot, version 1
//
// A whole state; see [Genome.AppendSnapshot] and [LoadSnapshot]. Spans are as
// long as they can be, and what can be left out is: a state has one encoding.
//
//	u8       version = 1
//	u8       flags = 0
//	uvarint  R, replicas, ascending
//	R times  uvarint actor, u32 LE epoch, uvarint seq, uvarint genes inserted, u64 LE chain
//	uvarint  T, genes in the list
//	T bytes  the genes in order
//	uvarint  S, spans
//	uvarint  M, bytes of the spans
//	M bytes  S spans, in list order, dead ones included
//	u32 LE   CRC-32C of everything before
//
//	span:    u8 tag   bit 0     alive
//	                  bit 1     another replica than the span before
//	                  bit 2     gene number not the one that would continue it
//	                  bit 3     depth key not the one that would continue it
//	                  bits 4-7  n if 1 … 15, else 0
//	         [uvarint n] [uvarint replica, an index] [svarint gene number - expected]
//	         [svarint depth - expected, uvarint left]
//
// A span is a run of genes with consecutive ids, each the right child of the
// one before. Its depth key is explained in package genome/internal/list: the
// depth is the number of right edges between the root and its first gene,
// left that of left edges since the last of these. What would continue a span
// of n is its replica, its gene number + n, its depth + n and left 0; before
// the first span, replica 0 and gene 0 at depth 0.
package genome

// Package store keeps one actor's genome: an op log on bbolt, and the list
// that it amounts to in memory. An [Actor] has a single writer, which takes all
// waiting ops into one transaction; everything else reads.
//
// # Promises
//
//	S1. What Edit and Receive acknowledge is on the disk and synced.
//	S2. Nobody is shown an event before it is: not through State, View, Since,
//	    Own, Version, Heads, Records, Changed or an error. A local op is
//	    therefore durable before anybody else can hold it, and a crash never
//	    shows a state that goes back.
//	S3. A dot is issued once. The old epoch is used again only after a clean
//	    stop, in the very file that was closed then; else a new one is minted,
//	    durably, before the first op. See the guard below.
//	S4. Nothing invalid enters the log: ops are applied before they are
//	    written, and an op that the genome refuses is never written.
//	S5. What a log is read as is what was written, or an error that names the
//	    place, or, if only bbolt's newest meta page is damaged, the state one
//	    commit earlier under a new epoch and with a warning.
//	S6. The first commit that fails is the last: the actor fails, Done is
//	    closed, every caller gets the error. Nothing is tried again, since the
//	    disk may hold the batch or not; only a restart can tell.
//	S7. Of two ops with one dot, the first durable one stays. The other is
//	    refused, counted and named; see [Receipt.Refused].
//	S8. With [Config.Sign] nothing of another's is taken that its author has not
//	    signed, whoever brings it, and all that is taken can be passed on with
//	    a proof of that. See package signed, screen.go and signing.go.
//
// disk_test.go holds S1-S3 and S6 over a disk that crashes between any two
// steps; damage_test.go holds S5 over every byte of a small log.
//
// A full disk, a quota, a limit on files and a disk that became read-only are
// noticed before a commit, while its room is reserved: its ops get no id, their
// callers a [*NotWritableError], and reading and sending go on. The disk is
// asked again with each write and with each call of [Actor.Writable], at most
// five times a second, and writing goes on when it has room. Where a file
// system cannot reserve (Fallocate fails), 16 MiB are left free instead. A
// commit that meets a full disk all the same is one that fails (S6).
//
// # Folder
//
// An actor's files lie in <data>/actor-<n>/ (0700, files 0600):
//
//	damaged-* logs that were damaged and have been repaired, at most 8
//	sign.key the key that the actor signs with, if it does; in no backup
//	LOCK     flock'd for the actor's whole life and never replaced; one line of
//	         JSON: {"pid":41207,"addr":"http://127.0.0.1:8000","since":"…"},
//	         padded with spaces; empty after a clean stop
//	log.db   the op log, a bbolt file; the truth
//	guard    the continuity guard, only while the actor is cleanly stopped
//	tmp-*    half-made files, removed at the next start
//
// # Log, format 1.0
//
// All integers are little-endian, but for keys, which sort. A position (LSN)
// counts unit events from 1 in the order in which they were applied here, so
// that runs can be cut and joined; an op at LSN n with k events is followed by
// one at n+k. Ops stand in an order in which they can be applied: replay is
// one pass with nothing parked. The version vector is derived, never stored.
//
//	bucket   key                 value
//	meta     name                payload, then u32 CRC-32C of name and payload
//	           format            "crdtglog", u16 major, u16 minor, u16 min_reader
//	           file_uuid         16 random bytes
//	           cluster           name of the group
//	           self              u32 actor
//	           epochs            u32 each, all that this log has minted, newest last
//	           last              u64 LSN of the last event: a log that lost its
//	                             end together with nothing else says so
//	           clean             16 bytes, token of the last clean stop
//	           missing           after a repair: u64 events of whom nothing is known, then
//	                             u64 replica, u64 first seq, u64 last seq for each range
//	actors   index u32 BE        u32 actor, u32 epoch, u64 LSN of its first event,
//	                             u32 CRC-32C of key and these
//	tail     LSN u64 BE          value: one commit
//	seg      LSN u64 BE          value: a segment of at most 4,096 ops, or some, packed
//	ckpt     LSN u64 BE          reserved for checkpoints
//	waiting  number u64 BE       after a repair: value, as it stood in the damaged log
//	members  "known"             where members were last reached; members.go
//	signed   LSN u64 BE          signed points, only with Config.Sign; signing.go
//	chains   replica u64 BE      what signatures are over, only with Config.Sign; signing.go
//
// A program reads a log whose min_reader is at most its own major, and refuses
// a newer one; it reads the version before its own, too, of which there is none
// yet. testdata has a log file of each version. Unknown buckets and meta names are left alone.
//
// When the tail reaches 4,096 ops or 1 MiB, or would with the present batch,
// all of it goes into segments in the same transaction; the tail's values are
// deleted only after the segments were decoded and compared. Later, a number of
// neighbouring segments may be packed into one value under the first one's key,
// again in one transaction and after it was unpacked and compared. What a
// segment says, and where it begins and ends, never changes.
//
// A value is
//
//	u16  magic 0x6f67
//	u8   version = 1
//	u8   codec: 1 plain, 2 packed
//	u16  flags: a reader must know those in the low byte; none is defined
//	u16  authors in the block (65,535: or more); 0 if packed
//	u32  unit events
//	u32  bytes of the body, decoded
//	u64  LSN of the first event, as in the key
//	u32  CRC-32C of header and body without this field
//	     plain body: origins, then a block of package genome with its chains
//	     packed body: see below
//
// and the origins, for each run of neighbouring ops that came in together:
//
//	uvarint  number of runs
//	each     uvarint number of ops, ≥ 1
//	         svarint milliseconds since 1970 UTC, less those of the run before
//	         u8      bits 0-6: 0 local, 1 post, 2 pull; bit 7: the sender is known
//	         uvarint the sender's actor     (if bit 7)
//
// A packed body holds one or more plain bodies, its parts:
//
//	uvarint  number of parts, 1 … 16
//	each     uvarint unit events, uvarint bytes of the packed part
//	parts    uvarint bytes of the origins
//	         uvarint bytes of these deflated (RFC 1951); 0: as they are
//	         the origins or what they deflate to
//	         the block, as package genome packs it
//
// # Damage
//
// A start checks every page, checksum and chain before it serves anything. A
// log that is damaged is searched for what is sound: records are found by their
// checksums wherever they stand in the file, and a record with one flipped bit
// is corrected. When and from whom its ops came is then kept only if a checksum
// within the record proves the correction; mend.go says why. If nothing else can be lost by it, the start makes a new log of
// that, keeps the damaged file as damaged-<time>.db, goes on under a new epoch
// and fetches what is missing from its peers as any late joiner would; repair.go
// says when exactly this is done unasked. Otherwise the start fails with a
// [*CorruptError] that names what is damaged, by position, replica and seqs.
// What is sound and cannot be applied is quarantined, not dropped; see
// [Actor.Shortage].
//
// A segment that is damaged while an actor runs is noticed by whoever reads it:
// its checksum is compared at every reading from the disk. The reader gets a
// [*CorruptError] that names the events in it, and none of its bytes; everything
// else goes on, since the genome is in memory. Only the writer stops, when it
// cannot tell a repetition from a fork any more. The next start repairs the log.
//
// # Guard
//
// One line of JSON: the token that meta's clean repeats, the log's directory,
// inode, device, change time and machine (hashed), its last LSN, and a
// checksum. It
// is written after the log was closed, and removed durably before the first
// mint. If it is missing or does not fit, the log may be older than what was
// minted since, and the actor goes on under a new epoch; [Opening] says why.
// The change time tells a copy that was put back into the same inode.
//
// A machine that was rolled back as a whole is not noticed so. Peers notice:
// when one shows events of this replica that are not held here, or another
// chain for it, the actor rotates at once; see [Actor.NotePeer].
package store

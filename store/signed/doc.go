// Package signed makes ops that a relay can carry but not forge: the author of a
// replica signs how its history goes, and whoever has the author's public key
// checks that, from whomever the ops come.
//
// # Chain
//
// The 64-bit chains of package genome tell forks apart; who wants to can forge
// them. Here a replica's history is one SHA-256 stream, so that it takes a few
// bytes and not a hash for each event:
//
//	"crdt-genome op chain v1", 0
//	u8 length of the cluster's name, the name
//	u64 LE replica
//	the canonical form of its events from the first on (genome.Op.AppendEvents)
//
// The sum after event n names the whole history up to n. It does not depend on
// how runs are cut, so any member comes to the same sum.
//
// # Point
//
// A signed point says what the author's sum is after its event seq. Ed25519
// (RFC 8032) signs
//
//	"crdt-genome signed point v1", 0
//	u8 length of the cluster's name, the name
//	u64 LE replica, u64 LE seq
//	32 bytes sum
//
// A point holds for all events up to its seq, so one at the end of what is sent
// is enough, and an old one says nothing of other ops: their sum differs. The
// sum is not sent. The receiver computes it from what it holds and what has
// come. Which key belongs to which actor says the [Roster].
//
// What is not prevented: a member can sign two histories of its own replica,
// which is a fork and named as one; and a relay can keep back the newest ops.
//
// # Batch, version 3
//
// A block with the points for it, on the wire; see [AppendBatch]. Without points
// a batch is a block of version 1, as it has always been.
//
//	u8       version = 3
//	uvarint  N, points, 1 … 4,096
//	N times  u32 LE actor, u32 LE epoch, u64 LE seq, 64 bytes signature; by ascending replica, each once
//	rest     the block
//
// # Files
//
// An actor's key is PKCS #8 in PEM, mode 0600, in its folder. A roster has a line
// for each key, "ACTOR ed25519 BASE64"; what follows, empty lines, and lines that
// begin with # say nothing. An actor may have up to four keys, of which any counts.
package signed

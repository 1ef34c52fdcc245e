// Package membership says who the members of a group are. A member is a
// process; it runs one actor or several.
//
// There are two kinds of [List]: [Static], which was given on the command
// line, and [Gossip], which is kept by hashicorp/memberlist (SWIM with
// Lifeguard, in its LAN profile): a member knows a few seeds, learns of all
// others, and notices when one leaves or fails.
//
// # What gossip carries
//
// What memberlist itself needs, and for each member its metadata. No ops and
// no vectors: memberlist's own messages may be lost and may stall, and nothing
// of what we promise may rest on that. A test holds it.
//
//	metadata, version 1, at most 512 bytes; uvarint as in encoding/binary
//
//	u8       'g'
//	u8       version = 1
//	uvarint  flags: 1 it is leaving; others are for later
//	uvarint  protocol that its nodes speak over HTTP
//	uvarint  length, ≤ 64; the process's boot id, printable ASCII
//	uvarint  number of ranges of actors, 1 … 32
//	each     uvarint first actor, less one more than the last of the range before
//	         uvarint actors in the range, less one
//	uvarint  length, ≤ 240; URL of the first actor, scheme://host:port
//	…        left for later; a reader of version 1 does not look at it
//
// A member whose metadata cannot be read is no member. Its name is
// "<first actor>@<boot id>", so a process that is started again is another
// member, and what is left of the one before does not stand in its way.
//
// # What always holds
//
//	M1. Metadata that anybody invents is refused or read, within fixed memory.
//	M2. A group has a name: members of another one are not heard. The name is
//	    the label of memberlist, and with a key it is authenticated.
//	M3. Off loopback nothing is said or heard without a key.
//	M4. Seeds are tried until one answers, and again every minute, so that the
//	    halves of a group that was split find each other. So are the members
//	    that were known last, which the caller keeps.
//	M5. Close says goodbye and ends every goroutine of ours.
package membership

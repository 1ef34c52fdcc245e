// Command restart-and-compare kills and restarts real actors while the others
// go on, and checks what they promise. scripts/restart-and-compare.sh builds
// and calls it.
//
// All the while a clerk at each actor edits as a user does (POST /v1/edit) and
// sends ops of a replica of its own (POST /genome), and writes down what was
// acknowledged. In each round some actors are killed at a random moment. Then,
// reading the log of each from its file while nothing runs on it:
//
//   - the log holds every op that this actor acknowledged, with its content;
//   - replayed up to the version at which the actor last showed a digest, it
//     gives that digest; and opening a copy of it rebuilds the genome that all
//     of its ops give.
//
// Then the actors start again, the clerks stop, and
//
//   - all actors come to hold the same ops and the same genome;
//   - every op that any actor ever acknowledged is in every log;
//   - nobody has forgotten an op;
//   - no id has ever stood for two contents, in any log of any round, also
//     where disks were wiped (--wipe) or old copies put back (--copy-back).
//
// An op that only the wiped or rolled back actor held is lost with its disk:
// that is reported and not counted as a failure, as nobody can promise more.
package main

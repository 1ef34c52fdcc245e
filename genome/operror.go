package genome

// A Code says what is wrong with an op in one fixed word. Codes are a
// contract: programs branch on them and they never change meaning.
type Code string

// The codes that this package returns. The comment says what the sender of
// the op should do.
const (
	CodeBadEncoding     Code = "bad_encoding"             // the bytes are not an op: fix the sender
	CodeBadID           Code = "bad_id"                   // an id is malformed: fix the sender
	CodeOpInvalid       Code = "op_invalid"               // a field is outside its bounds: fix the sender
	CodeUnknownTarget   Code = "unknown_target"           // names a gene that its replica cannot have: fix the sender
	CodeSeqTooFar       Code = "seq_too_far"              // further ahead than MaxSeqAhead: send what lies between first
	CodeForeignOp       Code = "foreign_op"               // an op of the Rust crdt-genome: cannot be merged
	CodeDotConflict     Code = "dot_conflict"             // the dot is taken by other content: a fork, tell the operator
	CodeSelfAhead       Code = "self_ahead"               // shows events of the own replica that are not held: call SetSelf with a new epoch, then again
	CodePendingFull     Code = "pending_full"             // no room to park it: send its past first, then again
	CodeTooManyOps      Code = "too_many_ops"             // more ops than a batch may hold: send fewer
	CodeTooManyReplicas Code = "too_many_replicas"        // MaxReplicas are known already
	CodeGenomeFull      Code = "genome_full"              // the list has no room for more genes
	CodeWireVersion     Code = "wire_version_unsupported" // a newer format: upgrade this program
)

// An OpError says why an op, or bytes that should be ops, was refused. Nothing
// was changed by the refused op.
type OpError struct {
	Code   Code
	Dot    Dot    // the op, where it is known; else zero
	Detail string // for people
	Hint   string // what to try next; may be empty
	Ours   string // dot_conflict: what is held under the dot, or its chain
	Theirs string // dot_conflict: what was offered
}

// Error returns the detail, after the dot where it is known.
func (e *OpError) Error() string {
	if e.Dot.Seq != 0 {
		return "op " + e.Dot.String() + ": " + e.Detail
	}
	return e.Detail
}

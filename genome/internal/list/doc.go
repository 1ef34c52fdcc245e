// Package list is the order and the text of a replicated list of genes: a
// Fugue tree kept in a B-tree of spans with depth keys.
//
// It is pure: no I/O, no clock, no goroutine, no randomness. The same calls in
// the same order make the same list, and two lists that know the same genes and
// deletions read the same, in whatever order these arrived, provided a replica's
// genes came in its order and each parent before its children. The caller
// (package genome) sees to that, to sequence numbers, and to refusing what is
// unknown; list.go explains how the structure works.
//
// # Invariants
//
//	L1. A span is 1 to 256 genes with consecutive nums in one page (one row
//	    of a shared page), each the right child of the one before, all live
//	    or all dead.
//	L2. Every known gene is in exactly one span, and its page notes the leaf
//	    of that span.
//	L3. The root's span is slot 0 of leaf 0 for ever. The depth of an entry
//	    is at most 1 more than that of the entry before.
//	L4. Leaves have 1 to 48 spans, inner nodes 1 to 31 children, all leaves
//	    are equally deep; every child knows its parent and slot; next and
//	    prev chain the leaves in tree order.
//	L5. A leaf counts its live genes. An inner node counts those below each
//	    child, less what the cursor owes on the way from its leaf to the top.
//	L6. The least key noted of a leaf or child is exact.
//	L7. What the cursor knows of indexes is true.
//	L8. The hot run's last gene is the newest of its replica, ends a live
//	    span of the cursor's leaf, and has no right child.
//	L9. Every entry of the table of wide keys is named by exactly one span,
//	    or is free.
//	L10. The grave, if it has room, is a dead span of the cursor's leaf; the
//	    spans that it may take genes of are live, chained to it, and hold
//	    one more gene than it may take.
//
// check_test.go verifies L1-L10 after every step of the tests.
package list

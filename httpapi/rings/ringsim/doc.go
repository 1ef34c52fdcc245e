// Package ringsim runs thousands of members of one group in one goroutine, on
// a clock and a network of its own. Who sends to whom, what, and when is
// decided by package rings, as in a node; the members that edit have a whole
// replica of package genome, which must agree with what the simulation takes
// for applied. The same Config gives the same Result, to the last digit.
//
// What is simulated is everything around that: the log as a list of arrivals,
// HTTP as calls that may be lost, membership as a list that everybody learns a
// little later.
//
//	a call     one way 0.5 … 5 ms; the request and the answer are each lost
//	           with probability Loss, which the sender notices after 200 ms
//	           (the least time after which Linux sends a segment again: here
//	           the call fails instead, which is harder)
//	a commit   1 … 10 ms, before a POST is answered and before it is passed on
//	a crash    calls fail after 2 s; the others drop the member after 5 … 15 s
//	a leave,   known to each of the others after 0.2 … 3 s
//	a join
//
// Every 5 s a member asks each neighbour what it holds; a node leaves that out
// where the state that rides along was equal, so the simulation asks more.
package ringsim

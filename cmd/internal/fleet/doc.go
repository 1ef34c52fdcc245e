// Package fleet runs actors as child processes: it finds or builds the
// program, gives each actor an address that stays its own over restarts, and
// starts, kills and stops them. The run command, the script that restarts
// actors and the end-to-end tests share it.
//
// # Invariants
//
//	F1. A child never outlives the process that started it: it stops when its
//	    stdin ends, which the kernel sees to even after a kill -9.
//	F2. Nobody else gets an actor's port while its fleet is open, also while
//	    the actor is down; a dial is then refused at once (Linux; elsewhere the
//	    port is only likely to stay free).
//	F3. A child is ready when its address file is there. That file is removed
//	    before each start, so an old one never counts.
//
// Everything an actor prints goes to <Data>/actor-<n>.log, appended, so that
// one file tells of all its runs.
package fleet

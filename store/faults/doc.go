// Package faults takes the power away from a running actor, thousands of times
// in a minute, and looks at what is left.
//
// A kill -9 cannot show that a sync is missing: what a process has written
// outlives it. So a [Recorder] sits between bbolt and its file and notes every
// write and every sync, and when an op was acknowledged. A cut is a moment
// between two of these. Of what was written before it, everything up to the
// last sync is on the disk; each later piece is there, or is not, or is torn,
// by chance, and in any order. [Run] puts such a file in front of a new actor
// and asks that
//
//   - it opens,
//   - it holds every event that had been acknowledged, and none that was never
//     issued, with the content that it was issued with,
//   - its genome is the one that these events give,
//   - what it issues next has an id that nothing ever had.
//
// bbolt syncs by a system call on the file itself, which no layer above the
// kernel can see. The recorder knows when it does: before each write of a meta
// page and before a commit returns, unless the database says NoSync. That
// switch is also the control: with it, [Run] must find losses.
//
// Files other than the log (guard, checkpoints, the folder itself) have their
// own tests in package store, on a disk that forgets names.
package faults

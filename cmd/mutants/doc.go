// Command mutants plants bugs, one at a time, in a copy of this module and
// wants a test to find each: a test that cannot fail proves nothing.
// scripts/mutants.sh calls it.
//
// A plant is a piece of text of one package and what stands there instead, the
// promise that this breaks, and the narrow test that must notice. A plant is
// killed when that test fails. It has lived, which is a failure, when the test
// passes; and it is a failure, too, when its text is no longer there, or
// when the planted code does not compile: then the plant proves nothing.
//
// The last line is "killed N/N", and the exit code 0 only if all were.
package main

// Package scripts holds the tests of what belongs to no other package: the
// direction of imports, the commands of the README, the promises, and the
// files for operation. The scripts themselves are described in README.md.
package scripts

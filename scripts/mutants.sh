#!/usr/bin/env bash
# Plants bugs in a copy of the module, one promise broken by each, and wants the
# test that holds the promise to fail. Ends with "killed N/N".
#
#   scripts/mutants.sh                all of them
#   scripts/mutants.sh --quick        the handful that test.sh plants
#   scripts/mutants.sh --list         what there is
#   scripts/mutants.sh --only NAME    one; -v shows what its test prints
set -euo pipefail
cd "$(dirname "$0")/.."
exec go run ./cmd/mutants "$@"

#!/usr/bin/env bash
# Kills random actors while the others go on, starts them again, and checks that
# nothing acknowledged is lost and all become equal. Ends with "N passed, N
# failed"; keeps data and logs, and says where, if anything failed.
#
#   scripts/restart-and-compare.sh --count 5 --rounds 3 --signal KILL
#   scripts/restart-and-compare.sh --wipe 1 --copy-back 2      lost and restored disks
#   scripts/restart-and-compare.sh --help                      all options
#
# What is checked: go doc ./cmd/restart-and-compare
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
(cd "$here" && go build -o "$bin/" ./cmd/restart-and-compare ./cmd/crdt-genome)
"$bin/restart-and-compare" --binary "$bin/crdt-genome" "$@"

#!/usr/bin/env bash
# The larger figures: every layer of test.sh with more of it, the race detector
# on whole suites, long simulations, coverage. Ends with a table of the figures,
# their seeds and the commit, and with "N passed, N failed". Takes up to three
# hours on two cores.
#
#   scripts/nightly.sh [--minutes 180]      no layer is begun after that time
#                      [--scale 0.01]       a part of each figure only
#                      [layer ...]          only these; see test.sh --help
set -euo pipefail
cd "$(dirname "$0")/.."

minutes=180 scale=1 layers=()
while [ $# -gt 0 ]; do
  case $1 in
    --minutes) minutes=$2; shift 2 ;;
    --scale) scale=$2; shift 2 ;;
    -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '$d'; exit 0 ;;
    -*) echo "error: unknown option $1; see --help" >&2; exit 64 ;;
    *) layers+=("$1"); shift ;;
  esac
done
# What cannot run fails: nobody looks at night.
CI=true CRDT_GENOME_MINUTES=$minutes CRDT_GENOME_SCALE=$scale \
  exec scripts/test.sh --nightly ${layers[@]+"${layers[@]}"}

#!/usr/bin/env bash
# Runs random schedules of a few replicas on a network that loses, repeats,
# reorders and re-cuts, with restarts, and every interleaving of a small world;
# each step is compared with a slow, obviously right list. A failure prints the
# shrunk schedule and the seed that repeats it.
#
# Then it runs the stores of three actors and a twin over simulated disks: each
# seed is a schedule of edits, lost, repeated and reordered messages, pulls,
# crashes between any two steps of the disk, old copies put back and wiped
# folders, with every promise looked at after each step. One seed gives one run;
# a failure names it, and CRDT_GENOME_STORE_SEEDS=N go test ./store -run
# TestSimulation repeats it.
#
# Last it runs whole nodes, their handlers, senders, pulls and comparisons, on
# simulated disks and a simulated network, with hostile peers, another protocol,
# full disks, clock jumps and flipped bytes. A failure prints a shrunk schedule.
#
#   scripts/simulate.sh [--schedules 20000] [--seed N] [--edits 3] [--seeds 1-2000] [--whole 1-200]
#
# --seed is of the schedules without disks, --seeds are those with. --edits bounds
# the small world: each one more takes seventy times as long; 0 leaves it out.
set -euo pipefail
cd "$(dirname "$0")/.."

schedules=20000 seed=0 edits=3 seeds=1-2000 whole=1-200
while [ $# -gt 0 ]; do
  case $1 in
    --schedules) schedules=$2; shift 2 ;;
    --seed) seed=$2; shift 2 ;;
    --edits) edits=$2; shift 2 ;;
    --seeds) seeds=$2; shift 2 ;;
    --whole) whole=$2; shift 2 ;;
    -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '$d'; exit 0 ;;
    *) echo "error: unknown option $1; see --help" >&2; exit 64 ;;
  esac
done
[ "$seed" != 0 ] || seed=$((RANDOM * 32768 + RANDOM + 1))

bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
go test -c -o "$bin/genome.test" ./genome
go test -c -o "$bin/store.test" ./store
go test -c -o "$bin/httpapi.test" ./httpapi
cd genome # where the tests look for their files
echo "commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown), seed $seed"
start=$SECONDS
"$bin/genome.test" -test.timeout 12h -test.run '^(TestRapidSchedule|TestRapidList)$' \
  -rapid.checks "$schedules" -rapid.seed "$seed" -rapid.nofailfile -test.v | grep -E '^(---|\s+.*(OK|passed|FAIL)|FAIL|ok|PASS)' 
took=$((SECONDS - start))
echo "$schedules schedules in $took s"
echo "figure: genome-schedules $schedules seed $seed, $((schedules / (took > 0 ? took : 1)))/s"
[ "$edits" = 0 ] || GENOME_SMALL_SCOPE=$edits "$bin/genome.test" -test.timeout 12h -test.run '^TestSmallScope$' -test.v | grep -E 'worlds|FAIL|---'

cd ../store
CRDT_GENOME_STORE_SEEDS=$seeds "$bin/store.test" -test.timeout 12h -test.run '^TestSimulation$' -test.v | grep -vE '^ *(=== |--- PASS: .*/)'

cd ../httpapi
CRDT_GENOME_WHOLE_SEEDS=$whole "$bin/httpapi.test" -test.timeout 12h -test.run '^TestWhole$' -test.v | grep -v '^=== '

#!/usr/bin/env bash
# Runs the project's tests in layers, and ends with a table of the figures that
# they measured and with "N passed, N failed", which counts layers. The exit
# code is 0 only if none failed.
#
#   scripts/test.sh [--nightly] [layer ...]       default: all layers, in this order
#
#   vet       gofmt, go vet, bash -n, staticcheck
#   unit      every package: examples, properties, golden files, real processes
#   race      the packages with goroutines again under the race detector, -short
#   fuzz      every fuzz target: its corpus, then new inputs for some seconds
#   restart   kills and restarts real actors; see restart-and-compare.sh
#   disks     kills real actors, and cuts the power of their disk: a FUSE file
#             system, and ext4 on it; needs root, mount and mkfs.ext4
#   powercut  cuts the power of a recorded disk; see powercut.sh
#   netns     real actors in network namespaces, with partitions, loss, slow
#             links, kills and freezes; needs root, ip, tc and nft
#   demo      the demonstration of the README must end with CONVERGED
#   mutants   plants bugs and wants the tests to find them; see mutants.sh
#   schedules random schedules of replicas, and of stores that crash; see simulate.sh
#
# Only at night, or if asked for by name:
#
#   overlay   simulated members, 1,000 and at night 10,000: copies, POSTs, time
#   thousand  processes of many actors each over POSTs and over NATS, at night
#             20 of 50: time until all are equal, CPU, memory
#   shell     the HTTP server among abusers, slow clients and dead peers, at length
#   coverage  which statements the tests run; see coverage.sh
#   shuffle   every test three times in random orders
#
# --nightly makes the layers that have a size larger; CRDT_GENOME_SCALE=0.1 then
# makes them a tenth of that, and after CRDT_GENOME_MINUTES no layer is begun any
# more: the rest fail. Editing traces are read from $CRDT_GENOME_TRACES,
# or from shared/traces beside the checkout if that is there; without them the
# tests that need them skip. With CI=true a layer that cannot run fails, where it
# would be left out otherwise. How a layer is added, and how it tells its
# figures: README.md beside this script.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 70

all=(vet unit race fuzz restart disks powercut netns demo mutants schedules)
at_night=(overlay thousand shell coverage shuffle)
nightly= layers=()
while [ $# -gt 0 ]; do
  case $1 in
    --nightly) nightly=1 ;;
    -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '$d'; exit 0 ;;
    *)
      case " ${all[*]} ${at_night[*]} " in
        *" $1 "*) layers+=("$1") ;;
        *) echo "error: unknown layer $1; there are: ${all[*]} ${at_night[*]}" >&2; exit 64 ;;
      esac ;;
  esac
  shift
done
if [ ${#layers[@]} -eq 0 ]; then
  layers=("${all[@]}")
  [ -z "$nightly" ] || layers+=("${at_night[@]}")
fi

traces=$(dirname "$PWD")/shared/traces
if [ -z "${CRDT_GENOME_TRACES:-}" ] && [ -d "$traces" ]; then
  export CRDT_GENOME_TRACES=$traces
fi

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

# Two packages at a time, however many cores there are: tests that wait for
# real processes should not be starved by their neighbours.
gotest=(go test -p 2 -count=1 -timeout 600s)

# size says how much of something a layer does: its first argument by default,
# its second, scaled, with --nightly.
size() {
  if [ -z "$nightly" ]; then echo "$1"; else
    awk -v n="$2" -v s="${CRDT_GENOME_SCALE:-1}" 'BEGIN { k = int(n * s); print k < 1 ? 1 : k }'
  fi
}

# cannot ends a layer that this machine does not let run: as passed, with the
# reason shown, or as failed with CI=true.
cannot() {
  echo "LEFT OUT: $*"
  [ "${CI:-}" != true ]
}

# staticcheck has one version, so that it finds the same everywhere.
staticcheck=honnef.co/go/tools/cmd/staticcheck@v0.8.2

layer_vet() {
  local ugly script try
  ugly=$(gofmt -l .) || return 1
  [ -z "$ugly" ] || { echo "gofmt would change:"; echo "$ugly"; return 1; }
  go vet ./... || return 1
  while read -r script; do bash -n "$script" || return 1; done < <(find scripts .ci -name '*.sh' -o -path '.ci/run')
  for try in 1 2 3; do
    GOBIN=$logs go install $staticcheck && break
    sleep $((try * 3))
  done
  [ -x "$logs/staticcheck" ] || { cannot "$staticcheck cannot be had"; return; }
  "$logs/staticcheck" ./...
}

# The layer disks kills and cuts more often.
layer_unit() { CRDT_GENOME_KILLS=20 CRDT_GENOME_POWER_CUTS=3 "${gotest[@]}" ./...; }

# Left out are tests that turn every bit of a log with one goroutine: nothing can
# race there, and the detector makes them ten times slower.
layer_race() {
  local short=-short pure=
  [ -z "$nightly" ] || short='-timeout=5400s' pure=./genome/... # which has no goroutine
  "${gotest[@]}" -race $short -skip '^(TestRepair|TestRandomBits|TestMetaBytes|TestBitFlips|TestCutAtEveryLength|TestMendedOrigins|TestForgedBodies|TestSalvageOverlaps|TestBrokenPages|TestCheckpointEqualsReplay)$' \
    $pure ./store/... ./httpapi/... ./cmd/crdt-genome/... || return 1
  echo "figure: races 0"
}

# A target gets a number of inputs rather than a time: at the end of a time
# "go test -fuzz" may report its own deadline as a failure.
layer_fuzz() {
  local n pkg target bad=0 targets=0
  n=$(size 2000 500000)
  while read -r pkg target; do
    echo "$pkg $target"
    targets=$((targets + 1))
    go test -count=1 -timeout 1200s -run '^$' -fuzz "^$target\$" -fuzztime "${n}x" -fuzzminimizetime 20x -parallel 2 "$pkg" >"$logs/one" 2>&1 ||
      { bad=1; cat "$logs/one"; }
  done < <(grep -rl --include='*_test.go' '^func Fuzz' . | while read -r f; do
    sed -n "s|^func \(Fuzz[A-Za-z0-9_]*\)(.*|$(dirname "$f") \1|p" "$f"
  done | sort)
  [ $bad = 0 ] && echo "figure: fuzz-inputs $((n * targets)) $targets targets"
}

layer_restart() {
  scripts/restart-and-compare.sh --count 3 --rounds "$(size 2 50)" --run 3s --signal KILL &&
    scripts/restart-and-compare.sh --count 3 --rounds 2 --run 3s --signal TERM --wipe 1 --copy-back 2
}

layer_disks() {
  CRDT_GENOME_KILLS=$(size 300 5000) CRDT_GENOME_POWER_CUTS=$(size 20 1000) \
    go test -count=1 -timeout 3600s -v -run '^(TestKills|TestPowerCuts|TestExt4PowerCuts|TestPowerCutsAreSeen)$' ./cmd/crdt-genome
}

layer_netns() {
  local tool
  [ "$(id -u)" = 0 ] || { cannot "not root"; return; }
  for tool in ip tc nft; do
    command -v $tool >/dev/null || { cannot "$tool is not installed"; return; }
  done
  go test -count=1 -timeout 3600s -v ./cmd/internal/netlab -args -netlab.actors "$(size 3 10)" -netlab.rounds "$(size 1 12)"
}

layer_demo() {
  go run ./cmd/crdt-genome run --count 5 --base 0 --for 10s --mutate-max 200ms --data "$logs/demo" | tee "$logs/verdict" || return 1
  tail -n 1 "$logs/verdict" | grep -q '^CONVERGED'
}

layer_mutants() {
  if [ -n "$nightly" ]; then scripts/mutants.sh; else scripts/mutants.sh --quick; fi | tee "$logs/killed" || return 1
  sed -n 's/^killed \(.*\)/figure: mutants-killed \1/p' "$logs/killed"
}

# The small world belongs to the layer unit.
layer_schedules() {
  scripts/simulate.sh --schedules "$(size 20000 1000000)" --seeds "1-$(size 1000 50000)" --whole "1-$(size 200 20000)" --edits "$([ -n "$nightly" ] && echo 3 || echo 0)"
}

layer_overlay() {
  CRDT_GENOME_MEMBERS=$(size 1000 10000) go test -count=1 -timeout 3600s -v -run '^(TestLoss|TestChurn)$' ./httpapi/rings/ringsim
}

layer_thousand() {
  CRDT_GENOME_PROCESSES=$(size 6 20) CRDT_GENOME_ACTORS=$(size 5 50) CRDT_GENOME_SECONDS=$(size 3 30) \
    go test -count=1 -timeout 3600s -v -run '^TestManyProcesses$' ./cmd/crdt-genome
}

layer_powercut() { scripts/powercut.sh --cuts "$(size 300 10000)" --seed "${RANDOM}"; }

layer_shell() {
  CRDT_GENOME_REQUESTS=$(size 100000 10000000) CRDT_GENOME_SLOW_CLIENTS=$(size 100 800) \
    CRDT_GENOME_DEAD_PEERS=$(size 1 9) CRDT_GENOME_DEAD_DAYS=$(size 1 7) \
    go test -count=1 -timeout 3600s -v -run '^(TestAbuse|TestAbuseOnTheWire|TestDeadPeerForADay|TestSlowClients|TestHundredPeersReturnAtOnce)$' ./httpapi
}

layer_late() { echo "no time is left after $CRDT_GENOME_MINUTES minutes"; return 1; }

layer_coverage() { scripts/coverage.sh; }

layer_shuffle() { go test -p 2 -count=3 -shuffle=on -timeout 3600s ./genome/... ./store/... ./httpapi/... ./cmd/... ; }

passed=0 failed=() took=()
for layer in "${layers[@]}"; do
  echo "=== $layer"
  start=$SECONDS
  if [ -n "${CRDT_GENOME_MINUTES:-}" ] && [ $SECONDS -gt $((CRDT_GENOME_MINUTES * 60)) ]; then
    run=late
  else
    run=$layer
  fi
  export CRDT_GENOME_FIGURES=$logs/$layer.figures
  if "layer_$run" 2>&1 | tee "$logs/$layer.log"; then
    passed=$((passed + 1)) result=ok
  else
    failed+=("$layer") result=FAILED
  fi
  grep '^figure: ' "$logs/$layer.log" >>"$CRDT_GENOME_FIGURES"
  while read -r _ name value note; do
    printf '%-9s %-26s %12s  %s\n' "$layer" "$name" "$value" "$note"
  done <"$CRDT_GENOME_FIGURES" >>"$logs/table"
  took+=("$(printf '%-9s %-6s %4d s' "$layer" "$result" $((SECONDS - start)))")
  echo "--- ${took[-1]}"
done

for layer in ${failed[@]+"${failed[@]}"}; do
  echo
  echo "=== $layer failed:"
  grep -vE '^(ok|\?) ' "$logs/$layer.log" | tail -n 200
done
echo
echo "figures of commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown), $(go version | cut -d' ' -f3-), $(nproc) CPUs, $(date -u +%FT%TZ)"
cat "$logs/table"
echo
printf '%s\n' "${took[@]}"
echo "$passed passed, ${#failed[@]} failed"
[ ${#failed[@]} -eq 0 ]

#!/usr/bin/env bash
# Runs the project's tests in layers, and ends with "N passed, N failed",
# which counts layers. The exit code is 0 only if none failed.
#
#   scripts/test.sh [--nightly] [layer ...]       default: all layers, in this order
#
#   vet       gofmt, go vet, bash -n; staticcheck too where it is installed
#   unit      every package: examples, properties, golden files, real processes
#   race      the packages with goroutines again under the race detector, -short
#   fuzz      every fuzz target: its corpus, then new inputs for some seconds
#   restart   kills and restarts real actors; see restart-and-compare.sh
#   demo      the demonstration of the README must end with CONVERGED
#   mutants   plants bugs and wants the tests to find them; see mutants.sh
#
# --nightly makes fuzz, restart and mutants larger. Editing traces are read from
# $CRDT_GENOME_TRACES, or from shared/traces beside the checkout if that is
# there; without them the tests that need them skip.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 70

all=(vet unit race fuzz restart demo mutants)
nightly= layers=()
while [ $# -gt 0 ]; do
  case $1 in
    --nightly) nightly=1 ;;
    -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '$d'; exit 0 ;;
    *)
      case " ${all[*]} " in
        *" $1 "*) layers+=("$1") ;;
        *) echo "error: unknown layer $1; there are: ${all[*]}" >&2; exit 64 ;;
      esac ;;
  esac
  shift
done
[ ${#layers[@]} -gt 0 ] || layers=("${all[@]}")

traces=$(dirname "$PWD")/shared/traces
if [ -z "${CRDT_GENOME_TRACES:-}" ] && [ -d "$traces" ]; then
  export CRDT_GENOME_TRACES=$traces
fi

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

# Two packages at a time, however many cores there are: tests that wait for
# real processes should not be starved by their neighbours.
gotest=(go test -p 2 -count=1 -timeout 600s)

layer_vet() {
  local ugly script
  ugly=$(gofmt -l .) || return 1
  [ -z "$ugly" ] || { echo "gofmt would change:"; echo "$ugly"; return 1; }
  go vet ./... || return 1
  while read -r script; do bash -n "$script" || return 1; done < <(find scripts .ci -name '*.sh' -o -path '.ci/run')
  if command -v staticcheck >/dev/null; then staticcheck ./... || return 1; fi
}

layer_unit() { "${gotest[@]}" ./...; }

# Left out are tests that turn every bit of a log with one goroutine: nothing can
# race there, and the detector makes them ten times slower.
layer_race() {
  "${gotest[@]}" -race -short -skip '^(TestRepair|TestRandomBits|TestMetaBytes|TestCheckpointEqualsReplay)$' \
    ./genome/... ./store/... ./httpapi/... ./cmd/crdt-genome/...
}

# A target gets a number of inputs rather than a time: at the end of a time
# "go test -fuzz" may report its own deadline as a failure.
layer_fuzz() {
  local n=2000 pkg target bad=0
  [ -z "$nightly" ] || n=500000
  while read -r pkg target; do
    echo "$pkg $target"
    go test -count=1 -timeout 1200s -run '^$' -fuzz "^$target\$" -fuzztime "${n}x" -fuzzminimizetime 20x -parallel 2 "$pkg" >"$logs/one" 2>&1 ||
      { bad=1; cat "$logs/one"; }
  done < <(grep -rl --include='*_test.go' '^func Fuzz' . | while read -r f; do
    sed -n "s|^func \(Fuzz[A-Za-z0-9_]*\)(.*|$(dirname "$f") \1|p" "$f"
  done | sort)
  return $bad
}

layer_restart() {
  local rounds=2
  [ -z "$nightly" ] || rounds=50
  scripts/restart-and-compare.sh --count 3 --rounds $rounds --run 3s --signal KILL &&
    scripts/restart-and-compare.sh --count 3 --rounds 2 --run 3s --signal TERM --wipe 1 --copy-back 2
}

layer_demo() {
  go run ./cmd/crdt-genome run --count 5 --base 0 --for 10s --mutate-max 200ms --data "$logs/demo" | tee "$logs/verdict" || return 1
  tail -n 1 "$logs/verdict" | grep -q '^CONVERGED'
}

layer_mutants() {
  if [ -n "$nightly" ]; then scripts/mutants.sh; else scripts/mutants.sh --quick; fi
}

passed=0 failed=() took=()
for layer in "${layers[@]}"; do
  echo "=== $layer"
  start=$SECONDS
  if "layer_$layer" 2>&1 | tee "$logs/$layer.log"; then
    passed=$((passed + 1)) result=ok
  else
    failed+=("$layer") result=FAILED
  fi
  took+=("$(printf '%-8s %-6s %4d s' "$layer" "$result" $((SECONDS - start)))")
  echo "--- ${took[-1]}"
done

for layer in ${failed[@]+"${failed[@]}"}; do
  echo
  echo "=== $layer failed:"
  grep -vE '^(ok|\?) ' "$logs/$layer.log" | tail -n 200
done
echo
printf '%s\n' "${took[@]}"
echo "$passed passed, ${#failed[@]} failed"
[ ${#failed[@]} -eq 0 ]

#!/usr/bin/env bash
# The larger figures: everything in test.sh with more of it, long simulations,
# the race detector on whole suites, coverage, staticcheck. Ends with a table
# of figures and "N passed, N failed". Takes up to three hours.
#
#   scripts/nightly.sh [--minutes 180]         time that may be spent
set -uo pipefail
cd "$(dirname "$0")/.." || exit 70

minutes=180
while [ $# -gt 0 ]; do
  case $1 in
    --minutes) minutes=$2; shift 2 ;;
    -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '$d'; exit 0 ;;
    *) echo "error: unknown option $1; see --help" >&2; exit 64 ;;
  esac
done

traces=$(dirname "$PWD")/shared/traces
if [ -z "${CRDT_GENOME_TRACES:-}" ] && [ -d "$traces" ]; then
  export CRDT_GENOME_TRACES=$traces
fi

logs=$(mktemp -d)
echo "logs in $logs"
passed=0 failed=0 table=()

# figure NAME PATTERN COMMAND...: runs a step, and shows the last line of its
# output that matches.
figure() {
  local name=$1 pattern=$2 start=$SECONDS result=ok line
  shift 2
  echo "=== $name: $*"
  if [ $SECONDS -gt $((minutes * 60)) ]; then
    result="FAILED" line="no time left"
    failed=$((failed + 1))
  else
    if "$@" >"$logs/$name.log" 2>&1; then passed=$((passed + 1)); else
      result=FAILED failed=$((failed + 1))
      tail -n 60 "$logs/$name.log"
    fi
    line=$(grep -E "$pattern" "$logs/$name.log" | tail -n 1 | tr -s ' \t' ' ')
  fi
  table+=("$(printf '%-12s %-6s %6d s  %s' "$name" $result $((SECONDS - start)) "$line")")
  echo "--- ${table[-1]}"
}

coverage() {
  local bad=0 pkg least got
  while read -r pkg least; do
    got=$(go test -count=1 -timeout 1200s -coverpkg="$pkg/..." -coverprofile="$logs/cover.out" "$pkg/..." >"$logs/cover.log" 2>&1 &&
      go tool cover -func="$logs/cover.out" | sed -n 's/^total:.*[^0-9.]\([0-9.]*\)%$/\1/p')
    echo "$pkg ${got:-failed} % (wanted: $least %)"
    [ -n "$got" ] || cat "$logs/cover.log"
    awk -v got="${got:-0}" -v least="$least" 'BEGIN { exit !(got >= least) }' || bad=1
  done <<'END'
./genome 95
./store 85
./httpapi 85
END
  return $bad
}

figure tests    'passed, .* failed' scripts/test.sh --nightly
figure simulate 'schedules in'      scripts/simulate.sh --schedules 1000000
figure race     '^ok'               go test -race -count=1 -p 2 -timeout 3600s ./...
figure shuffle  '^ok'               go test -count=3 -shuffle=on -p 2 -timeout 3600s ./...
figure coverage 'httpapi'           coverage
figure static   '.'                 go run honnef.co/go/tools/cmd/staticcheck@latest ./...

echo
echo "commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown), $(go version | cut -d' ' -f3-), $(nproc) CPUs, $(date -u +%FT%TZ)"
printf '%s\n' "${table[@]}"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]

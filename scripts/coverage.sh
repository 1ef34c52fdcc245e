#!/usr/bin/env bash
# Measures which statements of the three packages the tests of the three run,
# and fails below 95 % of genome and store and 85 % of httpapi. What only
# measures or tests (bench, faults) is left out.
#
#   scripts/coverage.sh [--uncovered]      … lists the statements that no test runs
set -uo pipefail
cd "$(dirname "$0")/.." || exit 70

uncovered=
case ${1:-} in
  --uncovered) uncovered=1 ;;
  -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '$d'; exit 0 ;;
  "") ;;
  *) echo "error: unknown option $1; see --help" >&2; exit 64 ;;
esac

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
measured=$(go list ./genome/... ./store/... ./httpapi/... | grep -vE '/(bench|faults|rope|trusttest)(/|$)' | paste -sd,)
go test -count=1 -p 2 -timeout 1800s -coverpkg="$measured" -coverprofile="$dir/out" ./genome/... ./store/... ./httpapi/... >"$dir/log" 2>&1 ||
  { cat "$dir/log"; exit 1; }
# A block stands in the profile once for each test binary; one is enough.
awk -v uncovered="$uncovered" '
  NR > 1 { n[$1] = $2; if ($3 > 0) hit[$1] = 1 }
  END {
    for (b in n) {
      split(b, path, "/")
      all[path[2]] += n[b]
      if (b in hit) got[path[2]] += n[b]; else if (uncovered) print b, n[b]
    }
    wanted["genome"] = wanted["store"] = 95; wanted["httpapi"] = 85
    for (p in wanted) {
      share = all[p] ? int(1000 * got[p] / all[p]) / 10 : 0
      printf "figure: coverage-%s %.1f%% %d of %d statements; wanted are %d %%\n", p, share, got[p], all[p], wanted[p]
      bad = bad || share < wanted[p]
    }
    exit bad
  }' "$dir/out" | sort

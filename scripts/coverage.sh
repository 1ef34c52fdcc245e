#!/usr/bin/env bash
# Measures which statements of the three packages their own tests run, and fails
# below 95 % of genome and store and 85 % of httpapi. What only measures or
# tests (bench, faults) is left out. Each package is measured by all tests below
# its folder.
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
bad=0
while read -r pkg least also; do
  of=./$pkg
  for p in $also; do of=$of,./$p; done
  go test -count=1 -p 2 -timeout 1200s -coverpkg="$of" -coverprofile="$dir/$pkg.out" "./$pkg/..." >"$dir/log" 2>&1 ||
    { cat "$dir/log"; exit 1; }
  # A block stands in the profile once for each test binary; one is enough.
  awk -v pkg="$pkg" -v least="$least" -v uncovered="$uncovered" '
    NR > 1 { n[$1] = $2; if ($3 > 0) hit[$1] = 1 }
    END {
      for (b in n) { all += n[b]; if (b in hit) got += n[b]; else if (uncovered) print b, n[b] }
      share = int(1000 * got / all) / 10
      printf "figure: coverage-%s %.1f%% %d of %d statements; wanted are %d %%\n", pkg, share, got, all, least
      exit !(share >= least)
    }' "$dir/$pkg.out" | sort || bad=1
done <<'END'
genome 95 genome/internal/list
store 95
httpapi 85 httpapi/observatory httpapi/rings
END
exit $bad

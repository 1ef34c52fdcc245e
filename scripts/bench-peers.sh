#!/usr/bin/env bash
# Runs editing traces through this project and through other list CRDTs, and
# prints one table: milliseconds of CPU, best and median of the runs.
#
#   scripts/bench-peers.sh [--runs 3] [--edits N] [--only yjs,loro] TRACE.json.gz ...
#
# Without a trace: those in $CRDT_GENOME_TRACES/sequential. Needs go, node and
# npm; the peers (pinned in scripts/peers/package-lock.json) go into
# scripts/peers/node_modules, which git ignores. With --edits only the peers'
# share of the traces is cut, and ours is left out.
set -euo pipefail
cd "$(dirname "$0")/.."

runs=3 edits= only= traces=()
while [ $# -gt 0 ]; do
  case $1 in
    --runs) runs=$2; shift 2 ;;
    --edits) edits=$2; shift 2 ;;
    --only) only=$2; shift 2 ;;
    -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '$d'; exit 0 ;;
    -*) echo "error: unknown option $1; see --help" >&2; exit 64 ;;
    *) traces+=("$1"); shift ;;
  esac
done
if [ ${#traces[@]} -eq 0 ] && [ -n "${CRDT_GENOME_TRACES:-}" ]; then
  traces=("$CRDT_GENOME_TRACES"/sequential/*.json.gz)
fi
if [ ${#traces[@]} -eq 0 ]; then
  echo "error: no traces: name some, or set CRDT_GENOME_TRACES" >&2
  exit 64
fi
for tool in go node npm; do
  command -v $tool >/dev/null || { echo "error: $tool is not installed" >&2; exit 64; }
done

if [ ! -d scripts/peers/node_modules ]; then
  (cd scripts/peers && npm ci --silent --no-audit --no-fund)
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
go build -o "$out/crdt-genome" ./cmd/crdt-genome
for trace in "${traces[@]}"; do
  if [ -z "$edits" ]; then
    echo "$trace: crdt-genome" >&2
    # With the variable set, bench list would take all traces at once.
    env -u CRDT_GENOME_TRACES "$out/crdt-genome" bench list --quiet --json --runs "$runs" --sizes 0 --trace "$trace" >"$out/ours.json"
    node scripts/peers/ours.mjs <"$out/ours.json" >>"$out/all.ndjson"
  fi
  echo "$trace: peers" >&2
  node --expose-gc scripts/peers/run.mjs "$trace" --runs "$runs" \
    ${edits:+--edits "$edits"} ${only:+--only "$only"} >>"$out/all.ndjson"
done
node scripts/peers/table.mjs <"$out/all.ndjson"

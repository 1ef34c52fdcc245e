#!/usr/bin/env bash
# Starts actors as the original's script did, lets them mutate and exchange for
# a while, and ends with a comparison, whose exit code is that of the script:
# 0 converged, 1 diverged, 2 undecided.
#
#   scripts/run-test.sh [--count 3] [--base 8000] [--for 30s] [--data DIR] [-- FLAG ...]
#
# Actor N listens on port base+N; its log lines go to DIR/actor-N.log, its op
# log to DIR/actor-N/. DIR is ./genome-data unless given. What follows -- goes to
# every actor, such as: -- --mutate-max 500ms
set -euo pipefail

count=3 base=8000 for=30s data=$PWD/genome-data more=()
while [ $# -gt 0 ]; do
  case $1 in
    --count | -c) count=$2; shift 2 ;;
    --base | -b) base=$2; shift 2 ;;
    --for) for=$2; shift 2 ;;
    --data) data=$2; shift 2 ;;
    --) shift; more=("$@"); break ;;
    -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '$d'; exit 0 ;;
    *) echo "error: unknown option $1; see --help" >&2; exit 64 ;;
  esac
done

here=$(cd "$(dirname "$0")/.." && pwd)
bin=$(mktemp -d) pids=()
cleanup() {
  [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
  wait
  rm -rf "$bin"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
(cd "$here" && go build -o "$bin/" ./cmd/crdt-genome)
mkdir -p "$data"

urls=()
for ((i = 0; i < count; i++)); do
  "$bin/crdt-genome" --actor=$i --count="$count" --base="$base" --data "$data" \
    --addr-file "$bin/addr-$i" ${more[@]+"${more[@]}"} >>"$data/actor-$i.log" 2>&1 &
  pids+=($!)
  urls+=("http://127.0.0.1:$((base + i))")
done

# An actor is up once its address file is there, and has failed once it is gone.
for ((i = 0; i < count; i++)); do
  until [ -e "$bin/addr-$i" ]; do
    if ! kill -0 "${pids[i]}" 2>/dev/null; then
      code=0
      wait "${pids[i]}" || code=$?
      echo "actor $i did not start:" >&2
      tail -n 2 "$data/actor-$i.log" >&2
      exit "$code"
    fi
    sleep 0.05
  done
  echo "actor $i  ${urls[i]}/  log $data/actor-$i.log"
done

echo "running for $for"
sleep "$for" &
wait $! # unlike sleep itself, wait is ended by a signal

# put PORT PATH JSON: curl may not be there.
put() {
  exec 3<>"/dev/tcp/127.0.0.1/$1"
  printf 'PUT %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s' \
    "$2" "$1" "${#3}" "$3" >&3
  head -n 1 <&3 | grep -q ' 200 ' || echo "warning: PUT $2 was refused by port $1" >&2
  exec 3>&-
}
for ((i = 0; i < count; i++)); do put $((base + i)) /v1/mutator '{"paused":true}'; done

code=0
"$bin/crdt-genome" compare --wait 30s --evidence "$data" "${urls[@]}" || code=$?

kill "${pids[@]}" 2>/dev/null || true
for ((i = 0; i < count; i++)); do
  wait "${pids[i]}" || { echo "actor $i did not stop cleanly: exit code $?"; [ $code -ne 0 ] || code=70; }
  echo "actor $i  $(grep -c 'match count' "$data/actor-$i.log") match lines in $data/actor-$i.log"
done
pids=()
exit $code

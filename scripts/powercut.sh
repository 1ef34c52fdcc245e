#!/usr/bin/env bash
# Cuts the power of a running actor at random moments and checks what is left:
#   scripts/powercut.sh [--cuts 10000] [--seed 7] [--no-sync]
# Ends with "N passed, N failed". --no-sync is the control, which must fail.
set -euo pipefail
cd "$(dirname "$0")/.."
# The disk is simulated by what is recorded, so real syncs only cost time: the
# folders lie in memory where there is room.
free=$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $4 }') || free=
if [ "${free:-0}" -ge 2097152 ] && [ -w /dev/shm ]; then
  export GOTMPDIR=${GOTMPDIR:-${TMPDIR:-/tmp}} TMPDIR=/dev/shm
fi
exec go run ./store/faults/powercut "$@"

#!/usr/bin/env bash
# Cuts the power of a running actor at random moments and checks what is left:
#   scripts/powercut.sh [--cuts 10000] [--seed 7] [--no-sync]
# Ends with "N passed, N failed". --no-sync is the control, which must fail.
set -euo pipefail
cd "$(dirname "$0")/.."
exec go run ./store/faults/powercut "$@"

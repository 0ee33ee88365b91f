#!/usr/bin/env bash
# One GPU, eight minutes: is the CUDA path right, and how fast? Stages, the most valuable first.
#   bash runs/gpu.sh                                 all stages -> $OUT, else out/gpu
#   bash runs/gpu.sh --seconds 240 sampling update   these alone, in so many seconds
#   bash runs/gpu.sh --rehearse                      the same code on a CPU, at tiny sizes
# Result: a JSON for each stage and log.txt, which ends with the table, in $OUT; for docs/speed.md.
# It was rehearsed, and has not yet run on a GPU.
set -e
cd "$(dirname "$0")/.."
python=$(command -v python || command -v python3)
exec "${PYTHON:-$python}" -m claims.gpu "$@"

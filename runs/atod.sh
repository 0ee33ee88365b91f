#!/usr/bin/env bash
# ATOD against its parts, its baselines and its teacher, on the house: seven arms, seeds 4 to 6.
# Time: half an hour on two CPU cores once teachers and students are made (some six minutes a seed).
# Result: out/reproduce/atod/{table.md,results.json,atod.png}, as in docs/atod.md: ATOD ends at .80 of
# test houses, its teacher stands at .68, GRPO alone ends at .75, distillation alone at .62.
set -e
cd "$(dirname "$0")/.."
python reproduce.py atod --seeds 3 --first-seed 4 "$@"

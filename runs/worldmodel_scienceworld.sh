#!/usr/bin/env bash
# A strict world model on ScienceWorld's short tasks, one run. Needs pip install -e '.[scienceworld]'
# and Java. For leaky or stateless add --formulation leaky or stateless; all three: python reproduce.py
# worldmodel --env scienceworld --seeds 1 --first-seed 1.
# Time: about 70 minutes from nothing on one core: games 17 (recorded once, kept in out/), warm start
# 27, updates 20, table 4 to 7.
# Result: obs.F1 about .63 at H = 1 and .51 at H = 9, state.F1 .48, well-formed .97, as in
# docs/worldmodel.md.
set -e
cd "$(dirname "$0")/.."
python train.py --method worldmodel --env scienceworld --levels 2 --steps 40 --warm-steps 2000 \
  --sft-rows 16 --sft-lr 3e-3 --eval-problems 48 --test-problems 128 --eval-every 20 --seed 1 \
  --threads 1 "$@"

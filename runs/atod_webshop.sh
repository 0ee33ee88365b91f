#!/usr/bin/env bash
# ATOD on WebShop's own engine, with 800 products that we make up in the official format (the official
# files are not ours to give). Needs pip install -e '.[webshop]'.
# Time: 28 minutes on one CPU core.
# Result: test goals reached: teacher .23 +- .10, student .05 before and .16 +- .09 after, as in
# docs/atod.md. One seed.
set -e
cd "$(dirname "$0")/.."
[ -d out/shop ] || python -m envs.webshop --make out/shop --products 800
python train.py --method atod --env webshop --data out/shop --level 1 --turns 8 --width 96 \
  --warm-steps 600 --sft-rows 16 --sft-lr 3e-3 --teacher-skill 0.5 --student-skill 0.3 \
  --teacher-target 0 --student-habits 15 --steps 20 --prompts 4 --eval-every 5 --eval-problems 48 \
  --test-problems 64 --threads 1 "$@"

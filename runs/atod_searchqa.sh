#!/usr/bin/env bash
# ATOD on Search-QA: bash runs/atod_searchqa.sh DIR, or with SEARCHQA_DATA set. DIR: a folder of
# question files as published (HotpotQA, 2Wiki, ...), see docs/worlds.md. Needs
# pip install -e '.[searchqa]'.
# Time: 5 minutes on one CPU core.
# Result: test questions answered: teacher .23 +- .09, student .13 before and .30 +- .09 after, as in
# docs/atod.md: it is yes or no that is learned. One seed.
set -e
case "${1:-}" in
  ""|-*) data="${SEARCHQA_DATA:?bash runs/atod_searchqa.sh DIR, a folder of question files}" ;;
  *) data="$1"; shift ;;
esac
python train.py --method atod --env searchqa --data "$data" --level 1 --width 96 --warm-steps 300 \
  --sft-rows 16 --sft-lr 3e-3 --teacher-skill 0.18 --student-skill 0.1 --teacher-target 0 \
  --student-habits 6 --steps 40 --prompts 8 --eval-every 5 --eval-problems 93 --test-problems 93 \
  --threads 1 "$@"

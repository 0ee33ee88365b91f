#!/usr/bin/env bash
# A larger strict world model for one GPU: 12 layers of 768, TextWorld's games of 1 to 12 rooms; or
# ScienceWorld's 30 tasks: bash runs/worldmodel_gpu.sh scienceworld
# Time and result: unknown, it was never run.
set -e
cd "$(dirname "$0")/.."
python -c 'import sys, torch; torch.cuda.is_available() or sys.exit("this experiment needs a GPU")'
case "${1:-textworld}" in
  scienceworld) env=scienceworld levels=3; shift ;;
  textworld) env=textworld levels=1,2,3,4; shift || true ;;
  *) env=textworld levels=1,2,3,4 ;;
esac
python train.py --method worldmodel --env $env --levels $levels --device cuda --layers 12 --width 768 \
  --steps 300 --prompts 32 --lr 2e-5 --warm-steps 10000 --sft-rows 64 --sft-lr 5e-4 \
  --eval-problems 48 --eval-every 20 --test-problems 512 "$@"

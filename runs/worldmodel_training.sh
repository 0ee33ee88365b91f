#!/usr/bin/env bash
# How to train a strict world model: a tree of samples (fGRPO) against chains by plain GRPO, seeds 1 to 3.
# Time: about half an hour on two CPU cores (an estimate), less after runs/worldmodel.sh: the same warm
# starts.
# Result: out/reproduce/worldmodel/training.{md,json}, as in docs/worldmodel.md: the two are alike.
set -e
cd "$(dirname "$0")/.."
python reproduce.py worldmodel --seeds 3 --first-seed 1 --compare training "$@"

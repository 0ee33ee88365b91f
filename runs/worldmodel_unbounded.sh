#!/usr/bin/env bash
# World models with the whole history in view, seed 1.
# Time: about half an hour on two CPU cores (an estimate).
# Result: out/reproduce/worldmodel/unbounded.{md,json}, as in docs/worldmodel.md. One seed: no verdict.
set -e
cd "$(dirname "$0")/.."
python reproduce.py worldmodel --seeds 1 --first-seed 1 --compare unbounded "$@"

#!/usr/bin/env bash
# What a state remembers beyond the window: strict and stateless with 1, 2, 4, 8 or all observations in view.
# Time: eight hours for window 4 (runs/worldmodel.sh, which it continues), then some two hours on two CPU cores.
# It goes on where it was stopped.
# Result: out/reproduce/worldmodel/{memory.png,window1.md,...}, as in docs/worldmodel.md: the gain of strict
# grows with the time since a room was seen (window 4), and not with what the window hides.
set -e
cd "$(dirname "$0")/.."
python reproduce.py worldmodel
python reproduce.py worldmodel --compare window1
for window in window2 window8 unbounded; do
  python reproduce.py worldmodel --compare "$window" --seeds 3
done

#!/usr/bin/env bash
# Textual belief states on the house: stateless, leaky and strict, with and without R_sup, seeds 1 to 3.
# Time: about an hour on two CPU cores.
# Result: out/reproduce/worldmodel/{results.md,results.json,worldmodel.png}, as in docs/worldmodel.md:
# strict imagines 10 to 25 steps better than leaky (+.07 +- .04) and stateless (+.02 +- .02).
set -e
cd "$(dirname "$0")/.."
python reproduce.py worldmodel --seeds 3 --first-seed 1 "$@"

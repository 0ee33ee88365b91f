#!/usr/bin/env bash
# Textual belief states on the house: all arms of claims/README.md, seeds 101 to 110.
# Time: some eight hours on two CPU cores; it goes on where it was stopped. With --quick: three seeds and
# three arms, half an hour, in out/reproduce/worldmodel-quick.
# Result: out/reproduce/worldmodel/{results.md,results.json,worldmodel.png}, as in docs/worldmodel.md:
# strict imagines nine steps better than leaky (+.06 +- .03) and about as stateless (+.02 +- .02).
set -e
cd "$(dirname "$0")/.."
python reproduce.py worldmodel "$@"

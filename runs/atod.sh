#!/usr/bin/env bash
# ATOD against its parts, its baselines and its teacher, on the house: seven arms, seeds 101 to 110.
# Time: some three hours on two CPU cores; it goes on where it was stopped. With --quick: three seeds
# and four arms, half an hour, in out/reproduce/atod-quick.
# Result: out/reproduce/atod/{table.md,results.json,atod.png}. It has not been run in full yet;
# docs/atod.md shows three exploratory seeds.
set -e
cd "$(dirname "$0")/.."
python reproduce.py atod "$@"

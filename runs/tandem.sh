#!/usr/bin/env bash
# Tandem RL against GRPO on arithmetic: all arms and conditions of claims/README.md, seeds 101 to 110.
# Time: some three hours on two CPU cores; it goes on where it was stopped. With --quick: three seeds
# and the four main arms, some ten minutes, in out/reproduce/tandem-quick.
# Result: out/reproduce/tandem/{table.md,results.json,tandem.png,coins.png}, as in docs/tandem.md:
# step handoff .93 against GRPO's .05 to .07, alone .954 against .975.
set -e
cd "$(dirname "$0")/.."
python reproduce.py tandem "$@"

#!/usr/bin/env bash
# ATOD against its parts, its baselines and its teacher, on the house: seven arms, seeds 101 to 110.
# Time: an hour on two quiet CPU cores; it goes on where it was stopped. With --quick: three seeds and
# four arms, a quarter of an hour, in out/reproduce/atod-quick.
# Result: out/reproduce/atod/{table.md,results.json,atod.png}, as in docs/atod.md: success .77, its
# teacher's .65, distillation alone .65, reward alone .75.
set -e
cd "$(dirname "$0")/.."
python reproduce.py atod "$@"

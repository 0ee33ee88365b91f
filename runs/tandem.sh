#!/usr/bin/env bash
# Tandem RL against GRPO, on arithmetic: seven arms, three juniors and seniors, seeds 3 to 5.
# Time: half an hour on two CPU cores.
# Result: out/reproduce/tandem/{table.md,results.json,tandem.png}, as in docs/tandem.md: tandem alone
# is as accurate as GRPO within what three seeds can tell (.90 against .96), and its chains can be
# handed over on every seed (.91), those of GRPO on one of three (.34). A rerun differs by rounding.
set -e
python reproduce.py tandem --seeds 3 --first-seed 3 "$@"

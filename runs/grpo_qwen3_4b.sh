#!/usr/bin/env bash
# The baseline of runs/tandem_qwen3_4b.sh: GRPO on Qwen3-4B-Instruct-2507, all else as there.
#   bash runs/grpo_qwen3_4b.sh MODEL DATA              one card of 80 GB
#   ROWS=16 MICRO=1 bash runs/grpo_qwen3_4b.sh ...     one card of 24 GB
# MODEL, DATA, extras and --dry-run: as there. Time and result: not run, because no card was at hand.
set -e
if [ $# -lt 2 ]; then
  echo "usage: bash runs/grpo_qwen3_4b.sh MODEL DATA [options]: MODEL is the model's folder, DATA a file of problems" >&2
  exit 2
fi
[ -f "$1/config.json" ] || { echo "$1 is no folder of a model: it has no config.json" >&2; exit 2; }
model="$1"; data="$2"; shift 2
paper=(
  --prompts 16             # paper: 16 prompts a step
  --minibatches 2          # paper: in mini-batches of 8
  --group 8                # paper: G = 8
  --clip 0.2               # paper: clip range 0.2
  --kl 0                   # paper: no KL term
  --temperature 0.6        # paper: rollouts at 0.6
  --context 4024           # paper: prompts of 1,024 and responses of 3,000 tokens
  --max-new 3000
  --steps 200)             # paper: GRPO's best checkpoint was at 200 steps
ours=(
  --lora 32                # ours: adapters; the paper trains all weights, which is --lora 0 --lr 1e-6
  --lr 1e-5                # ours: ten times the paper's 1e-6, as adapters need
  --rows "${ROWS:-80}"     # ours: chains decoded side by side
  --micro-rows "${MICRO:-4}" --recompute
  --eval-every 20 --eval-problems 32)
python train.py --method grpo --env math --data "$data" --senior "$model" "${paper[@]}" "${ours[@]}" "$@"

#!/usr/bin/env bash
# The tandem paper's setting (arXiv 2606.28166): Qwen3-4B-Instruct-2507 paired with itself on DeepScaleR.
#   bash runs/tandem_qwen3_4b.sh MODEL DATA            one card of 80 GB
#   ROWS=8 MICRO=1 bash runs/tandem_qwen3_4b.sh ...    one card of 24 GB
# MODEL: a folder with Qwen3-4B-Instruct-2507 in Hugging Face format, which you download yourself.
# DATA: deepscaler.json or .jsonl (40,309 problems), or any file of docs/worlds.md, "math".
# Needs pip install -e '.[hf,math]'. Add --dry-run to see what takes how much memory, and end.
# Differs from the paper where it says "ours". Time and result: not run, because no card was at hand.
set -e
if [ $# -lt 2 ]; then
  echo "usage: bash runs/tandem_qwen3_4b.sh MODEL DATA [options]: MODEL is the model's folder, DATA a file of problems" >&2
  exit 2
fi
[ -f "$1/config.json" ] || { echo "$1 is no folder of a model: it has no config.json" >&2; exit 2; }
model="$1"; data="$2"; shift 2
paper=(
  --junior self            # paper: self-paired, the junior is a frozen copy of the start
  --p 0.5                  # paper: a fair coin
  --schedule word          # paper: the author is redrawn at word boundaries
  --max-gap 32             # paper: or after 32 tokens without one
  --prompts 16             # paper: 16 prompts a step
  --minibatches 2          # paper: in mini-batches of 8
  --group 8                # paper: G = 8
  --clip 0.2               # paper: clip range 0.2
  --kl 0                   # paper: no KL term
  --temperature 0.6        # paper: rollouts at 0.6
  --context 4024           # paper: prompts of 1,024 and responses of 3,000 tokens
  --max-new 3000
  --steps 120)             # paper: its best checkpoint was at 120 steps (GRPO's at 200)
ours=(
  --lora 32                # ours: adapters; the paper trains all weights, which is --lora 0 --lr 1e-6
  --lr 1e-5                # ours: ten times the paper's 1e-6, as adapters need
  --rows "${ROWS:-40}"     # ours: chains decoded side by side
  --micro-rows "${MICRO:-4}" --recompute
  --eval-every 20 --eval-problems 32)
python train.py --method tandem --env math --data "$data" --senior "$model" "${paper[@]}" "${ours[@]}" "$@"

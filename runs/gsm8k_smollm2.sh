#!/usr/bin/env bash
# SmolLM2-135M-Instruct on GSM8K, for a GPU: bash runs/gsm8k_smollm2.sh PATH, where PATH is a folder with the
# published train.jsonl and test.jsonl (github.com/openai/grade-school-math), or GSM8K_DATA is set.
# Needs pip install -e '.[hf]'.
# Time and result: not measured, because no GPU was at hand. A model of this size solves few of these
# problems, so expect a slow rise; runs/tandem_smollm2.sh shows the same code learn in minutes.
set -e
case "${1:-}" in
  ""|-*) data="${GSM8K_DATA:?bash runs/gsm8k_smollm2.sh PATH, a folder with train.jsonl and test.jsonl}" ;;
  *) data="$1"; shift ;;
esac
model="${SMOLLM2:-out/smollm2}"
bash runs/get_smollm2.sh "$model"
python train.py --method tandem --env math --data "$data" --senior "$model" --steps 200 --prompts 16 \
  --group 16 --max-new 300 --context 768 --temperature 0.7 --lr 5e-4 --recompute "$@"

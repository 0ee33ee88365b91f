#!/usr/bin/env bash
# Tandem with a real language model: SmolLM2-135M-Instruct learns sums of two numbers up to 20, on a CPU.
# The senior is adapters of rank 16 on the frozen model, the junior is the model without them, and one
# pass decodes both. Needs pip install -e '.[hf]' and 4 GB of memory; SMOLLM2=FOLDER takes your own copy.
# Time: TIME_TANDEM
# Result: RESULT_TANDEM
set -e
model="${SMOLLM2:-out/smollm2}"
bash runs/get_smollm2.sh "$model"
python train.py --method tandem --env sums --senior "$model" --steps 20 --prompts 8 --group 8 \
  --temperature 0.7 --lr 5e-4 --micro-rows 16 --eval-every 5 --eval-problems 40 "$@"

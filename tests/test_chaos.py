"""The short form of `chaos.py`: runs that are disturbed at random moments lose nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).parent / "chaos.py"


@pytest.mark.parametrize("rounds", [4, pytest.param(10, marks=pytest.mark.slow)])
def test_disturbed_runs_lose_nothing(tmp_path, rounds):
    command = [sys.executable, str(CHAOS), "--rounds", str(rounds), "--seed", "7", "--work", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.count("nothing lost") == rounds, done.stdout + done.stderr

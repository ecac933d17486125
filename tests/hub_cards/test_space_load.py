"""The load benchmark of the demo page runs as a user runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "benchmarks" / "demo_load.py"


@pytest.mark.slow
def test_users_at_once_are_counted_with_their_errors(real_run_folder, tmp_path):
    command = [sys.executable, str(SCRIPT), "--run", str(real_run_folder), "--users", "1", "6"]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [*command, "--json", str(tmp_path / "load.json")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "| 6 | rag |" in done.stdout
    few, many = json.loads((tmp_path / "load.json").read_text())["results"]
    assert few["errors"] == many["errors"] == []
    assert 0 < many["p50"] <= many["p95"] <= many["max"] and many["requests_per_second"] > 0


@pytest.mark.slow
def test_run_that_cannot_be_served_says_so(tmp_path):
    command = [sys.executable, str(SCRIPT), "--run", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode != 0 and "run.json" in done.stderr

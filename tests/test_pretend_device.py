"""Every public path with a model of a device that is none: see `pretend/device.py` for what that finds and what not.

Cases are in `pretend/sweep.py`, a group in a process, because torch keeps a device that was registered. One alone:
`python tests/pretend/sweep.py parts "codec icquant"`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SWEEP = Path(__file__).parent / "pretend" / "sweep.py"
CASES = {"device": 6, "kinds": 29, "parts": 30, "recipes": 31, "verbs": 29, "trainings": 64, "exports": 5}


@pytest.mark.parametrize("group", CASES)
def test_every_path_takes_a_model_of_a_device(group: str) -> None:
    if importlib.util.find_spec("torch.utils.backend_registration") is None:
        pytest.skip("this torch cannot register a device written in Python")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    run = subprocess.run([sys.executable, str(SWEEP), group], capture_output=True, text=True, env=environment)
    rows = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    assert run.returncode == 0, run.stderr[-2000:]
    assert len(rows) == CASES[group]
    assert not [f"{row['case']}: {row['wrong']}" for row in rows if row["wrong"]]

"""What only a process of its own shows: pipes, signals, exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CORANK = (sys.executable, "-c", "from corank.cli import main; main()")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "ascii", "NO_COLOR": "1"}


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_interrupt_leaves_nothing(tmp_path: Path) -> None:
    # The calibration data is a Python file that says when it is read: the signal comes during the work.
    started = tmp_path / "started"
    (tmp_path / "images.py").write_text(
        f"import numpy, pathlib\ndef images():\n    pathlib.Path({str(started)!r}).touch()\n"
        "    return numpy.random.RandomState(0).randint(0, 255, (4096, 8, 8, 1)).astype('uint8')\n"
    )
    folder = tmp_path / "results"
    folder.mkdir()
    words = ["quantize", "digits", "--data", f"{tmp_path / 'images.py'}:images", "--bits", "2"]
    outputs = ["--out", str(folder / "m.safetensors"), "--record", str(folder / "r.json")]
    process = subprocess.Popen(
        [*CORANK, *words, "--samples", "4096", *outputs],
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # where the tests themselves ignore it
    )
    deadline = time.monotonic() + 600
    while not started.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 130, said
    assert said == "interrupted; nothing was written\n"
    assert list(folder.iterdir()) == []


def test_in_a_pipe_there_is_no_colour_and_no_progress(made: Path) -> None:
    words = ["evaluate", str(made / "model.safetensors"), "--model", "digits", "--data", "digits:test"]
    done = subprocess.run([*CORANK, *words], capture_output=True, env=ENVIRONMENT, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert b"\x1b" not in done.stdout and b"top-1" in done.stdout
    assert done.stderr == b""


def test_unexpected_errors_have_no_traceback_unless_asked(tmp_path: Path) -> None:
    code = tmp_path / "net.py"
    code.write_text(
        "import torch\nclass Net(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.conv = torch.nn.Conv2d(1, 4, 3)\n"
        "    def forward(self, x):\n        raise KeyError('odd')\n"
        "def make():\n    return Net()\n"
    )
    words = ["quantize", f"{code}:make", "--data", "digits:train[:8]", "--mean", "0", "--std", "1"]
    command = [*CORANK, *words, "--out", str(tmp_path / "m.safetensors")]
    done = subprocess.run(command, capture_output=True, env=ENVIRONMENT, timeout=600, check=False, text=True)
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr and "error: " in done.stderr
    done = subprocess.run(
        [*command, "--debug"], capture_output=True, env=ENVIRONMENT, timeout=600, check=False, text=True
    )
    assert done.returncode == 1 and "Traceback" in done.stderr
    assert not (tmp_path / "m.safetensors").exists()

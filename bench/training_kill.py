"""Kills `corank train` at random moments, starts it again, and compares the bytes of the files.

    python bench/training_kill.py [--kills 20] [--each 4] [--recipe cga-2bit] [--seed 0]

The digits network trains for 60 steps of 32 images, its state kept every 25. A run with a checkpoint is killed
(SIGKILL) ``--each`` times, each time at a moment drawn evenly from the seconds that a whole run takes, and is then left
to end; anew in another folder, until there were ``--kills`` kills. Its file has to be that of a run without a
checkpoint.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS, BATCH = 60, 32


def command(recipe: str, out: Path, checkpoint: Path | None) -> list[str]:
    kept = [] if checkpoint is None else ["--checkpoint", str(checkpoint)]
    return [
        *(sys.executable, "-m", "corank", "train", "digits", "--recipe", recipe, "--data", "digits:train"),
        *("--iterations", str(STEPS), "--batch-size", str(BATCH), "--samples", "64", "--out", str(out), "--quiet"),
        *kept,
    ]  # fmt: skip


def killed(asked: list[str], seconds: float) -> bool:
    """Whether the run was still under way when it was killed."""
    run = subprocess.Popen(asked)
    try:
        run.wait(seconds)
    except subprocess.TimeoutExpired:
        run.kill()
        run.wait()
        return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--each", type=int, default=4)
    parser.add_argument("--recipe", default="cga-2bit")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    draws = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        whole = folder / "whole.safetensors"
        started = time.perf_counter()
        subprocess.run(command(asked.recipe, whole, None), check=True)
        seconds = time.perf_counter() - started
        print(f"{asked.recipe}: a whole run takes {seconds:.1f} s, its file {whole.stat().st_size} bytes", flush=True)
        kills = same = runs = 0
        while kills < asked.kills:
            out, kept, moments = folder / f"{runs}.safetensors", folder / str(runs), []
            runs += 1
            while len(moments) < min(asked.each, asked.kills - kills):
                moment = draws.uniform(0, seconds)
                if not killed(command(asked.recipe, out, kept), moment):
                    out.unlink()  # it had ended: what is left to do is to end again
                    continue
                moments.append(moment)
            kills += len(moments)
            subprocess.run(command(asked.recipe, out, kept), check=True)
            alike = out.read_bytes() == whole.read_bytes()
            same += alike
            print(
                f"killed after {', '.join(f'{one:.1f}' for one in moments)} s: {'same' if alike else 'OTHER'}",
                flush=True,
            )
    print(f"{kills} kills, {same} of {runs} files identical", flush=True)
    sys.exit(same != runs)


if __name__ == "__main__":
    main()

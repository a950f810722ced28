"""The command ``corank``: says how torch's threads wait before torch is loaded, then runs the application.

OpenMP's threads spin where they wait for each other. On a machine that does other work as well, a thread may wait for
one that does not run, and spins its turn away: ten times the processor time has been seen. They sleep sooner here. A
module of its own, as ``import corank`` loads torch, and changes nobody's environment.
"""

from __future__ import annotations

import os

__all__ = ["main"]

_SPINS = "10000"  # about the time of putting a thread to sleep; libgomp's own is 300,000


def main() -> None:
    """The entry point; ``OMP_WAIT_POLICY`` and ``GOMP_SPINCOUNT`` are left as they are where they are set."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    from corank.cli import main as run

    run()

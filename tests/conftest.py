"""What every test shares: one seed and one thread. `--shared` is in corank.testing.pytest_plugin."""

from __future__ import annotations

import pytest
import torch


def pytest_sessionstart() -> None:
    """Fixtures of a session come before those of a test, so they, too, must find one thread."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def deterministic() -> None:
    """Every test starts from the same random state and computes on one thread."""
    torch.manual_seed(0)
    torch.set_num_threads(1)

"""The pytest option ``--shared=DIR`` and the fixture ``shared``: real data and trained weights.

Written with the equals sign: before options are known, pytest takes a bare DIR for a test path and looks
there for its settings. ``pytest --shared DIR tests`` works too.
"""

from __future__ import annotations

from pathlib import Path

import pytest

__all__ = ["pytest_addoption", "shared"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds ``--shared=DIR``."""
    parser.addoption(
        "--shared",
        metavar="DIR",
        default=None,
        help="folder of real data and trained weights (data/, models/)",
    )


@pytest.fixture(scope="session")
def shared(request: pytest.FixtureRequest) -> Path:
    """The folder given by ``pytest --shared=DIR``; the test is skipped where there is none."""
    given = request.config.getoption("--shared")
    if given is None:
        pytest.skip("wants real data: pytest --shared=DIR")
    folder = Path(given).resolve()
    if not folder.is_dir():
        pytest.skip(f"wants real data: --shared {given} is not a directory")
    return folder

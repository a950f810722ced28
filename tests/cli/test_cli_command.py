"""The command as it is installed: how torch's threads wait is said before torch is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import distribution

import pytest

_SHOW = """
import sys, os
from corank_command import main
assert "torch" not in sys.modules and "GOMP_SPINCOUNT" not in os.environ or {given}
sys.argv = ["corank", "--version"]
try:
    main()
finally:
    print(os.environ.get("GOMP_SPINCOUNT"))
"""


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
)
def test_threads_wait_as_they_are_told(given: dict[str, str], found: str) -> None:
    known = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    code = _SHOW.format(given=bool(given))
    done = subprocess.run([sys.executable, "-c", code], env={**known, **given}, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == found, done.stderr
    assert done.stdout.startswith("corank ")


def test_the_command_is_that_module() -> None:
    (entry,) = [one for one in distribution("corank").entry_points if one.group == "console_scripts"]
    assert (entry.name, entry.value) == ("corank", "corank_command:main")

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
assert "torch" not in sys.modules and "GOMP_SPINCOUNT" not in os.environ
sys.argv = ["corank", "--version"]
try:
    main()
finally:
    print(os.environ.get("GOMP_SPINCOUNT"))
"""
# In the place of the application, which loads torch and so takes most of the time: what it would find.
_FOUND = """
import sys, os, types
sys.modules["corank.cli"] = application = types.ModuleType("corank.cli")
application.main = lambda: print(os.environ.get("GOMP_SPINCOUNT"))
from corank_command import main
main()
assert "torch" not in sys.modules
"""


def lines_of(code: str, given: dict[str, str]) -> list[str]:
    """What a process prints that has these variables, and none but these, of how threads wait."""
    known = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", code], env={**known, **given}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_threads_wait_as_torch_is_to_find_it() -> None:
    version, found = lines_of(_SHOW, {})
    assert version.startswith("corank ") and found == "10000"


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
)
def test_threads_wait_as_they_are_told(given: dict[str, str], found: str) -> None:
    assert lines_of(_FOUND, given) == [found]


def test_the_command_is_that_module() -> None:
    (entry,) = [one for one in distribution("corank").entry_points if one.group == "console_scripts"]
    assert (entry.name, entry.value) == ("corank", "corank_command:main")

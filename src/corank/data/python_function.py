"""Calling a function in the caller's own Python file.

The file is run: only a reference that the user typed may come here, never one found inside a file.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from corank.errors import CorankError

__all__ = ["REFERENCE", "call_function"]

REFERENCE = re.compile(r"(?P<path>.+\.py):(?P<function>[A-Za-z_]\w*)")


def call_function(path: Path, function: str, error_type: type[CorankError]) -> object:
    """Run a Python file as a module of its own and call a function of it without arguments.

    Args:
        path: the file; its folder can be imported from meanwhile, as when it is run as a script.
        function: the name of a callable at its top level.
        error_type: what to raise.

    Raises:
        CorankError: of `error_type`: no such file or function, or an error in it, with its last line.
    """
    if not path.is_file():
        raise error_type(f"there is no file {path}")
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        return _function(_module(path), function, path, error_type)()
    except CorankError:
        raise
    except (Exception, SystemExit) as error:
        last = traceback.format_exception_only(error)[-1].strip()
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        place = f" (line {lines[-1]})" if lines else ""
        raise error_type(f"{path}:{function} failed{place}: {last}") from error
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _module(path: Path) -> ModuleType:
    name = f"corank_file_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while it runs
    spec.loader.exec_module(module)
    return module


def _function(module: ModuleType, name: str, path: Path, error_type: type[CorankError]) -> Callable[[], object]:
    known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    found = vars(module).get(name)
    if not callable(found):
        near = get_close_matches(name, known) or known
        raise error_type(f"{path} has no function {name!r}; it has {', '.join(near[:8]) or 'none'}")
    return found

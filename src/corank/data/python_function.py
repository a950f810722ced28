"""Calling a function in the caller's own Python file.

The file is run: only a reference that the user typed may come here, never one found inside a file.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from corank.errors import CorankError

__all__ = ["REFERENCE", "OwnFunction", "call_function", "own_function"]

_PREFIX = "corank_file_"  # of the names that such files have as modules
_ONE_AT_A_TIME = threading.RLock()

REFERENCE = re.compile(r"(?P<path>.+\.py):(?P<function>[A-Za-z_]\w*)")


@dataclass(frozen=True)
class OwnFunction:
    """A function of a Python file that was run; calling it calls the function without arguments.

    Args:
        path: the file.
        function: the function.
        error_type: what a call raises for any error in it, with its last line.
    """

    path: Path
    function: Callable[[], object]
    name: str
    error_type: type[CorankError]

    def __call__(self) -> object:
        with _in_folder_of(self.path), _explained(self.path, self.name, self.error_type):
            return self.function()


def call_function(path: Path, function: str, error_type: type[CorankError]) -> object:
    """Run a Python file as a module of its own and call a function of it without arguments.

    Args:
        path: the file; its folder can be imported from meanwhile, as when it is run as a script.
        function: the name of a callable at its top level.
        error_type: what to raise.

    Raises:
        CorankError: of `error_type`: no such file or function, or an error in it, with its last line.
    """
    return own_function(path, function, error_type)()


def own_function(path: Path, function: str, error_type: type[CorankError]) -> OwnFunction:
    """Run a Python file as :func:`call_function` does, and give its function without calling it."""
    if not path.is_file():
        raise error_type(f"there is no file {path}")
    with _in_folder_of(path), _explained(path, function, error_type):
        return OwnFunction(path, _function(_module(path), function, path, error_type), function, error_type)


@contextmanager
def _in_folder_of(path: Path) -> Iterator[None]:
    """Lets a file import its neighbours, and not those of the same name that another file has brought before.

    What is imported stays, as it does for a script: classes of the model are looked up by their module later. The path
    of imports belongs to the whole process, so only one file is run at a time.
    """
    folder = path.resolve().parent
    with _ONE_AT_A_TIME:
        _forget_neighbours_of_others(folder)
        sys.path.insert(0, str(folder))
        try:
            yield
        finally:
            if str(folder) in sys.path:
                sys.path.remove(str(folder))


def _forget_neighbours_of_others(folder: Path) -> None:
    held = {name: module.__dict__.get("__file__") for name, module in list(sys.modules.items()) if _is_module(module)}
    modules = {name: Path(file) for name, file in held.items() if isinstance(file, str)}
    others = {file.resolve().parent for name, file in modules.items() if name.startswith(_PREFIX)} - {folder}
    for name, file in modules.items():
        top = name.partition(".")[0]
        home = file.parent if file.name != "__init__.py" else file.parent.parent
        here = (folder / f"{top}.py").is_file() or (folder / top / "__init__.py").is_file()
        if here and not name.startswith(_PREFIX) and (home in others or not others.isdisjoint(home.parents)):
            del sys.modules[name]


def _is_module(held: object) -> bool:
    return isinstance(held, ModuleType)  # some packages put other objects there


@contextmanager
def _explained(path: Path, function: str, error_type: type[CorankError]) -> Iterator[None]:
    try:
        yield
    except CorankError:
        raise
    except (Exception, SystemExit) as error:
        last = traceback.format_exception_only(error)[-1].strip()
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        place = f" (line {lines[-1]})" if lines else ""
        raise error_type(f"{path}:{function} failed{place}: {last}") from error


def _module(path: Path) -> ModuleType:
    name = f"{_PREFIX}{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while it runs
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]  # half of a module is of no use to anyone
        raise
    return module


def _function(module: ModuleType, name: str, path: Path, error_type: type[CorankError]) -> Callable[[], object]:
    known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    found = vars(module).get(name)
    if not callable(found):
        near = get_close_matches(name, known) or known
        raise error_type(f"{path} has no function {name!r}; it has {', '.join(near[:8]) or 'none'}")
    return found

"""Models of the caller's own Python file."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from corank.data.preprocessing import Preprocessing
from corank.data.python_function import REFERENCE, call_function
from corank.errors import ModelError
from corank.models.loader import LoadedModel, Request

__all__ = ["load_python_file"]


def load_python_file(request: Request) -> LoadedModel:
    """Call a factory, a function without arguments, in a Python file that the caller named.

    Args:
        request: the name is `file.py:factory`; `pretrained` says that the factory loads trained weights.

    Raises:
        ModelError: no such file or function, an error in it, or something that is no `nn.Module`.
    """
    match = REFERENCE.fullmatch(request.name)
    if match is None:
        raise ModelError(f"{request.name!r} names no factory; write file.py:factory")
    model = call_function(Path(match["path"]).expanduser(), match["function"], ModelError)
    if not isinstance(model, nn.Module):
        raise ModelError(f"{request.name} returned {type(model).__name__}; return a torch.nn.Module")
    return LoadedModel(model, Preprocessing(), request.name if request.pretrained else None)

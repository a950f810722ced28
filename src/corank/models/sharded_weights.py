"""Weights in safetensors shards, read tensor by tensor: a network larger than memory is never there as a whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import safetensors
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from corank.errors import ModelError
from corank.models.weights_file import check_whole, weight_files

__all__ = ["ShardedWeights", "fill"]

_FLOATS = ("F32", "F16", "BF16")
_MARKED = 1 << 20  # bytes at either end of a shard that tell it from another


class ShardedWeights:
    """The tensors of a folder of ``.safetensors`` files.

    Args:
        folder: with one file, several, or several and an index.

    Raises:
        ModelError: for a shard that is missing, cut short or unsound, a tensor that is in two of them, or one that is
            no float number.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.files, self._prefix = folder, weight_files(folder), ""
        self._place: dict[str, Path] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for file in self.files:
            check_whole(file)
            self._index(file)

    def __contains__(self, name: str) -> bool:
        return name in self._place

    def add_prefix(self, prefix: str) -> None:
        """Puts ``prefix`` before all names, as a network has them that holds what was stored."""
        self._prefix = prefix + self._prefix
        self._place = {prefix + name: place for name, place in self._place.items()}
        self._shapes = {prefix + name: shape for name, shape in self._shapes.items()}

    def shape(self, name: str) -> tuple[int, ...]:
        """Of that tensor."""
        return self._shapes[name]

    def tensor(self, name: str) -> Tensor:
        """That tensor in float32, in memory of its own.

        Raises:
            ModelError: where its values are not finite.
        """
        with safetensors.safe_open(self._place[name], "pt") as file:
            found = file.get_tensor(name.removeprefix(self._prefix)).to(torch.float32, copy=True)
        if not bool(torch.isfinite(found).all()):
            raise ModelError(f"{name!r} in {self._place[name]} has NaN or infinite values; a trained model is needed")
        return found

    def identity(self) -> str:
        """A SHA-256 of names, shapes, sizes and of both ends of each file: enough to tell weights from others."""
        total = hashlib.sha256(repr(sorted(self._shapes.items())).encode())
        for file in self.files:
            size = file.stat().st_size
            with file.open("rb") as stream:
                total.update(f"{file.name} {size}".encode() + stream.read(_MARKED))
                stream.seek(max(0, size - _MARKED))
                total.update(stream.read(_MARKED))
        return total.hexdigest()

    def _index(self, path: Path) -> None:
        try:
            with safetensors.safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118
                    if name in self._place:
                        raise ModelError(
                            f"{name!r} is in {self._place[name].name} and in {path.name}; keep one of them"
                        )
                    part = file.get_slice(name)
                    if part.get_dtype() not in _FLOATS:
                        raise ModelError(
                            f"{name!r} in {path} is {part.get_dtype()}; weights in {', '.join(_FLOATS)} can be read"
                        )
                    self._place[name], self._shapes[name] = path, tuple(part.get_shape())
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelError(f"{path} is not a sound .safetensors file: {error}") from error


def fill(modules: Mapping[str, nn.Module], weights: ShardedWeights) -> None:
    """Reads the parameters on the meta device that modules hold themselves, into the same places; tied ones once.

    Args:
        modules: by their names in the network.
        weights: of the network.
    """
    empty = [
        (module, f"{path}.{name}".removeprefix("."), name, parameter)
        for path, module in modules.items()
        for name, parameter in module._parameters.items()
        if parameter is not None and parameter.is_meta
    ]
    read: dict[int, nn.Parameter] = {}
    for _, full, _, parameter in empty:
        if id(parameter) not in read and full in weights:
            read[id(parameter)] = nn.Parameter(weights.tensor(full), requires_grad=False)
    for module, _, name, parameter in empty:
        if id(parameter) in read:
            module._parameters[name] = read[id(parameter)]

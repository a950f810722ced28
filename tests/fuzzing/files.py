"""Files that are not what they should be: every one is refused with our error, or is a sound model after all."""

from __future__ import annotations

import contextlib
import random
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from corank.errors import ArtifactError, CorankWarning
from corank.inspect import inspect
from corank.storage.artifact import load, save
from fuzzing.mutations import mutate

__all__ = ["check_file", "check_files"]


def check_files(
    data: bytes,
    network: nn.Module | Callable[[], nn.Module],
    inputs: Tensor,
    count: int = 300,
    others: Sequence[bytes] = (),
) -> Counter[str]:
    """Reads damaged and forged copies of a sound artifact as :func:`check_file` does.

    Args:
        data: the artifact, of any format.
        network: the float network, or what makes one.
        inputs: a batch for it.
        count: how many files.
        others: sound artifacts whose parts may be put in.

    Returns:
        How many were "loaded" and how many refused, by reason.

    Raises:
        AssertionError: naming the mutation and its number.
    """
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mutated.safetensors")
        for number in range(count):
            name, mutated = mutate(data, random.Random(f"7:{number}"), others)
            path.write_bytes(mutated)
            try:
                found[check_file(path, network, inputs)] += 1
            except Exception as error:
                raise AssertionError(f"mutation {number} ({name}): {type(error).__name__}: {error}") from error
    return found


def check_file(path: Path, network: nn.Module | Callable[[], nn.Module], inputs: Tensor) -> str:
    """Reads a file that may be anything; what loads must run, and be the same once it is saved and loaded again.

    Args:
        path: of the file; another one is written beside it for a moment.
        network: the float network that it may be of, or what makes one.
        inputs: a batch for it.

    Returns:
        "loaded", or the reason of the refusal without what is particular to this file.

    Raises:
        AssertionError: for a model that is not sound. Warning: for any but ours. Anything that the reader raised and
            should not have.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", CorankWarning)  # of a file in another precision than the network
        try:
            model = load(path, network)
        except ArtifactError as error:
            with contextlib.suppress(ArtifactError):
                inspect(path)  # which knows of no model
            return _reason(str(error), path)
        outputs = model(inputs.to(next(iter(_floats(model)), inputs).dtype))
        assert isinstance(outputs, Tensor), f"the model gives a {type(outputs).__name__}"
        again = path.with_name(f"{path.name}.again")
        try:
            save(model, again)
            try:
                repeated = load(again, network)
            except ArtifactError as error:
                raise AssertionError(f"saved again it is refused: {error}") from error
            assert _equal(repeated(inputs.to(outputs.dtype)), outputs), "saved and loaded again it gives something else"
            record = inspect(path, codes=True)
            kept = ("layers", "plan", "folded", "skipped", "seed")
            other = inspect(again)
            assert all(str(record[key])[:40] == str(other[key])[:40] for key in kept), "inspect() tells something else"
        finally:
            with contextlib.suppress(FileNotFoundError):
                again.unlink()
        return "loaded"


def _floats(model: nn.Module) -> list[Tensor]:
    return [tensor for tensor in [*model.parameters(), *model.buffers()] if tensor.dtype.is_floating_point]


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one.nan_to_num(nan=7.0), other.nan_to_num(nan=7.0))


def _reason(said: str, path: Path) -> str:
    """The message without path, names and numbers."""
    said = said.replace(str(path), "FILE")
    words = [
        word if not any(letter.isdigit() or letter in "'\"[{" for letter in word) else "#" for word in said.split()
    ]
    return " ".join(words[:9])

"""From what a checkpoint holds to the state dict in it, under the names of the model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from corank.errors import ModelError

__all__ = ["averages_beside", "mixed_prefix", "state_dict_in", "under_names_of"]

# In the order of preference: what was trained, then its moving average, which is taken only where it stands alone or
# is asked for by name.
TRAINED = ("state_dict", "model_state_dict", "model", "net", "module", "weights", "params")
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "ema_model", "params_ema")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
WRAPPERS = ("module", "_orig_mod")  # parts of a name that DataParallel and torch.compile put in
COUNTER = "n_averaged"  # of torch.optim.swa_utils.AveragedModel, beside the weights
DEPTH = 3


def state_dict_in(content: Any, file: Path, key: str | None = None) -> dict[str, Tensor]:
    """Names to tensors: bare, or in containers, one inside the other.

    Args:
        content: of the file.
        file: for errors.
        key: the container to take, or the part before a dot that the wanted names share; None for the first there is
            of :data:`TRAINED`, then of :data:`AVERAGED`.

    Raises:
        ModelError: no such container, or something that is no state dict.
    """
    if key is not None:
        content = _chosen(content, file, key)
    for _ in range(DEPTH):
        inner = next((name for name in (*TRAINED, *AVERAGED) if _is_container(content, name)), None)
        if inner is None:
            break
        content = content[inner]
    if not isinstance(content, Mapping) or not content:
        raise ModelError(
            f"{file} holds no state dict (names to tensors), bare or under {', '.join((*TRAINED, *AVERAGED))}"
        )
    given: dict[str, Tensor] = {}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            held = [one for one in content if isinstance(one, str) and isinstance(content[one], Mapping)]
            hint = f"; to take one of {', '.join(held[:8])} give {file}:{held[0]}" if held else ""
            raise ModelError(f"{file} holds {name!r} of type {type(value).__name__} where a tensor belongs{hint}")
        given[name] = value
    return given


def averages_beside(content: Any) -> list[str]:
    """The names of moving averages that a checkpoint holds beside the weights as they were trained."""
    if not any(_is_container(content, name) for name in TRAINED):
        return []
    return [name for name in AVERAGED if _is_container(content, name)]


def under_names_of(given: Mapping[str, Tensor], known: Collection[str]) -> dict[str, Tensor]:
    """The same tensors under the names of a model, where all of them differ in the same prefixes alone.

    Tried are the names as they are; without prefixes that every name has (:data:`PREFIXES`, one after the other); and
    each of these without the parts that wrappers put into names. The model may be wrapped, too. Of these the one with
    the most names of the model is taken, the earliest of equals.

    Args:
        given: the state dict.
        known: the model's names.
    """
    given = {name: value for name, value in given.items() if name != COUNTER or name in known}
    best, most = given, sum(name in known for name in given)
    bare = {_without_wrappers(name): name for name in known}
    for wrapper in ("module.", "_orig_mod.", "module._orig_mod."):
        if all(name.startswith(wrapper) for name in known):
            bare |= {_without_wrappers(name.removeprefix(wrapper)): name for name in known}
    candidates, stripped = [given], given
    while (prefix := _common(stripped)) is not None:
        stripped = {name.removeprefix(prefix): value for name, value in stripped.items()}
        candidates.append(stripped)
    for candidate in candidates:
        for renamed in (
            candidate,
            {bare.get(_without_wrappers(name), name): value for name, value in candidate.items()},
        ):
            fitting = sum(name in known for name in renamed)
            if fitting > most and len(renamed) == len(candidate):
                best, most = renamed, fitting
    return best


def mixed_prefix(given: Collection[str], missing: Collection[str], file: Path) -> str:
    """What to say where a prefix stands before some of the names alone; nothing where that is not so."""
    for prefix in PREFIXES:
        with_it = [name for name in given if name.startswith(prefix)]
        found = [name for name in with_it if name.removeprefix(prefix) in missing]
        if found and len(with_it) < len(given):
            return (
                f"; {len(with_it)} of its {len(given)} names begin with {prefix!r} and the others do not, so it is "
                f"more than one network; to take those alone give {file}:{prefix[:-1]}"
            )
    return ""


def _is_container(content: Any, name: str) -> bool:
    return isinstance(content, Mapping) and isinstance(content.get(name), Mapping)


def _chosen(content: Any, file: Path, key: str) -> Any:
    """The container of that name; else the names that begin with it, of the state dict that is read without a key."""
    if _is_container(content, key):
        return content[key]
    held = [str(name) for name in content if _is_container(content, name)] if isinstance(content, Mapping) else []
    state = state_dict_in(content, file)
    part = {name.removeprefix(f"{key}."): value for name, value in state.items() if name.startswith(f"{key}.")}
    if not part:
        raise ModelError(
            f"{file} has no {key!r}: it holds {', '.join(held[:8]) or 'a bare state dict'}, "
            f"with names such as {', '.join(list(state)[:3])}"
        )
    return part


def _common(names: Collection[str]) -> str | None:
    return next((prefix for prefix in PREFIXES if names and all(name.startswith(prefix) for name in names)), None)


def _without_wrappers(name: str) -> str:
    """A name without the wrappers inside of it; what it begins with is dropped only where every name has it."""
    first, *others = name.split(".")
    return ".".join([first, *(part for part in others if part not in WRAPPERS)])

"""The unlabelled calibration samples, in whatever form the model takes them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from corank.errors import DataError
from corank.memory import is_out_of_memory
from corank.padding import output_mask
from corank.transfer import sent
from corank.watching import HookError, watched

__all__ = [
    "LABELS",
    "Samples",
    "cut",
    "inputs_of",
    "live_numbers",
    "plain",
    "real_samples",
    "run",
    "sequences",
    "token_ids",
]

_CHANNELS = re.compile(r"to have (\d+) channels, but got (\d+) channels")  # of a convolution
LABELS = ("labels", "label", "target")  # under which a mapping holds what is no input
_TOKENS = 64  # that count as one sample where a batch's size is asked for


@dataclass(frozen=True)
class Samples:
    """Batches of model inputs, held on the CPU.

    Attributes:
        batches: each a tensor, or a mapping of keyword arguments.
        stacked: whether samples of different batches can stand in one batch.
    """

    batches: tuple[Any, ...]
    stacked: bool

    @classmethod
    def of(cls, data: Any, limit: int, batch_size: int = 32) -> Samples:
        """Reads at most ``limit`` samples.

        Args:
            data: a tensor ``(N, ...)``, or a mapping of such by the names of the model's arguments; or an iterable of
                batches: tensors, ``(inputs, labels)`` pairs (labels are not used), or mappings, of which samples that
                are padding alone are left out. Whole numbers ``(N, T)`` are token ids.
            limit: samples to take, from the front.
            batch_size: of the batches that a tensor or a mapping is cut into; token sequences into such as hold
                ``64 * batch_size`` tokens.

        Raises:
            DataError: for empty data, other types, or values that are not finite.
        """
        if limit < 1:
            raise DataError(f"{limit} calibration samples are asked for; at least 1 is needed")
        if isinstance(data, Tensor) and data.dim() < 2:
            raise DataError(
                f"calibration data of shape {tuple(data.shape)}; expected (N, ...), e.g. (256, 3, 224, 224)"
            )
        if isinstance(data, (Tensor, Mapping)):
            data = cut(plain(data[:limit]) if isinstance(data, Tensor) else inputs_of(data), batch_size)
        if isinstance(data, (str, bytes)) or not isinstance(data, Iterable):
            raise DataError(
                f"calibration data is a tensor (N, ...) or an iterable of batches, not {type(data).__name__}; "
                "for files use corank.data.load(PATH)"
            )
        batches, total = [], 0
        for batch in data:
            inputs = inputs_of(batch)
            real = real_samples(inputs)
            if real is not None:
                inputs = tree_map(lambda leaf, real=real: leaf[real], inputs)
            count = _count(inputs)
            kept = min(count, limit - total)
            if kept:
                batches.append(tree_map(lambda leaf, kept=kept: leaf[:kept], inputs) if kept < count else inputs)
            total += kept
            if total >= limit:
                break
        if not batches:
            raise DataError("the calibration data is empty; a few hundred unlabelled samples are needed")
        _check_finite(batches)
        shapes = {tuple((leaf.shape[1:], leaf.dtype) for leaf in tree_leaves(batch)) for batch in batches}
        return cls(tuple(batches), len(shapes) == 1)

    def __len__(self) -> int:
        return self._total

    @cached_property
    def _total(self) -> int:
        return sum(_count(batch) for batch in self.batches)

    @property
    def are_tokens(self) -> bool:
        """Whether they are sequences of token ids."""
        return token_ids(self.batches[0]) is not None

    def first(self, count: int) -> Any:
        """A batch of at most ``count`` samples, for watching the model run."""
        return tree_map(lambda leaf: leaf[:count], self.batches[0])

    def take(self, count: int) -> Samples:
        """The first batches, until ``count`` samples are reached."""
        kept, total = [], 0
        for batch in self.batches:
            if total >= count:
                break
            kept.append(batch)
            total += _count(batch)
        return Samples(tuple(kept), self.stacked)

    def rebatched(self, size: int) -> Samples:
        """The same samples in batches of ``size`` (or ``64 * size`` tokens), where they can be stacked."""
        if not self.stacked:
            return self
        return Samples(tuple(cut(_concatenate(self.batches), size)), True)

    def draws(self, size: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Endless shuffled draws for :meth:`loader`: sample indices ``(size,)``, or one batch's number.

        Of token sequences as many as hold ``64 * size`` tokens: every position gives an output of its own.
        """
        size = sequences(size, self.batches[0])
        while True:
            if self.stacked:
                order = torch.randperm(len(self), generator=generator)
                whole = order[: max(size, len(order) - len(order) % size)]
                yield from whole.split(size)
            else:
                yield from torch.randperm(len(self.batches), generator=generator).split(1)

    def loader(self) -> _Loader:
        """What gives the batch of a draw; holds one stacked copy of the samples."""
        return _Loader(_concatenate(self.batches) if self.stacked else None, self.batches)


@dataclass(frozen=True)
class _Loader:
    whole: Any
    batches: tuple[Any, ...]

    def __call__(self, draw: Tensor) -> Any:
        if self.whole is None:
            return self.batches[int(draw)]
        return tree_map(lambda leaf: leaf[draw], self.whole)


def run(model: nn.Module, batch: Any, device: torch.device | str = "cpu") -> Any:
    """Calls the model on a batch: positionally for a tensor, by keyword for a mapping.

    A network of transformers keeps no keys and values for tokens to come: those of all samples, layer after layer,
    would outweigh the network.

    Raises:
        DataError: when the model cannot take the batch, with the model's own words. What a hook raised that watches the
            model is raised as it is: it is none of the model's.
    """
    batch = tree_map(lambda leaf: sent(leaf, device), batch)
    more = {"use_cache": False} if _keeps_keys(model) else {}
    try:
        return model(**batch, **more) if isinstance(batch, dict) else model(batch, **more)
    except HookError as failed:
        raise failed.error from failed.error.__cause__
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if is_out_of_memory(error):
            raise
        shapes = ", ".join(str(tuple(leaf.shape)) for leaf in tree_leaves(batch))
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"the model could not run on a batch of shape {shapes}: {first}{_hint(model, batch, first)}"
        ) from error


def _keeps_keys(model: nn.Module) -> bool:
    """Whether it keeps what attention saw of earlier tokens, as transformers' decoders do by their configuration."""
    asked = getattr(getattr(model, "config", None), "use_cache", False)
    return asked is True and "use_cache" in inspect.signature(model.forward).parameters


def _hint(model: nn.Module, batch: Any, said: str) -> str:
    """What to try, where the model's own words do not tell."""
    if any(part.is_meta for part in model.parameters()):
        return "; the model is on the meta device and has no values: load its weights"
    if "indices" in said and any(leaf.is_floating_point() for leaf in tree_leaves(batch)):
        return "; the model looks up token ids: give whole numbers (N, T), and on the command line --length"
    channels = _CHANNELS.search(said)
    if channels is not None and isinstance(batch, Tensor) and batch.dim() == 4:
        wanted, given = channels.groups()
        means = "--mean 0.5 --std 0.5" if wanted == "1" else "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"
        return (
            f"; the network reads images of {wanted} channel{'s' if wanted != '1' else ''}, and these have {given}: "
            f"Preprocessing(channels={wanted}) reads them so, and on the command line a mean and standard deviation "
            f"for each channel, e.g. {means}"
            if {wanted, given} == {"1", "3"}
            else ""
        )
    kinds = [part.dtype for part in model.parameters() if part.is_floating_point()]
    for leaf in tree_leaves(batch):
        if kinds and leaf.dtype not in kinds and (leaf.is_floating_point() or leaf.dtype == torch.uint8):
            return f"; the data is {leaf.dtype} and the model {kinds[0]}: give data.to({kinds[0]}), or model.float()"
    if "required positional argument" in said:
        return '; a model of several inputs takes mappings as batches, e.g. [{"image": images, "mask": masks}]'
    return ""


def token_ids(batch: Any) -> Tensor | None:
    """The token ids ``(N, T)`` int64 in a batch of model inputs, alone or under "input_ids"; None if there are none."""
    ids = batch.get("input_ids") if isinstance(batch, Mapping) else batch
    return ids if isinstance(ids, Tensor) and ids.dtype == torch.int64 and ids.dim() == 2 else None


def live_numbers(model: nn.Module, batch: Any, device: torch.device | str = "cpu") -> int:
    """Numbers that the model's innermost modules put out for the first sample of a batch: what a backward pass needs
    kept, more or less."""
    total = 0

    def count(_module: nn.Module, _inputs: object, _named: object, output: Any) -> None:
        nonlocal total
        total += sum(leaf.numel() for leaf in tree_leaves(output) if isinstance(leaf, Tensor))

    inner = {name: module for name, module in model.named_modules() if not any(True for _ in module.children())}
    with watched(inner, lambda _: count), torch.no_grad():
        run(model, tree_map(lambda leaf: leaf[:1], batch), device)
    return max(1, total)


def sequences(size: int, batch: Any) -> int:
    """The samples of a batch that is to have ``size`` of them."""
    ids = token_ids(batch)
    return size if ids is None else max(1, min(size, _TOKENS * size // max(1, ids.shape[1])))


def inputs_of(batch: Any) -> Any:
    """A batch without its labels, as the model takes it; raises DataError for what is none."""
    if isinstance(batch, (tuple, list)) and batch:
        batch = batch[0]
    if isinstance(batch, Mapping):
        batch = {str(key): value for key, value in batch.items() if key not in LABELS}
    leaves = tree_leaves(batch)
    if not leaves or not all(isinstance(leaf, Tensor) and leaf.dim() > 0 for leaf in leaves):
        raise DataError(
            f"a batch is a tensor (N, ...), an (inputs, labels) pair or a mapping of tensors, not {_described(batch)}"
        )
    counts = [leaf.shape[0] for leaf in leaves]
    if len(set(counts)) > 1:
        raise DataError(f"the tensors of one batch hold different numbers of samples: {counts}")
    return tree_map(plain, batch)


def real_samples(inputs: Any) -> Tensor | None:
    """Which samples of a batch have a position that is real, and do not only fill it up; None: all."""
    mask = output_mask(inputs)
    if mask is None or len(mask) != _count(inputs) or bool(mask.any(1).all()):
        return None
    return mask.any(1)


def plain(leaf: Tensor) -> Tensor:
    """On the CPU; token ids, which files keep in few bytes, as the int64 that embeddings take."""
    leaf = leaf.detach().cpu()
    if leaf.is_inference():  # autograd refuses such tensors later
        leaf = leaf.clone()
    small = leaf.dtype in (torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32)
    return leaf.long() if small and leaf.dim() == 2 else leaf


def _described(batch: Any) -> str:
    """What was given in place of a batch, and what would do."""
    kind = type(batch).__name__
    if type(batch).__module__ == "numpy":
        return f"a numpy {kind}; torch.from_numpy(array) makes a tensor of it"
    if isinstance(batch, Mapping):
        odd = [key for key, value in batch.items() if not isinstance(value, Tensor) or value.dim() == 0]
        return f"a {kind} whose {odd[0]!r} is none; leave it out" if odd else f"an empty {kind}"
    return kind


def _check_finite(batches: list[Any]) -> None:
    for leaf in tree_leaves(batches):
        if leaf.is_floating_point() and not bool(torch.isfinite(leaf).all()):
            raise DataError("the calibration data holds NaN or infinite values")


def _count(batch: Any) -> int:
    return int(tree_leaves(batch)[0].shape[0])


def cut(whole: Any, size: int) -> list[Any]:
    """Batches of ``size`` of the samples that are given whole, or of token sequences that hold ``64 * size`` tokens."""
    size = sequences(size, whole)
    return [tree_map(lambda leaf, at=at: leaf[at : at + size], whole) for at in range(0, _count(whole), size)]


def _concatenate(batches: tuple[Any, ...]) -> Any:
    if len(batches) == 1:
        return batches[0]
    return tree_map(lambda *leaves: torch.cat(leaves), *batches)

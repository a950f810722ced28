"""The float network's outputs for a training's steps: computed each time, or once and kept in memory or in a folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from corank.calibration import Batches, run
from corank.checkpoint import fingerprint
from corank.devices import device_of
from corank.errors import OutputError
from corank.files import make_directory, read_at_most, staged, write_whole
from corank.notes import note
from corank.processes import all_reduce, broadcast, number_of_processes, process_here, shard
from corank.transfer import sent

__all__ = ["Remembering", "TeacherOutputs"]

_BLOCK = 64  # samples that are computed at once
_FILE = "teacher"


@dataclass(frozen=True)
class Remembering:
    """When a teacher's outputs are kept: where each sample is seen as it is, and more than once.

    Attributes:
        steps: of the training.
        folder: where outputs may be kept that are too large for memory; a later run of the same network on the same
            samples finds them there. None: in memory alone.
        memory_bytes, disk_bytes: that they may take, on the network's device and in the folder.
        shortened: what is kept of outputs that are too large for memory, such as
            :class:`~corank.training.top_logits.LargestLogits`; None: all. Its repr tells one from another.
    """

    steps: int
    folder: Path | None = None
    memory_bytes: int = 1 << 30
    disk_bytes: int = 1 << 36
    shortened: Callable[[Any], Any] | None = None


class TeacherOutputs:
    """The float network's outputs for the batches of a training.

    What is kept is computed before the first step, in blocks of the samples in their order, so that it does not depend
    on the steps, on where a run was interrupted, or on how many processes share the work. It is computed as it would
    be at the place of the call: under its autocast.

    Args:
        teacher: in evaluation mode; it must not change.
        batches: of the training.
        remembering: None (where samples are augmented) computes each step's outputs when they are asked for.
        part: what is kept of an output, such as its logits; None: all.

    Attributes:
        kept: "memory", "folder", or None where each step's outputs are computed.
    """

    def __init__(
        self,
        teacher: nn.Module,
        batches: Batches,
        remembering: Remembering | None = None,
        part: Callable[[Any], Any] | None = None,
    ) -> None:
        self._teacher, self._batches, self._part = teacher, batches, part
        self._device = device_of(teacher)
        self.kept: str | None = None
        self._shortened: Callable[[Any], Any] | None = None
        self._leaves: list[Tensor] = []
        self._form: TreeSpec | None = None
        if remembering is not None and batches.stacked and remembering.steps * batches.batch_size > len(batches):
            self._remember(remembering)

    def outputs(self, step: int, batch: Any, start: int = 0) -> Any:
        """The outputs for (a part of) a step's batch, without gradients.

        Args:
            step: whose batch it is.
            batch: its inputs, of which the first is the ``start``-th of the whole batch.
            start: see :meth:`corank.calibration.Batches.part`.
        """
        if self.kept is None:
            return self._computed(batch)
        assert self._form is not None
        draw = self._batches.draw(step)[start : start + len(tree_flatten(batch)[0][0])]
        rows = [sent(leaf[sent(draw, leaf.device)], self._device) for leaf in self._leaves]
        return tree_unflatten(rows, self._form)

    def _computed(self, batch: Any) -> Any:
        with torch.no_grad():
            output = run(self._teacher, batch, self._device)
        output = output if self._part is None else self._part(output)
        return output if self._shortened is None else self._shortened(output)

    def _remember(self, how: Remembering) -> None:
        size = min(_BLOCK, self._batches.batch_size)  # of token sequences, far fewer
        blocks = torch.arange(len(self._batches)).split(size)
        first = self._computed(self._inputs(blocks[0]))
        held = sum(leaf.nbytes for leaf in tree_flatten(first)[0] if isinstance(leaf, Tensor))
        if how.shortened is not None and held * len(self._batches) > how.memory_bytes * len(blocks[0]):
            self._shortened = how.shortened
            first = self._shortened(first)
        leaves, self._form = tree_flatten(first)
        if any(not isinstance(leaf, Tensor) or leaf.dim() == 0 or len(leaf) != len(blocks[0]) for leaf in leaves):
            self._shortened = None
            return  # not one for each sample
        rows = [leaf[:1] for leaf in leaves]
        total = sum(row.nbytes for row in rows) * len(self._batches)
        if total <= how.memory_bytes:
            whole = [row.new_empty((len(self._batches), *row.shape[1:])) for row in rows]
            for block, found in self._blocks(blocks, rows):
                for kept, leaf in zip(whole, found, strict=True):
                    kept[block] = leaf
            self.kept, self._leaves = "memory", whole
        elif how.folder is not None and total <= how.disk_bytes:
            self._leaves = _Folder(how.folder, len(self._batches), rows).leaves(
                lambda: self._identity(rows), lambda: self._blocks(blocks, rows), self._device
            )
            self.kept = "folder"
        else:
            self._shortened = None
            note(f"the float network's outputs take {total / 1e9:.1f} GB, and are computed anew in each step")

    def _inputs(self, block: Tensor) -> Any:
        return self._batches.source.rows(block)[0]

    def _blocks(self, blocks: tuple[Tensor, ...], rows: list[Tensor]) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Each block and its outputs, in order, in every process: each computes every n-th."""
        count = number_of_processes()
        for first in range(0, len(blocks), count):
            together = blocks[first : first + count]
            own = {place: tree_flatten(self._computed(self._inputs(block)))[0] for place, block in shard(together)}
            for place, block in enumerate(together):
                empty = [row.new_empty((len(block), *row.shape[1:])) for row in rows]
                found = [leaf.contiguous() for leaf in own.get(place, empty)]
                for leaf in found:
                    broadcast(leaf, place)
                yield block, found

    def _identity(self, rows: list[Tensor]) -> str:
        kind = self._device.type
        cast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        how = "" if self._shortened is None else f" {self._shortened}"
        state = fingerprint([*self._teacher.parameters(), *self._teacher.buffers()])
        return f"{state} {self._batches.identity} {[(row.shape[1:], row.dtype) for row in rows]} {cast}{how}"


class _Folder:
    """Files of one tensor each, mapped into memory as they are read, and one that says whose they are."""

    def __init__(self, folder: Path, count: int, rows: list[Tensor]) -> None:
        self._folder, self._count, self._rows = folder, count, rows
        self._named = folder / f"{_FILE}.json"
        self._paths = [folder / f"{_FILE}.{number}.bin" for number in range(len(rows))]

    def leaves(
        self,
        identity: Callable[[], str],
        blocks: Callable[[], Iterator[tuple[Tensor, list[Tensor]]]],
        device: torch.device,
    ) -> list[Tensor]:
        """The tensors, computed unless all processes find them; one process of a machine writes.

        Raises:
            OutputError: they cannot be written.
        """
        whose = json.dumps({"outputs of": identity()})
        missing = torch.tensor([0 if self._holds(whose) else 1], dtype=torch.int64, device=device)
        all_reduce([missing])
        if int(missing):
            if process_here() == 0:
                self._write(whose, blocks())
            else:
                for _ in blocks():  # its share of the work
                    pass
            all_reduce([missing])  # nobody reads before all have written
        return [
            torch.from_file(str(path), shared=False, size=self._count * row.numel(), dtype=row.dtype).view(
                self._count, *row.shape[1:]
            )
            for path, row in zip(self._paths, self._rows, strict=True)
        ]

    def _holds(self, whose: str) -> bool:
        try:
            sizes = [path.stat().st_size for path in self._paths]
            known = read_at_most(self._named, 1 << 20)
        except (OSError, ValueError):
            return False
        return known == whose.encode() and sizes == [self._count * row.nbytes for row in self._rows]

    def _write(self, whose: str, blocks: Iterator[tuple[Tensor, list[Tensor]]]) -> None:
        make_directory(self._folder)
        needed, free = sum(row.nbytes for row in self._rows) * self._count, shutil.disk_usage(self._folder).free
        if needed > free:
            raise OutputError(
                f"the float network's outputs take {needed / 1e9:.1f} GB, and {self._folder} has {free / 1e9:.1f} GB "
                "left; give a folder with more room, or none"
            )
        self._named.unlink(missing_ok=True)  # until the new ones are whole
        with staged(*self._paths) as scratch:
            files = [path.open("wb") for path in scratch]
            try:
                for _, found in blocks:
                    for file, leaf in zip(files, found, strict=True):
                        file.write(leaf.cpu().reshape(-1).view(torch.uint8).numpy().data)
            except OSError as error:
                raise OutputError(f"cannot keep the float network's outputs in {self._folder}: {error}") from error
            finally:
                for file in files:
                    file.close()
        write_whole(self._named, whose)

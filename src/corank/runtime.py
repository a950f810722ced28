"""Small on disk, fast in memory: a session of onnxruntime, built from an artifact when it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from corank.calibration import Samples
from corank.errors import ConfigError
from corank.export.check import Arrays
from corank.export.example import INPUT, OUTPUT, named_inputs, outputs_of
from corank.export.int8 import made_int8, need_onnx, read_samples
from corank.export.int8_settings import Int8
from corank.storage.artifact import load

__all__ = ["KINDS", "Session", "session"]

KINDS = ("int8", "float")


@dataclass(frozen=True)
class Session:
    """A network in onnxruntime, on the CPU, called as the PyTorch module is.

    Attributes:
        kind: "int8" or "float".
        outputs: their names.
        kept: layers that compute in float in an "int8" session.
    """

    kind: str
    outputs: tuple[str, ...]
    kept: tuple[str, ...]
    _run: Callable[[Arrays], Arrays] = field(repr=False)

    def __call__(self, *args: Tensor, **named: Tensor) -> Any:
        """The model's outputs, any number of samples at a time, without gradients.

        Args:
            args: a tensor ``(N, ...)``, as the network takes it.
            named: or tensors by keyword, where the calibration data were mappings.

        Returns:
            A tensor; or, as the network gives them, a tuple of tensors, or a dict.
        """
        if len(args) + bool(named) != 1:
            raise ConfigError("call a session with one tensor, or with tensors by keyword, as the network is")
        given = {INPUT: args[0]} if args else named
        found = self._run({name: value.detach().cpu().contiguous().numpy() for name, value in given.items()})
        tensors = {name: torch.from_numpy(value) for name, value in found.items()}
        if self.outputs == (OUTPUT,):
            return tensors[OUTPUT]
        numbered = tuple(f"{OUTPUT}_{place}" for place in range(len(self.outputs)))
        return tuple(tensors.values()) if self.outputs == numbered else tensors


def session(
    path: str | Path,
    model: nn.Module | Callable[[], nn.Module],
    calibration: Any,
    *,
    kind: str = "int8",
    threads: int | None = None,
    settings: Int8 | None = None,
) -> Session:
    """Loads an artifact into onnxruntime.

    "int8" is the network of :func:`corank.export.export_onnx_int8`; "float" is the merged float network, whose
    weights are those of :func:`corank.load` and whose inputs to layers are not rounded. Nothing is written.

    Args:
        path: of the artifact.
        model: the network's code, as for :func:`corank.load`.
        calibration: some dozens of samples without labels, as for :func:`corank.quantize`; for "float" one is enough,
            since only its shape matters.
        kind: "int8" or "float".
        threads: within one operator; None: onnxruntime's choice.
        settings: of int8 arithmetic.

    Raises:
        ArtifactError: for an unsound file, or one that does not fit the model.
        ConfigError: for another kind, or where onnx, onnxscript or onnxruntime are missing.
        DataError: for calibration data that cannot be read. ModelError: for a model that cannot be traced.
    """
    if kind not in KINDS:
        raise ConfigError(f"kind={kind!r}: give 'int8' or 'float'")
    if threads is not None and (type(threads) is not int or threads < 1):
        raise ConfigError(f"threads={threads!r}: a whole number from 1 on, or None")
    need_onnx()
    settings = settings or Int8()
    loaded = load(path, model, dtype=torch.float32)
    samples = read_samples(calibration, settings)
    graph, kept = _graph(loaded, samples, kind, settings)
    return _opened(graph, kind, _output_names(loaded, samples), kept, threads)


def _graph(model: nn.Module, samples: Samples, kind: str, settings: Int8) -> tuple[bytes, tuple[str, ...]]:
    from corank.export.graph import float_graph

    if kind == "float":
        return float_graph(model, samples.first(1)).SerializeToString(), ()
    made = made_int8(model, samples, settings)
    return made.model.SerializeToString(), made.kept


def _output_names(model: nn.Module, samples: Samples) -> tuple[str, ...]:
    return tuple(outputs_of(model, named_inputs(samples.first(1))))


def _opened(graph: bytes, kind: str, outputs: tuple[str, ...], kept: tuple[str, ...], threads: int | None) -> Session:
    from corank.export.onnx_session import open_session

    return Session(kind, outputs, kept, open_session(graph, outputs, threads))

"""What an export is asked for, and what it says it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from corank.data import BatchSet, ImageSet, TokenSet

__all__ = ["ExportRequest", "ExportResult", "Target"]


@dataclass(frozen=True)
class ExportRequest:
    """What the command line asks a target for.

    Args:
        model: of :func:`corank.load`.
        path: to write to: a file, or a folder where the target makes one.
        example: a batch the model takes.
        images: calibration samples, for targets that measure activations; None where none were given.
        dynamic: axes of the inputs whose length is left open.
        past: whether keys and values of earlier tokens are inputs, and those of all outputs.
    """

    model: nn.Module
    path: Path
    example: Any
    images: ImageSet | TokenSet | BatchSet | None = None
    dynamic: tuple[int, ...] = (0,)
    past: bool = False


@dataclass(frozen=True)
class ExportResult:
    """What was written, and how it compares with PyTorch. None: the target does not have or measure it.

    Attributes:
        target: as ``corank export --to`` names it.
        path: that was asked for.
        files: all that were written.
        size_bytes: of all those files.
        artifact_bytes: of the corank artifact of the same model.
        float_bytes: of the same network in float, in the same format.
        max_difference: the largest absolute difference to PyTorch over all outputs for the example.
        relative_difference: that over the largest absolute output.
        latency_ms: median milliseconds of a few runs of the example in the target's runtime.
        agreement: percent of calibration samples that get the class PyTorch gives.
        options: settings of the runtime's session under which the file was run and should be.
        notes: what the reader should know, one sentence each.
    """

    target: str
    path: Path
    files: tuple[Path, ...]
    size_bytes: int
    artifact_bytes: int | None = None
    float_bytes: int | None = None
    max_difference: float | None = None
    relative_difference: float | None = None
    latency_ms: float | None = None
    agreement: float | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Every field, plain."""
        return {
            **asdict(self),
            "path": str(self.path),
            "files": [str(file) for file in self.files],
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Target:
    """One entry of :data:`corank.export.TARGETS`.

    Args:
        about: what it writes, in a few words.
        export: does it; optional packages are imported inside.
        folder: it writes a folder, not a file.
        needs_images: it cannot do without calibration samples.
        takes_past: a language model's keys and values can be inputs and outputs.
        suffix: of the file.
    """

    about: str
    export: Callable[[ExportRequest], ExportResult]
    folder: bool = False
    needs_images: bool = False
    takes_past: bool = False
    suffix: str = ".onnx"

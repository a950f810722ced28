"""ONNX that computes in int8: small, and fast where processors multiply bytes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import nn

from corank.autograd import recording
from corank.calibration import Samples
from corank.errors import ModelError
from corank.export.check import Arrays, check, expected_of
from corank.export.example import named_inputs, outputs_of
from corank.export.int8 import made_int8, need_onnx, read_samples
from corank.export.int8_settings import Int8
from corank.export.result import ExportResult
from corank.files import staged
from corank.losses import logits_of
from corank.storage.artifact import serialized
from corank.storage.model_record import run_of

__all__ = ["agreement", "export_onnx_int8"]

_LARGEST = (1 << 31) - 1  # bytes of a protobuf file
_NAMED = 6


@recording()
def export_onnx_int8(
    model: nn.Module, path: str | Path, data: Any, *, settings: Int8 | None = None, tolerance: float = 0.5
) -> ExportResult:
    """Writes a quantized model as an ONNX file that onnxruntime runs with integer kernels, after running it there.

    Codes and adapters are folded into int8 weights with a step for each output channel, values between layers become
    uint8, all with ``QuantizeLinear`` and ``DequantizeLinear``, which onnxruntime fuses into its kernels at load. The
    layers that int8 harms most stay in float. The batch is left open.

    Args:
        model: of :func:`corank.quantize` or :func:`corank.load`.
        path: of the file; written under another name, run, compared, then renamed.
        data: calibration samples, as for :func:`corank.quantize`; no labels.
        settings: how many samples, what stays in float, 7 or 8 bits; None for :class:`Int8()
            <corank.export.int8.Int8>`.
        tolerance: the largest difference to PyTorch that passes, over the largest output.

    Raises:
        ConfigError: where onnx, onnxscript or onnxruntime are missing, or for settings that cannot be.
        DataError: for data that cannot be read. ModelError: for a model that corank did not quantize or that cannot be
            traced, or outputs that differ; nothing is written then. OutputError: when the path cannot be written.
    """
    run_of(model)
    need_onnx()
    from corank.export.onnx_session import kernels_of, open_session

    settings = settings or Int8()
    samples, target = read_samples(data, settings), Path(path)
    with staged(target) as (scratch,):  # first, so that a path that cannot be written is said before the work
        expected = expected_of(model, samples.first(1), tolerance)
        made = made_int8(model, samples, settings)
        size = made.model.ByteSize()
        if size > _LARGEST:
            raise ModelError(f"the graph takes {size} bytes; a single ONNX file holds less than 2 GB")
        scratch.write_bytes(made.model.SerializeToString(deterministic=True))
        session = open_session(scratch, list(expected.outputs))
        found = check(expected, session, "onnxruntime")
        same = agreement(model, samples, session)
        kernels = kernels_of(scratch)
    return ExportResult(
        target="onnx-int8",
        path=target,
        files=(target,),
        size_bytes=size,
        artifact_bytes=len(serialized(model)),
        float_bytes=made.float_bytes,
        max_difference=found.max_difference,
        relative_difference=found.relative_difference,
        latency_ms=found.latency_ms,
        agreement=same,
        notes=tuple(_notes(kernels, made.kept, same, len(samples), settings)),
    )


def agreement(model: nn.Module, samples: Samples, session: Callable[[Arrays], Arrays]) -> float | None:
    """Percent of samples that get the same class from the quantized model and from a session; None without logits.

    Args:
        model: computed in float32 on the CPU; not changed.
        samples: batches of its inputs.
        session: of :func:`corank.export.onnx_session.open_session`.
    """
    plain = copy.deepcopy(model).cpu().float().eval()
    same = 0
    for batch in samples.batches:
        inputs = named_inputs(batch)
        (name, given), *others = outputs_of(plain, inputs).items()
        if others or logits_of(given) is None:
            return None
        found = session({key: value.numpy() for key, value in inputs.items()})[name]
        same += int((found.argmax(1) == given.numpy().argmax(1)).sum())
    return 100.0 * same / len(samples)


def _notes(
    kernels: tuple[int, int], kept: tuple[str, ...], same: float | None, samples: int, settings: Int8
) -> Iterator[str]:
    integer, floating = kernels
    yield f"onnxruntime runs {integer} convolutions and matrix products in integers here, and {floating} in float"
    if kept:
        names = ", ".join(kept[:_NAMED]) + (f" and {len(kept) - _NAMED} more" if len(kept) > _NAMED else "")
        yield f"in float, as int8 harms them most, has no kernel for them, or was told so: {names}"
    if same is not None:
        yield f"{same:.1f} % of {samples} calibration samples get the class that PyTorch gives"
    if settings.seven_bits:
        yield "weights have 7 bits: sums of 8-bit products overflow on x86 processors without VNNI"
    else:
        yield "weights have 8 bits; for x86 processors without VNNI, whose sums would overflow, take reduce_range=True"

"""ONNX whose linear layers stay packed in memory, too: onnxruntime's own operators multiply with the codes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from corank.autograd import recording
from corank.errors import ConfigError, ModelError
from corank.export.check import ROUNDED_INPUTS, expected_of
from corank.export.onnx import finished, need_packages, write_checked
from corank.export.past import Exported, exported
from corank.export.result import ExportResult
from corank.storage.artifact import serialized
from corank.storage.model_record import run_of

__all__ = ["LEVELS", "export_onnx_matmulnbits"]

LEVELS = (0, 4)
_OPSET = 21
_INTEGERS = "onnxruntime rounds the inputs of packed layers to 8 bits, in blocks (accuracy_level=4)"


@recording()
def export_onnx_matmulnbits(
    model: nn.Module,
    path: str | Path,
    example: Any,
    *,
    past: bool = False,
    accuracy_level: int = 0,
    dynamic: Sequence[int] = (0,),
    tolerance: float | None = None,
) -> ExportResult:
    """Writes a quantized model as an ONNX file whose linear layers and embeddings are never decoded as a whole.

    They become the operators ``MatMulNBits`` and ``GatherBlockQuantized`` of onnxruntime, with the codes as they are;
    see :func:`corank.export.onnx_packed.pack_products`. All else is as in ``export_onnx(..., dense=True)``.

    Args:
        model: of :func:`corank.quantize` or :func:`corank.load`; computed in float32.
        path: of the file; written under another name, run, compared, then renamed.
        example: a tensor ``(N, ...)``, or a mapping of keyword arguments.
        past: of a causal language model: keys and values of earlier tokens are inputs, those of all outputs.
        accuracy_level: 0 computes in float32; 4 lets onnxruntime round the inputs of packed layers to 8 bits, which is
            faster and no longer what PyTorch computes.
        dynamic: axes of the inputs whose length is left open: the batch; ``(0, 1)`` for the length of texts as well;
            with ``past`` both always are.
        tolerance: the largest difference to PyTorch that passes, over the largest output; None for 1e-4, or 5e-2
            where inputs are rounded.

    Raises:
        ConfigError: for another accuracy level, or where onnx, onnxscript or onnxruntime are missing.
        ModelError: for a model that corank did not quantize or that cannot be traced, one without a layer that these
            operators can hold, or outputs that differ; nothing is written then.
        OutputError: when the path cannot be written.
    """
    run_of(model)
    need_packages()
    if accuracy_level not in LEVELS:
        raise ConfigError(f"accuracy_level={accuracy_level!r}: 0 for float32, or 4 for inputs rounded to 8 bits")
    what = exported(model, example, dynamic, past)
    allowed = tolerance or (ROUNDED_INPUTS if accuracy_level else None)
    expected = expected_of(what.model, what.example, allowed)
    data, float_bytes, notes = _made(what, accuracy_level)
    found = write_checked(Path(path), data, expected, {})
    return ExportResult(
        target="onnx-matmulnbits",
        path=Path(path),
        files=(Path(path),),
        size_bytes=len(data),
        artifact_bytes=len(serialized(model)),
        float_bytes=float_bytes,
        max_difference=found.max_difference,
        relative_difference=found.relative_difference,
        latency_ms=found.latency_ms,
        notes=(*notes, *((_INTEGERS,) if accuracy_level else ())),
    )


def _made(what: Exported, level: int) -> tuple[bytes, int, tuple[str, ...]]:
    """The bytes of the file, those that the float network's would be, and what is to be said."""
    from onnx import helper

    from corank.export.graph import coded_layers, float_graph
    from corank.export.onnx_inputs import round_inputs
    from corank.export.onnx_packed import DOMAIN, pack_products
    from corank.export.onnx_weights import DENSE_KINDS, replace_weights

    graph = float_graph(what.model, what.example, opset=_OPSET, dynamic=what.dynamic)
    float_bytes, layers = graph.ByteSize(), coded_layers(what.model)
    round_inputs(graph.graph, layers, as_codes=False)
    left = pack_products(graph.graph, layers, level)
    if len(left) == len(layers):
        raise ModelError(
            "no layer can be multiplied as codes: MatMulNBits takes linear layers of uniform codes, of which a scale "
            "serves a row or a multiple of 16 columns; --to onnx takes all"
        )
    replace_weights(graph.graph, {name: layers[name] for name in left}, DENSE_KINDS, dense=True)
    graph.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    notes = (f"packed in memory: {len(layers) - len(left)} of {len(layers)} layers",)
    if left:
        notes += (f"composed as floats when the file is opened: {', '.join(left)}",)
    return finished(graph, _OPSET), float_bytes, notes

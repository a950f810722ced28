"""ONNX with packed weights: small on disk, merged at load by onnxruntime."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from corank.autograd import recording
from corank.errors import ConfigError, ModelError
from corank.export.check import Checked, Expected, check, expected_of
from corank.export.onnx_session import open_session
from corank.export.past import Exported, exported
from corank.export.result import ExportResult
from corank.files import staged
from corank.storage.artifact import serialized
from corank.storage.model_record import run_of

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["SESSION_OPTIONS", "export_onnx", "finished", "need_packages", "write_checked"]

SESSION_OPTIONS = {"session.disable_quant_qdq": "1"}
_TWO_BITS = 25  # the opset that brought INT2 and UINT2
_FOUR_BITS = 21
_LARGEST = (1 << 31) - 1  # bytes of a protobuf file
_ROUNDS = "layers round their inputs: sums in another order may fall on the other side of a step"
_FOLD = (
    "open it with the session option session.disable_quant_qdq=1: onnxruntime then composes the weights once at load "
    "and runs as fast as the float network; without it, it decodes them in every run"
)
_NO_TWO_BITS = "the installed onnxruntime has no 2-bit types (opset 25): codes of 1 and 2 bits are kept in 4"


@recording()
def export_onnx(
    model: nn.Module,
    path: str | Path,
    example: Any,
    *,
    opset: int | None = None,
    dense: bool = False,
    past: bool = False,
    dynamic: Sequence[int] = (0,),
    tolerance: float | None = None,
) -> ExportResult:
    """Writes a quantized model as an ONNX file with packed weights, after running it in onnxruntime.

    Codes stay packed in the file, at 4 bits (opset 21), or 2 (opset 25); see :class:`StoredWeight
    <corank.export.stored.StoredWeight>` for how each codec is kept. Adapters are added to the weight by nodes that have
    only constants for inputs, so a runtime merges them once, at load. The batch is left open.

    Args:
        model: of :func:`corank.quantize` or :func:`corank.load`; computed in float32.
        path: of the file; written under another name, run, compared, then renamed.
        example: a tensor ``(N, ...)``, or a mapping of keyword arguments.
        opset: 21 to 25; None takes 25 where a layer has codes of 1 or 2 bits and the installed onnxruntime runs it,
            else 21.
        dense: codes of every width really packed, 3 bits in 3, and decoded by plain arithmetic. Smaller at 1 and 3
            bits, and onnxruntime merges the weights without a session option; but what looks for
            ``DequantizeLinear`` finds no quantized weights.
        past: of a causal language model: keys and values of earlier tokens are inputs, those of all outputs.
        dynamic: axes of the inputs whose length is left open: the batch; ``(0, 1)`` for the length of texts as well;
            with ``past`` both always are.
        tolerance: the largest difference to PyTorch that passes, over the largest output; None for 1e-4, or 5e-2
            where layers round their inputs.

    Raises:
        ConfigError: for another opset, or where onnx, onnxscript or onnxruntime are missing.
        ModelError: for a model that corank did not quantize or that cannot be traced, a codec that ONNX cannot hold, or
            outputs that differ; nothing is written then.
        OutputError: when the path cannot be written.
    """
    run = run_of(model)
    need_packages()
    if opset is not None and (type(opset) is not int or not _FOUR_BITS <= opset <= _TWO_BITS):
        raise ConfigError(f"opset={opset!r}: 21 to 25, or None; 4-bit weights came with 21, 2-bit ones with 25")
    target = Path(path)
    narrow = not dense and any(layer.codec is not None and layer.codec.bits <= 2 for layer in run.plan.layers.values())
    able = two_bits_run() if narrow and opset is None else True
    chosen = opset or (_TWO_BITS if narrow and able else _FOUR_BITS)
    what = exported(model, example, dynamic, past)
    expected = expected_of(what.model, what.example, tolerance)
    data, float_bytes = onnx_bytes(what, chosen, dense)
    entries = {} if dense else SESSION_OPTIONS
    found = write_checked(target, data, expected, entries)
    notes = (
        *(() if dense else (_FOLD,)),
        *((_NO_TWO_BITS,) if not able else ()),
        *((_ROUNDS,) if expected.rounded else ()),
    )
    return ExportResult(
        target="onnx-dense" if dense else "onnx",
        path=target,
        files=(target,),
        size_bytes=len(data),
        artifact_bytes=len(serialized(model)),
        float_bytes=float_bytes,
        max_difference=found.max_difference,
        relative_difference=found.relative_difference,
        latency_ms=found.latency_ms,
        options=entries,
        notes=notes,
    )


def onnx_bytes(what: Exported, opset: int, dense: bool = False) -> tuple[bytes, int]:
    """The bytes of the file, not yet run, and how many the float network's would be.

    Raises:
        ModelError: as :func:`export_onnx`.
    """
    import onnx

    from corank.export.graph import coded_layers, float_graph
    from corank.export.onnx_inputs import round_inputs
    from corank.export.onnx_weights import DENSE_KINDS, KINDS, TWO_BIT_KINDS, replace_weights

    graph = float_graph(what.model, what.example, opset=opset, dynamic=what.dynamic)
    float_bytes = graph.ByteSize()
    layers = coded_layers(what.model)
    round_inputs(graph.graph, layers, as_codes=not dense)
    kinds = DENSE_KINDS if dense else TWO_BIT_KINDS if opset >= _TWO_BITS else KINDS
    replace_weights(graph.graph, layers, kinds, dense)
    if not dense:
        onnx.helper.set_model_props(graph, SESSION_OPTIONS)
    return finished(graph, opset), float_bytes


def finished(graph: ModelProto, opset: int) -> bytes:
    """The bytes of a graph whose weights are in place.

    Raises:
        ModelError: for more than a file holds.
    """
    import onnx

    from corank.export.onnx_weights import halve

    halve(graph.graph)
    graph.ir_version = 13 if opset >= _TWO_BITS else 10
    graph.producer_name, graph.producer_version = "corank", version("corank")
    if graph.ByteSize() > _LARGEST:
        raise ModelError(f"the graph takes {graph.ByteSize()} bytes; a single ONNX file holds less than 2 GB")
    onnx.checker.check_model(graph)
    return graph.SerializeToString(deterministic=True)


def write_checked(path: Path, data: bytes, expected: Expected, entries: Mapping[str, str]) -> Checked:
    """Writes a file once onnxruntime has run it.

    Args:
        path: of the file.
        data: its bytes.
        expected: of PyTorch.
        entries: of the session's configuration.

    Raises:
        ModelError: where onnxruntime cannot read it or gives something else; OutputError: it cannot be written.
    """
    with staged(path) as (scratch,):
        scratch.write_bytes(data)
        try:
            run = open_session(scratch, list(expected.outputs), entries=entries)
        except ModelError as error:
            raise ModelError(f"nothing was written: {error}") from error
        return check(expected, run, "onnxruntime")


def two_bits_run() -> bool:
    """Whether the installed onnx and onnxruntime know 2-bit types."""
    import onnxruntime
    from onnx import TensorProto, helper

    try:
        node = helper.make_node("DequantizeLinear", ["codes", "scale"], ["output"])
        held = helper.make_tensor("codes", TensorProto.INT2, [4], np.array([0b11100100], np.uint8).tobytes(), raw=True)
        scale = helper.make_tensor("scale", TensorProto.FLOAT, [], [1.0])
        output = helper.make_tensor_value_info("output", TensorProto.FLOAT, [4])
        graph = helper.make_graph([node], "two_bits", [], [output], [held, scale])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _TWO_BITS)], ir_version=13)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, {})[0]).tolist() == [0.0, 1.0, -2.0, -1.0]
    except Exception:  # AttributeError of an older onnx, any of onnxruntime's own for an unknown opset
        return False


def need_packages() -> None:
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"export to ONNX needs {' and '.join(missing)}: pip install 'corank[onnx]'")

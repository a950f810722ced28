"""OpenVINO IR with packed weights: small on disk, merged when the network is compiled."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from corank.autograd import recording
from corank.errors import ConfigError, ModelError
from corank.export.check import Arrays, check, expected_of
from corank.export.past import Exported, exported
from corank.export.result import ExportResult
from corank.files import staged
from corank.storage.artifact import serialized
from corank.storage.model_record import run_of

__all__ = ["CONFIGURATION", "export_openvino"]

CONFIGURATION = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
_OPSET = 21
_NARROW = (
    "codes of 1, 2 and 3 bits are constants of those types, which the CPU plugin of this OpenVINO reads; "
    "narrow=False keeps them in 4 bits, for older versions and other devices"
)
_WIDE = "OpenVINO is given no constants below 4 bits: codes of 1, 2 and 3 bits are kept in 4, exactly"
_FLOAT = "weights are composed once when the network is compiled: speed and memory are those of the float network"
_UNFUSED = {"SNIPPETS_MODE": "DISABLE"}
_NOT_FUSED = "compile it with the option SNIPPETS_MODE=DISABLE: this OpenVINO fails to fuse its elementwise operations"
_ROUNDS = "layers round their inputs: sums in another order may fall on the other side of a step"


@recording()
def export_openvino(
    model: nn.Module,
    path: str | Path,
    example: Any,
    *,
    narrow: bool = True,
    past: bool = False,
    dynamic: Sequence[int] = (0,),
    tolerance: float | None = None,
) -> ExportResult:
    """Writes a quantized model as OpenVINO IR, ``.xml`` and ``.bin``, after running it on the CPU.

    Codes stay packed in the ``.bin``; scales, zero points and adapters are nodes that have only constants for inputs,
    so that compiling the network folds them. The batch is left open.

    Args:
        model: of :func:`corank.quantize` or :func:`corank.load`; computed in float32.
        path: of the ``.xml``; the ``.bin`` stands beside it. Both are written elsewhere first, run and compared.
        example: a tensor ``(N, ...)``, or a mapping of keyword arguments.
        narrow: constants of 1, 2 and 3 bits for such codes; otherwise they are kept in 4 bits.
        past: of a causal language model: keys and values of earlier tokens are inputs, those of all outputs.
        dynamic: axes of the inputs whose length is left open: the batch; ``(0, 1)`` for the length of texts as well;
            with ``past`` both always are.
        tolerance: the largest difference to PyTorch that passes, over the largest output; None for 1e-4, or 5e-2
            where layers round their inputs.

    Raises:
        ConfigError: for another suffix, or where openvino, onnx or onnxscript are missing.
        ModelError: for a model that corank did not quantize or that cannot be traced, or outputs that differ; nothing
            is written then.
        OutputError: when the path cannot be written.
    """
    run = run_of(model)
    target = Path(path)
    if target.suffix != ".xml":
        raise ConfigError(f"OpenVINO reads a network from NAME.xml, with NAME.bin beside it, not {target.name!r}")
    _need_packages()
    import openvino as ov

    what = exported(model, example, dynamic, past)
    expected = expected_of(what.model, what.example, tolerance)
    floating, network = _networks(what, list(expected.outputs), narrow)
    targets = (target.with_suffix(".bin"), target)
    with staged(*targets) as (data, text):
        ov.serialize(floating, str(text), str(data))
        float_bytes = text.stat().st_size + data.stat().st_size
        ov.serialize(network, str(text), str(data))
        sizes = [made.stat().st_size for made in (data, text)]
        run_there, options = _compiled(text)
        found = check(expected, run_there, "OpenVINO")
    few = any(layer.codec is not None and layer.codec.bits < 4 for layer in run.plan.layers.values())
    width = () if not few else (_NARROW,) if narrow else (_WIDE,)
    return ExportResult(
        target="openvino",
        path=target,
        files=(target, targets[0]),
        size_bytes=sum(sizes),
        artifact_bytes=len(serialized(model)),
        float_bytes=float_bytes,
        max_difference=found.max_difference,
        relative_difference=found.relative_difference,
        latency_ms=found.latency_ms,
        options=options,
        notes=(
            _FLOAT, f"{sizes[0]} bytes are the .bin", *width, *((_ROUNDS,) if expected.rounded else ()),
            *((_NOT_FUSED,) if options != CONFIGURATION else ()),
        ),
    )  # fmt: skip


def _networks(what: Exported, outputs: list[str], narrow: bool) -> tuple[Any, Any]:
    """The network in float, and with packed weights."""
    import openvino as ov

    from corank.export.graph import coded_layers, float_graph, initializers_to_inputs, weight_name
    from corank.export.onnx_inputs import round_inputs
    from corank.export.openvino_weights import NARROW_KINDS, WIDE_KINDS, weight_node

    graph = float_graph(what.model, what.example, opset=_OPSET, dynamic=what.dynamic)
    layers = coded_layers(what.model)
    round_inputs(graph.graph, layers, as_codes=False)
    core = ov.Core()
    floating = core.read_model(io.BytesIO(graph.SerializeToString()))
    initializers_to_inputs(graph.graph, [weight_name(name) for name in layers])
    network = core.read_model(io.BytesIO(graph.SerializeToString()))
    parameters = {parameter.get_friendly_name(): parameter for parameter in network.get_parameters()}
    for name, layer in layers.items():
        parameter = parameters.get(weight_name(name))
        if parameter is not None:
            node = weight_node(name, layer, NARROW_KINDS if narrow else WIDE_KINDS)
            parameter.output(0).replace(node.output(0))
            network.remove_parameter(parameter)
    for output, name in zip(network.outputs, outputs, strict=True):
        output.get_tensor().set_names({name})
    network.validate_nodes_and_infer_types()
    return floating, network


def _compiled(path: Path) -> tuple[Callable[[Arrays], Arrays], dict[str, str]]:
    """The network as a function, and the options that it was compiled with."""
    import openvino as ov

    options = CONFIGURATION
    try:
        compiled = ov.Core().compile_model(str(path), "CPU", options)
    except RuntimeError:
        options = {**CONFIGURATION, **_UNFUSED}
        try:
            compiled = ov.Core().compile_model(str(path), "CPU", options)
        except RuntimeError as error:
            raise ModelError(f"nothing was written: OpenVINO cannot compile the network: {error}") from error

    def run(inputs: Arrays) -> Arrays:
        found = compiled(dict(inputs))
        return {output.get_any_name(): np.array(found[output]) for output in compiled.outputs}

    return run, options


def _need_packages() -> None:
    missing = [name for name in ("openvino", "onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"export to OpenVINO needs {' and '.join(missing)}: pip install 'corank[openvino,onnx]'")

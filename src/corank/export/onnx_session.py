"""A session of onnxruntime on the CPU, as a function of arrays."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from corank.errors import ModelError
from corank.export.check import Arrays

__all__ = ["Kernels", "kernels_of", "open_session"]

Kernels = tuple[int, int]
_INTEGER = ("ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "QGemm", "QLinearConv", "QLinearMatMul")
_FLOAT = ("Conv", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "Gemm", "MatMul")


def open_session(
    model: bytes | Path,
    outputs: Sequence[str],
    threads: int | None = None,
    optimized: Path | None = None,
    entries: Mapping[str, str] | None = None,
) -> Callable[[Arrays], Arrays]:
    """A function from inputs to outputs, by name.

    Args:
        model: an ONNX file, or its bytes.
        outputs: to give back.
        threads: within one operator; None: onnxruntime's choice.
        optimized: where to write what onnxruntime made of the graph.
        entries: of the session's configuration.

    Raises:
        ModelError: for a file that onnxruntime cannot read.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    for name, value in (entries or {}).items():
        options.add_session_config_entry(name, value)
    if threads is not None:
        options.intra_op_num_threads = threads
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    try:
        given = model if isinstance(model, bytes) else str(model)
        session = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base of their own
        raise ModelError(f"onnxruntime cannot read the file: {error}") from error

    def run(inputs: Arrays) -> Arrays:
        given = session.run(list(outputs), dict(inputs))
        return {name: np.asarray(value) for name, value in zip(outputs, given, strict=True)}

    return run


def kernels_of(model: bytes | Path) -> Kernels:
    """How many layers onnxruntime runs on this machine with an integer kernel, and how many with a float one."""
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        open_session(model, [], optimized=path)
        counts = Counter(node.op_type for node in onnx.load(str(path), load_external_data=False).graph.node)
    return sum(counts[name] for name in _INTEGER), sum(counts[name] for name in _FLOAT)

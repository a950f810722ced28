"""How a quantized network is made to compute in int8."""

from __future__ import annotations

import copy
import importlib.util
from typing import TYPE_CHECKING, Any

from torch import nn

from corank.calibration import Samples
from corank.data import ImageSet
from corank.errors import ConfigError, ModelError
from corank.export.int8_settings import Int8
from corank.layers import CodedLayer
from corank.plan import match

if TYPE_CHECKING:
    from corank.export.int8_graph import Int8Graph

__all__ = ["made_int8", "need_onnx", "read_samples"]

_BATCH = 8


def made_int8(model: nn.Module, samples: Samples, settings: Int8) -> Int8Graph:
    """The network in int8, as an ONNX graph; ``model`` is not changed.

    Raises:
        ConfigError: where onnx, onnxscript or onnxruntime are missing, or a pattern fits no layer.
        ModelError: for a model that cannot be traced, or a layer whose inputs have 1 bit or are shifted.
    """
    need_onnx()
    for name, module in model.named_modules():
        if isinstance(module, CodedLayer) and module.inputs == 1:
            raise ModelError(
                f"layer {name!r} takes the sign of its inputs, which int8 graphs have no place for; "
                f'export_onnx(model, "model.onnx", example) and export_openvino keep it'
            )
        if isinstance(module, CodedLayer) and module.shifts:
            raise ModelError(
                f"layer {name!r} shifts each channel of its inputs before it rounds them, where int8 graphs have one "
                f'range for all; export_onnx(model, "model.onnx", example) and export_openvino keep it'
            )
    from corank.export.int8_graph import int8_graph

    names = [name for name, module in model.named_modules() if isinstance(module, CodedLayer)]
    kept = [name for pattern in settings.float_layers for name in match(pattern, names)]
    plain = copy.deepcopy(model).cpu().float().eval()
    return int8_graph(plain, samples, settings, kept)


def read_samples(data: Any, settings: Int8) -> Samples:
    """At most ``settings.samples`` of the data: images drawn by the seed, or the first of a tensor or of batches.

    Raises:
        DataError: for empty data, other types, or values that are not finite.
    """
    if isinstance(data, ImageSet):
        data = (images for images, _ in data.sample(settings.samples, settings.seed).batches(_BATCH))
    return Samples.of(data, settings.samples, _BATCH)


def need_onnx() -> None:
    """Raises ConfigError where the packages of the extra ``onnx`` are missing."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"int8 needs {' and '.join(missing)}: pip install 'corank[onnx]'")

"""How a quantized network is made to compute in int8."""

from __future__ import annotations

import copy
import importlib.util
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from corank.calibration import Samples
from corank.data import ImageSet
from corank.errors import ConfigError
from corank.layers import CodedLayer
from corank.plan import match

if TYPE_CHECKING:
    from corank.export.int8_graph import Int8Graph

__all__ = ["Int8", "made_int8", "need_onnx", "read_samples", "sums_overflow"]

_BATCH = 8
_VNNI = frozenset(("avx512_vnni", "avx_vnni", "avx_vnni_int8"))


@dataclass(frozen=True)
class Int8:
    """Settings of int8 arithmetic.

    Attributes:
        samples: to calibrate on, at most.
        float_share: of all multiplications, that may stay in float: those of the layers that int8 harms most.
        float_layers: names or patterns of layers that stay in float anyway.
        reduce_range: weights in 7 bits; None asks for that where this processor needs it, see :func:`sums_overflow`.
        seed: draws samples, and the labels that weigh each layer's error.
    """

    samples: int = 64
    float_share: float = 0.2
    float_layers: tuple[str, ...] = ()
    reduce_range: bool | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if type(self.samples) is not int or self.samples < 1:
            raise ConfigError(f"Int8(samples={self.samples!r}): a whole number from 1 on; some dozens are enough")
        if not 0 <= self.float_share <= 1:
            raise ConfigError(f"Int8(float_share={self.float_share!r}): 0 for none, to 1")
        if isinstance(self.float_layers, str):
            raise ConfigError(f"Int8(float_layers={self.float_layers!r}): a tuple, e.g. ({self.float_layers!r},)")

    @property
    def seven_bits(self) -> bool:
        """Whether weights get 7 bits."""
        return sums_overflow() if self.reduce_range is None else self.reduce_range


def made_int8(model: nn.Module, samples: Samples, settings: Int8) -> Int8Graph:
    """The network in int8, as an ONNX graph; ``model`` is not changed.

    Raises:
        ConfigError: where onnx, onnxscript or onnxruntime are missing, or a pattern fits no layer.
        ModelError: for a model that cannot be traced.
    """
    need_onnx()
    from corank.export.int8_graph import int8_graph

    names = [name for name, module in model.named_modules() if isinstance(module, CodedLayer)]
    kept = [name for pattern in settings.float_layers for name in match(pattern, names)]
    plain = copy.deepcopy(model).cpu().float().eval()
    return int8_graph(
        plain, samples, share=settings.float_share, kept=kept, seven_bits=settings.seven_bits, seed=settings.seed
    )


def read_samples(data: Any, settings: Int8) -> Samples:
    """At most ``settings.samples`` of the data: images drawn by the seed, or the first of a tensor or of batches.

    Raises:
        DataError: for empty data, other types, or values that are not finite.
    """
    if isinstance(data, ImageSet):
        data = (images for images, _ in data.sample(settings.samples, settings.seed).batches(_BATCH))
    return Samples.of(data, settings.samples, _BATCH)


def sums_overflow() -> bool:
    """Whether this processor adds products of uint8 and int8 in pairs of 16 bits, where they overflow.

    True for x86 without VNNI, and where that is not known: 7 bits are safe everywhere.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return _VNNI.isdisjoint(text.split())


def need_onnx() -> None:
    """Raises ConfigError where the packages of the extra ``onnx`` are missing."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"int8 needs {' and '.join(missing)}: pip install 'corank[onnx]'")

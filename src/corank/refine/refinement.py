"""How a short distillation is run: numbers only."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from corank.errors import ConfigError
from corank.precision import native_bfloat16

__all__ = ["Refinement"]

_PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Refinement:
    """A distillation from the float network on the unlabelled calibration samples, over what ships anyway.

    Adam on a one-cycle schedule. Biases and norms, scales, adapter factors (through their own quantization) and, if
    ``code_rate`` is above zero, codes: each gets a latent that starts exactly at its code and is rounded straight
    through.

    Args:
        iterations: gradient steps, those of a search included; 0 for none.
        batch_size: samples a step.
        scale_rate: Adam's learning rate of the scales, relative to each scale.
        bias_rate: of biases and norms, absolute.
        adapter_rate: of adapter factors, relative to the root mean square of each factor.
        code_rate: of the latents that codes are rounded from, in levels; 0 keeps every code as it was rounded.
        step_rate: of the steps of quantized inputs, relative to each step.
        drop: probability that an input keeps its float value in a step, where inputs are quantized (QDrop, arXiv
            2203.05740); 0 rounds them all.
        features: weight of the relative squared error of every coded layer's output, beside the loss of the model's
            output; 0 for the model's output alone.
        near: distance from the float network (nats of KL, for a classifier) below which all rates shrink in proportion:
            a network that starts near is only led away by large steps. 0 never shrinks them.
        augment: flip and shift images at random, where the samples are images.
        precision: of the passes: "float32", "bfloat16" (autocast), or "auto": bfloat16 where the device computes in
            it natively.
    """

    iterations: int = 250
    batch_size: int = 48
    scale_rate: float = 1e-2
    bias_rate: float = 3e-3
    adapter_rate: float = 3e-3
    code_rate: float = 0.0
    step_rate: float = 1e-2
    drop: float = 0.0
    features: float = 0.0
    near: float = 0.12
    augment: bool = True
    precision: str = "auto"

    def __post_init__(self) -> None:
        if isinstance(self.iterations, bool) or not isinstance(self.iterations, int) or self.iterations < 0:
            raise ConfigError(f"iterations={self.iterations!r}: a whole number, e.g. Refinement(iterations=250)")
        if isinstance(self.batch_size, bool) or not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise ConfigError(f"batch_size={self.batch_size!r}: a positive whole number, e.g. 48")
        rates = (self.scale_rate, self.bias_rate, self.adapter_rate, self.code_rate, self.step_rate)
        if not all(0 <= rate < 1 for rate in rates):
            raise ConfigError(f"learning rates {rates!r}: each from 0 (left as it is) to below 1")
        if not 0 <= self.drop < 1:
            raise ConfigError(f"drop={self.drop!r}: a probability, from 0 (every input is rounded) to below 1")
        if not 0 <= self.features < float("inf"):
            raise ConfigError(f"features={self.features!r}: a weight, 0 for the model's output alone")
        if not 0 <= self.near < float("inf"):
            raise ConfigError(f"near={self.near!r}: a distance, 0 for rates that do not depend on it")
        if self.precision not in _PRECISIONS:
            raise ConfigError(f"precision={self.precision!r}: one of {', '.join(_PRECISIONS)}")

    @property
    def augmentation(self) -> str:
        """By its name in :mod:`corank.calibration.augment`."""
        return "flip-shift" if self.augment else "none"

    def pace(self, distance: float) -> float:
        """The factor of all rates for a network that starts at that distance from the float one."""
        return min(1.0, distance / self.near) if self.near else 1.0

    def uses_bfloat16(self, device: torch.device) -> bool:
        """Whether the passes run under bfloat16 autocast on that device."""
        if self.precision != "auto":
            return self.precision == "bfloat16"
        return native_bfloat16(device)

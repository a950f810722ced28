"""Small quantized networks, one for each kind of layer: what readers and writers of artifacts are tried on.

The files in ``tests/golden`` are of these networks: add others, but leave these as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from corank.codecs import (
    AdditivePowerOfTwo,
    Bcgd,
    Binary,
    DenseShift,
    PowerOfTwo,
    S3Shift,
    StatsQ,
    Ternary,
    Trellis,
    Uniform,
)
from corank.layers import BinaryInputs, CodedLayer, replace_module
from corank.plan import LayerPlan, Plan
from corank.rounding import Dependent
from corank.storage.model_record import ATTRIBUTE, run_of
from corank.verbs.quantize import quantize

__all__ = ["LATER", "SAMPLES", "Sample", "sample_inputs", "sample_model", "with_signs"]


@dataclass(frozen=True)
class Sample:
    """One network and how it is quantized.

    Attributes:
        network: makes the float network; its weights are drawn from torch's generator.
        shape: of one input.
        plan: name to plan of each layer that is coded; others stay in float.
        dtype: of the model when it is saved.
    """

    network: Callable[[], nn.Module]
    shape: tuple[int, ...]
    plan: Mapping[str, LayerPlan]
    dtype: torch.dtype = torch.float32


def _convolution() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(72, 3),
    )  # fmt: skip


def _depthwise() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.ReLU(), nn.Conv2d(6, 4, 1),
        nn.AvgPool2d(4), nn.Flatten(),
    )  # fmt: skip


def _transposed() -> nn.Module:
    return nn.Sequential(
        nn.ConvTranspose2d(3, 6, 2, stride=2), nn.ReLU(), nn.ConvTranspose2d(6, 4, 3, padding=1, groups=2),
        nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3, dilation=2),
    )  # fmt: skip


def _sequence() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 6, 3, padding=1, padding_mode="circular"), nn.ReLU(), nn.ConvTranspose1d(6, 4, 2, stride=2),
        nn.ReLU(), nn.Flatten(), nn.Linear(64, 3),
    )  # fmt: skip


def _volume() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(1, 4, 2), nn.ReLU(), nn.ConvTranspose3d(4, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(54, 2)
    )


def _dense() -> nn.Module:
    model = nn.Sequential(
        nn.Linear(10, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 4)
    )
    model.register_buffer("steps", torch.tensor([7, 8]))
    model.register_buffer("gain", torch.tensor(0.1))
    return model


def _wide() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 40), nn.ReLU(), nn.Linear(40, 16))


SAMPLES: dict[str, Sample] = {
    "convolution": Sample(_convolution, (2, 5, 5), {
        "0": LayerPlan(Uniform(8)),
        "3": LayerPlan(Uniform(2, half=True), rank=2, adapter_bits=4, inputs=4),
        "6": LayerPlan(Uniform(3), rank=1, adapter_bits=4, inputs=5),
    }),
    "depthwise": Sample(_depthwise, (3, 4, 4), {
        "0": LayerPlan(Uniform(3, half=True)),
        "2": LayerPlan(Uniform(4, symmetric=True)),
        "4": LayerPlan(Uniform(1), rank=1, adapter_bits=2),
    }),
    "transposed": Sample(_transposed, (3, 4, 4), {
        "0": LayerPlan(Uniform(3, group=4)),
        "2": LayerPlan(Uniform(2, group=-1), rank=1, adapter_bits=3, inputs=3),
        "4": LayerPlan(Uniform(5, half=True, group=8), inputs=4),
    }),
    "activations": Sample(_sequence, (2, 8), {
        "0": LayerPlan(Uniform(1, symmetric=True), inputs=8),
        "2": LayerPlan(Uniform(2), inputs=4),
        "5": LayerPlan(Uniform(4, half=True, group=16), rank=2, adapter_bits=4, inputs=6),
    }),
    "volume": Sample(_volume, (1, 3, 3, 3), {
        "0": LayerPlan(StatsQ(3)), "2": LayerPlan(Bcgd(2)), "5": LayerPlan(Uniform(7)),
    }),
    "codecs": Sample(_dense, (10,), {
        "0": LayerPlan(DenseShift(3, group=5)),
        "2": LayerPlan(Ternary(), rank=1),
        "4": LayerPlan(AdditivePowerOfTwo(4, power_of_two_scale=True)),
        "6": LayerPlan(PowerOfTwo(4, power_of_two_scale=True, group=-1)),
    }),
    "half": Sample(_dense, (10,), {
        "0": LayerPlan(Binary(group=4)), "4": LayerPlan(S3Shift(), inputs=2), "6": LayerPlan(Uniform(3), inputs=4),
    }, torch.float16),
    "sparse": Sample(_wide, (16,), {
        "0": LayerPlan(Uniform(4, symmetric=True), sparsity=0.9), "2": LayerPlan(Uniform(3, group=20), sparsity=0.9),
    }),
}  # fmt: skip
"""Samples by name."""

LATER: dict[str, Sample] = {
    "trellis": Sample(_wide, (16,), {
        "0": LayerPlan(Trellis(6, 2.0, 4), Dependent()), "2": LayerPlan(Trellis(5, 1.0, 8), Dependent(sweeps=1)),
    }),
}  # fmt: skip
"""Samples of which there is no golden file."""


def sample_inputs(sample: Sample, count: int = 4) -> Tensor:
    """Inputs ``(count, *shape)`` in the sample's dtype: small whole numbers, so that sums of them are exact."""
    drawn = torch.randint(-3, 4, (count, *sample.shape), generator=torch.Generator().manual_seed(count))
    return drawn.to(sample.dtype)


def sample_model(sample: Sample, seed: int = 0) -> nn.Module:
    """The quantized network of a sample, its float weights drawn by ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = sample.network().eval()
    coded = {name: sample.plan.get(name, LayerPlan(None)) for name, layer in network.named_modules() if _coded(layer)}
    inputs = sample_inputs(sample, 16).float()
    return quantize(network, inputs, plan=Plan(coded), preset="nearest", device="cpu").to(sample.dtype)


def _coded(layer: nn.Module) -> bool:
    return isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd))


def with_signs(model: nn.Module, shifts: Mapping[str, int]) -> nn.Module:
    """The quantized network with inputs of 1 bit, as training gives it, in the layers named: so many shifts each."""
    found, run = copy.deepcopy(model), run_of(model)
    plans = dict(run.plan.layers)
    for number, (name, count) in enumerate(shifts.items()):
        layer = found.get_submodule(name)
        assert isinstance(layer, CodedLayer)
        shift = torch.linspace(-1.5, 2.25, count).reshape(-1, *(1,) * len(layer.geometry.kernel)) if count else None
        inputs = BinaryInputs(torch.tensor(0.5 + number), shift)
        code = replace(layer.code(), inputs=inputs)
        made = type(layer)(layer.to_float(), layer.codec, layer.rank, layer.adapter_bits, 1).keep_shifts(count)
        made.fill(code, layer.bias)
        replace_module(found, layer, made)
        plans[name] = replace(plans[name], inputs=1, input_shifts=count)
    found.__dict__[ATTRIBUTE] = replace(run, plan=Plan(plans))
    return found

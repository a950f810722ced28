"""Brevitas: nearest rounding, GPTQ, GPFQ and Qronos, affine grids with the range of least squared error."""

from __future__ import annotations

import time
from functools import partial

import brevitas.nn as qnn
import torch
from brevitas.core.scaling.standalone import ParameterFromStatsFromParameterScaling
from brevitas.core.zero_point import ParameterFromStatsFromParameterZeroPoint
from brevitas.graph.gpfq import GPFQ, gpfq_mode
from brevitas.graph.gptq import gptq_mode
from brevitas.graph.qronos import Qronos
from brevitas.graph.quantize import layerwise_quantize
from brevitas.inject import value
from brevitas.quant.shifted_scaled_int import ShiftedUint8WeightPerChannelFloatMSE
from prepared import EDGE_BITS, Task, batches, bits_per_weight, file_bytes, layers, report, task
from torch import nn


def quantized(model: nn.Module, bits: int) -> nn.Module:
    """The network with Brevitas' layers, weights only; the first and last have 8 bits."""

    weights = [layer.weight.shape for layer in layers(model).values()]
    edges = (weights[0], weights[-1])  # No other layer has these shapes.

    @value
    def width(module: nn.Module) -> int:
        return EDGE_BITS if module.weight.shape in edges else bits

    weight = ShiftedUint8WeightPerChannelFloatMSE.let(
        bit_width=width,
        narrow_range=False,
        scaling_impl=ParameterFromStatsFromParameterScaling,
        zero_point_impl=ParameterFromStatsFromParameterZeroPoint,
    )
    settings = {
        "weight_quant": weight,
        "input_quant": None,
        "bias_quant": None,
        "return_quant_tensor": False,
        "dtype": torch.float32,
        "device": "cpu",
    }
    table = {nn.Conv2d: (qnn.QuantConv2d, settings), nn.Linear: (qnn.QuantLinear, settings)}
    return layerwise_quantize(model, table).eval()


@torch.no_grad()
def correct(model: nn.Module, run: Task) -> None:
    """Layer after layer by the method asked for."""
    modes = {
        "gptq": partial(gptq_mode, create_weight_orig=False, use_quant_activations=False),
        "gpfq": partial(gpfq_mode, algorithm_impl=GPFQ),
        "qronos": partial(gpfq_mode, algorithm_impl=partial(Qronos, alpha=1e-6)),
    }
    with modes[run.method](model, act_order=True) as mode:
        for _ in range(mode.num_layers):
            for images in batches(run.calibration):
                mode.model(images)
            mode.update()


def main() -> None:
    run = task("brevitas")
    stored = bits_per_weight(run.model, run.bits, symmetric=False)
    started = time.process_time()
    model = quantized(run.model, run.bits)
    with torch.no_grad():
        model(run.calibration[:2])  # Scales are fixed by the first pass.
    if run.method != "nearest":
        correct(model, run)
    seconds = time.process_time() - started
    state = {name: part for name, part in model.state_dict().items() if not name.endswith("weight_orig")}
    size = file_bytes(run.scratch / "model.pt", state)
    order = "" if run.method == "nearest" else ", activation order"
    report(run, model, seconds, stored=stored, size=size, note=f"affine, MSE range{order}; weights saved as float32")


if __name__ == "__main__":
    main()

"""torchao: IntxWeightOnly, affine, on each kernel flattened to a matrix ("flat") or as its own convolution path does,
which gives each position of the kernel a scale ("conv"). It reads no images."""

from __future__ import annotations

import time

import torch
from prepared import Task, file_bytes, layer_bits, layers, report, task
from torch import nn
from torchao.quantization import IntxWeightOnlyConfig, MappingType, PerAxis, quantize_

WIDTHS = {2: torch.int2, 3: torch.int3, 4: torch.int4, 8: torch.int8}


def quantized(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """The weight as torchao's tensor of ``bits`` bits."""
    holder = nn.Module()
    holder.weight = nn.Parameter(weight, requires_grad=False)
    config = IntxWeightOnlyConfig(
        weight_dtype=WIDTHS[bits], granularity=PerAxis(0), mapping_type=MappingType.ASYMMETRIC
    )
    quantize_(holder, config, filter_fn=lambda module, name: module is holder)
    return holder.weight


def stored_bits(run: Task, parts: dict[str, torch.Tensor]) -> float:
    """Packed, with 16-bit scales and zero points of the codes' width, however many there are."""
    widths = layer_bits(run.model, run.bits)
    total = sum(part.numel() * widths[name] + part.scale.numel() * (16 + widths[name]) for name, part in parts.items())
    return total / sum(part.numel() for part in parts.values())


@torch.no_grad()
def main() -> None:
    run = task("torchao")
    widths = layer_bits(run.model, run.bits)
    started = time.process_time()
    parts = {}
    for name, layer in layers(run.model).items():
        weight = layer.weight.flatten(1) if run.method == "flat" else layer.weight
        parts[name] = quantized(weight, widths[name])
        layer.weight.copy_(parts[name].dequantize().view_as(layer.weight))
    seconds = time.process_time() - started
    biases = {name: part for name, part in run.model.state_dict().items() if name.endswith("bias")}
    size = file_bytes(run.scratch / "model.pt", {**parts, **biases})
    note = "affine, min-max range; saved as one byte a weight"
    report(run, run.model, seconds, stored=stored_bits(run, parts), size=size, note=note)


if __name__ == "__main__":
    main()

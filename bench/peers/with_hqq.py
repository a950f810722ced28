"""HQQ: its quantizer on each kernel flattened to a matrix, one group for each output channel. It reads no images."""

from __future__ import annotations

import time
from typing import Any

import torch
from hqq.core.quantize import Quantizer
from prepared import file_bytes, layer_bits, layers, report, saved_bits_per_weight, task


@torch.no_grad()
def main() -> None:
    run = task("hqq")
    widths = layer_bits(run.model, run.bits)
    state: dict[str, Any] = {}
    started = time.process_time()
    for name, layer in layers(run.model).items():
        matrix = layer.weight.flatten(1)
        codes, how = Quantizer.quantize(
            matrix,
            nbits=widths[name],
            group_size=matrix.shape[1],
            axis=1,
            optimize=True,
            round_zero=widths[name] == 4,  # As the tool's own layers do.
            compute_dtype=torch.float32,
            device="cpu",
        )
        how["compute_dtype"] = torch.float32
        layer.weight.copy_(Quantizer.dequantize(codes, how).view_as(layer.weight))
        state |= {f"{name}.codes": codes, f"{name}.scale": how["scale"], f"{name}.zero": how["zero"]}
    seconds = time.process_time() - started
    stored = saved_bits_per_weight(run.model, state)
    biases = {name: part for name, part in run.model.state_dict().items() if name.endswith("bias")}
    size = file_bytes(run.scratch / "model.pt", state | biases)
    note = "packed; one float32 scale and zero for each channel; no convolution layer of its own"
    report(run, run.model, seconds, stored=stored, size=size, note=note)


if __name__ == "__main__":
    main()

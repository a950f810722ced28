"""One tool on the matrices of a language model, in the tool's own environment: reads weights, writes what they became.

    python language_tools.py hqq g64 3 FOLDER

Reads ``weights.safetensors`` (name to float32 ``(R, C)``), writes ``decoded.safetensors`` and prints the bits a weight
that codes, scales and zero points take, scales and zero points in 16 bits each.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

GROUP = 64


def hqq(matrix: Tensor, bits: int, group: int) -> tuple[Tensor, float]:
    from hqq.core.quantize import Quantizer

    codes, how = Quantizer.quantize(
        matrix, nbits=bits, group_size=group, axis=1, optimize=True, round_zero=bits == 4, compute_dtype=torch.float32,
        device="cpu",
    )  # fmt: skip
    how["compute_dtype"] = torch.float32
    return Quantizer.dequantize(codes, how).view_as(matrix), bits + 32 / group


def torchao(matrix: Tensor, bits: int, group: int) -> tuple[Tensor, float]:
    from torchao.quantization import IntxWeightOnlyConfig, MappingType, PerAxis, PerGroup, quantize_

    holder = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
    holder.weight = nn.Parameter(matrix, requires_grad=False)
    widths = {2: torch.int2, 3: torch.int3, 4: torch.int4}
    size = group if matrix.shape[1] % group == 0 else matrix.shape[1]  # it takes no group that is cut short
    how = PerGroup(group) if size == group else PerAxis(0)
    config = IntxWeightOnlyConfig(weight_dtype=widths[bits], granularity=how, mapping_type=MappingType.ASYMMETRIC)
    quantize_(holder, config, filter_fn=lambda module, name: module is holder)
    return holder.weight.dequantize(), bits + (16 + bits) / size


def quanto(matrix: Tensor, bits: int, optimizer: str) -> tuple[Tensor, float]:
    from optimum.quanto import HqqOptimizer, MaxOptimizer, freeze, qint2, qint4, quantize

    holder = nn.Sequential(nn.Linear(matrix.shape[1], matrix.shape[0], bias=False))
    holder[0].weight = nn.Parameter(matrix, requires_grad=False)
    chosen: Any = HqqOptimizer() if optimizer == "hqq" else MaxOptimizer()
    quantize(holder, weights={2: qint2, 4: qint4}[bits], optimizer=chosen)
    freeze(holder)
    weight: Any = holder[0].weight
    scales = sum(part.numel() for name, part in holder.state_dict().items() if name.endswith(("scale", "shift")))
    return weight.dequantize(), bits + 16 * scales / matrix.numel()


@torch.no_grad()
def main() -> None:
    tool, method, bits, folder = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
    torch.set_num_threads(1)
    decoded: dict[str, Tensor] = {}
    total = count = 0.0
    for name, matrix in load_file(folder / "weights.safetensors").items():
        if tool == "quanto":
            found, stored = quanto(matrix, bits, method)
        else:
            found, stored = {"hqq": hqq, "torchao": torchao}[tool](matrix, bits, GROUP)
        decoded[name] = found.float().contiguous()
        total, count = total + stored * matrix.numel(), count + matrix.numel()
    save_file(decoded, folder / "decoded.safetensors")
    print(total / count)


if __name__ == "__main__":
    main()

"""Writes the golden artifacts of ``tests/golden``: files that every later version must read to the same numbers.

    python scripts/golden.py [--folder tests/golden]

Writes what is missing and leaves what is there as it is: a golden file is never made anew. They are the networks of
``tests/fuzzing/artifacts.py``, saved by every coder that makes a file of its own (``v3`` and ``v4`` are those written
now; ``v1`` and ``v2`` are those of earlier versions), and for each network what it gives (``expected``: inputs,
outputs, composed weights).

Scales become powers of two, one for all rows of a layer, and biases multiples of 1/64 first. Where all sums are then
exact in float32 the outputs are the same bits on every machine, in whatever order it adds; such networks are marked
``exact``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from corank.layers import CodedLayer
from corank.storage.artifact import serialized
from corank.storage.artifact_file import FORMAT
from corank.storage.coders import CODERS

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from fuzzing.artifacts import SAMPLES, Sample, sample_inputs, sample_model

SCALES = ("scale", "left_scale", "right_scale", "input_step")
GRID = 64


def rounded(model: nn.Module) -> nn.Module:
    """The same model, in place, with one power of two for all scales of a kind in a layer, and biases on a grid."""
    state = model.state_dict()
    for name, tensor in state.items():
        last = name.rpartition(".")[2]
        if last in SCALES:
            tensor.fill_(float(tensor.float().log2().mean().round().clamp(min=-14).exp2()))
        elif tensor.is_floating_point():
            tensor.copy_((tensor.float() * GRID).round() / GRID)
    model.load_state_dict(state)
    return model


def weights(model: nn.Module) -> dict[str, Tensor]:
    """The composed weight of each coded layer."""
    return {name: layer.weight for name, layer in model.named_modules() if isinstance(layer, CodedLayer)}


def is_exact(model: nn.Module, inputs: Tensor) -> bool:
    """Whether every sum of every layer is exact in the layer's own precision, in whatever order it is taken."""
    found: list[bool] = []

    def check(layer: nn.Module, given: tuple[Tensor, ...], gave: Tensor) -> None:
        quantizer = layer.input_quantizer()  # pyright: ignore
        seen = given[0] if quantizer is None else quantizer(given[0])
        plain = layer.to_float().double()  # pyright: ignore
        same = torch.equal(plain(seen.double()), gave.double())
        unit = _unit(seen) * _unit(plain.weight)
        if plain.bias is not None:
            unit = min(unit, _unit(plain.bias))
            plain.bias.data.abs_()
        plain.weight.data.abs_()
        bits = 24 if gave.dtype == torch.float32 else 11
        found.append(same and float(plain(seen.double().abs()).max()) / unit < 2**bits)

    hooks = [layer.register_forward_hook(check) for layer in model.modules() if isinstance(layer, CodedLayer)]
    model(inputs)
    for hook in hooks:
        hook.remove()
    return all(found)


def _unit(values: Tensor) -> float:
    """The largest power of two that all values are multiples of."""
    unit, values = 2.0**40, values.double()
    while not torch.equal((values / unit).round() * unit, values):
        unit /= 2
    return unit


def write(path: Path, data: bytes) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        print(f"{path}: {len(data)} bytes")


@torch.no_grad()
def write_sample(folder: Path, name: str, sample: Sample) -> None:
    """One network: a file of each format and coder, and what it gives."""
    model, inputs = rounded(sample_model(sample)), sample_inputs(sample)
    tensors = {"inputs": inputs, "outputs": model(inputs)}
    tensors.update({f"weight/{layer}": weight.contiguous() for layer, weight in weights(model).items()})
    exact = "yes" if is_exact(model, inputs) else "no"
    fixed, newest = serialized(model, "fixed"), folder / f"v{FORMAT}"
    write(newest / f"{name}.safetensors", fixed)
    for coder in sorted(set(CODERS) - {"fixed"}):
        if (data := serialized(model, coder)) != fixed:
            write(newest / f"{name}.{coder}.safetensors", data)
    write(folder / "expected" / f"{name}.safetensors", safetensors.torch.save(tensors, metadata={"exact": exact}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent.parent / "tests" / "golden")
    folder = parser.parse_args().folder
    torch.set_num_threads(1)
    for name, sample in SAMPLES.items():
        write_sample(folder, name, sample)


if __name__ == "__main__":
    main()

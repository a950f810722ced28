"""What every tool is given and how every tool is scored: one network, one set of images, one count of bits.

Imported by the `with_*.py` scripts in their own environments, so it needs torch and safetensors alone. The folder is
written by `run.py`: `network.json`, `float.safetensors` (BatchNorm folded), `calibration.safetensors` (images, no
labels) and `test.safetensors` (images and labels).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from models import CifarResNet, SqueezeNet

__all__ = [
    "EDGE_BITS",
    "NETWORKS",
    "Task",
    "batches",
    "bits_per_weight",
    "file_bytes",
    "folded_network",
    "layer_bits",
    "layers",
    "logits",
    "report",
    "saved_bits_per_weight",
    "scores",
    "task",
]

EDGE_BITS = 8
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet20": lambda: CifarResNet(3),
    "resnet56": lambda: CifarResNet(9),
    "squeezenet1_1": SqueezeNet,
}
Model = Callable[[Tensor], Tensor]
BATCH = 100


@dataclass(frozen=True)
class Task:
    """One run of one tool.

    Attributes:
        tool, method, bits, seed: what is run.
        model: the float network, BatchNorm folded, in eval mode.
        calibration: images float32 ``(1600, 3, 32, 32)``.
        folder: where the test images are.
        scratch: an empty folder for what the tool saves.
    """

    tool: str
    method: str
    bits: int
    seed: int
    model: nn.Module
    calibration: Tensor
    folder: Path
    scratch: Path


def task(tool: str, arguments: Sequence[str] | None = None) -> Task:
    """The run that the command line asks for; sets one thread and the seed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--prepared", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--method", required=True)
    parser.add_argument("--bits", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    model = folded_network(json.loads((options.prepared / "network.json").read_text())["network"])
    model.load_state_dict(load_file(options.prepared / "float.safetensors"))
    images = load_file(options.prepared / "calibration.safetensors")["images"]
    asked = (tool, options.method, options.bits, options.seed)
    return Task(*asked, model, images, options.prepared, options.scratch)


def folded_network(name: str) -> nn.Module:
    """A network of :data:`NETWORKS` without BatchNorm, each convolution with a bias."""
    model = NETWORKS[name]().eval()
    for parent in list(model.modules()):
        for child_name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, child_name, nn.Identity())
            if isinstance(child, nn.Conv2d) and child.bias is None:
                child.bias = nn.Parameter(torch.zeros(child.out_channels))
    return model.requires_grad_(False)


def layers(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """Name to layer of all that is quantized, in the order they run; the first and last get ``EDGE_BITS``."""
    return {name: part for name, part in model.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)}


def layer_bits(model: nn.Module, bits: int) -> dict[str, int]:
    """Name to code width of every layer."""
    names = list(layers(model))
    return {name: EDGE_BITS if name in (names[0], names[-1]) else bits for name in names}


def batches(images: Tensor, size: int = BATCH) -> Iterator[Tensor]:
    """The images, ``size`` at a time, in order."""
    yield from images.split(size)


def bits_per_weight(model: nn.Module, bits: int, *, symmetric: bool) -> float:
    """Bits of a packed file per quantized weight: codes, a 16-bit scale and, unless symmetric, a zero point of the
    codes' width for each output channel. The count of a tool that packs nothing, as if it did."""
    widths = layer_bits(model, bits)
    total = weights = 0
    for name, layer in layers(model).items():
        rows, width = len(layer.weight), widths[name]
        total += layer.weight.numel() * width + rows * (16 + (0 if symmetric else width))
        weights += layer.weight.numel()
    return total / weights


def saved_bits_per_weight(model: nn.Module, state: dict[str, Tensor]) -> float:
    """Bits of the tensors that stand for the weights, as a tool that packs keeps them, per quantized weight."""
    weights = sum(layer.weight.numel() for layer in layers(model).values())
    return 8 * sum(part.numel() * part.element_size() for part in state.values()) / weights


def file_bytes(path: Path, state: dict[str, Any]) -> int:
    """Saves the state as PyTorch does and measures the file."""
    torch.save(state, path)
    return path.stat().st_size


def logits(model: Model, images: Tensor) -> Tensor:
    """The model's outputs, 100 images at a time."""
    with torch.no_grad():
        return torch.cat([model(part) for part in batches(images)])


def scores(model: Model, folder: Path) -> dict[str, float]:
    """Percent of all test images classified right and as by the float network; KL to its outputs, in nats."""
    test = load_file(folder / "test.safetensors")
    found, ideal = logits(model, test["images"]), test["logits"]
    right = (found.argmax(1) == test["labels"]).double().mean()
    alike = (found.argmax(1) == ideal.argmax(1)).double().mean()
    kl = functional.kl_div(found.log_softmax(1), ideal.log_softmax(1), log_target=True, reduction="batchmean")
    return {
        "accuracy": round(100 * float(right), 2),
        "agreement": round(100 * float(alike), 2),
        "kl": round(float(kl), 5),
    }


def report(run: Task, model: Model, seconds: float, *, stored: float, size: int, note: str) -> None:
    """Scores the model and prints the run's one JSON line.

    Args:
        seconds: CPU time of the quantization step (differences of ``time.process_time()``).
        stored: bits of a packed file per quantized weight.
        size: bytes of what the tool saves.
        note: settings, in words.
    """
    line = {
        "tool": run.tool,
        "method": run.method,
        "bits": run.bits,
        **scores(model, run.folder),
        "cpu_seconds": round(seconds, 3),
        "stored_bits_per_weight": round(stored, 4),
        "file_bytes": size,
        "note": note,
    }
    print(json.dumps(line), flush=True)

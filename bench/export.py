"""What each export target holds: bytes beside the artifact's and the float file's, and the difference to PyTorch.

    python bench/export.py --shared DIR [--only NAME] [--out results.json]

Weight-only; every file is run in its runtime before it is written. SqueezeNet and ResNet-20 are the trained networks,
the others are random: their bytes and differences mean something, their outputs do not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import corank
from corank.data import load
from corank.export import ExportResult, export_onnx, export_openvino
from corank.models import resolve

sys.path.insert(0, str(Path(__file__).parent))
from cifar_task import CifarTask

SAMPLES = 64
TARGETS: Mapping[str, Callable[[nn.Module, Path, Tensor], ExportResult]] = {
    "ONNX": lambda model, folder, example: export_onnx(model, folder / "net.onnx", example),
    "ONNX, opset 21": lambda model, folder, example: export_onnx(model, folder / "net.onnx", example, opset=21),
    "ONNX, dense": lambda model, folder, example: export_onnx(model, folder / "net.onnx", example, dense=True),
    "OpenVINO": lambda model, folder, example: export_openvino(model, folder / "net.xml", example),
    "OpenVINO, 4 bits": lambda model, folder, example: export_openvino(
        model, folder / "net.xml", example, narrow=False
    ),
}


@dataclass(frozen=True)
class Case:
    """A float network, inputs to calibrate on, and how it is quantized."""

    make: Callable[[Path], tuple[nn.Module, Tensor]]
    bits: int
    budget: float


def depthwise_net() -> nn.Module:
    """Depthwise 3x3 and 1x1 convolutions in turn: images (N, 3, 32, 32) to (N, 10)."""
    widths = (32, 64, 128, 128)
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, padding=1), nn.ReLU()]
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Conv2d(inputs, inputs, 3, 2, 1, groups=inputs), nn.BatchNorm2d(inputs), nn.ReLU()]
        layers += [nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))


def transposed_net() -> nn.Module:
    """Down by strided, up by transposed convolutions, one of them in groups: images (N, 3, 32, 32) to the same."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(64, 64, 4, 2, 1, groups=4), nn.ReLU(), nn.ConvTranspose2d(64, 32, 3, 1, 1), nn.ReLU(),
        nn.ConvTranspose2d(32, 3, 4, 2, 1),
    )  # fmt: skip


def line_net() -> nn.Module:
    """1-D convolutions, dilated and grouped: signals (N, 4, 128) to (N, 10)."""
    return nn.Sequential(
        nn.Conv1d(4, 32, 5), nn.ReLU(), nn.Conv1d(32, 64, 5, dilation=2), nn.ReLU(),
        nn.Conv1d(64, 64, 5, groups=4), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def cube_net() -> nn.Module:
    """3-D convolutions: volumes (N, 1, 12, 12, 12) to (N, 10)."""
    return nn.Sequential(
        nn.Conv3d(1, 16, 3), nn.ReLU(), nn.Conv3d(16, 32, 3, 2), nn.ReLU(), nn.Conv3d(32, 32, 3), nn.ReLU(),
        nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def random_net(make: Callable[[], nn.Module], *shape: int) -> Callable[[Path], tuple[nn.Module, Tensor]]:
    def made(_shared: Path) -> tuple[nn.Module, Tensor]:
        torch.manual_seed(0)
        return make().eval(), torch.randn(SAMPLES, *shape)

    return made


def resnet20(shared: Path) -> tuple[nn.Module, Tensor]:
    task = CifarTask.of(shared, 20)
    return task.model, task.train.sample(4 * SAMPLES, 0).tensor()


def squeezenet(shared: Path) -> tuple[nn.Module, Tensor]:
    found = resolve("torchvision:squeezenet1_1", weights=shared / "models/squeezenet1_1_fp16.safetensors")
    images = load(f"{shared / 'data/imagenet_sample.zip'}[0::2]", found.preprocessing)
    return found.model, images.sample(SAMPLES // 4, 0).tensor()


CASES: Mapping[str, Case] = {
    "ResNet-20, 2 + 0.4": Case(resnet20, 2, 0.4),
    "ResNet-20, 4": Case(resnet20, 4, 0.0),
    "SqueezeNet 1.1, 4": Case(squeezenet, 4, 0.0),
    "SqueezeNet 1.1, 3 + 0.2": Case(squeezenet, 3, 0.2),
    "depthwise, 3 + 0.2": Case(random_net(depthwise_net, 3, 32, 32), 3, 0.2),
    "transposed, 2 + 0.4": Case(random_net(transposed_net, 3, 32, 32), 2, 0.4),
    "1-D, 4 + 0.2": Case(random_net(line_net, 4, 128), 4, 0.2),
    "3-D, 3 + 0.4": Case(random_net(cube_net, 1, 12, 12, 12), 3, 0.4),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--only", action="append")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/export.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    for name in options.only or CASES:
        results[name] = measured(CASES[name], options.shared)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


def measured(case: Case, shared: Path) -> dict[str, Any]:
    """Bytes, differences and milliseconds (of a machine that may be busy) of one network in every target."""
    model, inputs = case.make(shared)
    quantized = corank.quantize(model, inputs, bits=case.bits, budget=case.budget, search="greedy")
    found: dict[str, Any] = {}
    for target, export in TARGETS.items():
        with tempfile.TemporaryDirectory() as folder:
            result = export(quantized, Path(folder), inputs[:1])
            found[target] = {**result.to_json(), "file_bytes": [file.stat().st_size for file in result.files]}
    return found


def table(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """The results in Markdown, kB of 1000 bytes; of OpenVINO's two files also the .bin alone."""
    onnx, ir = [name for name in TARGETS if name.startswith("ONNX")], [name for name in TARGETS if "OpenVINO" in name]
    heads = ["network", "artifact", *onnx, "ONNX, float", *ir, "its .bin", "OpenVINO, float", "difference"]
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    for name, targets in results.items():
        first = next(iter(targets.values()))
        sizes = [first["artifact_bytes"], *(targets[target]["size_bytes"] for target in onnx)]
        sizes += [first["float_bytes"], *(targets[target]["size_bytes"] for target in ir)]
        sizes += [targets[ir[0]]["file_bytes"][1], targets[ir[0]]["float_bytes"]]
        worst = max(one["relative_difference"] for one in targets.values())
        cells = [name, *(f"{size / 1000:.1f}" for size in sizes), f"{worst:.0e}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

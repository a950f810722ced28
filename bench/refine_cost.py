"""What a refinement step costs: ratio to a plain float forward and backward with augmentation, in the same precision.

    python bench/refine_cost.py [--batch 64] [--repeat 20] [--threads 1] [--record FILE]

The float step is the folded ResNet-20 in evaluation mode: a random flip and shift, cross-entropy, gradients of all
parameters. The refinement step is one of ``corank.refine`` as shipped at 2 bits: the float network's outputs, the
coded network forward and backward with codes that move, Adam. "without teacher" is the same step with the float
network's outputs given. All take turns in one process; medians of process time.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import corank
from corank.calibration import Context, Samples
from corank.calibration.augment import flip_and_shift
from corank.layers import PreparedModel, prepare
from corank.refine import Refinement
from corank.refine.loop import begun
from corank.refine.trainable_model import TrainableModel
from corank.training.loop import _Loop

sys.path.insert(0, str(Path(__file__).parent))
from models import cifar_resnet20


class Given(nn.Module):
    """The float network's outputs, known before."""

    def __init__(self, outputs: Tensor) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, images: Tensor) -> Tensor:
        return self.outputs[: len(images)]


def float_step(model: nn.Module, images: Tensor, precision: str) -> Callable[[], object]:
    model = copy.deepcopy(model).requires_grad_(True)
    labels = torch.zeros(len(images), dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            output = model(flip_and_shift(images, generator))
        F.cross_entropy(output.float(), labels).backward()

    return step


def measure(batch: int, repeat: int, precision: str) -> dict[str, float]:
    torch.manual_seed(0)
    images = torch.randn(batch, 3, 32, 32)
    model = cifar_resnet20().eval()
    plain = prepare(model, lambda one: one(images[:2])).model
    coded = corank.quantize(model, images, bits=2, search="uniform", budget=0)
    how = replace(Refinement(), batch_size=batch, precision=precision)
    samples = Samples.of(images, batch, batch)
    with torch.no_grad():
        known = plain(images)
    teachers = {"refinement": plain, "refinement, outputs cached": Given(known)}
    steps = {}
    for name, teacher in teachers.items():
        state, feed = begun(TrainableModel(coded, how), teacher, how, Context(PreparedModel(plain), samples))
        state.step = 100
        steps[name] = _Loop(state, [], feed)
    calls: dict[str, Callable[[], object]] = {"float": float_step(plain, images, precision)}
    calls.update({name: lambda one=one: one.step() for name, one in steps.items()})
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(repeat + 2):
        for name, call in calls.items():
            started = time.process_time()
            call()
            if number >= 2:
                seconds[name].append(time.process_time() - started)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = {}
    for precision in ("float32", "bfloat16"):
        medians = measure(options.batch, options.repeat, precision)
        found[precision] = {name: {"seconds": s, "ratio": s / medians["float"]} for name, s in medians.items()}
        for name, s in medians.items():
            print(f"{precision:9} {name:27} {1000 * s:7.1f} ms  {s / medians['float']:.2f} x")
    if options.record:
        options.record.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

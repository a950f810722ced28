"""What a CoRa search step costs: ratio to a plain float forward and backward, and the two-branch way beside it.

    python bench/search_cost.py [--batch 32] [--repeat 60] [--weights FILE] [--record FILE]

The float step is the unfolded network in evaluation mode, cross-entropy, gradients of all parameters. The composed
step is one step of ``corank.search.CoRa`` as shipped, optimizer included. The two-branch step computes the same outputs
with the adapter as two extra convolutions at full rank. All three take turns in one process; medians.
"""

from __future__ import annotations

import argparse
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

from corank.calibration import Context, Samples, collect, collect_gradients, run
from corank.layers import prepare
from corank.losses import output_distance
from corank.models.weights import load_weights
from corank.presets import PRESETS
from corank.quantization.template import PlanTemplate
from corank.search import AllocationProblem, CoRa
from corank.search.cora import _Run, butterworth
from corank.search.posed import extra_bits, problem_of
from corank.statistics import OutputGradient

sys.path.insert(0, str(Path(__file__).parent))
from models import cifar_resnet20


class TwoBranch(nn.Module):
    """``conv(x, W_q) + conv1x1(conv(x, A t), B t)`` at full rank."""

    def __init__(self, layer: nn.Conv2d, coded: Tensor, left: Tensor, right: Tensor) -> None:
        super().__init__()
        self.layer, self.coded = layer, coded
        self.right = right.reshape(-1, layer.in_channels, *layer.kernel_size)
        self.left = left.reshape(layer.out_channels, -1, 1, 1)
        self.mask = torch.ones(self.right.shape[0])

    def forward(self, inputs: Tensor) -> Tensor:
        stride, padding = self.layer.stride, self.layer.padding
        plain = F.conv2d(inputs, self.coded, self.layer.bias, stride, padding)
        middle = F.conv2d(inputs, self.right, None, stride, padding) * self.mask.square()[:, None, None]
        return plain + F.conv2d(middle, self.left)


def make_problem(model: nn.Module, batch: int) -> AllocationProblem:
    images = torch.randn(4 * batch, 3, 32, 32)
    samples = Samples.of(images, len(images), batch)
    prepared = prepare(model, lambda one: run(one, samples.first(2)))
    plan = PlanTemplate(PRESETS["fast"]).plan(prepared, 2)
    statistics_ = collect(prepared.model, prepared.targets, samples)
    for name, gradient in collect_gradients(prepared.model, prepared.targets, samples).items():
        statistics_[name][OutputGradient] = gradient
    context = Context(prepared, samples)
    return problem_of(plan, extra_bits(prepared, plan, 0.4), context, statistics_)


def two_branch_step(problem: AllocationProblem, search: CoRa, batch: Tensor) -> Callable[[], None]:
    state = _Run(search, problem, None)
    branches = {}
    for name, layer in problem.layers.items():
        module = state.composed._layers[name]
        assert isinstance(module, nn.Conv2d)
        coded = layer.geometry.from_matrix(layer.coded)
        branches[name] = TwoBranch(module, coded, layer.directions.left, layer.directions.right)
        parent = state.composed.model.get_submodule(name.rpartition(".")[0])
        parent._modules[name.rpartition(".")[2]] = branches[name]
    with torch.no_grad():
        target = problem.context.model(batch)

    def step() -> None:
        for place, (name, branch) in enumerate(branches.items()):
            branch.mask = butterworth(state.cutoffs[place], problem.layers[name].full_rank)
        state.optimizer.zero_grad()
        output_distance(state.composed.model(batch), target).backward()
        state.optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = cifar_resnet20().eval()
    if options.weights:
        load_weights(model, options.weights)
    problem = make_problem(model, options.batch)
    batch, labels = torch.randn(options.batch, 3, 32, 32), torch.randint(10, (options.batch,))
    composed = _Run(replace(CoRa.paper(), batch_size=options.batch), problem, None)

    def float_step() -> None:
        model.zero_grad()
        F.cross_entropy(model(batch), labels).backward()

    steps: dict[str, Callable[[], object]] = {
        "float": float_step,
        "composed": lambda: composed.step(0),
        "two_branch": two_branch_step(problem, replace(CoRa.paper(), batch_size=options.batch), batch),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(options.repeat + 5):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if number >= 5:
                times[name].append(time.perf_counter() - started)
    medians = {name: 1000 * statistics.median(values) for name, values in times.items()}
    ratios = {name: value / medians["float"] for name, value in medians.items()}
    for name in steps:
        print(f"{name:<12}{medians[name]:8.1f} ms   {ratios[name]:.2f} x float")
    if options.record:
        options.record.write_text(json.dumps({"milliseconds": medians, "ratio_to_float": ratios}, indent=2) + "\n")


if __name__ == "__main__":
    main()

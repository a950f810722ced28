"""What a step of training at low bits costs: time and memory, against float training in the same run.

    python bench/training_cost.py [--batch 128] [--repeat 9] [--only 'straight-through*'] [--no-memory] [--record FILE]

Time: a step of the training loop as shipped (flip, forward, backward, AdamW; labels, no teacher; float32) of
ResNet-20, each of whose weights trains in the way named; float training is the same loop with float weights. All
take turns in one process; medians of process time, and of the ratio to the float step of the same turn. Ways that fit
their codebook every 10 or 50 steps are charged their share of it.

Memory: peak resident memory of a process of its own that trains sixteen layers of 512 x 512 for three steps on 32
samples, where weights outweigh what passes between layers, over what it held before; less that of float training, in
copies of the weights. Small blocks are given back at once (MALLOC_MMAP_THRESHOLD_), so that peaks are not old holes.
A latent beside the weight has its gradient and AdamW's two moments, too: DenseShift and S3 are allowed theirs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor, nn

from corank.calibration.batches import Batches
from corank.codecs import CODECS, Codec, RateUniform, ScalarCodebook
from corank.errors import ConfigError
from corank.layers import prepare
from corank.matrix import Geometry
from corank.memory import peak_memory_bytes
from corank.training.feed import Feed
from corank.training.loop import _Loop
from corank.training.objective import Objective
from corank.training.penalties import PENALTIES, Rate
from corank.training.recipe import Recipe
from corank.training.start import LayerStart, begin
from corank.training.state import TrainedLayer, TrainingState
from corank.training.weights import WEIGHTS, LearnedStep, StraightThrough, WeightStart, WeightTraining

sys.path.insert(0, str(Path(__file__).parent))
from models import cifar_resnet20

SCALAR, OTHER, TWICE = 1.3, 2.0, 3.5  # times a float step
COPIES = 1.0  # of the weights, beside what float training takes
WIDTH, DEPTH, ROWS = 512, 16, 32


@dataclass(frozen=True)
class Way:
    """What is measured: a recipe, and how much longer than float its step may take."""

    recipe: Recipe
    allowed: float


def ways() -> dict[str, Way]:
    """Float first; then every way of training weights, with every codec that it takes; then penalties."""
    plain = Recipe(weights=None, edge=None, edge_inputs=None, loss="labels", start="float", precision="float32")
    found = {"float": Way(plain, 1.0)}
    for name, kind in WEIGHTS.items():
        first = kind()
        if first.stored is None or type(first) not in (StraightThrough, LearnedStep):
            found[name] = Way(plain.replaced(weights=first, start=first.starts[-1]), OTHER)
            continue
        for codec, described in CODECS.items():
            way = _with(first, described())
            if way is not None:
                scalar = name == "straight-through" and _is_scalar(described())
                found[f"{name} {codec}"] = Way(plain.replaced(weights=way), SCALAR if scalar else OTHER)
    if "gradient-l1" in PENALTIES:
        found["gradient-l1"] = Way(plain.replaced(penalties=(PENALTIES["gradient-l1"](),)), TWICE)
    rate = LearnedStep(RateUniform(5, 1.0, group=0), spread=1.2)
    found["rate"] = Way(plain.replaced(weights=rate, penalties=(Rate(1.0),)), OTHER)
    return found


def _with(way: WeightTraining, codec: Codec) -> WeightTraining | None:
    """The way with another codec; None for one that it cannot train."""
    try:
        found = way.with_codec(codec)
        found.start(WeightStart(torch.randn(8, 64)))
    except ConfigError:
        return None
    return found


def _is_scalar(codec: Codec) -> bool:
    return isinstance(codec.fit(torch.randn(8, 64)), ScalarCodebook)


def loop_of(recipe: Recipe, model: nn.Module, inputs: Tensor, labels: Tensor) -> tuple[_Loop, TrainingState]:
    """The training loop before its first step, and its state."""
    recipe = recipe.replaced(iterations=1000, batch_size=len(inputs))
    targets = prepare(model, lambda one: one(inputs[:2]), fold=False).targets
    modules = dict(model.named_modules())
    starts = {name: LayerStart(recipe.weights) for name in targets}
    if recipe.weights is None:
        state = _floating(recipe, model, {name: modules[name] for name in targets})
    else:
        state = begin(model, starts, [], recipe, 0)
    batches = Batches.of(inputs, labels, len(inputs))
    feed = Feed(batches, None, Objective("labels", 1.0, None, False), "flip" if inputs.dim() == 4 else "none")
    loop = _Loop(state, [], feed)
    for penalty in recipe.penalties:
        penalty.start(state)
    return loop, state


def _floating(recipe: Recipe, model: nn.Module, targets: dict[str, nn.Module]) -> TrainingState:
    layers = {name: TrainedLayer(module, Geometry.of(module)) for name, module in targets.items()}
    return TrainingState(recipe, model, None, layers)


def seconds(wanted: dict[str, Way], batch: int, repeat: int) -> dict[str, dict[str, float]]:
    """By name: process seconds of a step, of one with a fit in every 10 and 50, and the ratio to float."""
    torch.manual_seed(0)
    images, labels = torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,))
    loops = {}
    for name, way in wanted.items():
        torch.manual_seed(1)
        loops[name] = loop_of(way.recipe, cifar_resnet20(), images, labels)

    def timed(name: str, step: int) -> float:
        loop, state = loops[name]
        state.step, state.measured = step, {}
        started = time.process_time()
        loop.step()
        return time.process_time() - started

    for name in loops:  # the first step makes the optimizer's memory
        timed(name, 0)
    plain = {name: [] for name in loops}
    fitting: dict[int, dict[str, list[float]]] = {9: {name: [] for name in loops}, 49: {name: [] for name in loops}}
    for number in range(repeat):
        for name in loops:
            plain[name].append(timed(name, 0))
        for step, taken in fitting.items():
            if number % 3 == 0:
                for name in loops:
                    taken[name].append(timed(name, step))
    found = {}
    for name in loops:
        usual, tenth, fiftieth = (statistics.median(taken[name]) for taken in (plain, fitting[9], fitting[49]))
        share = (45 * usual + 4 * tenth + fiftieth) / 50 / usual if name != "float" else 1.0  # it fits nothing
        ratio = statistics.median(a / b for a, b in zip(plain[name], plain["float"], strict=True))
        found[name] = {"seconds": usual * share, "ratio": ratio * share, "fits": share - 1}
    return found


def wide() -> tuple[nn.Module, Tensor, Tensor]:
    """A network whose weights outweigh all else, and what it trains on."""
    layers = [one for _ in range(DEPTH) for one in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 10)), torch.randn(ROWS, WIDTH), torch.randint(10, (ROWS,))


def peak(way: Way) -> dict[str, float]:
    """Of this process: bytes that three steps take at their peak, and copies of the weights that latents are."""
    torch.manual_seed(0)
    model, inputs, labels = wide()
    count = sum(one.weight.numel() for one in model if isinstance(one, nn.Linear))
    before = _resident()
    loop, state = loop_of(way.recipe, model, inputs, labels)
    for step in (0, 9, 49):
        state.step = step
        loop.step()
    latents = trained = 0
    for layer in state.layers.values():
        if layer.weight is not None:
            latents += sum(layer.weight.get_parameter(name).numel() for name in layer.weight.latents)
            trained += layer.latent.numel() if layer.weight.trains_weight else 0
    if way.recipe.weights is None:
        trained = count
    return {"bytes": peak_memory_bytes() - before, "extra": 4 * latents / count - 3 * (1 - trained / count)}


def _resident() -> int:
    """Bytes that this process holds now."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGESIZE")


def peaks(wanted: dict[str, Way]) -> dict[str, dict[str, float]]:
    """Each way in a process of its own; copies of the weights beside float training, and how many are allowed."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    copy = 4 * (DEPTH * WIDTH * WIDTH + 10 * WIDTH)
    found: dict[str, dict[str, float]] = {}
    for name in ["float", *(one for one in wanted if one != "float")]:
        command = [sys.executable, __file__, "--peak", name]
        finished = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if finished.returncode:
            sys.exit(f"{name} failed:\n{finished.stderr[-2000:]}")
        taken = json.loads(finished.stdout.splitlines()[-1])
        first = found["float"]["bytes"] if found else taken["bytes"]
        found[name] = {**taken, "copies": (taken["bytes"] - first) / copy, "allowed": COPIES + max(0.0, taken["extra"])}
    return found


def table(wanted: dict[str, float], times: dict[str, dict[str, float]], memory: dict[str, dict[str, float]]) -> str:
    """One row a way: seconds, times float and what is allowed, copies of the weights and what is allowed."""
    lines = [
        "| Way | s a step | x float | allowed | copies of the weights | allowed | |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for name, allowed in wanted.items():
        step, own = times[name], memory.get(name)
        over = [] if step["ratio"] <= allowed else ["slower"]
        cells = ["", ""]
        if own is not None:
            cells = [f"{own['copies']:+.2f}", f"{own['allowed']:.2f}"]
            over += [] if own["copies"] <= own["allowed"] else ["larger"]
        lines.append(
            f"| {name} | {step['seconds']:.4f} | {step['ratio']:.2f} | {allowed:g} | {' | '.join(cells)} "
            f"| {' and '.join(over)} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", action="append", metavar="PATTERN")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--peak", help="measure the peak of this way in this process")
    parser.add_argument("--record", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    known = ways()
    if options.peak:
        print(json.dumps(peak(known[options.peak])))
        return
    patterns = ["float", *(options.only or ["*"])]
    wanted = {name: way for name, way in known.items() if any(fnmatchcase(name, one) for one in patterns)}
    times = seconds(wanted, options.batch, options.repeat)
    memory = {} if options.no_memory else peaks(wanted)
    print(table({name: way.allowed for name, way in wanted.items()}, times, memory))
    if options.record:
        options.record.parent.mkdir(parents=True, exist_ok=True)
        options.record.write_text(json.dumps({"seconds": times, "memory": memory}, indent=1) + "\n")


if __name__ == "__main__":
    main()

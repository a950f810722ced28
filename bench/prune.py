"""ResNet-20 on CIFAR-10 (JPEG) with fewer channels: every method, torch-pruning's own too, with the same steps in all.

    python bench/prune.py --shared DIR [--only '40 % perspective'] [--seeds 1] [--out bench/results/prune.json]
    python bench/prune.py --shared DIR --networks [--only 'densenet*']
    python bench/prune.py --table

400 steps of 128 images, distilled, those of a penalty included. Scored on all 10,000 test images. Milliseconds are
those of one image in ONNX Runtime on one thread: the ratio is the median over rounds, in each of which the whole and
the pruned network run once. Bytes are those of the float file and of the same network at 4 bits. ``--networks`` prunes
others by 30 % without training (their weights are random) and loads each in a fresh process. Finished cases are kept.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import corank
from corank.models import resolve
from corank.pruning.cost import multiply_adds, positions_of
from corank.pruning.graph import follow_padding
from corank.pruning.record import pruned_of
from corank.training.callbacks import Callback
from corank.training.state import TrainingState
from corank.verbs.prune import FINETUNE

sys.path.insert(0, str(Path(__file__).parent))
from cifar_task import NETWORKS, CifarTask
from training import decoded
from training_runs import Kept, Record, file_bytes

SHARES = (20, 40, 60)
OWN = ("perspective", "magnitude", "first-order", "group-lasso", "first-order, round_to 8")
THEIRS = ("taylor", "group norm")  # of torch-pruning: a one-shot criterion with labels, and its sparse training
DRAWN = 0.25
IMAGE = (1, 3, 32, 32)
OTHERS = {
    "torchvision:squeezenet1_1": 64, "torchvision:densenet121": 64,
    "torchvision:mobilenet_v2": 64, "timm:vit_tiny_patch16_224": 224, "timm:convnext_atto": 64,
}  # fmt: skip
FRESH = """
import sys, torch, corank
from corank.models import resolve
file, reference, expected = sys.argv[1:]
assert 'torch_pruning' not in sys.modules
model = corank.load(file, resolve(reference).model)
images, outputs = torch.load(expected)
assert 'torch_pruning' not in sys.modules
with torch.no_grad():
    print(float((model(images) - outputs).abs().max()))
"""


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    kept = Kept(options.out)
    if options.table:
        print(markdown(kept.records))
        return
    if options.networks:
        for reference, size in OTHERS.items():
            if size and _wanted(reference, options) and f"30 % of {reference}" not in kept:
                kept.put(f"30 % of {reference}", network_case(reference, size))
                print(reference, kept.records[f"30 % of {reference}"], flush=True)
        return
    names = ["float", *(f"{share} % {how}" for share in SHARES for how in (*OWN, *(f"tp {one}" for one in THEIRS)))]
    images = f", {options.images} images" if options.images else ""
    group = f"resnet{options.network}, {options.iterations} x 128{images}"
    task: list[Any] = []
    for seed in range(options.seeds):
        for name in (one for one in names if _wanted(one, options)):
            key = f"{group}/{name}/{seed}"
            if key not in kept:
                task = task or _task(options)
                kept.put(key, case(name, task, options, seed))
                print(key, kept.records[key], flush=True)


def case(name: str, task: list[Any], options: argparse.Namespace, seed: int) -> Record:
    """One row: pruned, trained, scored, timed."""
    found, data = task
    share, _, how = name.partition(" % ")
    given = {"iterations": options.iterations, "seed": seed}
    began, used = time.perf_counter(), time.process_time()
    if name == "float":
        small = corank.train(found.model, data, FINETUNE, **given)
    elif how.startswith("tp "):
        small = by_torch_pruning(found.model, data, int(share) / 100, how[3:], given)
    else:
        how, _, rounded = how.partition(", round_to ")
        small = corank.prune(found.model, data, int(share) / 100, how, drawn=DRAWN, round_to=int(rounded or 1), **given)
    seconds = {"seconds": round(time.perf_counter() - began, 1), "cpu_seconds": round(time.process_time() - used, 1)}
    scored = corank.evaluate(small, found.test, found.model)
    probe = torch.zeros(IMAGE)
    positions = positions_of(found.model, lambda one: one(probe), 1)
    coded = corank.quantize(small, data, bits=4, budget=0.0, seed=seed)
    four = corank.evaluate(coded, found.test, found.model)
    with tempfile.TemporaryDirectory() as folder:
        float_bytes = corank.save(small, Path(folder) / "float.safetensors") if name != "float" and how in OWN else None
    return {
        "top1": scored.top1, "agreement": scored.agreement, "multiply_adds": multiply_adds(small, positions),
        "parameters": sum(one.numel() for one in small.parameters()), "float_bytes": float_bytes,
        "bytes_at_4_bits": file_bytes(coded) if name == "float" or how in OWN else None, "top1_at_4_bits": four.top1,
        **timed(found.model, small), **seconds,
    }  # fmt: skip


class _Sparse(Callback):
    """torch-pruning's own sparse training: adds its regularizer's gradient after each backward pass."""

    def start(self, state: TrainingState) -> None:
        object.__setattr__(self, "pruner", _pruner(state.model, "group norm", 0.5))

    def gradients_ready(self, state: TrainingState) -> None:
        self.pruner.regularize(state.model)  # pyright: ignore[reportAttributeAccessIssue]


def by_torch_pruning(model: nn.Module, data: Any, share: float, how: str, given: dict[str, Any]) -> nn.Module:
    """torch-pruning's criterion, ranking and removal, at the ratio of channels that saves the share; our training."""
    iterations, before, weighed = given["iterations"], 0, model
    if how == "group norm":
        before = round(DRAWN * iterations)
        weighed = corank.train(model, data, FINETUNE, **{**given, "iterations": before}, callbacks=[_Sparse()])
    weighed = weighed.requires_grad_(True)
    weighed.zero_grad(set_to_none=True)
    if how == "taylor":
        images, labels = next(iter(data.sample(512, given["seed"]).batches(512)))
        nn.functional.cross_entropy(weighed(images), labels).backward()
    probe = torch.zeros(IMAGE)
    positions = positions_of(model, lambda one: one(probe), 1)
    wanted = (1 - share) * multiply_adds(model, positions)
    low, high, best = 0.0, 1.0, weighed
    for _ in range(10):
        ratio, small = (low + high) / 2, _copied(weighed)
        _pruner(small, how, ratio).step()
        low, high = (low, ratio) if multiply_adds(small, positions) <= wanted else (ratio, high)
        best = small if low != ratio else best
    return corank.train(best, data, FINETUNE, teacher=model, **{**given, "iterations": iterations - before})


def _copied(model: nn.Module) -> nn.Module:
    """A copy with the gradients, which deepcopy keeps for parameters that are leaves."""
    import copy

    found = copy.deepcopy(model)
    for one, other in zip(found.parameters(), model.parameters(), strict=True):
        one.grad = None if other.grad is None else other.grad.clone()
    return found


def _pruner(model: nn.Module, how: str, ratio: float) -> Any:
    import torch_pruning as tp

    kind = tp.pruner.GroupNormPruner if how == "group norm" else tp.pruner.BasePruner
    weigh = tp.importance.GroupMagnitudeImportance() if how == "group norm" else tp.importance.GroupTaylorImportance()
    pruner = kind(
        model, torch.zeros(IMAGE), importance=weigh, global_pruning=True, pruning_ratio=ratio, max_pruning_ratio=0.9,
        ignored_layers=[model.get_submodule("linear")],
    )  # fmt: skip
    follow_padding(pruner.DG)  # without it no network of padded shortcuts can be pruned
    if how == "group norm":
        pruner.update_regularizer()
    return pruner


def timed(whole: nn.Module, small: nn.Module, rounds: int = 200) -> Record:
    """Milliseconds of one image in ONNX Runtime, one thread: the pruned network's and the whole one's in turn."""
    sessions = [_session(one) for one in (whole, small)]
    image = torch.randn(IMAGE, generator=torch.Generator().manual_seed(0)).numpy()
    times: list[list[float]] = [[], []]
    for number in range(rounds + 20):
        for place, session in enumerate(sessions):
            began = time.perf_counter()
            session.run(None, {"input": image})
            if number >= 20:
                times[place].append(time.perf_counter() - began)
    ratios = [b / a for a, b in zip(*times, strict=True)]
    return {"ms": round(1000 * statistics.median(times[1]), 4), "time_ratio": round(statistics.median(ratios), 3)}


def _session(model: nn.Module) -> Any:
    import onnxruntime

    from corank.export.graph import float_graph

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    data = float_graph(model, torch.zeros(IMAGE)).SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def network_case(reference: str, size: int) -> Record:
    """Another network without 30 % of its multiply-adds: saved, float and at 4 bits, and loaded in a fresh process."""
    model = resolve(reference, seed=0).model
    images = torch.randn(8, 3, size, size, generator=torch.Generator().manual_seed(0))
    began = time.perf_counter()
    small = corank.prune(model, images, 0.3, "magnitude", iterations=0)
    record = pruned_of(small)
    coded = corank.quantize(small, images, bits=4, budget=0.0)
    found: Record = {
        "seconds": round(time.perf_counter() - began, 1), "multiply_adds": record.multiply_adds,
        "parameters": record.parameters, "left": dict(record.left),
    }  # fmt: skip
    for name, one in (("float", small), ("4 bits", coded)):
        found[f"bytes, {name}"], found[f"difference, {name}"] = _reloaded(one, reference, images[:2])
    return found


def _reloaded(model: nn.Module, reference: str, images: Tensor) -> tuple[int, float]:
    """The file's bytes, and the largest difference of outputs once a fresh process has loaded it."""
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        file, expected = Path(folder) / "model.safetensors", Path(folder) / "expected.pt"
        size = corank.save(model, file)
        torch.save((images, model(images)), expected)
        command = [sys.executable, "-c", FRESH, str(file), reference, str(expected)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return size, float(done.stdout.strip().splitlines()[-1])


def markdown(records: dict[str, Record]) -> str:
    """The table of ResNet-20's cases."""
    lines = [
        "| Case | Top-1 | Multiply-adds | Parameters | Time | Float file | At 4 bits | Top-1 there |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for key, one in records.items():
        if not key.startswith("resnet"):
            continue
        sizes = [f"{one[name]:,}" if one[name] else "" for name in ("float_bytes", "bytes_at_4_bits")]
        lines.append(
            f"| {key} | {one['top1']:.2f} | {one['multiply_adds'] / 1e6:.1f} M | {one['parameters']:,} "
            f"| {one['time_ratio']:.2f} | {' | '.join(sizes)} | {one['top1_at_4_bits']:.2f} |"
        )
    return "\n".join(lines)


def _wanted(name: str, options: argparse.Namespace) -> bool:
    return any(fnmatchcase(name, one) for one in options.only or ["*"])


def _task(options: argparse.Namespace) -> list[Any]:
    found = CifarTask.of(options.shared, options.network, labelled=True, images=options.images)
    return [found, decoded(found.train)]


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    found.add_argument("--shared", type=Path, help="folder of real data and trained weights")
    found.add_argument("--network", type=int, choices=tuple(NETWORKS), default=20)
    found.add_argument("--iterations", type=int, default=400)
    found.add_argument("--seeds", type=int, default=1)
    found.add_argument("--only", action="append", metavar="PATTERN", help="of cases, such as '40 %% perspective'")
    found.add_argument("--threads", type=int, default=1)
    found.add_argument("--images", type=int, help="of training and of test, to try the script")
    found.add_argument("--networks", action="store_true", help="other networks, without training")
    found.add_argument("--table", action="store_true", help="print the table of what --out holds; run nothing")
    found.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "prune.json")
    return found


if __name__ == "__main__":
    main()

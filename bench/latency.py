"""Milliseconds of one 224 x 224 image: float, our loaded module, and the exports, all in turn in one process.

    python bench/latency.py --shared DIR [--threads 1 2] [--rounds 60] [--int8-only] [--out results.json]

SqueezeNet 1.1 is trained, ResNet-18 random; both at 4 bits with adapters. In every round each contender runs once, in a
new random order, so that other load on the machine meets all alike. A ratio is the median over rounds of
(float time in the same runtime / its own time). Processor time counts what the process worked, not what it waited.
SqueezeNet's agreement is with the PyTorch artifact, on the odd photographs; calibration is on even ones.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

import corank
from corank.data import ImageSet, load
from corank.export import Int8, export_onnx, export_onnx_int8
from corank.export.graph import float_graph
from corank.models import resolve

FLOAT_TORCH, LOADED, FLOAT_ORT, WEIGHTS, INT8 = (
    "float, PyTorch", "corank.load, PyTorch", "float, onnxruntime", "onnx, folded", "onnx-int8"
)  # fmt: skip
REFERENCE = {FLOAT_TORCH: FLOAT_TORCH, LOADED: FLOAT_TORCH, FLOAT_ORT: FLOAT_ORT, WEIGHTS: FLOAT_ORT, INT8: FLOAT_ORT}
WARM = 5


@dataclass(frozen=True)
class Files:
    """One network in every form; paths are ONNX files."""

    model: nn.Module
    loaded: nn.Module
    paths: Mapping[str, Path]
    sizes: Mapping[str, int]
    notes: tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--float-share", type=float, default=Int8().float_share)
    parser.add_argument("--int8-only", action="store_true", help="no other export")
    parser.add_argument("--only", choices=("squeezenet1_1", "resnet18"))
    parser.add_argument("--out", type=Path, default=Path("build/latency.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    photographs = str(options.shared / "data/imagenet_sample.zip")
    weights = options.shared / "models/squeezenet1_1_fp16.safetensors"
    results: dict[str, Any] = {"cpu": cpu_name(), "torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
    for name, given in (("squeezenet1_1", weights), ("resnet18", None)):
        if options.only not in (None, name):
            continue
        found = resolve(f"torchvision:{name}", weights=given, seed=0)
        train = load(f"{photographs}[0::2]", found.preprocessing)
        with tempfile.TemporaryDirectory() as folder:
            files = written(found.model, train, Path(folder), options)
            results[name] = {"bytes": files.sizes, "notes": files.notes}
            print(f"{name}: " + ", ".join(f"{form} {size}" for form, size in files.sizes.items()), flush=True)
            print("\n".join(f"  {note}" for note in files.notes), flush=True)
            if given is not None:
                test = load(f"{photographs}[1::2]", found.preprocessing)
                results[name]["agreement"] = agreement(files, test)
                print(f"  agreement on {len(test)} photographs: {results[name]['agreement']:.1f} %", flush=True)
            image = next(iter(train.batches(1)))[0]
            for threads in options.threads:
                results[name][f"{threads} threads"] = measured(files, image, threads, options.rounds)
    sys.stdout.flush()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n")


def written(model: nn.Module, train: ImageSet, folder: Path, options: argparse.Namespace) -> Files:
    """Quantizes, saves, loads and exports."""
    small = corank.quantize(model, train, bits=4, budget=0.1, search="greedy", samples=options.samples, device="cpu")
    sizes = {"artifact": corank.save(small, folder / "small.safetensors")}
    loaded = corank.load(folder / "small.safetensors", model)
    image = next(iter(train.batches(1)))[0]
    paths = {FLOAT_ORT: folder / "float.onnx", INT8: folder / "int8.onnx"}
    paths[FLOAT_ORT].write_bytes(float_graph(model, image, layers=[]).SerializeToString())
    sizes[FLOAT_ORT] = paths[FLOAT_ORT].stat().st_size
    if not options.int8_only:
        paths[WEIGHTS] = folder / "weights.onnx"
        sizes[WEIGHTS] = export_onnx(loaded, paths[WEIGHTS], image).size_bytes
    settings = Int8(samples=options.samples, float_share=options.float_share)
    result = export_onnx_int8(loaded, paths[INT8], train, settings=settings)
    sizes[INT8] = result.size_bytes
    return Files(model, loaded, paths, sizes, result.notes)


def agreement(files: Files, test: ImageSet) -> float:
    """Percent of images that the int8 file and the artifact give the same class."""
    run, same = opened(files.paths[INT8], 1), 0
    for images, _ in test.batches(25):
        with torch.no_grad():
            same += int((files.loaded(images).argmax(1) == torch.from_numpy(run(images)).argmax(1)).sum())
    return 100.0 * same / len(test)


def opened(path: Path, threads: int) -> Callable[[Tensor], np.ndarray]:
    """A session that does not keep its threads busy between runs, where they would slow the next contender."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    settings.add_session_config_entry("session.disable_quant_qdq", "1" if path.stem == "weights" else "0")
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run(None, {"input": images.numpy()})[0])


def measured(files: Files, image: Tensor, threads: int, rounds: int) -> dict[str, dict[str, float]]:
    """Medians and ratios of every contender; printed as they are returned."""
    torch.set_num_threads(threads)
    runs: dict[str, Callable[[Tensor], object]] = {FLOAT_TORCH: files.model.eval(), LOADED: files.loaded.eval()}
    runs |= {name: opened(path, threads) for name, path in files.paths.items()}
    wall: dict[str, list[float]] = {name: [] for name in runs}
    work: dict[str, list[float]] = {name: [] for name in runs}
    order, chance = list(runs), random.Random(0)
    with torch.no_grad():
        for round_ in range(rounds + WARM):
            chance.shuffle(order)
            for name in order:
                started, worked = time.perf_counter(), time.process_time()
                runs[name](image)
                if round_ >= WARM:
                    work[name].append(1000 * (time.process_time() - worked))
                    wall[name].append(1000 * (time.perf_counter() - started))
    torch.set_num_threads(1)
    found = {name: compared(name, wall, work) for name in runs}
    for name, row in found.items():
        print(
            f"  {threads} threads  {name:<22} {row['ms']:7.2f} ms, {row['faster']:.2f} x as fast as float there; "
            f"{row['cpu_ms']:7.2f} ms of processor time, {row['faster_cpu']:.2f} x",
            flush=True,
        )
    return found


def compared(name: str, wall: Mapping[str, list[float]], work: Mapping[str, list[float]]) -> dict[str, float]:
    """A contender's medians, and how many times as fast it is as float in the same runtime."""
    other = REFERENCE[name]
    return {
        "ms": statistics.median(wall[name]),
        "cpu_ms": statistics.median(work[name]),
        "faster": ratio(wall[other], wall[name]),
        "faster_cpu": ratio(work[other], work[name]),
    }


def ratio(one: list[float], other: list[float]) -> float:
    """Median over rounds of the quotient."""
    return statistics.median(first / second for first, second in zip(one, other, strict=True))


def cpu_name() -> str:
    """The processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()

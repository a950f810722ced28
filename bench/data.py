"""Images a second from a folder, a .zip and shards: by the loader alone, and inside a training.

    python bench/data.py [--shared DIR] [--images 512] [--side 64] [--batch 64] [--repeat 3] [--record FILE]

Photographs are those of imagenet_sample.zip in DIR, JPEG of 256 x 256; without DIR as many JPEGs are drawn. They are
written into a folder, a .zip, shards of the files and shards of pixels at the side that the network sees, and are read
in the same order from each. Inside: steps of the training loop as shipped (float weights, labels, SGD's flip and shift)
of a small network. All take turns in one process, each `--repeat` times; medians. Before each turn nothing is dropped
from the operating system's cache: files are warm for all alike, so that what is measured is opening and decoding.

"alone" reads in the caller's thread; "ahead 0" and "ahead 1" are the training without and with a thread that reads the
next batches. Ratios are to the folder of the same column.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from corank.calibration.batches import Batches
from corank.data import ImageSet, Preprocessing, load, pack
from corank.training.ahead import reading_ahead
from corank.training.feed import Feed
from corank.training.objective import Objective
from corank.training.recipe import Recipe
from corank.verbs.training_data import _Decoded

sys.path.insert(0, str(Path(__file__).parent))
from training_cost import loop_of

PLAIN = Recipe(weights=None, edge=None, edge_inputs=None, loss="labels", start="float", precision="float32")


def pictures(shared: Path | None, count: int) -> list[tuple[str, bytes]]:
    """Names in class folders and the bytes of JPEG files."""
    if shared is not None:
        with zipfile.ZipFile(shared / "data" / "imagenet_sample.zip") as archive:
            names = [name for name in archive.namelist() if name.lower().endswith((".jpg", ".jpeg"))][:count]
            return [(f"{place % 10}/{place:05d}.jpg", archive.read(name)) for place, name in enumerate(names)]
    found = []
    for place in range(count):
        coarse = np.random.RandomState(place).randint(0, 256, (16, 16, 3)).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(coarse).resize((256, 256), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
        found.append((f"{place % 10}/{place:05d}.jpg", stream.getvalue()))
    return found


def sources(files: list[tuple[str, bytes]], folder: Path, side: int) -> dict[str, ImageSet]:
    """The same images from each place."""
    how = Preprocessing(side, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for name, data in files:
            path = folder / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            archive.writestr(name, data)
    images = load(str(folder / "images"), how)
    pack(images, folder / "files")
    pack(images, folder / "pixels", decoded=True)
    places = {"folder": "images", "zip": "images.zip", "shards": "files", "shards, decoded": "pixels"}
    return {name: load(str(folder / place), how, labelled=True) for name, place in places.items()}


def network() -> nn.Module:
    """Small enough that reading takes a share of a step."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def alone(images: ImageSet, batch: int) -> Callable[[], float]:
    """Images a second of an epoch that nothing is done with."""
    batches = Batches(_Decoded(images), batch)

    def measured() -> float:
        started = time.perf_counter()
        for step in range(batches.steps_an_epoch):
            batches(step)
        return batches.steps_an_epoch * batch / (time.perf_counter() - started)

    return measured


def inside(images: ImageSet | None, batch: int, workers: int, example: torch.Tensor) -> Callable[[], float]:
    """Images a second of an epoch of training; None: of one batch again and again, the network alone."""
    labels = torch.zeros(batch, dtype=torch.int64)
    loop, state = loop_of(PLAIN, network(), example, labels)
    batches = Batches.of(example, labels, batch) if images is None else Batches(_Decoded(images), batch)
    feed = Feed(batches, None, Objective("labels", 1.0, None, False), "flip-shift", workers=workers)
    steps = 8 if images is None else batches.steps_an_epoch

    def measured() -> float:
        started = time.perf_counter()
        with reading_ahead(feed, range(steps)) as loop.parts:
            for state.step in range(steps):
                state.measured = {}
                loop.step()
        return steps * batch / (time.perf_counter() - started)

    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--record", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="corank-data-") as folder:
        found = sources(pictures(asked.shared, asked.images), Path(folder), asked.side)
        example = next(found["folder"].batches(asked.batch))[0]
        kinds: dict[tuple[str, str], Callable[[], float]] = {}
        for name, images in found.items():
            kinds[name, "alone"] = alone(images, asked.batch)
            for workers in (0, 1):
                kinds[name, f"ahead {workers}"] = inside(images, asked.batch, workers, example)
        kinds["no reading", "ahead 0"] = inside(None, asked.batch, 0, example)
        taken: dict[tuple[str, str], list[float]] = {kind: [] for kind in kinds}
        for _ in range(asked.repeat):
            for kind, measured in kinds.items():
                taken[kind].append(measured())
    rates = {kind: statistics.median(one) for kind, one in taken.items()}
    for column in ("alone", "ahead 0", "ahead 1"):
        print(f"{column}, {os.cpu_count()} cores, {torch.get_num_threads()} threads of torch")
        for name, own in kinds:
            if own == column:
                rounds = zip(taken[name, own], taken["folder", own], strict=True)
                ratio = statistics.median(one / other for one, other in rounds)
                print(f"  {name:16} {rates[name, own]:8.0f} images/s   {ratio:5.2f} x the folder")
    if asked.record is not None:
        asked.record.write_text(json.dumps({f"{name}, {own}": one for (name, own), one in taken.items()}, indent=2))


if __name__ == "__main__":
    main()

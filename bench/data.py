"""Images a second from a folder, a .zip and shards: by the loader alone, and inside a training.

    python bench/data.py [--shared DIR] [--images 512] [--side 64] [--batch 64] [--repeat 3] [--record FILE]

Photographs are those of imagenet_sample.zip in DIR, JPEG of 256 x 256; without DIR as many JPEGs are drawn. They are
written into a folder, a .zip, shards of the files and shards of pixels at the side that the network sees, and are read
in the same order from each. Inside: steps of the training loop as shipped (float weights, labels, AdamW, flip and
shift) of a small network. All take turns in one process, each `--repeat` times; medians. Before each turn nothing is
dropped from the operating system's cache: files are warm for all alike, so that what is measured is opening and
decoding.

"alone" reads in the caller's thread; "ahead 0" and "ahead 1" are the training without and with a thread that reads the
next batches. Ratios are to the folder of the same column and turn; on a machine that does other work, too, those of CPU
seconds are the steadier.
"""

from __future__ import annotations

import argparse
import io
import json
import os
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

Rates = tuple[float, float]  # images a second, and a second of CPU


class Clock:
    """Started when it is made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def rates(self, count: int) -> Rates:
        """Of so many images since then."""
        return count / (time.perf_counter() - self._wall), count / (time.process_time() - self._cpu)


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
        nn.Conv2d(3, 16, 4, 4), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def alone(images: ImageSet, batch: int) -> Callable[[], Rates]:
    """Images a second of an epoch that nothing is done with."""
    batches = Batches(_Decoded(images), batch)

    def measured() -> Rates:
        clock = Clock()
        for step in range(batches.steps_an_epoch):
            batches(step)
        return clock.rates(batches.steps_an_epoch * batch)

    return measured


def inside(images: ImageSet | None, batch: int, workers: int, example: torch.Tensor) -> Callable[[], Rates]:
    """Images a second of an epoch of training; None: of one batch again and again, the network alone."""
    labels = torch.zeros(batch, dtype=torch.int64)
    loop, state = loop_of(PLAIN, network(), example, labels)
    batches = Batches.of(example, labels, batch) if images is None else Batches(_Decoded(images), batch)
    feed = Feed(batches, None, Objective("labels", 1.0, None, False), "flip-shift", workers=workers)
    steps = 8 if images is None else batches.steps_an_epoch

    def measured() -> Rates:
        clock = Clock()
        with reading_ahead(feed, range(steps)) as loop.parts:
            for state.step in range(steps):
                state.measured = {}
                loop.step()
        return clock.rates(steps * batch)

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
        kinds: dict[tuple[str, str], Callable[[], Rates]] = {}
        for name, images in found.items():
            kinds[name, "alone"] = alone(images, asked.batch)
            for workers in (0, 1):
                kinds[name, f"ahead {workers}"] = inside(images, asked.batch, workers, example)
        kinds["no reading", "ahead 0"] = inside(None, asked.batch, 0, example)
        taken: dict[tuple[str, str], list[Rates]] = {kind: [] for kind in kinds}
        for _ in range(asked.repeat):
            for kind, measured in kinds.items():
                taken[kind].append(measured())
    for column in ("alone", "ahead 0", "ahead 1"):
        print(f"{column}, {os.cpu_count()} cores, {torch.get_num_threads()} threads of torch")
        for name, own in kinds:
            if own == column:
                rates, folders = np.array(taken[name, own]), np.array(taken["folder", own])
                (wall, cpu), (faster, cheaper) = np.median(rates, 0), np.median(rates / folders, 0)
                shown = f"{wall:7.0f} images/s {faster:6.2f} x the folder, {cpu:7.0f} a CPU second {cheaper:6.2f} x"
                print(f"  {name:16} {shown}")
    if asked.record is not None:
        asked.record.write_text(json.dumps({f"{name}, {own}": one for (name, own), one in taken.items()}, indent=2))


if __name__ == "__main__":
    main()

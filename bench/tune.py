"""All 96 int8 configurations of four networks in ONNX Runtime, and how many trials each tuner needs to find a good one.

    python bench/tune.py measure --shared DIR --network resnet20 --images 5000 [--record FILE]
    python bench/tune.py replay [--seeds 50] [--record FILE]

`measure` builds and scores every configuration once and adds what it found to the records that ship with the package.
Calibration images are training images, drawn by seed 0; scored are test images, drawn by seed 0 (of the ImageNet
sample: even positions calibrate, odd ones score). `replay` runs every tuner against those records: the number of trials
until one is within 0.1 points of the best (0.4 where fewer than 1,000 images were scored), mean over seeds. The warm
ones have seen the records of all networks but the one they tune.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import mean

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v2

from corank.calibration import Samples, run
from corank.calibration.seeds import seed_of
from corank.data import ImageSet, Preprocessing, load
from corank.export.int8_configured import ConfiguredInt8
from corank.layers import prepare
from corank.models.weights import load_weights
from corank.tuning.descriptors import descriptors
from corank.tuning.int8_space import INT8, Int8Maker
from corank.tuning.measuring import Measuring
from corank.tuning.records import Record, remember, shipped_records
from corank.tuning.selection import Selection
from corank.tuning.space import key_of, written
from corank.tuning.tuners import TUNERS, BoostedTrees, Known, Task, Tuner

sys.path.insert(0, str(Path(__file__).parent))
from models import SqueezeNet, cifar_resnet20, cifar_resnet56

SHIPPED = Path(__file__).parent.parent / "src/corank/tuning/measured/int8.json"
NORMALISED = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
MANY = 1000  # scored images from which 0.1 points from the best are good enough; else 0.4, as one image is more
WARM = ("boosted, warm", "recorded")  # tuners that have seen the other networks
MODELLED = ("tpe", "boosted", "boosted, warm")  # tuners that fit something before each trial


def mobilenet() -> nn.Module:
    """MobileNetV2, half as wide, for images of 32 x 32."""
    model = mobilenet_v2(num_classes=10, width_mult=0.5, dropout=0.0)
    for convolution in (model.features[0][0], model.features[2].conv[1][0]):
        convolution.stride = (1, 1)
    return model


NETWORKS = {
    "resnet20": (cifar_resnet20, "cifar10_resnet20"),
    "resnet56": (cifar_resnet56, "cifar10_resnet56"),
    "mobilenet": (mobilenet, "cifar10_mobilenetv2_050_fp16"),
    "squeezenet": (SqueezeNet, "squeezenet1_1_fp16"),
}


@dataclass(frozen=True)
class Networks:
    """A network with its images."""

    model: nn.Module
    calibration: Samples
    scored: Samples
    labels: Tensor

    @classmethod
    def of(cls, shared: Path, name: str, images: int, calibrated: int) -> Networks:
        """Weights and images from the folder ``shared``."""
        factory, weights = NETWORKS[name]
        model = factory().eval()
        load_weights(model, shared / f"models/{weights}.safetensors")
        how = Preprocessing(**NORMALISED)
        if name == "squeezenet":
            how = Preprocessing(224, crop=1.0, **NORMALISED)
            whole = load(str(shared / "data/imagenet_sample.zip"), how, labelled=True)
            train, test = whole.slice("0::2").sample(calibrated, 0), whole.slice("1::2").sample(images, 0)
        else:
            train = load(str(shared / "data/cifar10_jpeg_train.zip"), how, labelled=False).sample(calibrated, 0)
            test = load(str(shared / "data/cifar10_jpeg_test.zip"), how, labelled=True).sample(images, 0)
        return cls(model, _read(train)[0], *_read(test))


def _read(images: ImageSet) -> tuple[Samples, Tensor]:
    batches = list(images.batches(50))
    labels = torch.cat([labels for _, labels in batches if labels is not None] or [torch.zeros(0)])
    return Samples.of([inputs for inputs, _ in batches], len(images)), labels


def measure(shared: Path, name: str, images: int, calibrated: int, latency: bool) -> dict[str, object]:
    """Every configuration once."""
    started = time.perf_counter()
    task = Networks.of(shared, name, images, calibrated)
    prepared = prepare(task.model, lambda model: run(model, task.calibration.first(2)))
    selection = Selection.of(task.model, task.scored, task.labels)
    measured = Measuring(Int8Maker(ConfiguredInt8(prepared, task.calibration)), selection, latency)
    print(f"{name}: float {selection.reference:.2f} on {images} images", flush=True)
    rows = []
    for configuration in INT8:
        found = measured(configuration, 1.0)
        row = {"configuration": configuration, "score": round(found.score, 4), "error": round(found.error, 4)}
        took = {} if found.latency_ms is None else {"latency_ms": round(found.latency_ms, 4)}
        rows.append({**row, "size_bytes": found.size_bytes, **took})
        print(f"{len(rows):3} {found.score:6.2f} +- {found.error:.2f} {written(configuration)}", flush=True)
    trials = tuple((dict(row["configuration"]), row["score"]) for row in rows)
    about = {key: round(value, 6) for key, value in descriptors(prepared).items()}
    record = Record("int8", NETWORKS[name][1], about, round(selection.reference, 4), images, trials)
    remember(SHIPPED, record)
    seconds = time.perf_counter() - started
    return {
        "network": name,
        "images": images,
        "calibrated": calibrated,
        "float": selection.reference,
        "seconds": seconds,
        "trials": rows,
    }


def replay(record: Record, tuner: Tuner, records: tuple[Record, ...], seed: int, close: float) -> int:
    """Trials until one is close to the best."""
    scores = {key_of(configuration): score for configuration, score in record.trials}
    enough = max(scores.values()) - close
    task = Task(INT8, record.descriptors, record.reference, records)
    known: list[Known] = []
    while True:
        found = tuner.propose(task, known, Random(seed_of(seed, "tuner", len(known))))
        assert found is not None
        known.append(Known(found, scores[key_of(found)]))
        if scores[key_of(found)] >= enough - 1e-9:
            return len(known)


def replayed(seeds: int, modelled: int) -> list[dict[str, object]]:
    """Mean trials of every tuner on every network that is in the records."""
    rows: list[dict[str, object]] = []
    for record in shipped_records("int8"):
        others = tuple(one for one in shipped_records("int8") if one.model != record.model)
        close = 0.1 if record.samples >= MANY else 0.4
        best = max(score for _, score in record.trials)
        good = sum(score >= best - close - 1e-9 for _, score in record.trials)
        row: dict[str, object] = {
            "model": record.model,
            "float": record.reference,
            "best": best,
            "close": close,
            "good": good,
        }
        for name, tuner in {**{name: cls() for name, cls in TUNERS.items()}, "boosted, warm": BoostedTrees()}.items():
            known = others if name in WARM else ()
            runs = 1 if name == "grid" else modelled if name in MODELLED else seeds
            row[name] = round(mean(replay(record, tuner, known, seed, close) for seed in range(runs)), 2)
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "replay"))
    parser.add_argument("--shared", type=Path)
    parser.add_argument("--network", choices=NETWORKS, default="resnet20")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--calibrated", type=int, default=500)
    parser.add_argument("--latency", action="store_true", help="of one image, too; only on a machine that is idle")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--modelled-seeds", type=int, help="of tuners that fit something before each trial")
    parser.add_argument("--record", type=Path)
    asked = parser.parse_args()
    if asked.what == "measure" and asked.shared is None:
        parser.error("measure needs --shared DIR")
    if asked.what == "replay":
        found = replayed(asked.seeds, asked.modelled_seeds or asked.seeds)
    else:
        found = measure(asked.shared, asked.network, asked.images, asked.calibrated, asked.latency)
    if asked.record is not None:
        asked.record.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

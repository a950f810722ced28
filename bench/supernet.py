"""A miniature supernet on CIFAR-10: shared steps against one a part, bits handed on against scratch, a front.

    python bench/supernet.py --shared DIR [--only NAME] [--steps 1.0] [--out bench/results/supernet.json]
    python bench/supernet.py --out bench/results/supernet.json --picture docs/pictures/supernet.png

Two stages, 13,000 weights, the 4,000 training images of cifar10_exact.npz. The float supernet comes first; all others
begin from it. "Scratch" trains its bits from there for as many steps as the chain of 4, 3 and 2 bits has had in all.
Ten subnets (the largest, the smallest, eight drawn) of every supernet are taken out, saved, loaded by name and scored
on the 1,000 test images; those of the chain are exported to ONNX and run. Finished trainings are kept beside the output
file and not run again; a run of ``--only`` needs those that it begins from.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import corank
from corank.calibration.seeds import generator_of
from corank.export.onnx import export_onnx
from corank.models import resolve
from corank.training.subnets import active, choose, drawn, extreme, space_of

NETWORK = "elastic:10,width=8-12-20,stride=2-2-2,depth=1+2,kernel=3+5,expansion=2+4,resolution=24+32"
# name: bits, what it begins from, steps, whether steps are shared
RUNS: dict[str, tuple[int | None, str | None, int, bool]] = {
    "float": (None, None, 300, True),
    "4 bits, shared": (4, "float", 120, True),
    "3 bits, inherited": (3, "4 bits, shared", 60, True),
    "2 bits, inherited": (2, "3 bits, inherited", 60, True),
    "4 bits, a step for each part": (4, "float", 120, False),
    "2 bits, scratch": (2, "float", 240, True),
    "3 bits, scratch": (3, "float", 180, True),
}
CHAIN = {4: "4 bits, shared", 3: "3 bits, inherited", 2: "2 bits, inherited"}
SUBNETS = 10
Data = tuple[Tensor, Tensor]


def images_of(shared: Path, name: str, count: int) -> Data:
    """The first images and their labels."""
    with np.load(shared / "data/cifar10_exact.npz") as file:
        pixels, labels = (torch.from_numpy(file[f"{kind}_{name}"][:count]) for kind in ("x", "y"))
    mean, std = (torch.tensor(one)[:, None, None] for one in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std, labels.long()


def chosen_subnets(model: nn.Module) -> list[dict[str, int]]:
    """The largest, the smallest and others, each once, without what does not run."""
    space, found = space_of(model), list[dict[str, int]]()
    own = copy.deepcopy(model)
    for place in range(10 * SUBNETS):
        one = extreme(space, place == 0) if place < 2 else drawn(space, generator_of(0, "bench", place))
        choose(own, one)
        running = {name: one[name] for name in active(own)}
        if running not in found and len(found) < SUBNETS:
            found.append(running)
    return found


def trained(options: argparse.Namespace, data: tuple[Data, Data], record: dict[str, Any]) -> None:
    """All supernets, each kept as a file, and scored before the next is trained."""
    made: dict[str, nn.Module] = {}
    options.kept.mkdir(parents=True, exist_ok=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for name, (bits, before, steps, shared) in RUNS.items():
        path = options.kept / f"{name.replace(' ', '_')}.safetensors"
        count = max(1, round(steps * options.steps))
        if options.only not in (None, name):
            if path.exists():
                made[name] = corank.load_supernet(path)
            continue
        if not path.exists():
            start = resolve(NETWORK, seed=options.seed).model if before is None else made[before]
            begun = time.process_time()
            net = corank.train_supernet(
                start, data[0], bits, iterations=count, batch_size=options.batch, random=1, shared=shared,
                seed=options.seed,
            )  # fmt: skip
            history = net.corank_supernet.history
            record["runs"][name] = {
                "bits": bits, "from": before, "steps": count, "cpu_seconds": round(time.process_time() - begun, 1),
                "loss": round(statistics.mean(one["loss"] for one in history[-20:]), 4),
            }  # fmt: skip
            corank.save_supernet(net, path)
            print(name, record["runs"][name], flush=True)
        made[name] = corank.load_supernet(path)
        if bits is not None and name not in record["subnets"]:
            chosen = chosen_subnets(made[name])
            record["subnets"][name] = [measured(made[name], one, *data, name in CHAIN.values()) for one in chosen]
            print(name, f"{statistics.mean(row['top1'] for row in record['subnets'][name]):.2f}", flush=True)
        options.out.write_text(json.dumps(record, indent=1) + "\n")


def measured(net: nn.Module, chosen: dict[str, int], train: Data, test: Data, onnx: bool) -> dict[str, Any]:
    """One subnet, taken out, written, loaded by its name and run."""
    with tempfile.TemporaryDirectory() as folder:
        small = corank.extract_subnet(net, train[0][:512], chosen, samples=512)
        side = chosen["resolution"]
        images = test[0]
        if images.shape[-1] != side:
            images = F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
        path = Path(folder) / "subnet.safetensors"
        size = corank.save(small, path)
        name = small.corank_run.model
        back = corank.load(path, resolve(name).model)
        score = corank.evaluate(back, zip(images.split(250), test[1].split(250), strict=True)).top1
        found = {"network": name, "bytes": size, "top1": score}
        return found | (_in_onnx(back, images[:256], Path(folder) / "subnet.onnx") if onnx else {})


def _in_onnx(model: nn.Module, images: Tensor, path: Path) -> dict[str, Any]:
    result = export_onnx(model, path, images[:1])
    options = onnxruntime.SessionOptions()
    for key, value in result.options.items():
        options.add_session_config_entry(key, value)
    session = onnxruntime.InferenceSession(path, options)
    given = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    with torch.no_grad():
        expected = model(images).numpy()
    return {"onnx_bytes": result.size_bytes, "onnx_same_class": float(np.mean(given.argmax(1) == expected.argmax(1)))}


def compared(record: dict[str, Any]) -> dict[str, Any]:
    """Mean top-1 over the subnets, and paired differences with their spread over the subnets."""
    top1 = {name: [row["top1"] for row in rows] for name, rows in record["subnets"].items()}
    found: dict[str, Any] = {"mean top-1": {name: round(statistics.mean(one), 2) for name, one in top1.items()}}
    for one, other in (
        ("4 bits, shared", "4 bits, a step for each part"),
        ("3 bits, inherited", "3 bits, scratch"),
        ("2 bits, inherited", "2 bits, scratch"),
    ):
        if one in top1 and other in top1:
            apart = [a - b for a, b in zip(top1[one], top1[other], strict=True)]
            found[f"{one} - {other}"] = {
                "points": round(statistics.mean(apart), 2), "better": sum(value > 0 for value in apart),
                "of": len(apart), "spread": round(statistics.stdev(apart), 2),
            }  # fmt: skip
    return found


def picture(record: dict[str, Any], path: Path) -> None:
    """Accuracy against bytes: every subnet at three widths, and the front over all of them."""
    figure, axes = plt.subplots(figsize=(7, 4.2), constrained_layout=True)
    every: list[tuple[int, float]] = []
    for (bits, name), mark in zip(CHAIN.items(), "os^", strict=True):
        rows = record["subnets"][name]
        every += [(row["bytes"], row["top1"]) for row in rows]
        axes.scatter([row["bytes"] / 1000 for row in rows], [row["top1"] for row in rows], marker=mark, s=36,
                     label=f"{bits} bits")  # fmt: skip
    front, best = list[tuple[int, float]](), 0.0
    for size, score in sorted(every):
        if score > best:
            front.append((size, score))
            best = score
    axes.plot([one[0] / 1000 for one in front], [one[1] for one in front], color="0.5", lw=1, zorder=0, label="front")
    axes.set(xlabel="file, KB", ylabel="top-1 on test images, %")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path)
    parser.add_argument("--steps", type=float, default=1.0, help="factor of all steps, to try the script")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("build/supernet.json"))
    parser.add_argument("--kept", type=Path, default=Path("build/supernets"), help="where trained supernets are kept")
    parser.add_argument("--only", choices=tuple(RUNS))
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args(arguments)
    about = {name: vars(options)[name] for name in ("batch", "seed", "images", "test")}
    record: dict[str, Any] = {"network": NETWORK, **about, "runs": {}, "subnets": {}}
    if options.out.exists():
        record = json.loads(options.out.read_text())
    if options.shared is not None:
        train = images_of(options.shared, "train", options.images)
        test = images_of(options.shared, "test", options.test)
        trained(options, (train, test), record)
        record["compared"] = compared(record)
        options.out.write_text(json.dumps(record, indent=1) + "\n")
    json.dump(compared(record), sys.stdout, indent=1)
    if options.picture is not None:
        picture(record, options.picture)


if __name__ == "__main__":
    main()

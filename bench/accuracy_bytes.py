"""The picture of it all: ResNet-20's accuracy against the bytes of the file, over two orders of magnitude.

    python bench/accuracy_bytes.py --cifar cifar.json --peers bench/peers/results.json --out docs/pictures/bytes.png

Curves: what corank codes without training and with 250 steps (``cifar.py``), after 400 distilled steps and after 2,300
longer ones (``training.py``), and NNCodec (``peers/run.py``), all in bytes of the file. Of the other tools the points
that keep at least 70 %, in the bytes that a file would take if they packed their codes. Means over the seeds there are.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from corank.reports.plots.style import INK, MUTED, PALETTE, add_legend, image_bytes, new_figure, style_axes

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from table import logarithmic

RESULTS = Path(__file__).parent / "results"
FLOAT_BYTES, WEIGHTS, OTHER_BYTES, LEAST = 1_092_616, 269_072, 3_000, 70.0
Points = list[tuple[float, float]]


def means(found: dict[str, list[tuple[float, float]]]) -> Points:
    """KB and percent of each case, ascending."""
    return sorted(
        (statistics.mean(size for size, _ in runs) / 1000, statistics.mean(top1 for _, top1 in runs))
        for runs in found.values()
    )


def coded(results: dict[str, Any], start: str) -> Points:
    """Cases of ``cifar.py`` whose name begins so, without those that another beats in both."""
    found: dict[str, list[tuple[float, float]]] = {}
    for key, run in results.items():
        if key.startswith(f"resnet20/{start}"):
            found.setdefault(key.split("/")[1], []).append((run["stored_bytes"], run["top1"]))
    points = means(found)
    return [one for one in points if not any(a <= one[0] and b > one[1] for a, b in points)]


def trained(results: dict[str, Any], steps: str) -> Points:
    """Runs of ``training.py`` whose file's size was in the loss."""
    found: dict[str, list[tuple[float, float]]] = {}
    for key, run in results.items():
        group, name, _ = key.split("/")
        if group == f"resnet20, {steps}" and name.startswith("rate "):
            found.setdefault(name, []).append((run["bytes"], run["top1"]))
    return means(found)


def others(results: dict[str, Any]) -> tuple[Points, Points]:
    """NNCodec's files; the other tools' weights as they would pack, with what else the file holds."""
    runs = [run for key, run in results.items() if isinstance(run, dict) and key.startswith("resnet20/")]
    coder = [
        (run["file_bytes"] / 1000, run["accuracy"])
        for run in runs
        if run["tool"] == "nncodec" and run["method"] == "dq"
    ]
    packed = [
        ((run["stored_bits_per_weight"] * WEIGHTS / 8 + OTHER_BYTES) / 1000, run["accuracy"])
        for run in runs
        if run["tool"] not in ("corank", "nncodec")
    ]
    return sorted(one for one in coder if one[1] >= LEAST), [one for one in packed if one[1] >= LEAST]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar", type=Path, required=True)
    parser.add_argument("--peers", type=Path, default=Path(__file__).parent / "peers" / "results.json")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    cifar, peers = (json.loads(path.read_text()) for path in (options.cifar, options.peers))
    short, long = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("training", "training_long"))
    coder, packed = others(peers)
    figure = new_figure(4.6)
    axes = figure.subplots()
    axes.axhline(cifar["float"], color=INK, linewidth=1.0, linestyle=(0, (5, 3)), label=f"float {cifar['float']:.1f} %")
    curves = [
        ("trained, 2,300 steps", trained(long, "2300 x 256"), PALETTE[1], "*", 12.0),
        ("trained, 400 steps", trained(short, "400 x 128"), PALETTE[3], "D", 6.0),
        ("best, 250 steps", coded(cifar, "best"), PALETTE[4], "v", 7.0),
        ("no training", coded(cifar, "fast"), PALETTE[0], "o", 6.0),
        ("NNCodec", coder, PALETTE[2], "s", 6.0),
    ]
    for name, points, colour, marker, size in curves:
        axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=size, linewidth=1.4,
                  markeredgecolor="white", markeredgewidth=0.8, label=name, zorder=4)  # fmt: skip
    axes.plot(*zip(*packed, strict=True), color=MUTED, marker="x", markersize=5, linestyle="none",
              label="other tools, if packed", zorder=3)  # fmt: skip
    axes.plot([FLOAT_BYTES / 1000], [cifar["float"]], color=INK, marker="o", markersize=6, linestyle="none", zorder=5)
    style_axes(axes, "ResNet-20: accuracy against bytes", "file (KB, 1000 bytes)", "top-1 (%)")
    logarithmic(axes, (10, 20, 50, 100, 200, 500, 1000))
    add_legend(axes, columns=3)
    options.out.write_bytes(image_bytes(figure, "png"))


if __name__ == "__main__":
    main()

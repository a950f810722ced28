"""From the results of ``cifar.py`` and ``imagenet.py`` to the README's table and picture.

python bench/tables.py cifar.json [imagenet.json] --picture docs/pictures/accuracy.png
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from corank.reports.plots import accuracy
from corank.reports.plots.style import image_bytes

FLOAT_BYTES = {"ResNet-20": 1_092_616, "SqueezeNet 1.1": 4_941_984}


def cifar_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each case, means over seeds."""
    cases: dict[str, list[dict[str, Any]]] = {}
    for key, value in results.items():
        if key.startswith("resnet20/"):
            cases.setdefault(key.split("/")[1], []).append(value)
    rows = []
    for name, runs in cases.items():
        scores = [run["top1"] for run in runs]
        spread = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
        rows.append(
            {
                "network": "ResNet-20",
                "name": name,
                "float": results["float"],
                "bits": statistics.mean(run["equivalent_bits"] for run in runs),
                "top1": statistics.mean(scores),
                "shown": f"{statistics.mean(scores):.1f}{spread} ({len(scores)})",
                "bytes": round(statistics.mean(run["stored_bytes"] for run in runs)),
            }
        )
    return rows


def imagenet_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each case; one seed."""
    return [
        {
            "network": "SqueezeNet 1.1",
            "name": name,
            "float": results["float"],
            "bits": run["equivalent_bits"],
            "top1": run["top1"],
            "shown": f"{run['top1']:.1f} (1); {run['agreement']:.1f} % as float",
            "bytes": run["stored_bytes"],
        }
        for name, run in results.items()
        if name != "float"
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cifar", type=Path)
    parser.add_argument("imagenet", type=Path, nargs="?")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    rows = cifar_rows(json.loads(options.cifar.read_text()))
    picture = [row for row in rows if "greedy" not in row["name"] and "uniform" not in row["name"]]
    if options.imagenet:
        rows += imagenet_rows(json.loads(options.imagenet.read_text()))
    print("| Network | Method | Equivalent bits | Float top-1 | Top-1, mean ± spread (seeds) | File |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        size = f"{row['bytes'] / 1000:.1f} KB ({FLOAT_BYTES[row['network']] / row['bytes']:.1f} x smaller)"
        print(
            f"| {row['network']} | {row['name']} | {row['bits']:.2f} | {row['float']:.1f} | {row['shown']} | {size} |"
        )
    if options.picture:
        runs = [
            {
                "label": row["name"],
                "metric": "top-1",
                "quantized_value": row["top1"],
                "float_value": row["float"],
                "stored_bytes": row["bytes"],
                "bits": row["bits"],
            }
            for row in picture
        ]
        options.picture.parent.mkdir(parents=True, exist_ok=True)
        options.picture.write_bytes(image_bytes(accuracy.draw(runs), "png"))


if __name__ == "__main__":
    main()

"""From the results of ``cifar.py`` and ``imagenet.py`` to the README's table and picture.

python bench/tables.py cifar.json [more.json ...] [--imagenet imagenet.json] --picture accuracy.png
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from corank.reports.plots import accuracy
from corank.reports.plots.style import image_bytes

NETWORKS = {"resnet20": "ResNet-20", "resnet56": "ResNet-56"}
FLOAT_BYTES = {"ResNet-20": 1_092_616, "ResNet-56": 3_452_080, "SqueezeNet 1.1": 4_941_984}


def cifar_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each network and case, means over seeds; the most bits first."""
    cases: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for key, value in results.items():
        if "/" in key:
            network, name, _ = key.split("/")
            cases.setdefault((NETWORKS[network], name), []).append(value)
    rows = []
    for (network, name), runs in cases.items():
        scores = [run["top1"] for run in runs]
        spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
        rows.append(
            {
                "network": network,
                "name": name,
                "float": results[network],
                "bits": statistics.mean(run["equivalent_bits"] for run in runs),
                "top1": statistics.mean(scores),
                "shown": f"{statistics.mean(scores):.2f}{spread} ({len(scores)})",
                "bytes": round(statistics.mean(run["stored_bytes"] for run in runs)),
                "cpu": statistics.mean(run["cpu_seconds"] for run in runs),
            }
        )
    return sorted(rows, key=lambda row: (row["network"], -row["bytes"]))


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
            "cpu": run["seconds"],
        }
        for name, run in results.items()
        if name != "float"
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cifar", type=Path, nargs="+")
    parser.add_argument("--imagenet", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for path in options.cifar:
        found = json.loads(path.read_text())
        network = next(key for key in found if "/" in key).split("/")[0]
        results |= {**found, NETWORKS[network]: found["float"]}
    rows = cifar_rows(results)
    picture = [row for row in rows if row["network"] == "ResNet-20"]
    if options.imagenet:
        rows += imagenet_rows(json.loads(options.imagenet.read_text()))
    print("| Network (float) | Method | Top-1, mean ± spread (seeds) | File | Smaller | Bits a parameter | CPU s |")
    print("|---|---|---|---:|---:|---:|---:|")
    for row in rows:
        ratio = FLOAT_BYTES[row["network"]] / row["bytes"]
        print(
            f"| {row['network']} ({row['float']:.1f}) | {row['name']} | {row['shown']} | {row['bytes'] / 1000:.1f} KB "
            f"| {ratio:.1f} x | {32 / ratio:.2f} | {row['cpu']:.0f} |"
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

"""Records as a quantization writes them, with numbers that a test can predict."""

from __future__ import annotations

import math
from typing import Any

import pytest

NAMES = ["conv1", *(f"layer{s}.{b}.conv{c}" for s in (1, 2, 3) for b in (0, 1, 2) for c in (1, 2)), "fc"]


def make_layer(place: int, name: str, bits: int) -> dict[str, Any]:
    rows = 16 * (1 + place // 7)
    return {
        "name": name,
        "shape": [rows, 9 * rows],
        "bits": 8 if name in ("conv1", "fc") else bits,
        "rank": place % 5,
        "max_rank": rows,
        "bytes": 100 * (place + 1),
        "relative_output_error": 0.5 if name == "layer2.1.conv2" else 0.01 * (1 + place % 3),
        "spectrum": [3.0 * math.exp(-0.1 * k) for k in range(min(rows, 64))],
        "stored_bits": {"codes": 9 * rows * rows * bits, "scales": 20 * rows, "adapter": 80 * rows * (place % 5)},
        "code_counts": [1 + code for code in range(1 << bits)],
        "code_entropy": bits - 0.25,
        "weight_range": [-0.5, 0.25],
        "coded_counts": [1, 4, 2, 1],
        "float_counts": [2, 3, 2, 1],
    }


def make_run(
    label: str = "fast 3+0.2", bits: int = 3, value: float | None = 80.25, size: int = 120_500
) -> dict[str, Any]:
    return {
        "format": 1,
        "command": "quantize",
        "version": "0.1.0",
        "model": "bench/models.py:cifar_resnet20",
        "seed": 0,
        "metric": "top-1",
        "float_value": 81.0,
        "quantized_value": value,
        "bits": bits,
        "budget": 0.2,
        "preset": "fast",
        "search": "cora",
        "equivalent_bits": bits + 0.35,
        "stored_bytes": size,
        "float_bytes": 1_090_000,
        "stored_parts": {"codes": 100_000, "scales": 4_000, "adapter": 6_500, "other tensors": 3_000, "header": 7_000},
        "iterations": 250,
        "seconds": 61.5,
        "peak_memory_bytes": 812_000_000,
        "label": label,
        "layers": [make_layer(place, name, bits) for place, name in enumerate(NAMES)],
        "skipped": {"layer2.0.downsample": "float by the pattern '*.downsample'"},
        "search_history": [
            {
                "iteration": step,
                "loss": 1.0 + 1.0 / (1 + step),
                "divergence": 1.0 / (1 + step),
                "extra_bits": 0.2 - 0.001 * (step % 7),
                "budget_bits": 0.2,
            }
            for step in range(50)
        ],
        "plan": {"layers": {"conv1": {"codec": {"kind": "uniform", "bits": 8}, "rank": 0}}},
        "reproduce": "corank quantize bench/models.py:cifar_resnet20 --bits 3 --budget 0.2 --seed 0",
    }


@pytest.fixture
def run() -> dict[str, Any]:
    return make_run()


@pytest.fixture
def runs() -> list[dict[str, Any]]:
    return [
        make_run("nearest 3", 3, 45.25, 110_000),
        make_run("nearest 4", 4, 74.0, 145_000),
        make_run("fast 2+0.4", 2, 73.0, 92_400),
        make_run("fast 3+0.2", 3, 80.25, 120_500),
        make_run("fast 4+0.1", 4, 80.75, 150_000),
    ]


@pytest.fixture
def bare() -> dict[str, Any]:
    """The least that a record may say."""
    return {"format": 1, "command": "quantize", "model": "net.py:make"}

"""The figures of the supernets' bench, from rows by hand."""

from __future__ import annotations

import runpy
from pathlib import Path

from corank.models import resolve

BENCH = runpy.run_path(str(Path(__file__).parents[2] / "bench" / "supernet.py"))


def rows(*top1: float) -> list[dict[str, float]]:
    return [{"top1": one, "bytes": 1000 * one} for one in top1]


def test_differences_are_paired() -> None:
    record = {"subnets": {"2 bits, inherited": rows(30.0, 20.0), "2 bits, scratch": rows(28.0, 21.0)}}
    found = BENCH["compared"](record)
    assert found["mean top-1"] == {"2 bits, inherited": 25.0, "2 bits, scratch": 24.5}
    assert found["2 bits, inherited - 2 bits, scratch"] == {"points": 0.5, "better": 1, "of": 2, "spread": 2.12}


def test_ten_subnets_that_differ() -> None:
    net = resolve(BENCH["NETWORK"]).model
    found = BENCH["chosen_subnets"](net)
    assert len(found) == len({tuple(one.items()) for one in found}) == BENCH["SUBNETS"]
    assert found == BENCH["chosen_subnets"](net)


def test_the_picture_has_every_width(tmp_path: Path) -> None:
    record = {"subnets": {name: rows(30.0, 20.0) for name in BENCH["CHAIN"].values()}}
    BENCH["picture"](record, tmp_path / "front.png")
    assert (tmp_path / "front.png").stat().st_size > 5000

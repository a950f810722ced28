"""Names as ways from other names: any list comes back, and what is alike is short."""

from __future__ import annotations

import random

import pytest

from corank.errors import ArtifactError
from corank.storage import relative_names
from corank.storage.relative_names import BesideLayers, chained, unchained

RESNET = [
    "conv1", *(f"layer{stage}.{block}.conv{part}" for stage in (1, 2) for block in (0, 1) for part in (1, 2)), "linear",
]  # fmt: skip
ODD = [
    "",
    ".",
    "..",
    "/",
    "//x",
    ">",
    ">.a",
    "a",
    "a.",
    "a..b",
    ".a",
    "a.b",
    "a.b.c",
    "a.b.c.",
    "b/",
    "é.ß",
    "#",
    "a.>b",
    "a./b",
]


def through(layers: list[str], names: list[str]) -> list[str]:
    """The names, written and read beside the layers."""
    writer, reader = BesideLayers(layers), BesideLayers(layers)
    ways = [writer.way(name) for name in names]
    read = [reader.name(way) for way, _ in ways]
    assert [place for _, place in read] == [place for _, place in ways]
    return [name for name, _ in read]


def test_layers_are_told_from_the_one_before() -> None:
    ways = chained(RESNET)
    assert ways[:5] == ["/conv1", ".layer1.0.conv1", ".conv2", "..1.conv1", ".conv2"]
    assert unchained(ways) == RESNET


def test_norms_and_biases_repeat_one_way() -> None:
    norms = [name.replace("conv", "bn") for name in RESNET[:-1]]
    beside = BesideLayers(RESNET)
    assert {beside.way(name)[0] for name in norms} == {".bn1", ".bn2"}
    beside = BesideLayers(RESNET)
    assert [beside.way(f"{name}.bias") for name in RESNET] == [("bias", place) for place in range(len(RESNET))]
    beside = BesideLayers(RESNET)
    assert [beside.way(name)[0] for name in RESNET] == [""] * len(RESNET)
    assert through(RESNET, norms) == norms


def test_layers_between_are_skipped() -> None:
    beside = BesideLayers(RESNET)
    assert beside.way("layer2.0.norm") == (">>>>>.norm", 5)
    assert beside.way("elsewhere.weight") == ("/elsewhere.weight", None)
    assert beside.way("layer2.1.norm") == (">.norm", 7)
    assert beside.way("linear.bias") == (">bias", 9)
    assert beside.way("linear.weight") == ("/linear.weight", None)  # the list is at its end


def test_any_names_come_back() -> None:
    draw = random.Random(0)
    for _ in range(300):
        layers, names = ([draw.choice([*ODD, *RESNET]) for _ in range(draw.randrange(12))] for _ in range(2))
        assert unchained(chained(layers)) == layers
        assert through(layers, names) == names


@pytest.mark.parametrize("way", ["", "bias", ".a"])
def test_the_first_name_stands_beside_no_other(way: str) -> None:
    with pytest.raises(ArtifactError, match="stands beside no other"):
        unchained([way])
    with pytest.raises(ArtifactError, match="stands beside no other"):
        BesideLayers([]).name(way)


def test_ways_that_lead_nowhere_are_refused() -> None:
    with pytest.raises(ArtifactError, match=r"3 parts off the name 'a\.b'"):
        unchained(["/a.b", "...c"])
    with pytest.raises(ArtifactError, match="stands beside no other"):
        BesideLayers(RESNET).name(">" * 10 + "bias")


def test_names_that_outgrow_their_ways_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relative_names, "_MOST_CHARACTERS", 10_000)
    with pytest.raises(ArtifactError, match="more than 10000 characters"):
        unchained(["/a", *["b"] * 1000])
    beside = BesideLayers(["x" * 600] * 100)
    with pytest.raises(ArtifactError, match="more than 10000 characters"):
        for _ in range(100):
            beside.name("")
    with pytest.raises(ArtifactError, match="more than 10000 characters"):
        chained(["x" * 11_000])

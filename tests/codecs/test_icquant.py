"""ICQuant: outliers by rank, two codebooks, an index of measured length; against a slow reference, and in a file."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import corank
from corank import Gptq, LayerPlan, Plan, Uniform
from corank.codecs import ICQuant
from corank.codecs.gaps import expected_bits, gap_symbols
from corank.codecs.icquant import outlier_mask
from corank.coded_weight import CodedWeight
from corank.errors import ArtifactError, ConfigError
from corank.layers import CodedLayerState, CodedLinear
from corank.rounding import AdaRound, Nearest
from corank.statistics import Gram
from corank.storage.artifact import read
from corank.storage.contents import ArtifactContents
from corank.testing import check_codec

WEIGHT = torch.randn(6, 40, generator=torch.Generator().manual_seed(0)) * 0.1


def heavy_tailed(rows: int, columns: int) -> Tensor:
    """Student's t with 4 degrees of freedom."""
    draw = torch.Generator().manual_seed(0)
    normal = torch.randn(rows, columns, generator=draw)
    chi = torch.randn(4, rows, columns, generator=draw).square().sum(0)
    return normal / (chi / 4).sqrt() * 0.02


def slow_values(row: list[float], bits: int, share: float) -> list[float]:
    """A row rounded to nearest, as the paper says it: two grids, the outliers' with a bit for the sign."""

    def half(value: float) -> float:
        return float(torch.tensor(value).half())

    def grid(low: float, high: float, count: int) -> list[float]:
        low, high = half(low), half(high)
        return [low + (high - low) * k / (count - 1) if count > 1 else (low + high) / 2 for k in range(count)]

    count = math.floor(share * len(row) + 1e-9)
    order = sorted(range(len(row)), key=lambda place: (-abs(row[place]), place))
    outliers, inliers = order[:count], order[count:]
    inner = grid(min(row[i] for i in inliers), max(row[i] for i in inliers), 2**bits)
    outer: list[float] = []
    for sign in (-1, 1):
        tail = [row[i] for i in outliers if (row[i] >= 0) == (sign > 0)]
        outer += grid(min(tail), max(tail), 2 ** (bits - 1)) if tail else []
    found = list(row)
    for i in range(len(row)):
        found[i] = min(outer if i in outliers else inner, key=lambda level: abs(level - row[i]))
    return found


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("levels", ["uniform", "kmeans"])
@pytest.mark.parametrize("per", ["row", "layer"])
@pytest.mark.parametrize("outliers", [0.0, 0.05, 0.3])
def test_conformance(bits: int, levels: str, per: str, outliers: float) -> None:
    check_codec(ICQuant(bits, outliers, levels, per))


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_uniform_by_the_slow_reference(bits: int) -> None:
    codebook = ICQuant(bits, 0.2).fit(WEIGHT)
    expected = torch.tensor([slow_values(row, bits, 0.2) for row in WEIGHT.tolist()])
    assert torch.allclose(codebook.values(codebook.nearest(WEIGHT)), expected, atol=1e-6)


def test_outliers_are_the_largest_of_each_row() -> None:
    mask = outlier_mask(WEIGHT, 5)
    assert mask.sum(1).tolist() == [5] * 6
    for row, marked in zip(WEIGHT.abs(), mask, strict=True):
        assert float(row[marked].min()) >= float(row[~marked].max())
    assert not outlier_mask(WEIGHT, 0).any()


def test_equal_magnitudes_are_taken_from_the_front() -> None:
    weight = torch.tensor([[0.5, -1.0, 1.0, -1.0, 1.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    assert outlier_mask(weight, 3).tolist() == [[False, True, True, True, False], [True, True, True, False, False]]


def test_the_share_is_rounded_down() -> None:
    assert [ICQuant(outliers=0.05).count(columns) for columns in (19, 20, 39, 64, 100, 172)] == [0, 1, 1, 3, 5, 8]
    assert ICQuant(outliers=0.29).count(100) == 29  # 0.29 * 100 is less than 29 in floating point


@pytest.mark.parametrize("levels, numbers", [("uniform", 6), ("kmeans", 8)])
@pytest.mark.parametrize("per, rows", [("row", 50), ("layer", 1)])
def test_bits_by_their_formula(levels: str, numbers: int, per: str, rows: int) -> None:
    beside = 16 * numbers * rows
    weight = torch.randn(50, 300, generator=torch.Generator().manual_seed(1))
    codec = ICQuant(2, 0.05, levels, per)
    codebook = codec.fit(weight)
    symbols = gap_symbols(codebook.mask, codebook.symbol_bits)
    assert codebook.size_bits == codebook.symbol_bits * symbols + beside
    measured = codec.with_measured_size(codebook)
    assert measured.size_bits(50, 300) == 2 * 15000 + codebook.size_bits <= codec.size_bits(50, 300)
    assert measured == ICQuant(2, 0.05, levels, per, index=(symbols, codebook.symbol_bits))


def test_the_published_overhead_at_five_percent() -> None:
    weight = torch.randn(200, 4096, generator=torch.Generator().manual_seed(0))
    codebook = ICQuant(2, 0.05, gap_bits=6).fit(weight)
    overhead = 6 * codebook.symbols.numel() / weight.numel()
    assert 0.305 < overhead < expected_bits(204 / 4096, 6) < 0.3135
    assert ICQuant(2, 0.05).fit(weight).symbol_bits == 6  # the shortest of all widths, too


def test_a_bit_for_every_weight_where_gaps_take_more() -> None:
    codec = ICQuant(2, 0.5)
    codebook = codec.fit(WEIGHT)
    assert codebook.symbol_bits == 1 and codebook.symbols.numel() == WEIGHT.numel()
    assert torch.equal(codebook.symbols.reshape(WEIGHT.shape).bool(), codebook.mask)
    assert codec.with_measured_size(codebook) == ICQuant(2, 0.5, index=(240, 1))
    clustered = torch.cat([torch.ones(4, 40), torch.full((4, 60), 0.1)], 1)
    assert ICQuant(2, 0.4).fit(clustered).symbol_bits == 2  # gaps of one, and nothing after them
    assert ICQuant(2, 0.4, gap_bits=8).fit(clustered).symbol_bits == 1


def test_short_rows_have_no_outliers() -> None:
    codebook = ICQuant(3, 0.05).fit(torch.randn(4, 9))
    assert not codebook.mask.any() and list(codebook.tensors()) == ["inliers"]


def test_one_tail_may_be_empty() -> None:
    for weight in (WEIGHT.abs(), -WEIGHT.abs() - 0.1, torch.zeros(2, 20), torch.full((2, 20), -3e-8)):
        codebook = ICQuant(3, 0.2).fit(weight)
        for book in (codebook.inliers, codebook.outliers):
            assert bool((book.levels.diff(dim=1) > 0).all())
        error = (codebook.values(codebook.nearest(weight)) - weight).abs()
        assert float(error.max()) <= 0.6 * float((weight.amax() - weight.amin()).clamp(min=1e-7))


def test_kmeans_counts_what_the_inputs_say() -> None:
    weight = heavy_tailed(8, 200)
    energy = torch.logspace(-3, 0, 200)
    gram = energy.diag()[None]
    plain, weighted = (ICQuant(2, 0.05, "kmeans").fit(weight, one) for one in (None, gram))
    errors = [((book.values(book.nearest(weight)) - weight).square() * energy).sum() for book in (plain, weighted)]
    assert float(errors[1]) < 0.97 * float(errors[0])
    uniform = ICQuant(2, 0.05).fit(weight)
    lost = [(book.values(book.nearest(weight)) - weight).square().sum() for book in (plain, uniform)]
    assert float(lost[0]) < float(lost[1])


@pytest.mark.parametrize("rounder", [Nearest(), Gptq(), Gptq(sweeps=2), AdaRound(iterations=50)], ids=str)
def test_rounders_leave_the_mask(rounder: corank.Rounder) -> None:
    gram = Gram(1, 40)
    gram.update(torch.randn(1, 400, 40, generator=torch.Generator().manual_seed(2)) @ torch.randn(40, 40), 400)
    codebook = ICQuant(2, 0.1).fit(WEIGHT, gram.matrix)
    codes = rounder(WEIGHT, codebook, {Gram: gram})
    lost = [codebook.values(one) - WEIGHT for one in (codes, codebook.nearest(WEIGHT))]
    ours, nearest = (float(((error @ gram.matrix[0]) * error).sum()) for error in lost)
    assert ours <= nearest * 1.0001
    values = codebook.values(codes)
    assert bool((values.abs()[codebook.mask] > 0).all())
    inliers = torch.where(codebook.mask, 0, values)
    assert float(inliers.abs().amax()) <= float(torch.where(codebook.mask, 0, WEIGHT).abs().amax()) * 1.001


def test_heavy_tails_at_equal_bits() -> None:
    weight = heavy_tailed(64, 2048)
    ours = ICQuant(2, 0.05)
    codebook = ours.fit(weight)
    bits = ours.with_measured_size(codebook).size_bits(64, 2048) / weight.numel()
    grouped = Uniform(2, group=48)  # 18 bits a group
    assert grouped.size_bits(64, 2048) / weight.numel() > bits

    def lost(codec: corank.Codec) -> float:
        book = codec.fit(weight)
        return float((book.values(book.nearest(weight)) - weight).square().mean())

    assert lost(ours) < 0.8 * lost(grouped) and lost(ours) < 0.3 * lost(Uniform(2))
    assert lost(ICQuant(2, 0.05, "kmeans")) < lost(ours)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 5)).eval()


INPUTS = torch.randn(200, 40, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("codec", [ICQuant(2, 0.1), ICQuant(3, 0.1, "kmeans", "layer"), ICQuant(2, 0.5)], ids=str)
@pytest.mark.parametrize("preset", ["nearest", "fast"])
def test_a_file_gives_the_same_outputs(codec: ICQuant, preset: str, tmp_path: Path) -> None:
    options = {"budget": 0.0} if preset == "nearest" else {"budget": 0.6, "search": "greedy"}
    small = corank.quantize(model(), INPUTS, preset=preset, layers={"*": codec}, **options)
    size = corank.save(small, tmp_path / "small.safetensors")
    again = corank.load(tmp_path / "small.safetensors", model())
    assert torch.equal(again(INPUTS), small(INPUTS))
    told = corank.inspect(tmp_path / "small.safetensors")
    assert told["equivalent_bits"] == pytest.approx(corank.inspect(small)["equivalent_bits"]) and size > 0
    for layer in told["layers"]:
        rows, columns = layer["shape"]
        plan = small.corank_run.plan.layers[layer["name"]]
        adapter = layer["rank"] * ((rows + columns) * 8 + 32)
        assert layer["bytes"] == math.ceil((plan.codec.size_bits(rows, columns) + adapter) / 8)


def altered(path: Path, change: Callable[[dict[str, Any], dict[str, Tensor]], None]) -> Path:
    """The file with header and blobs changed, its SHA-256 made sound again."""
    _, contents = read(path)
    header, blobs = copy.deepcopy(contents.header), {name: blob.clone() for name, blob in contents.blobs.items()}
    change(header, blobs)
    path.write_bytes(ArtifactContents(header, blobs).serialize())
    return path


def test_hostile_files(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    small = corank.quantize(model(), INPUTS, preset="nearest", layers={"*": ICQuant(2, 0.1)}, budget=0.0)
    indices = {name: plan.codec.index for name, plan in small.corank_run.plan.layers.items()}

    def longer(header: dict[str, Any], _: dict[str, Tensor]) -> None:
        """Two streams that are not those of their layers, the blob being as long as before."""
        layers = header["plan"]["layers"]
        layers["0"]["codec"] = {"index": [indices["0"][0] + 2, indices["0"][1]]}
        layers["2"]["codec"] = {"index": [indices["2"][0] - 2, indices["2"][1]]}

    def impossible(header: dict[str, Any], _: dict[str, Tensor]) -> None:
        header["plan"]["layers"]["0"]["codec"] = {"index": [1 << 40, 4]}

    def noise(_: dict[str, Any], blobs: dict[str, Tensor]) -> None:
        blobs["codes"] = torch.randint(256, blobs["codes"].shape, dtype=torch.uint8)

    for change, said in ((longer, "index"), (impossible, "symbols"), (noise, "index")):
        corank.save(small, path, coder="fixed")
        altered(path, change)
        for act in (lambda: corank.load(path, model()), lambda: corank.inspect(path)):
            with pytest.raises(ArtifactError, match=said):
                act()


def test_a_plan_of_measured_codecs_serves_again() -> None:
    first = corank.quantize(model(), INPUTS, preset="nearest", layers={"*": ICQuant(2, 0.1)}, budget=0.0)
    torch.manual_seed(1)
    other = nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 5))
    again = corank.quantize(other, INPUTS, plan=first.corank_run.plan)
    lengths = [[plan.codec.index for plan in run.corank_run.plan.layers.values()] for run in (first, again)]
    assert all(lengths[0]) and all(lengths[1]) and lengths[0] != lengths[1]


def test_refinement_moves_levels_and_leaves_the_mask() -> None:
    plan = LayerPlan(ICQuant(2, 0.1), Nearest())
    small, tuned = (
        corank.quantize(
            model(), INPUTS, plan=Plan({"0": plan, "2": plan}), refinement=corank.Refinement(steps, batch_size=40)
        )
        for steps in (0, 60)
    )
    for place in (0, 2):
        before, after = small[place].code().weight.codebook, tuned[place].code().weight.codebook
        assert torch.equal(before.mask, after.mask) and not torch.equal(
            before.beside["inliers"], after.beside["inliers"]
        )


def test_levels_of_both_in_codes_of_a_bit_more() -> None:
    for codec in (ICQuant(3, 0.2), ICQuant(2, 0.1, "kmeans", "layer"), ICQuant(2, 0.01)):
        codebook = codec.fit(WEIGHT)
        codes = codebook.nearest(WEIGHT)
        merged, levels = codebook.merged(codes)
        assert torch.equal(levels.values(merged), codebook.values(codes))
        assert levels.size == codebook.size << bool(codebook.mask.any())


def test_a_layer_filled_by_hand_is_measured() -> None:
    layer, codec = nn.Linear(40, 6), ICQuant(2, 0.1)
    codebook = codec.fit(layer.weight.detach())
    made = CodedLinear(layer, codec)
    made.fill(CodedLayerState(codec, CodedWeight(codebook.nearest(layer.weight.detach()), codebook), None, 8), None)
    assert torch.equal(made.weight, codebook.values(codebook.nearest(layer.weight.detach())))


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"bits": 0}, "1 to 8"),
        ({"bits": 9}, "1 to 8"),
        ({"outliers": 0.6}, "0 to 0.5"),
        ({"outliers": -0.1}, "0 to 0.5"),
        ({"levels": "grid"}, "uniform"),
        ({"per": "group"}, "row"),
        ({"gap_bits": 1}, "2 to 8"),
        ({"gap_bits": 9}, "2 to 8"),
        ({"index": (3,)}, "index"),
        ({"index": (3, 9)}, "index"),
        ({"index": (-3, 4)}, "index"),
        ({"index": (3.0, 4)}, "index"),
    ],
)
def test_refusals(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ICQuant(**fields)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("index", [(11, 4), (1000, 4), (240, 2), (239, 1), (0, 4)])
def test_an_index_of_no_possible_length(index: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="symbols"):
        ICQuant(2, 0.05, index=index).stored(6, 40)

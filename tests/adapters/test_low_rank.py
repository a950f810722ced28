"""Adapters: optimal for what they are fitted to, exact at full rank, the same as two convolutions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from corank.adapters import FITS, decompose, full_rank
from corank.adapters.low_rank import LowRank, lost_energy
from corank.errors import ConfigError
from corank.matrix import Geometry
from corank.statistics import Gram, LayerStatistics, OutputGradient

SHAPES = [(1, 6, 20), (1, 20, 6), (3, 5, 9), (2, 4, 4)]


def statistics(groups: int, rows: int, columns: int, positions: int = 1) -> LayerStatistics:
    gram, gradient = Gram(groups, columns), OutputGradient(groups, rows)
    mixing = torch.randn(groups, columns, columns) / columns**0.5 + torch.eye(columns)
    gram.update(torch.randn(groups, 40 * columns, columns) @ mixing, positions)
    gradient.update(torch.randn(groups, 500, rows) * torch.linspace(0.1, 2, rows), 1)
    return {Gram: gram, OutputGradient: gradient}


def moment(found: LayerStatistics, kind: type[Gram] | type[OutputGradient]) -> Tensor:
    statistic = found[kind]
    assert isinstance(statistic, kind)
    return statistic.matrix


def output_error(residual: Tensor, gram: Tensor) -> Tensor:
    return ((residual @ gram) * residual).sum()


def product(adapter: LowRank, shape: tuple[int, int, int]) -> Tensor:
    return adapter.product().reshape(shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fit", FITS)
def test_full_rank_gives_the_residual_back(shape: tuple[int, int, int], fit: str) -> None:
    residual = torch.randn(shape)
    adapter = decompose(residual, fit, statistics(*shape))
    assert adapter.rank == min(shape[1:])
    assert torch.allclose(product(adapter, shape), residual, atol=2e-5)
    energies = adapter.energies
    assert bool((energies >= 0).all()) and bool((energies[1:] <= energies[:-1]).all())


@pytest.mark.parametrize("shape", SHAPES)
def test_svd_error_is_the_tail_of_singular_values(shape: tuple[int, int, int]) -> None:
    residual = torch.randn(shape)
    adapter = decompose(residual, "svd", {})
    singular = torch.linalg.svdvals(residual.double())
    for rank in range(adapter.rank + 1):
        error = float((residual - product(adapter.truncate(rank), shape)).square().sum())
        tail = float(singular[:, rank:].square().sum())
        assert error == pytest.approx(tail, rel=1e-4, abs=1e-4)
        assert float(adapter.energies[rank:].sum()) == pytest.approx(tail, rel=1e-4, abs=1e-4)


def test_svd_beats_other_adapters_of_its_rank() -> None:
    residual = torch.randn(1, 8, 12)
    adapter = decompose(residual, "svd", {}).truncate(3)
    ours = float((residual - product(adapter, (1, 8, 12))).square().sum())
    for _ in range(20):
        near = (adapter.left + 0.05 * torch.randn(1, 8, 3)) @ (adapter.right + 0.05 * torch.randn(1, 3, 12))
        assert ours < float((residual - near).square().sum())
        basis = torch.linalg.qr(torch.randn(8, 3)).Q
        assert ours < float((residual - basis @ basis.T @ residual).square().sum())


def test_svd_factors_share_the_singular_values() -> None:
    adapter = decompose(torch.randn(1, 5, 9), "svd", {})
    assert torch.allclose(adapter.left.square().sum(1), adapter.right.square().sum(2), rtol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_output_error_is_the_sum_of_remaining_eigenvalues(shape: tuple[int, int, int]) -> None:
    residual, found = torch.randn(shape), statistics(*shape)
    gram = moment(found, Gram)
    adapter = decompose(residual, "output", found)
    eigenvalues = torch.linalg.eigvalsh((residual @ gram @ residual.transpose(1, 2)).double()).flip(-1)
    for rank in range(adapter.rank + 1):
        error = float(output_error(residual - product(adapter.truncate(rank), shape), gram))
        assert error == pytest.approx(float(eigenvalues[:, rank:].sum()), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_output_fit_is_the_exact_form_of_qera(shape: tuple[int, int, int]) -> None:
    residual, found = torch.randn(shape), statistics(*shape)
    energies, vectors = torch.linalg.eigh(moment(found, Gram).double())
    root = (vectors * energies.sqrt()[:, None]) @ vectors.transpose(1, 2)
    inverse = (vectors / energies.sqrt()[:, None]) @ vectors.transpose(1, 2)
    left, values, right = torch.linalg.svd(residual.double() @ root, full_matrices=False)
    adapter = decompose(residual, "output", found)
    for rank in (1, 2, adapter.rank):
        expected = (left[:, :, :rank] * values[:, None, :rank]) @ right[:, :rank] @ inverse
        assert torch.allclose(product(adapter.truncate(rank), shape), expected.float(), atol=1e-3)


def test_output_fit_loses_less_of_the_output_than_svd() -> None:
    shape = (1, 10, 16)
    residual, found = torch.randn(shape), statistics(*shape)
    gram = moment(found, Gram)
    for rank in range(1, 9):
        errors = {
            fit: output_error(residual - product(decompose(residual, fit, found).truncate(rank), shape), gram)
            for fit in ("svd", "output")
        }
        assert float(errors["output"]) < float(errors["svd"])


def test_loss_fit_error_is_the_sum_of_remaining_energies() -> None:
    """In the output space weighted by the (damped) second moment of the gradient."""
    shape = (2, 7, 12)
    residual, found = torch.randn(shape), statistics(*shape, positions=9)
    gram, gamma = moment(found, Gram), moment(found, OutputGradient)
    damped = gamma + 0.1 * gamma.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(7)
    adapter = decompose(residual, "loss", found)
    for rank in range(8):
        lost = residual - product(adapter.truncate(rank), shape)
        error = 9 * float(((lost @ gram @ lost.transpose(1, 2)) * damped).sum())
        assert error == pytest.approx(float(adapter.energies[rank:].sum()), rel=1e-3, abs=0.05)
        others = decompose(residual, "output", found).truncate(rank)
        lost = residual - product(others, shape)
        assert error <= 9 * float(((lost @ gram @ lost.transpose(1, 2)) * damped).sum()) * 1.0001 + 0.05


def test_dead_inputs_leave_the_output_exact() -> None:
    found = statistics(1, 12, 6)
    gram = Gram(1, 6)
    inputs = torch.randn(1, 50, 6)
    inputs[:, :, 2] = 0
    gram.update(inputs, 1)
    residual = torch.randn(1, 12, 6)
    for fit in ("output", "loss"):
        lost = residual - product(decompose(residual, fit, {**found, Gram: gram}), (1, 12, 6))
        assert torch.allclose(inputs @ lost.transpose(1, 2), torch.zeros(1, 50, 12), atol=1e-4)


TWO_BRANCHES = {
    "plain": nn.Conv2d(4, 6, 3, padding=1),
    "stride dilation": nn.Conv2d(4, 6, (3, 2), (2, 1), (2, 1), (1, 2)),
    "groups": nn.Conv2d(4, 6, 3, groups=2, stride=2),
    "reflect": nn.Conv2d(4, 6, 3, padding=2, padding_mode="reflect"),
    "circular": nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"),
    "replicate groups": nn.Conv2d(4, 6, 3, padding=1, padding_mode="replicate", groups=2),
    "same": nn.Conv2d(4, 6, 3, padding="same", dilation=2),
    "transposed": nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
}


@pytest.mark.parametrize("name", TWO_BRANCHES)
@pytest.mark.parametrize("rank", [1, 2])
def test_two_branches_equal_the_merged_weight(name: str, rank: int) -> None:
    layer = TWO_BRANCHES[name]
    geometry, kind = Geometry.of(layer), type(layer)
    weight = layer.get_parameter("weight").detach()
    adapter = decompose(geometry.to_matrix(weight), "svd", {}).truncate(rank)
    settings = {key: getattr(layer, key) for key in ("stride", "padding", "dilation", "groups", "padding_mode")}
    if isinstance(layer, nn.ConvTranspose2d):
        settings["output_padding"] = layer.output_padding
    first = kind(4, geometry.groups * rank, layer.kernel_size, bias=False, **settings)
    second = nn.Conv2d(geometry.groups * rank, 6, 1, groups=geometry.groups, bias=False)
    merged = kind(4, 6, layer.kernel_size, bias=False, **settings)
    first.weight.data = Geometry.of(first).from_matrix(adapter.right)
    second.weight.data = Geometry.of(second).from_matrix(adapter.left)
    merged.weight.data = geometry.from_matrix(adapter.product())
    inputs = torch.randn(2, 4, 7, 8)
    assert torch.allclose(second(first(inputs)), merged(inputs), atol=2e-5)


@pytest.mark.parametrize(
    ("shape", "rank"),
    [((1, 64, 576), 64), ((2, 64, 9), 9), ((64, 1, 9), 0), ((1, 1, 512), 0), ((1, 2, 2), 2), ((1, 10, 1), 0)],
)
def test_full_rank(shape: tuple[int, int, int], rank: int) -> None:
    assert full_rank(shape) == rank


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_is_lost_is_the_sum_of_the_energies(shape: tuple[int, int, int], fit: str) -> None:
    groups, rows, columns = shape
    residual, found = torch.randn(shape), statistics(groups, rows, columns, positions=3)
    energies = decompose(residual, fit, found).energies
    assert lost_energy(residual, fit, found) == pytest.approx(float(energies.double().sum()), rel=1e-4)


def test_errors() -> None:
    residual = torch.randn(1, 3, 4)
    with pytest.raises(ConfigError, match="'svd', 'output', 'loss'"):
        decompose(residual, "plain", {})
    with pytest.raises(KeyError, match="needs the statistic Gram"):
        decompose(residual, "output", {})
    found = statistics(1, 3, 4)
    with pytest.raises(KeyError, match="needs the statistic OutputGradient"):
        decompose(residual, "loss", {Gram: found[Gram]})

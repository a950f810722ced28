"""Qronos from moments against explicit least squares over the samples."""

from __future__ import annotations

import pytest
import torch
from reference.qronos import qronos
from torch import Tensor

from corank.codecs import Codebook, Uniform
from corank.errors import ConfigError
from corank.rounding import ROUNDERS, Gptq, Nearest, Qronos
from corank.statistics import Drift, Gram, LayerStatistics
from corank.testing import check_rounder


def inputs_of(groups: int, count: int, columns: int) -> tuple[Tensor, Tensor]:
    """Correlated inputs of the float network, and the same with some error."""
    inputs = torch.randn(groups, count, columns) @ torch.randn(groups, columns, columns)
    return inputs, inputs + 0.5 * torch.randn_like(inputs)


def statistics_of(inputs: Tensor, seen: Tensor | None = None) -> LayerStatistics:
    groups, count, columns = inputs.shape
    gram, drift = Gram(groups, columns), Drift(groups, columns)
    gram.update(inputs, count)
    if seen is None:
        return {Gram: gram}
    drift.update_pair(inputs, seen, count)
    return {Gram: gram, Drift: drift}


def by_reference(weight: Tensor, inputs: Tensor, seen: Tensor, damping: float, codebook: Codebook) -> Tensor:
    def rounded(column: Tensor, number: int) -> Tensor:
        part = codebook.columns(torch.tensor([number]))
        return part.values(part.nearest(column.float()[:, None]))[:, 0].double()

    return qronos(weight, inputs, seen, damping, rounded).float()


@pytest.mark.parametrize("block", [1, 5, 64])
def test_conformance(block: int) -> None:
    check_rounder(Qronos(block=block))


def test_registered() -> None:
    assert ROUNDERS["qronos"] is Qronos
    assert Qronos.needs == (Gram,)
    assert Qronos.corrects


@pytest.mark.parametrize("codec", [Uniform(3), Uniform(2, True), Uniform(4, group=6), Uniform(1, True)])
@pytest.mark.parametrize("damping", [0.01, 0.5])
@pytest.mark.parametrize("dead", [False, True])
def test_equals_explicit_least_squares(codec: Uniform, damping: float, dead: bool) -> None:
    inputs, seen = inputs_of(1, 200, 17)
    if dead:
        inputs[:, :, 3] = seen[:, :, 3] = 0  # in both networks
        seen[:, :, 11] = 0  # in the quantized one alone
    weight = torch.randn(5, 17)
    codebook, rounder = codec.fit(weight), Qronos(damping)
    alone = codebook.values(rounder(weight, codebook, statistics_of(inputs)))
    beside = codebook.values(rounder(weight, codebook, statistics_of(inputs, seen)))
    assert torch.allclose(alone, by_reference(weight, inputs[0], inputs[0], damping, codebook))
    assert torch.allclose(beside, by_reference(weight, inputs[0], seen[0], damping, codebook))
    if codec.bits > 1:
        assert not torch.equal(alone, beside)


def test_without_drift_it_is_gptq() -> None:
    inputs, _ = inputs_of(2, 200, 17)
    weight = torch.randn(8, 17)
    codebook = Uniform(2).fit(weight)
    given = [rounder(weight, codebook, statistics_of(inputs)) for rounder in (Qronos(0.05), Gptq(0.05))]
    assert torch.equal(given[0], given[1])


def test_first_column_answers_to_the_uncorrected_rest() -> None:
    """It is picked before the other weights are corrected: GPTQ on the corrected weight may pick another code."""
    inputs, seen = torch.randn(300, 2), torch.empty(300, 2)
    seen[:, 0] = 4 * inputs[:, 0]
    seen[:, 1] = 0.5 * inputs[:, 1] + 0.3 * seen[:, 0]
    weight = torch.tensor([[1.0, 1.0]])
    codebook = Uniform(8).fit(torch.tensor([[-1.0, 1.0]]))
    codes = Qronos(1e-6)(weight, codebook, statistics_of(inputs[None], seen[None]))
    wanted, first = inputs @ weight[0], seen[:, 0]
    best = (wanted - seen[:, 1]) @ first / first.square().sum()
    assert codebook.values(codes)[0, 0] == pytest.approx(float(best), abs=0.01)
    corrected = torch.linalg.lstsq(seen, wanted[:, None]).solution[0]
    assert abs(float(corrected) - float(best)) > 0.1


@pytest.mark.parametrize("seed", range(5))
def test_loses_less_of_the_output_than_nearest(seed: int) -> None:
    torch.manual_seed(seed)
    inputs, seen = inputs_of(1, 500, 32)
    weight = torch.randn(8, 32)
    codebook = Uniform(3).fit(weight)
    given = codebook.values(Qronos()(weight, codebook, statistics_of(inputs, seen)))
    plain = codebook.values(Nearest()(weight, codebook, {}))
    wanted = inputs[0] @ weight.T
    assert (wanted - seen[0] @ given.T).square().mean() < 0.85 * (wanted - seen[0] @ plain.T).square().mean()


@pytest.mark.parametrize(("groups", "rows"), [(3, 4), (6, 1)])
def test_groups_are_rounded_apart(groups: int, rows: int) -> None:
    """Groups whose inputs' energies rank alike are coded as each would be alone."""
    inputs, seen = inputs_of(groups, 300, 9)
    level = torch.linspace(3, 1, 9) / seen.square().mean(1, keepdim=True).sqrt()
    inputs, seen = inputs * level, seen * level
    weight = torch.randn(groups * rows, 9)
    together = Qronos()(weight, Uniform(2).fit(weight), statistics_of(inputs, seen))
    for group in range(groups):
        part, one = slice(group * rows, (group + 1) * rows), slice(group, group + 1)
        alone = Qronos()(weight[part], Uniform(2).fit(weight[part]), statistics_of(inputs[one], seen[one]))
        assert torch.equal(together[part], alone)


def test_block_size_does_not_change_the_result() -> None:
    inputs, seen = inputs_of(1, 400, 150)
    weight = torch.randn(3, 150)
    codebook = Uniform(3).fit(weight)
    results = [Qronos(block=block)(weight, codebook, statistics_of(inputs, seen)) for block in (1, 7, 64, 1000)]
    # float32 sums in another order may tip a tie, and what follows it
    assert max(int((result != results[0]).sum()) for result in results) <= 0.01 * weight.numel()


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_units_of_the_inputs_do_not_matter(scale: float) -> None:
    inputs, seen = inputs_of(1, 100, 10)
    weight = torch.randn(4, 10)
    codebook = Uniform(3).fit(weight)
    plain = Qronos()(weight, codebook, statistics_of(inputs, seen))
    assert torch.equal(plain, Qronos()(weight, codebook, statistics_of(inputs * scale, seen * scale)))


def test_errors() -> None:
    weight = torch.randn(2, 3)
    with pytest.raises(KeyError, match="Qronos needs the statistic Gram"):
        Qronos()(weight, Uniform(3).fit(weight), {})
    with pytest.raises(ConfigError, match="positive"):
        Qronos(block=0)
    with pytest.raises(ConfigError, match="positive"):
        Qronos(damping=0)

"""Greedy path following from moments against the same with the samples at hand."""

from __future__ import annotations

import pytest
import torch
from reference.gpfq import gpfq
from torch import Tensor

from corank.codecs import Codebook, Uniform
from corank.errors import ConfigError
from corank.rounding import ROUNDERS, Gpfq, Nearest
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


def by_reference(weight: Tensor, inputs: Tensor, seen: Tensor, codebook: Codebook) -> Tensor:
    def rounded(column: Tensor, number: int) -> Tensor:
        part = codebook.columns(torch.tensor([number]))
        return part.values(part.nearest(column.float()[:, None]))[:, 0].double()

    return gpfq(weight, inputs, seen, rounded).float()


@pytest.mark.parametrize("block", [1, 5, 64])
def test_conformance(block: int) -> None:
    check_rounder(Gpfq(block=block))


def test_registered() -> None:
    assert ROUNDERS["gpfq"] is Gpfq
    assert Gpfq.needs == (Gram,)
    assert Gpfq.corrects


@pytest.mark.parametrize("codec", [Uniform(3), Uniform(2, True), Uniform(4, group=6), Uniform(1, True)])
@pytest.mark.parametrize("dead", [False, True])
def test_equals_the_textbook(codec: Uniform, dead: bool) -> None:
    inputs, seen = inputs_of(1, 200, 17)
    if dead:
        inputs[:, :, 3] = seen[:, :, 3] = 0  # in both networks
        seen[:, :, 11] = 0  # in the quantized one alone
    weight = torch.randn(5, 17)
    codebook = codec.fit(weight)
    alone = codebook.values(Gpfq()(weight, codebook, statistics_of(inputs)))
    beside = codebook.values(Gpfq()(weight, codebook, statistics_of(inputs, seen)))
    assert torch.allclose(alone, by_reference(weight, inputs[0], inputs[0], codebook))
    assert torch.allclose(beside, by_reference(weight, inputs[0], seen[0], codebook))
    assert not torch.equal(alone, beside)


@pytest.mark.parametrize("seed", range(5))
def test_loses_less_of_the_output_than_nearest(seed: int) -> None:
    torch.manual_seed(seed)
    inputs, seen = inputs_of(1, 500, 32)
    weight = torch.randn(8, 32)
    codebook = Uniform(3).fit(weight)
    given = codebook.values(Gpfq()(weight, codebook, statistics_of(inputs, seen)))
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
    together = Gpfq()(weight, Uniform(2).fit(weight), statistics_of(inputs, seen))
    for group in range(groups):
        part, one = slice(group * rows, (group + 1) * rows), slice(group, group + 1)
        alone = Gpfq()(weight[part], Uniform(2).fit(weight[part]), statistics_of(inputs[one], seen[one]))
        assert torch.equal(together[part], alone)


def test_block_size_does_not_change_the_result() -> None:
    inputs, seen = inputs_of(1, 400, 150)
    weight = torch.randn(3, 150)
    codebook = Uniform(3).fit(weight)
    results = [Gpfq(block=block)(weight, codebook, statistics_of(inputs, seen)) for block in (1, 7, 64, 1000)]
    # float32 sums in another order may tip a tie, and what follows it
    assert max(int((result != results[0]).sum()) for result in results) <= 0.01 * weight.numel()


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_units_of_the_inputs_do_not_matter(scale: float) -> None:
    inputs, seen = inputs_of(1, 100, 10)
    weight = torch.randn(4, 10)
    codebook = Uniform(3).fit(weight)
    plain = Gpfq()(weight, codebook, statistics_of(inputs, seen))
    assert torch.equal(plain, Gpfq()(weight, codebook, statistics_of(inputs * scale, seen * scale)))


def test_errors() -> None:
    weight = torch.randn(2, 3)
    with pytest.raises(KeyError, match="Gpfq needs the statistic Gram"):
        Gpfq()(weight, Uniform(3).fit(weight), {})
    with pytest.raises(ConfigError, match="positive"):
        Gpfq(block=0)

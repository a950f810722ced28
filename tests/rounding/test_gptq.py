"""GPTQ against Optimal Brain Quantization with explicit inverses."""

from __future__ import annotations

import itertools

import pytest
import torch
from reference.gptq import gptq
from torch import Tensor

from corank.codecs import Codebook, Uniform
from corank.errors import ConfigError
from corank.notes import collected_notes
from corank.rounding import ROUNDERS, Gptq, Nearest
from corank.rounding.gptq import inverse_factor
from corank.statistics import Gram
from corank.testing import check_rounder


def gram_of(inputs: Tensor) -> Gram:
    gram = Gram(inputs.shape[0], inputs.shape[2])
    gram.update(inputs, inputs.shape[1])
    return gram


def correlated(groups: int, count: int, columns: int) -> Tensor:
    return torch.randn(groups, count, columns) @ torch.randn(groups, columns, columns)


def by_reference(weight: Tensor, gram: Tensor, damping: float, codebook: Codebook) -> Tensor:
    def rounded(column: Tensor, number: int) -> Tensor:
        part = codebook.columns(torch.tensor([number]))
        target = column.float()[:, None]
        return part.values(part.nearest(target))[:, 0].double()

    return gptq(weight, gram, damping, rounded).float()


def lost(error: Tensor, gram: Gram) -> float:
    stacked = error.reshape(gram.matrix.shape[0], -1, error.shape[1])
    return float(((stacked @ gram.matrix) * stacked).sum())


@pytest.mark.parametrize("block", [1, 5, 64])
def test_conformance(block: int) -> None:
    check_rounder(Gptq(block=block))


def test_registered() -> None:
    assert ROUNDERS["gptq"] is Gptq
    assert Gptq.needs == (Gram,)


@pytest.mark.parametrize("codec", [Uniform(3), Uniform(2, True), Uniform(4, group=6), Uniform(1, True)])
@pytest.mark.parametrize("damping", [0.01, 0.5])
def test_equals_the_textbook(codec: Uniform, damping: float) -> None:
    weight, gram = torch.randn(5, 17), gram_of(correlated(1, 200, 17))
    codebook = codec.fit(weight)
    given = codebook.values(Gptq(damping)(weight, codebook, {Gram: gram}))
    assert torch.allclose(given, by_reference(weight, gram.matrix[0], damping, codebook))
    assert not torch.equal(given, codebook.values(codebook.nearest(weight)))


def test_dead_inputs_equal_the_textbook_and_round_to_nearest() -> None:
    inputs = correlated(1, 200, 12)
    inputs[:, :, [2, 7]] = 0
    weight, gram = torch.randn(4, 12), gram_of(inputs)
    codebook = Uniform(3).fit(weight)
    codes = Gptq()(weight, codebook, {Gram: gram})
    assert torch.allclose(codebook.values(codes), by_reference(weight, gram.matrix[0], 0.01, codebook))
    assert torch.equal(codes[:, [2, 7]], codebook.nearest(weight)[:, [2, 7]])


def test_uncorrelated_inputs_are_rounded_to_nearest() -> None:
    weight, gram = torch.randn(6, 10), gram_of(torch.eye(10)[None])
    codebook = Uniform(3, group=4).fit(weight)
    assert torch.equal(Gptq()(weight, codebook, {Gram: gram}), Nearest()(weight, codebook, {}))


@pytest.mark.parametrize("seed", range(5))
def test_loses_less_of_the_output_than_nearest(seed: int) -> None:
    torch.manual_seed(seed)
    weight, gram = torch.randn(8, 32), gram_of(correlated(1, 500, 32))
    codebook = Uniform(3).fit(weight)
    ours = codebook.values(Gptq()(weight, codebook, {Gram: gram}))
    assert lost(weight - ours, gram) < 0.85 * lost(weight - codebook.values(codebook.nearest(weight)), gram)


@pytest.mark.parametrize(("groups", "rows"), [(3, 4), (6, 1)])
def test_groups_are_rounded_apart(groups: int, rows: int) -> None:
    """Groups whose inputs' energies rank alike are coded as each would be alone."""
    order = torch.linspace(3, 1, 9)
    inputs = correlated(groups, 300, 9)
    inputs = inputs / inputs.square().mean(1, keepdim=True).sqrt() * order
    weight = torch.randn(groups * rows, 9)
    codebook = Uniform(2).fit(weight)
    together = Gptq()(weight, codebook, {Gram: gram_of(inputs)})
    for group in range(groups):
        part = slice(group * rows, (group + 1) * rows)
        own = Uniform(2).fit(weight[part])
        alone = Gptq()(weight[part], own, {Gram: gram_of(inputs[group : group + 1])})
        assert torch.equal(together[part], alone)


@pytest.mark.parametrize("columns", [1, 63, 64, 65, 150])
def test_block_size_does_not_change_the_result(columns: int) -> None:
    weight, gram = torch.randn(3, columns), gram_of(correlated(1, 2 * columns + 5, columns))
    codebook = Uniform(3).fit(weight)
    results = [Gptq(block=block)(weight, codebook, {Gram: gram}) for block in (1, 7, 64, 1000)]
    differing = max(int((result != results[0]).sum()) for result in results)
    assert differing <= 0.01 * weight.numel()  # float32 sums in another order may tip a tie


def test_fewer_samples_than_columns() -> None:
    weight, gram = torch.randn(4, 40), gram_of(correlated(1, 6, 40))
    codebook = Uniform(3).fit(weight)
    ours = codebook.values(Gptq()(weight, codebook, {Gram: gram}))
    assert lost(weight - ours, gram) < lost(weight - codebook.values(codebook.nearest(weight)), gram)


@pytest.mark.parametrize("codec", [Uniform(2), Uniform(3, group=6)])
def test_sweeps_end_where_no_single_weight_can_do_better(codec: Uniform) -> None:
    weight, gram = torch.randn(6, 17), gram_of(correlated(2, 200, 17))
    codebook = codec.fit(weight)
    codes = Gptq(block=5, sweeps=50)(weight, codebook, {Gram: gram})
    least = lost(weight - codebook.values(codes), gram)
    assert least < lost(weight - codebook.values(Gptq()(weight, codebook, {Gram: gram})), gram)
    for row in range(6):
        for column in range(17):
            for code in range(1 << codec.bits):
                other = codes.clone()
                other[row, column] = code
                assert lost(weight - codebook.values(other), gram) >= least * (1 - 1e-5)


def test_sweeps_never_lose_and_meet_the_conformance() -> None:
    check_rounder(Gptq(block=5, sweeps=3))
    weight, gram = torch.randn(8, 70), gram_of(correlated(1, 500, 70))
    codebook = Uniform(2).fit(weight)
    codes = [Gptq(sweeps=sweeps)(weight, codebook, {Gram: gram}) for sweeps in (0, 1, 2, 8)]
    errors = [lost(weight - codebook.values(each), gram) for each in codes]
    assert all(later <= earlier for earlier, later in itertools.pairwise(errors))


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_units_of_the_inputs_do_not_matter(scale: float) -> None:
    weight, inputs = torch.randn(4, 10), correlated(1, 100, 10)
    codebook = Uniform(3).fit(weight)
    plain = Gptq()(weight, codebook, {Gram: gram_of(inputs)})
    scaled = Gptq()(weight, codebook, {Gram: gram_of(inputs * scale**0.5)})
    assert torch.equal(plain, scaled)


def test_inverse_factor() -> None:
    gram = gram_of(correlated(2, 100, 6)).matrix
    factor = inverse_factor(gram, 0.1)
    mean = gram.diagonal(dim1=1, dim2=2).mean(1)
    damped = gram + 0.1 * mean[:, None, None] * torch.eye(6)
    assert torch.equal(factor, factor.triu())
    product = damped @ factor.transpose(1, 2) @ factor
    assert torch.allclose(product, torch.eye(6).expand(2, 6, 6), atol=1e-3)


def test_errors() -> None:
    weight = torch.randn(2, 3)
    codebook = Uniform(3).fit(weight)
    with pytest.raises(KeyError, match="Gptq needs the statistic Gram"):
        Gptq()(weight, codebook, {})
    with pytest.raises(ConfigError, match="positive"):
        Gptq(damping=0)
    with pytest.raises(ConfigError, match="positive"):
        Gptq(block=0)
    with pytest.raises(ConfigError, match="sweeps"):
        Gptq(sweeps=-1)
    broken = gram_of(torch.full((1, 4, 3), float("nan")))
    with pytest.raises(ConfigError, match="finite"):
        Gptq()(weight, codebook, {Gram: broken})


def test_damping_that_had_to_grow_is_noted() -> None:
    inputs = torch.randn(1, 200, 1).expand(1, 200, 24) * (1 + 3e-7 * torch.randn(1, 200, 24))
    gram, weight = gram_of(inputs), torch.randn(8, 24)
    book = Uniform(3).fit(weight)
    with collected_notes() as notes:
        Gptq(damping=1e-9)(weight, book, {Gram: gram})
    assert any("damping of" in text and "not 1e-09" in text for text in notes.texts)
    with collected_notes() as notes:
        Gptq()(weight, book, {Gram: gram_of(correlated(1, 200, 24))})
    assert not notes.texts

"""What Gpfq and Qronos have in common: they walk the columns beside the float network's inputs."""

from __future__ import annotations

import pytest
import torch
from reference.moments import inputs_of, statistics_of

from corank.codecs import Uniform
from corank.errors import ConfigError
from corank.rounding import Gpfq, Nearest, Qronos

Rule = Gpfq | Qronos
RULES = pytest.mark.parametrize("kind", [Gpfq, Qronos])


@RULES
@pytest.mark.parametrize("seed", range(5))
def test_loses_less_of_the_output_than_nearest(kind: type[Rule], seed: int) -> None:
    torch.manual_seed(seed)
    inputs, seen = inputs_of(1, 500, 32)
    weight = torch.randn(8, 32)
    codebook = Uniform(3).fit(weight)
    given = codebook.values(kind()(weight, codebook, statistics_of(inputs, seen)))
    plain = codebook.values(Nearest()(weight, codebook, {}))
    wanted = inputs[0] @ weight.T
    assert (wanted - seen[0] @ given.T).square().mean() < 0.85 * (wanted - seen[0] @ plain.T).square().mean()


@RULES
@pytest.mark.parametrize(("groups", "rows"), [(3, 4), (6, 1)])
def test_groups_are_rounded_apart(kind: type[Rule], groups: int, rows: int) -> None:
    """Groups whose inputs' energies rank alike are coded as each would be alone."""
    inputs, seen = inputs_of(groups, 300, 9)
    level = torch.linspace(3, 1, 9) / seen.square().mean(1, keepdim=True).sqrt()
    inputs, seen = inputs * level, seen * level
    weight = torch.randn(groups * rows, 9)
    together = kind()(weight, Uniform(2).fit(weight), statistics_of(inputs, seen))
    for group in range(groups):
        part, one = slice(group * rows, (group + 1) * rows), slice(group, group + 1)
        alone = kind()(weight[part], Uniform(2).fit(weight[part]), statistics_of(inputs[one], seen[one]))
        assert torch.equal(together[part], alone)


@RULES
def test_block_size_does_not_change_the_result(kind: type[Rule]) -> None:
    inputs, seen = inputs_of(1, 400, 150)
    weight = torch.randn(3, 150)
    codebook = Uniform(3).fit(weight)
    results = [kind(block=block)(weight, codebook, statistics_of(inputs, seen)) for block in (1, 7, 64, 1000)]
    # float32 sums in another order may tip a tie, and what follows it
    assert max(int((result != results[0]).sum()) for result in results) <= 0.01 * weight.numel()


@RULES
@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_units_of_the_inputs_do_not_matter(kind: type[Rule], scale: float) -> None:
    inputs, seen = inputs_of(1, 100, 10)
    weight = torch.randn(4, 10)
    codebook = Uniform(3).fit(weight)
    plain = kind()(weight, codebook, statistics_of(inputs, seen))
    assert torch.equal(plain, kind()(weight, codebook, statistics_of(inputs * scale, seen * scale)))


@RULES
def test_errors(kind: type[Rule]) -> None:
    weight = torch.randn(2, 3)
    with pytest.raises(KeyError, match=f"{kind.__name__} needs the statistic Gram"):
        kind()(weight, Uniform(3).fit(weight), {})
    with pytest.raises(ConfigError, match="positive"):
        kind(block=0)

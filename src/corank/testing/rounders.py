"""What every rounder must do."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from corank.codecs import Codebook, Codec, Uniform
from corank.rounding import Rounder
from corank.statistics import Gram, LayerStatistics, OutputGradient, require

__all__ = ["check_rounder"]


_CODECS = (Uniform(3), Uniform(1, symmetric=True), Uniform(4, group=5), Uniform(2, group=-1))


def check_rounder(rounder: Rounder, codecs: Sequence[Codec] = _CODECS) -> None:
    """Rounds plain, grouped and depthwise weights with ``rounder``, over live and dead inputs, for each codec.

    A rounder that asks for the :class:`~corank.statistics.Gram` must not lose more of the output than
    rounding to nearest does.

    Raises:
        AssertionError: saying for which weight and what does not hold.
    """
    for groups, rows, columns in ((1, 6, 20), (3, 4, 7), (5, 1, 9)):
        for dead in (False, True):
            statistics = _statistics(groups, rows, columns, dead)
            weight = torch.randn(groups * rows, columns, generator=torch.Generator().manual_seed(columns))
            for codec in codecs:
                name = f"{rounder}, {codec}, groups {groups}, dead inputs {dead}"
                codebook = codec.fit(weight, require(statistics, Gram, name).matrix)
                _check_rounded(name, rounder, codebook, weight, statistics)
    _check_needs(rounder)


def _statistics(groups: int, rows: int, columns: int, dead: bool) -> LayerStatistics:
    generator = torch.Generator().manual_seed(groups)
    mixing = torch.randn(groups, columns, columns, generator=generator)
    inputs = torch.randn(groups, 300, columns, generator=generator) @ mixing
    if dead:
        inputs[:, :, [0, columns - 2]] = 0
    gram, gradient = Gram(groups, columns), OutputGradient(groups, rows)
    gram.update(inputs, 300)
    gradient.update(torch.randn(groups, 300, rows, generator=generator), 300)
    return {Gram: gram, OutputGradient: gradient}


def _check_rounded(
    name: str, rounder: Rounder, codebook: Codebook, weight: Tensor, statistics: LayerStatistics
) -> None:
    before = weight.clone()
    codes = rounder(weight, codebook, statistics)
    assert torch.equal(weight, before), f"{name}: the weight was changed"
    assert codes.dtype == torch.uint8 and codes.shape == weight.shape, f"{name}: codes are uint8 (G * R, C)"
    assert int(codes.max()) < 1 << codebook.code_bits, f"{name}: a code is out of range"
    assert torch.equal(codes, rounder(weight, codebook, statistics)), f"{name}: rounding twice gives other codes"
    exact = codebook.values(codes)
    kept = codebook.values(rounder(exact, codebook, statistics))
    assert torch.equal(kept, exact), f"{name}: a weight that is a value of the codebook was moved"
    gram = statistics[Gram]
    if Gram in rounder.needs and isinstance(gram, Gram):
        plain = codebook.values(codebook.nearest(weight))
        ours, theirs = _lost(weight - exact, gram), _lost(weight - plain, gram)
        assert ours <= theirs * 1.0001, f"{name}: loses {ours:.4g} of the output, rounding to nearest {theirs:.4g}"


def _lost(error: Tensor, gram: Gram) -> float:
    stacked = error.reshape(gram.matrix.shape[0], -1, error.shape[1])
    return float(((stacked @ gram.matrix) * stacked).sum())


def _check_needs(rounder: Rounder) -> None:
    if not rounder.needs:
        return
    weight = torch.ones(2, 3)
    try:
        rounder(weight, Uniform(3).fit(weight), {})
    except KeyError:
        return
    raise AssertionError(f"{rounder}: a missing statistic must be a KeyError")

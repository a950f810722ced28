"""Rows of a layer's inputs in one network, and of two networks beside each other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from corank.calibration import NetworksInputs, layer_rows
from corank.calibration.layer_rows import finite_gram
from corank.errors import ModelError
from corank.matrix import Geometry
from corank.statistics import CrossMoments, Gram

LINEAR = Geometry.of(nn.Linear(3, 2))


def rows(count: int, seed: int = 0) -> Tensor:
    return torch.randn(1, count, 3, generator=torch.Generator().manual_seed(seed))


def inputs_of(*batches: tuple[Tensor | None, Tensor | None], crossed: bool = True) -> NetworksInputs:
    found = NetworksInputs(LINEAR, crossed, torch.device("cpu"))
    for expected, given in batches:
        found.update(None if expected is None else (expected, 1), None if given is None else (given, 1))
    return found


def moment(*parts: Tensor) -> Tensor:
    whole = torch.cat(parts, 1)[0]
    return whole.T @ whole / len(whole)


def test_rows_that_are_as_many_belong_together() -> None:
    found = inputs_of((rows(8), rows(8, 1)), (rows(4, 2), rows(4, 3)), (None, None)).statistics("it")
    gram, both = found[Gram], found[CrossMoments]
    assert isinstance(gram, Gram) and isinstance(both, CrossMoments)
    torch.testing.assert_close(gram.matrix[0], moment(rows(8)[:, ::4], rows(4, 2)[:, ::4]))
    torch.testing.assert_close(both.gram.matrix[0], moment(rows(8, 1), rows(4, 3)))
    cross = (rows(8)[0].T @ rows(8, 1)[0] + rows(4, 2)[0].T @ rows(4, 3)[0]) / 12
    torch.testing.assert_close(both.cross[0], cross)


@pytest.mark.parametrize("other", [(rows(5, 2), rows(4, 3)), (None, rows(4, 3)), (rows(5, 2), None)])
def test_elsewhere_the_coded_networks_are_taken_alone(other: tuple[Tensor | None, Tensor | None]) -> None:
    for batches in ([(rows(8), rows(8, 1)), other], [other, (rows(8), rows(8, 1))]):
        found = inputs_of(*batches).statistics("it")
        gram = found[Gram]
        assert CrossMoments not in found and isinstance(gram, Gram)
        given = [part for _, part in batches if part is not None]
        torch.testing.assert_close(gram.matrix[0], moment(*given))


def test_the_float_networks_are_taken_where_the_coded_one_has_none() -> None:
    found = inputs_of((rows(4), None)).statistics("it")[Gram]
    assert isinstance(found, Gram) and found.count == 1
    torch.testing.assert_close(found.matrix[0], moment(rows(4)[:, ::4]))
    alone = inputs_of((rows(4), None), (None, rows(3)), crossed=False).statistics("it")
    assert list(alone) == [Gram] and torch.allclose(alone[Gram].matrix[0], moment(rows(4)))  # pyright: ignore


def test_what_nobody_saw_is_unknown() -> None:
    for crossed in (True, False):
        found = inputs_of((None, None), crossed=crossed).statistics("it")
        gram = found[Gram]
        assert list(found) == [Gram] and isinstance(gram, Gram)
        assert (gram.count, gram.positions) == (0, 0) and not bool(gram.mean.any())
        assert torch.equal(gram.matrix[0], torch.eye(3)) and torch.equal(gram.centred().matrix[0], torch.eye(3))


def test_inputs_without_end_are_refused() -> None:
    for value, said in ((float("nan"), "NaN or infinite"), (1e30, "squares are infinite")):
        gram = Gram(1, 3)
        gram.update(torch.full((1, 4, 3), value) * torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None], 1)
        with pytest.raises(ModelError, match=said):
            finite_gram(gram, "it")


def test_masked_rows_of_linear_layers_are_left_out() -> None:
    mask = torch.tensor([[True, True, True, False], [True, False, False, False]])
    vectors, generator = torch.arange(24.0).reshape(2, 4, 3), torch.Generator().manual_seed(0)
    found, positions = layer_rows(LINEAR, vectors, 100, generator, [mask])
    assert torch.equal(found[0], vectors[mask]) and positions == 2
    found, positions = layer_rows(LINEAR, vectors.flatten(0, 1), 100, generator, [mask])
    assert torch.equal(found[0], vectors[mask]) and positions == 1
    drawn, _ = layer_rows(LINEAR, vectors, 2, torch.Generator().manual_seed(0), [mask])
    every, _ = layer_rows(LINEAR, vectors, 2, torch.Generator().manual_seed(0))
    kept = [row for row in every[0].tolist() if row in vectors[mask].tolist()]
    assert drawn[0].tolist() == kept
    convolution = Geometry.of(nn.Conv1d(4, 2, 1))
    found, _ = layer_rows(convolution, vectors, 100, generator, [mask])  # (2, 4) are channels here
    assert found.shape == (1, 6, 4)

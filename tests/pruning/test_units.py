"""The numbers of a unit, gathered by hand and by the code; criteria and the penalty that rest on them."""

from __future__ import annotations

import pytest
import torch
from pruning.networks import images, network
from torch import nn

from corank.errors import BudgetError, ConfigError
from corank.pruning.choice import chosen, largest_share
from corank.pruning.coupling import Coupling, Side
from corank.pruning.criteria import bounds_of, first_order, magnitudes, perspective_scores
from corank.pruning.drawing import DrawToZero
from corank.pruning.graph import find_couplings
from corank.pruning.request import METHODS, Share, chosen_method
from corank.pruning.units import products, unit_norms
from corank.training.recipe import Recipe
from corank.training.state import TrainingState

pytest.importorskip("torch_pruning")


def coupled(name: str) -> tuple[nn.Module, dict[str, Coupling]]:
    model = network(name)
    return model, {one.name: one for one in find_couplings(model, lambda one: one(images(name))).found}


def test_unit_norms_are_those_of_all_that_gives_it() -> None:
    model, found = coupled("residual")
    squares, largest, counts = (one.detach() for one in unit_norms(dict(model.named_modules()), found["stem"]))
    for unit in range(4):
        parts = []
        for channel in (unit, unit + 4):
            for layer in ("stem", "norm", "outer", "depthwise"):
                own = [one for one in model.get_submodule(layer).parameters()]
                parts += [one[channel].flatten() for one in own]
        joined = torch.cat(parts)
        assert float(squares[unit]) == pytest.approx(float(joined.detach().square().sum()), rel=1e-5)
        assert float(largest[unit]) == pytest.approx(float(joined.detach().abs().amax()))
        assert int(counts[unit]) == joined.numel()


@pytest.mark.parametrize("name", ("residual", "joined"))
def test_products_are_derivatives_of_a_gate(name: str) -> None:
    """Scaling what reads a unit by 1 + t changes the loss at the rate of its product: by central differences."""
    model, found = coupled(name)
    model, x = model.double(), images(name).double()
    model.zero_grad()
    model(x).square().sum().backward()
    modules = dict(model.named_modules())
    for coupling in found.values():
        rates = products(modules, coupling)
        for unit in (0, coupling.units - 1):
            values = []
            for step in (1e-5, -1e-5):
                own = network(name).double()
                with torch.no_grad():
                    for side in coupling.reads():
                        layer = own.get_submodule(side.module)
                        assert isinstance(layer.weight, nn.Parameter)
                        groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
                        width = layer.weight.shape[1]
                        rows = layer.weight.shape[0] // groups
                        for channel in side.index[side.unit == unit].tolist():
                            block = channel // width
                            layer.weight[block * rows : (block + 1) * rows, channel % width] *= 1 + step
                    values.append(float(own(x).square().sum()))
            assert float(rates[unit]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4, abs=1e-6)


def test_first_order_finds_the_idle_unit() -> None:
    model, found = coupled("residual")
    with torch.no_grad():
        model.get_submodule("outer").weight[:, 2] = 0  # pyright: ignore[reportIndexIssue]
    one = found["inner"]
    scores = first_order(model, [one], [images("residual")], lambda net, _, batch: net(batch).square().sum())[0]
    assert int(scores.argmin()) == 2 and float(scores[2]) == 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_magnitude_and_indicator_find_the_small_unit() -> None:
    model, found = coupled("residual")
    with torch.no_grad():
        model.get_submodule("inner").weight[3] *= 1e-3  # pyright: ignore[reportIndexIssue]
        model.get_submodule("inner").bias[3] = 0  # pyright: ignore[reportIndexIssue]
    one = [found["inner"]]
    assert int(magnitudes(model, one)[0].argmin()) == 3
    scores = perspective_scores(model, one, bounds_of(model, one, 1.0), 0.1)[0]
    assert int(scores.argmin()) == 3 and bool((scores <= 1.001 + 1e-6).all())


@pytest.mark.parametrize("bounded", (True, False))
def test_the_penalty_draws_units(bounded: bool) -> None:
    model, found = coupled("residual")
    couplings = tuple(found.values())
    bounds = tuple(bounds_of(model, couplings, 1.0)) if bounded else None
    pull = DrawToZero(couplings, bounds, 1.0, 0.1)
    state = TrainingState(Recipe(weights=None, edge=None, edge_inputs=None, start="float"), model, None, {})
    before = [float(unit_norms(dict(model.named_modules()), one)[0].detach().sum()) for one in couplings]
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    values = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = pull.loss_ready(state, torch.zeros(()))
        loss.backward()
        values.append(float(loss.detach()))
        optimizer.step()
    after = [float(unit_norms(dict(model.named_modules()), one)[0].detach().sum()) for one in couplings]
    assert all(new < old for new, old in zip(after, before, strict=True))
    assert values[-1] < values[0] and state.measured["penalty"] == pytest.approx(values[-1])


def test_shares_as_people_write_them() -> None:
    assert Share.read(0.4) == Share.read("0.4") == Share(0.4)
    assert Share.read("0.4p") == Share(0.4, "parameters") and str(Share.read("0.40p")) == "0.4p"
    for wrong in (0, 1, 1.5, -0.2, "40%", None, True, "p", float("nan"), [0.4]):
        with pytest.raises(ConfigError, match=r"e\.g\. remove=0\.4"):
            Share.read(wrong)


def test_methods_by_name() -> None:
    assert chosen_method("magnitude") is METHODS["magnitude"]
    with pytest.raises(ConfigError, match="first-order, magnitude"):
        chosen_method("random")


def test_least_scores_go_first_and_one_stays() -> None:
    couplings = [Coupling("a", 4, ()), Coupling("b", 2, ())]
    scores = [torch.tensor([4.0, 1.0, 3.0, 2.0]), torch.tensor([0.5, 0.1])]

    def cost(removed: object) -> float:
        assert isinstance(removed, dict)
        return 6.0 - sum(int(one.sum()) for one in removed.values())

    gone = chosen(couplings, scores, cost, 0.5)  # pyright: ignore[reportArgumentType]
    assert gone[0].tolist() == [False, True, False, True] and gone[1].tolist() == [False, True]
    with pytest.raises(BudgetError, match=r"0\.667 can"):
        chosen(couplings, scores, cost, 0.7)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("each", "round_to", "left"), [(1, 1, 5), (1, 4, 4), (2, 4, 4), (1, 16, 12), (1, 12, 12)])
def test_channels_left_are_multiples(each: int, round_to: int, left: int) -> None:
    """Those of least score go still; of units that are several channels each, fewer make a multiple."""
    units = torch.arange(12).repeat_interleave(each)
    coupling = Coupling("a", 12, (Side("a", "out", torch.arange(12 * each), units),))
    scores = [torch.tensor([7.0, 1, 9, 2, 8, 3, 11, 4, 10, 5, 12, 6])]

    def cost(removed: object) -> float:
        assert isinstance(removed, dict)
        return 12.0 - sum(int(one.sum()) for one in removed.values())

    share = 7 / 12 if left < 12 else 0.01
    if left == 12:  # nothing can go
        assert largest_share([coupling], cost, round_to) == 0.0
        return
    gone = chosen([coupling], scores, cost, share, round_to)[0]
    assert int((~gone).sum()) == left and left * each % round_to == 0
    assert float(scores[0][gone].max()) < float(scores[0][~gone].min())

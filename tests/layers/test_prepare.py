"""Folding where it is proved, targets in order, the rest explained, the model untouched."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from corank.codecs import Uniform
from corank.errors import ModelError
from corank.layers import PreparedModel, coded_class, prepare, replace_module


def trained(model: nn.Module) -> nn.Module:
    """Norms with statistics and affines that are not the initial ones."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                module.weight.data.uniform_(-2, 2)
                module.bias.data.normal_()
    return model


def prepared(model: nn.Module, inputs: Tensor, fold: bool = True) -> PreparedModel:
    """Prepares, and checks that outputs agree and that the model is as before."""
    before = copy.deepcopy(model.state_dict())
    flags = [module.training for module in model.modules()]
    result = prepare(model, lambda net: net(inputs), fold)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert list(model.state_dict()) == list(before)
    assert [module.training for module in model.modules()] == flags
    assert not any(module.training for module in result.model.modules())
    with torch.no_grad():
        expected, given = copy.deepcopy(model).eval()(inputs), result.model(inputs)
    for one, other in zip(
        torch.utils._pytree.tree_leaves(expected), torch.utils._pytree.tree_leaves(given), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-4, rtol=1e-4)
    return result


FOLDED = {
    "conv1d": (nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)), (2, 3, 8)),
    "conv2d": (nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()), (2, 3, 6, 6)),
    "conv2d no affine": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)), (2, 3, 6, 6)),
    "conv2d in place": (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
        (2, 3, 6, 6),
    ),
    "grouped": (nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)), (2, 4, 6, 6)),
    "depthwise": (nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm2d(4)), (2, 4, 6, 6)),
    "conv3d": (nn.Sequential(nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3)), (2, 2, 3, 3, 3)),
    "transposed": (nn.Sequential(nn.ConvTranspose2d(3, 4, 3, 2), nn.BatchNorm2d(4)), (2, 3, 4, 4)),
    "transposed grouped": (
        nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)),
        (2, 4, 4, 4),
    ),
    "linear": (nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4)), (3, 5)),
}


@pytest.mark.parametrize("name", FOLDED)
def test_folded_equals_unfolded(name: str) -> None:
    model, shape = FOLDED[name]
    result = prepared(trained(model), torch.randn(shape))
    assert result.folded == ("1",)
    assert list(result.targets) == ["0"]
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in result.model.modules())
    assert result.targets["0"] is result.model.get_submodule("0")
    assert result.geometry("0").matrix_shape[2] > 0
    kept = prepared(model, torch.randn(shape), fold=False)
    assert kept.folded == ()
    assert any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in kept.model.modules())


class TwoReaders(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y) + 0.1 * y


class NormTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.norm = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.one(x)) + self.norm(self.two(x))


class LayerTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.conv(self.first(self.conv(x))))


class Between(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x).relu())


@pytest.mark.parametrize("kind", [TwoReaders, NormTwice, LayerTwice, Between])
def test_what_may_not_be_folded(kind: type[nn.Module]) -> None:
    result = prepared(trained(kind()), torch.randn(2, 3, 6, 6))
    assert result.folded == ()


def test_norms_without_statistics_stay() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    assert prepared(model, torch.randn(2, 3, 6, 6)).folded == ()


class Branches(nn.Module):
    """Branches on the data, loops as often as the data say, returns a dict: nothing to trace."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.left, self.right = nn.Linear(4, 5), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.norm(self.stem(x))
        for _ in range(int(y.detach().abs().sum()) % 3):
            y = y * 1.1
        pooled = torch.stack([sample.mean((1, 2)) for sample in y])
        logits = self.left(pooled) if float(x.sum()) > 0 else self.right(pooled)
        return {"logits": logits, "pooled": pooled}


def test_a_model_that_cannot_be_traced() -> None:
    model = trained(Branches())
    with pytest.raises(Exception, match=r"Proxy|traced|concrete|symbolic"):
        torch.fx.symbolic_trace(model)
    result = prepared(model, torch.rand(2, 3, 6, 6))
    assert result.folded == ("norm",)
    assert list(result.targets) == ["stem", "left"]
    assert "never called" in result.skipped["right"]


def test_targets_come_in_the_order_they_run() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.Linear(3, 2), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x))

    assert list(prepared(Backwards(), torch.randn(2, 4)).targets) == ["first", "last"]


def test_shared_modules_are_one_target_and_replaced_everywhere() -> None:
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.ReLU(), nn.Sequential(shared))
    result = prepared(model, torch.randn(2, 4))
    assert list(result.targets) == ["0"]
    layer = result.targets["0"]
    new = coded_class(layer)(layer, Uniform(3))
    replace_module(result.model, layer, new)
    assert result.model.get_submodule("0") is new and result.model.get_submodule("2.0") is new


def test_tied_weights_are_left_alone() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.body, self.head = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7)
            self.head.weight = self.words.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(self.words(x)))

    result = prepared(Tied(), torch.randint(0, 7, (2, 3)))
    assert list(result.targets) == ["body"]
    assert result.skipped["head"] == "its weight is tied to that of 'words', and stored once"  # so few numbers
    assert "tied to that of 'head'" in result.skipped["words"]


def test_layers_tied_to_each_other_are_left_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    result = prepared(model, torch.randn(2, 4))
    assert list(result.targets) == ["1"]
    assert set(result.skipped) == {"0", "2"}


def test_weights_read_by_their_parent_are_left_alone() -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.attention(x, x, x)[0])

    result = prepared(Attends(), torch.randn(2, 3, 4))
    assert list(result.targets) == ["head"]
    assert "never called" in result.skipped["attention.out_proj"]


class Doubles(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def test_layers_that_compute_otherwise_are_left_alone() -> None:
    model = nn.Sequential(Doubles(4, 4), nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 4))
    result = prepared(model, torch.randn(2, 4))
    assert list(result.targets) == ["1", "2"]  # the second is plain where its weight norm is computed
    assert "forward()" in result.skipped["0"]


def test_training_flags_of_parts_are_kept() -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout()))
    model.train()
    model[1].eval()
    prepared(model, torch.randn(2, 3, 6, 6))
    assert model.training and not model[1].training and model[2].training


def test_nothing_to_code() -> None:
    with pytest.raises(ModelError, match=r"no layer that corank codes \(Conv1d.*passed over: 0: Doubles"):
        prepare(nn.Sequential(Doubles(3, 3)), lambda net: net(torch.randn(2, 3)))
    with pytest.raises(ModelError, match="no layer that corank codes"):
        prepare(nn.Sequential(nn.ReLU()), lambda net: net(torch.randn(2, 3)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value: float) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight.data[0, 0] = value
    with pytest.raises(ModelError, match="layer '1' has NaN or infinite"):
        prepare(model, lambda net: net(torch.randn(2, 3)))


def test_norms_that_also_activate() -> None:
    timm_layers = pytest.importorskip("timm.layers")
    norm = timm_layers.BatchNormAct2d(4, act_layer=nn.SiLU)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    norm.weight.data.uniform_(-2, 2)
    result = prepared(nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.Conv2d(4, 2, 1)), torch.randn(2, 3, 6, 6))
    assert result.folded == ("1",)
    assert any(isinstance(module, nn.SiLU) for module in result.model.modules())


class Cast(nn.Linear):
    """Computes as a Linear does, in a forward() of its own."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(inputs, self.weight, self.bias)


class Doubled(nn.Linear):
    """Computes otherwise."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(inputs)


def test_a_subclass_is_coded_if_it_was_seen_to_compute_as_its_kind() -> None:
    model = nn.Sequential(Cast(4, 4), Doubled(4, 4), nn.Linear(4, 2))
    prepared = prepare(model, lambda one: one(torch.rand(2, 4)))
    assert list(prepared.targets) == ["0", "2"]
    assert "computes otherwise" in prepared.skipped["1"]


def test_edges_are_the_first_and_last_layer_that_ran() -> None:
    plain = prepared(
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 3, 1), nn.Flatten(), nn.Linear(12, 5)), torch.randn(1, 2, 4, 4)
    )
    assert plain.edges == {"0", "3"}


def test_a_network_that_begins_with_an_embedding_has_no_edges() -> None:
    class Language(nn.Module):
        def __init__(self, tied: bool) -> None:
            super().__init__()
            self.embedding, self.middle, self.head = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7, bias=False)
            if tied:
                self.head.weight = self.embedding.weight

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.middle(self.embedding(ids)))

    ids = torch.tensor([[1, 2, 3]])
    assert prepared(Language(tied=True), ids).edges == frozenset()
    assert prepared(Language(tied=False), ids).edges == frozenset()


def test_a_model_that_is_one_layer_is_refused() -> None:
    with pytest.raises(ModelError, match=r"single Linear.*wrap it"):
        prepare(nn.Linear(3, 2), lambda model: model(torch.randn(1, 3)))


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_a_layer_without_weights_stays_in_float() -> None:
    result = prepare(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 0)), lambda net: net(torch.randn(8, 4)))
    assert result.skipped == {"1": "it has no weights"} and list(result.targets) == ["0"]

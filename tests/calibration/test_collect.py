"""Streamed statistics against whole-batch formulas."""

from __future__ import annotations

import copy
import importlib

import pytest
import torch
import torch.nn.functional as F
from reference.patches import second_moment
from torch import Tensor, nn

from corank.calibration import Samples, collect, collect_gradients
from corank.errors import ModelError
from corank.matrix import Geometry
from corank.statistics import Gram, LayerStatistics, OutputGradient


def gram_of(found: LayerStatistics) -> Gram:
    gram = found[Gram]
    assert isinstance(gram, Gram)
    return gram


CONVOLUTIONS = {
    "plain": nn.Conv2d(4, 6, 3, padding=1),
    "stride dilation": nn.Conv2d(4, 6, (3, 2), (2, 1), (2, 1), (1, 2)),
    "groups": nn.Conv2d(4, 6, 3, groups=2),
    "depthwise": nn.Conv2d(4, 4, 3, padding=1, groups=4),
    "reflect": nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_gram_equals_the_unfolded_second_moment(name: str) -> None:
    layer, inputs = CONVOLUTIONS[name], torch.randn(7, 4, 6, 5)
    found = collect(layer, {"it": layer}, Samples.of(inputs, 7, batch_size=3))["it"]
    gram = gram_of(found)
    assert torch.allclose(gram.matrix.double(), second_moment(layer, inputs), atol=1e-5)
    positions = layer(inputs)[0, 0].numel()
    assert gram.count == 7 * positions
    assert gram.positions == positions
    rows = Geometry.of(layer).patches(inputs, 10**6, torch.Generator())
    assert torch.allclose(gram.mean, rows.mean(1), atol=1e-5)


def test_gram_of_tokens_and_of_a_layer_called_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x))

    model, inputs = Twice(), torch.randn(5, 3, 4)
    gram = gram_of(collect(model, {"layer": model.layer}, Samples.of(inputs, 5, 2))["layer"])
    rows = torch.cat([inputs, model.layer(inputs).detach()]).reshape(-1, 4)
    assert torch.allclose(gram.matrix[0], rows.T @ rows / len(rows), atol=1e-5)
    assert gram.positions == 6, "3 tokens of a sample, in each of two calls"


def test_moments() -> None:
    gram, rows = Gram(2, 3), torch.randn(2, 40, 3) + 1
    gram.update(rows[:, :15], 6)
    gram.update(rows[:, 15:], 8)
    expected = torch.stack([torch.cov(part.T, correction=0) for part in rows])
    assert torch.allclose(gram.covariance, expected, atol=1e-5)
    assert torch.allclose(gram.centred().matrix, expected, atol=1e-5)
    assert torch.equal(gram.centred().mean, torch.zeros(2, 3))
    assert gram.centred().positions == gram.positions
    assert gram.positions == 7 and gram.centred().positions == 7
    assert bool((Gram(1, 2).matrix == 0).all())


def test_subsampled_gram_is_near_the_whole_and_drawn_by_the_seed() -> None:
    layer = nn.Conv2d(2, 3, 3)
    inputs = F.avg_pool2d(torch.randn(4, 2, 162, 162), 3, 1)
    samples = Samples.of(inputs, 4, 2)

    def gram(seed: int) -> Gram:
        return gram_of(collect(layer, {"it": layer}, samples, seed)["it"])

    first = gram(0)
    assert first.count < 4 * 158 * 158
    assert first.count == pytest.approx(32 * 18 + 32768, rel=0.01)
    assert first.positions == 158 * 158
    assert torch.equal(first.matrix, gram(0).matrix)
    assert not torch.equal(first.matrix, gram(1).matrix)
    whole = second_moment(layer, inputs).float()
    assert float((first.matrix - whole).norm() / whole.norm()) < 0.05


def test_never_unfolds_more_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    largest: list[int] = []
    patches = Geometry.patches

    def watched(self: Geometry, inputs: Tensor, limit: int, generator: torch.Generator, real: None) -> Tensor:
        rows = patches(self, inputs, limit, generator, real)
        largest.append(rows.numel() * rows.element_size())
        return rows

    monkeypatch.setattr(Geometry, "patches", watched)
    monkeypatch.setattr(importlib.import_module("corank.calibration.layer_rows"), "_UNFOLDED_BYTES", 1 << 20)
    for layer in (nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1, groups=16)):
        largest.clear()
        collect(layer, {"it": layer}, Samples.of(torch.randn(8, 16, 20, 20), 8, 4))
        assert 0.8 * (1 << 20) < max(largest) <= 1 << 20


def test_inputs_that_are_not_finite_name_the_layer() -> None:
    class Divides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x) / 0.0)

    model = Divides()
    with pytest.raises(ModelError, match="layer 'two'"):
        collect(model, {"one": model.one, "two": model.two}, Samples.of(torch.randn(4, 3), 4))
    assert not model.one._forward_hooks and not model.two._forward_hooks


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.grouped = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 6, 2, groups=2)
        self.head, self.aside = nn.Linear(6, 5), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x), inplace=True)
        return self.head(self.grouped(x).mean((2, 3)))


def by_sample(model: Classifier, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """``(G, R, R)`` mean outer products of the log-likelihood's gradients, one sample at a time."""
    found: dict[str, list[Tensor]] = {"conv": [], "grouped": [], "head": []}
    for sample, label in zip(inputs, labels, strict=True):
        first = model.conv(sample[None])
        second = model.grouped(first.relu())
        logits = model.head(second.mean((2, 3)))
        loss = logits.log_softmax(1)[0, int(label)]
        gradients = torch.autograd.grad(loss, [first, second, logits])
        for name, gradient in zip(found, gradients, strict=True):
            geometry = Geometry.of(model.get_submodule(name))
            found[name].append(geometry.group_outputs(gradient))
    rows = {name: torch.cat(parts, 1) for name, parts in found.items()}
    return {name: part.transpose(1, 2) @ part / part.shape[1] for name, part in rows.items()}


def test_output_gradients_equal_those_of_each_sample() -> None:
    model, inputs = Classifier().eval(), torch.randn(6, 2, 6, 6)
    targets = {name: model.get_submodule(name) for name in ("conv", "grouped", "head", "aside")}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    found = collect_gradients(model, targets, Samples.of(inputs, 6, 6), seed=3)
    chances = model(inputs).detach().softmax(1)
    labels = torch.multinomial(chances, 1, generator=torch.Generator().manual_seed(3 << 20))[:, 0]
    for name, expected in by_sample(model, inputs, labels).items():
        assert torch.allclose(found[name].matrix, expected, rtol=1e-3, atol=1e-8), name
    assert bool((found["aside"].matrix == 0).all())
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert found["conv"].positions == 16


def test_batches_do_not_change_the_gradients() -> None:
    model, inputs = Classifier().eval(), torch.randn(6, 2, 6, 6)
    targets = {"conv": model.conv}
    whole = collect_gradients(model, targets, Samples.of(inputs, 6, 6), seed=1)["conv"]
    again = collect_gradients(model, targets, Samples.of(inputs, 6, 6), seed=1)["conv"]
    parts = collect_gradients(model, targets, Samples.of(inputs, 6, 2), seed=1)["conv"]
    assert torch.equal(whole.matrix, again.matrix)
    assert isinstance(parts, OutputGradient) and parts.count == whole.count


def test_collecting_leaves_the_model_alone() -> None:
    model = Classifier().eval()
    before = copy.deepcopy(model.state_dict())
    collect(model, {"conv": model.conv}, Samples.of(torch.randn(4, 2, 6, 6), 4))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_inputs_given_by_name_and_layers_that_no_sample_reaches() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.one(input=x)
            return y if len(x) > 0 else self.two(y)

    model, inputs = Named(), torch.randn(5, 3)
    found = collect(model, {"one": model.one, "two": model.two}, Samples.of(inputs, 5))
    assert torch.allclose(gram_of(found["one"]).matrix[0], inputs.T @ inputs / 5, atol=1e-5)
    unknown = gram_of(found["two"])
    assert (unknown.count, unknown.positions) == (0, 0) and torch.equal(unknown.matrix[0], torch.eye(3))


def test_progress_counts_batches() -> None:
    told: list[tuple[str, int, int]] = []
    model = Classifier().eval()
    samples = Samples.of(torch.randn(5, 2, 6, 6), 5, 2)
    collect(model, {"conv": model.conv}, samples, progress=lambda *entry: told.append(entry))
    assert [(done, total) for _, done, total in told] == [(1, 3), (2, 3), (3, 3)]

"""Further classes: what is learned from whom, of float and coded networks, and that it goes on where it was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import corank
from corank.errors import ConfigError, DataError
from corank.storage.artifact import serialized
from corank.training import loop
from corank.training.callbacks import Callback
from corank.training.recipe import Optimizer, Recipe
from corank.training.recipes import chosen_recipe
from corank.training.state import TrainingState

KNOWN, ALL = 3, 5


def samples(first: int, last: int, each: int) -> tuple[Tensor, Tensor]:
    """Images whose class is seen in which of their columns are bright."""
    labels = torch.arange(first, last).repeat_interleave(each)
    images = torch.randn(len(labels), 1, 8, 8, generator=torch.Generator().manual_seed(first))
    images[torch.arange(len(labels)), :, :, labels] += 2.0
    return images, labels


def network(classes: int = KNOWN) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d((1, 8)), nn.Flatten(), nn.Linear(64, classes),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def old() -> nn.Module:
    scratch = Recipe(
        weights=None, edge=None, edge_inputs=None, loss="labels", start="scratch", iterations=60, batch_size=32,
        optimizer=Optimizer(rate=1e-2), augment="none",
    )  # fmt: skip
    found = corank.train(network(), samples(0, KNOWN, 40), scratch)
    assert corank.evaluate(found, [samples(0, KNOWN, 40)]).top1 == 100
    return found


def learned(model: nn.Module, name: str = "weight-aligning", **asked: Any) -> nn.Module:
    recipe = chosen_recipe(name).replaced(augment="none")  # of a flipped image the class is another
    given: dict[str, Any] = {"iterations": 40, "batch_size": 32, **asked}
    exemplars = corank.choose_exemplars(model, samples(0, KNOWN, 40), 4)
    return corank.train_classes(model, samples(KNOWN, ALL, 40), exemplars, recipe, **given)


def top1(model: nn.Module, first: int, last: int) -> float:
    return corank.evaluate(model, [samples(first, last, 40)]).top1 or 0.0


@pytest.mark.parametrize(("layer", "asked", "positive"), [
    (nn.ReLU(), None, True), (nn.Tanh(), None, False), (nn.Tanh(), True, True), (nn.ReLU(), False, False),
])  # fmt: skip
def test_rows_stay_positive_where_no_input_is_negative(layer: nn.Module, asked: bool | None, positive: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), layer, nn.Linear(8, KNOWN)).eval()
    found = learned(model, iterations=2, align=False, positive=asked)
    assert (float(found[-1].weight.detach().min()) >= 0) is positive


@pytest.mark.parametrize("recipe", ["weight-aligning", "weight-aligning-4bit", "weight-aligning-w8a8"])
def test_it_learns_the_new_and_keeps_the_known_whoever_the_old_network_was(
    old: nn.Module, recipe: str, tmp_path: Path
) -> None:
    coded = corank.quantize(old, samples(0, KNOWN, 40)[0], bits=4, budget=0)
    before = {name: one.clone() for name, one in old.state_dict().items()}
    for model in (old, coded):
        found = learned(model, recipe)
        assert found[-1].out_features == ALL and top1(found, KNOWN, ALL) > 85 and top1(found, 0, KNOWN) > 60
        lengths = found[-1].weight.detach().norm(dim=1)
        assert float(lengths[:KNOWN].mean()) == pytest.approx(float(lengths[KNOWN:].mean()), rel=1e-3)
        if recipe != "weight-aligning":
            corank.save(found, tmp_path / "found.safetensors")
            loaded = corank.load(tmp_path / "found.safetensors", network(ALL))
            images = samples(0, ALL, 4)[0]
            assert torch.equal(loaded(images), found(images))
    assert all(torch.equal(before[name], one) for name, one in old.state_dict().items())


def test_aligning_raises_old_classes_and_lowers_the_share_of_new_ones(old: nn.Module) -> None:
    whole = samples(0, ALL, 40)[0]
    for recipe in ("weight-aligning", "weight-aligning-4bit"):
        given = learned(old, recipe, align=False)
        lengths = given[-1].weight.detach().norm(dim=1)
        assert float(lengths[KNOWN:].mean()) > float(lengths[:KNOWN].mean())  # of few and many samples
        found = corank.align_classes(given, KNOWN)
        assert top1(found, 0, KNOWN) >= top1(given, 0, KNOWN)
        assert int((found(whole).argmax(1) >= KNOWN).sum()) <= int((given(whole).argmax(1) >= KNOWN).sum())
        aligned = learned(old, recipe)
        assert torch.equal(found[-1].weight, aligned[-1].weight)


def test_it_is_taught_by_the_old_network_as_it_is_or_by_another(old: nn.Module) -> None:
    seen: dict[str, Tensor] = {}

    class Look(Callback):
        def loss_ready(self, state: TrainingState, loss: Tensor) -> Tensor:
            seen["batch"], seen["reference"] = state.batch, state.reference
            return loss

    given: dict[str, Any] = {"iterations": 1, "batch_size": 8, "callbacks": [Look()]}
    exact = chosen_recipe("weight-aligning").replaced(precision="float32")
    coded = corank.quantize(old, samples(0, KNOWN, 40)[0], bits=2, budget=0, activations=2)
    for model, teacher in ((old, None), (coded, None), (old, coded)):
        corank.train_classes(model, samples(KNOWN, ALL, 8), (), exact, teacher=teacher, **given)
        with torch.no_grad():
            expected = (teacher or model)(seen["batch"])
        assert torch.allclose(seen["reference"], expected, atol=1e-5) and seen["reference"].shape[1] == KNOWN
    assert not torch.allclose(old(seen["batch"]), coded(seen["batch"]), atol=1e-2)


def test_it_goes_on_where_it_was_stopped(old: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_KEPT_EVERY", 3)
    whole = serialized(learned(old, "weight-aligning-4bit", iterations=8))

    def stop(what: str, done: int, _total: int) -> None:
        if what.startswith("training") and done == 5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        learned(old, "weight-aligning-4bit", iterations=8, checkpoint=tmp_path, progress=stop)
    assert serialized(learned(old, "weight-aligning-4bit", iterations=8, checkpoint=tmp_path)) == whole
    with pytest.raises(ConfigError, match="another run"):
        learned(old, "weight-aligning-4bit", iterations=8, checkpoint=tmp_path, temperature=3.0)
    other = corank.quantize(old, samples(0, KNOWN, 40)[0], bits=2, budget=0)
    with pytest.raises(ConfigError, match="teacher"):
        learned(old, "weight-aligning-4bit", iterations=8, checkpoint=tmp_path, teacher=other)


def test_image_sets_and_several_sets_of_exemplars(old: nn.Module) -> None:
    from corank.data import ImageSet, Preprocessing
    from corank.data.arrays import TensorSource

    def as_set(pair: tuple[Tensor, Tensor]) -> ImageSet:
        return ImageSet(TensorSource(pair[0]), Preprocessing(channels=1), np.asarray(pair[1]))

    new, first, second = samples(KNOWN, ALL, 8), samples(0, 1, 4), samples(1, KNOWN, 4)
    given: dict[str, Any] = {"iterations": 3, "batch_size": 8}
    one = corank.train_classes(old, new, [first, second], **given)
    other = corank.train_classes(old, as_set(new), [as_set(first), second], **given)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    assert (
        corank.train_classes(old, samples(KNOWN, KNOWN + 1, 8), first, classes=4, **given)[-1].out_features == KNOWN + 4
    )


def test_bad_input(old: nn.Module) -> None:
    new, known = samples(KNOWN, ALL, 4), samples(0, KNOWN, 4)
    cases: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
        ((known,), {}, DataError, "labels of new ones go from 3 on"),
        ((new, new), {}, DataError, "known classes go from 0 to 2"),
        ((new, known), {"classes": 1}, DataError, "from 3 to 3"),
        ((new, known), {"classes": 0}, ConfigError, "how many classes"),
        ((new, 3), {}, DataError, "a list of such"),
        ((new, (known[0][:, :, :4], known[1])), {}, DataError, "different shapes"),
        ((new[0],), {}, DataError, "data: an ImageSet"),
        ((new, known), {"teacher": network(4)}, ConfigError, "another number of classes"),
        ((new, known), {"temperature": 0.0}, ConfigError, "temperature"),
        ((new, known, "weight-aligning-3"), {}, ConfigError, "weight-aligning"),
    ]
    for given, asked, kind, said in cases:
        with pytest.raises(kind, match=said):
            corank.train_classes(old, *given, iterations=1, **asked)

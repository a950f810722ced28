"""The distillation loop on the network that ships with the package."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.calibration import Context, Samples
from corank.calibration.augment import flip_and_shift
from corank.checkpoint import Checkpoint
from corank.errors import DataError
from corank.layers import CodedLayer, PreparedModel
from corank.losses import output_distance
from corank.models.digits import digits_net
from corank.notes import collected_notes
from corank.refine import Refinement, loop, refine


@pytest.fixture(scope="module")
def rough(images: Tensor) -> nn.Module:
    return corank.quantize(digits_net(), images, bits=2, budget=0.2, preset="paper", search="uniform")


def distance(model: nn.Module, teacher: nn.Module, images: Tensor) -> float:
    with torch.no_grad():
        return float(output_distance(model(images), teacher(images)))


def tuned(rough: nn.Module, teacher: nn.Module, images: Tensor, how: Refinement, seed: int = 0) -> nn.Module:
    model = copy.deepcopy(rough)
    refine(model, teacher, how, Context(PreparedModel(teacher), Samples.of(images, len(images)), seed=seed))
    return model


def codes(model: nn.Module) -> list[Tensor]:
    return [module.code().weight.codes for module in model.modules() if isinstance(module, CodedLayer)]


@pytest.mark.parametrize("code_rate", [0.0, 0.02])
def test_brings_the_model_nearer_to_the_float_one(
    rough: nn.Module, teacher: nn.Module, images: Tensor, code_rate: float
) -> None:
    how = Refinement(150 if code_rate else 30, 32, code_rate=code_rate, precision="float32")
    before = copy.deepcopy(teacher.state_dict())
    model = tuned(rough, teacher, images, how)
    assert distance(model, teacher, images) < 0.6 * distance(rough, teacher, images)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    moved = any(not torch.equal(a, b) for a, b in zip(codes(model), codes(rough), strict=True))
    assert moved == (code_rate > 0)


def test_what_is_trained_is_stored_in_as_many_bytes(
    rough: nn.Module, teacher: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    model = tuned(rough, teacher, images, Refinement(5, 32))
    stored = [corank.save(one, tmp_path / "file", coder="fixed") for one in (model, rough)]
    assert stored[0] == stored[1]
    assert torch.equal(corank.load(tmp_path / "file", digits_net())(images), rough(images))
    corank.save(model, tmp_path / "file")
    assert torch.equal(corank.load(tmp_path / "file", digits_net())(images), model(images))


def test_a_result_that_is_worse_is_not_kept(rough: nn.Module, teacher: nn.Module, images: Tensor) -> None:
    wild = Refinement(3, 8, scale_rate=0.99, bias_rate=0.99, adapter_rate=0.99, code_rate=0.99)
    model = tuned(rough, teacher, images, wild)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in rough.state_dict().items())


@pytest.mark.parametrize("augment", [False, True])
def test_the_last_step_says_how_the_result_was_judged(
    rough: nn.Module, teacher: nn.Module, images: Tensor, augment: bool
) -> None:
    model, samples = copy.deepcopy(rough), Samples.of(images, len(images))
    how = Refinement(12, 32, precision="float32", augment=augment)
    course = refine(model, teacher, how, Context(PreparedModel(teacher), samples, seed=3))
    assert [step["iteration"] for step in course] == list(range(1, 13))
    assert all(set(step) == {"iteration", "divergence"} for step in course[:-1])
    views = torch.Generator().manual_seed(3)
    turned = torch.cat([flip_and_shift(batch, views) for batch in samples.take(512).batches])
    judged = [images[:512], turned] if augment else [images[:512]]
    for key, judged_model in (("before", rough), ("after", model)):
        expected = sum(distance(judged_model, teacher, some) for some in judged) / len(judged)
        assert course[-1][key] == pytest.approx(expected, rel=1e-4)


def test_equal_seeds_give_equal_models(rough: nn.Module, teacher: nn.Module, images: Tensor) -> None:
    first, again, other = (tuned(rough, teacher, images, Refinement(6, 32), seed) for seed in (1, 1, 2))
    assert torch.equal(first(images), again(images))
    assert not torch.equal(first(images), other(images))


class Stop(Exception):
    """An interruption."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_an_interrupted_refinement_goes_on_to_the_same_end(
    teacher: nn.Module, images: Tensor, tmp_path: Path, dtype: torch.dtype
) -> None:
    """With everything that draws or watches: inputs that keep their float value, features, views of images."""
    how = Refinement(30, 16, code_rate=0.02, drop=0.5, features=0.5)
    coded = corank.quantize(digits_net(), images, bits=2, budget=0.2, activations=4, preset="nearest", samples=64)
    data, floats = images.to(dtype), copy.deepcopy(teacher).to(dtype)

    def run(folder: Path | None, stop_at: int | None = None) -> tuple[dict[str, Tensor], object]:
        def progress(what: str, done: int, total: int) -> None:
            assert (what, total) == ("refining", 30)
            if done == stop_at:
                raise Stop

        model, kept = copy.deepcopy(coded).to(dtype), Checkpoint(folder, {"seed": 0})
        context = Context(
            PreparedModel(floats), Samples.of(data, 64), loss=in_float, checkpoint=kept, progress=progress
        )
        return model.state_dict(), refine(model, floats, how, context)

    whole, course = run(None)
    with pytest.raises(Stop):
        run(tmp_path / "kept", 27)
    again, rest = run(tmp_path / "kept")
    assert all(torch.equal(value, again[name]) for name, value in whole.items()) and rest == course
    kept = Checkpoint(tmp_path / "kept", {"seed": 0}).within("refinement").load("training")
    assert kept is not None and not any("codes" in name for name in kept[0])  # what trains alone


def in_float(output: Tensor, reference: Tensor) -> Tensor:
    return output_distance(output.float(), reference.float())


@pytest.mark.parametrize("good", [0, 6])
def test_a_loss_that_is_not_finite_ends_the_steps_before_it(
    rough: nn.Module, teacher: nn.Module, images: Tensor, good: int
) -> None:
    steps = 0

    def loss(output: Tensor, reference: Tensor) -> Tensor:
        nonlocal steps
        steps += output.requires_grad
        return output_distance(output, reference) * (float("nan") if output.requires_grad and steps > good else 1.0)

    model = copy.deepcopy(rough)
    with collected_notes() as notes:
        course = refine(
            model, teacher, Refinement(20, 32, precision="float32"),
            Context(PreparedModel(teacher), Samples.of(images, len(images)), loss=loss),
        )  # fmt: skip
    assert any(f"ended before step {good + 1}, whose numbers are not finite" in text for text in notes.texts)
    assert len(course) == good
    if good:
        assert course[-1]["after"] < course[-1]["before"]
    assert (distance(model, teacher, images) < distance(rough, teacher, images)) == (good > 0)


def test_the_features_are_no_part_of_the_divergence(rough: nn.Module, teacher: nn.Module, images: Tensor) -> None:
    context = Context(PreparedModel(teacher), Samples.of(images, len(images)))
    first = [refine(copy.deepcopy(rough), teacher, Refinement(1, 32, features=weight), context) for weight in (0, 5.0)]
    assert first[0][0]["divergence"] == pytest.approx(first[1][0]["divergence"], rel=1e-6)


def test_batches_in_parts_give_the_same_gradients(
    rough: nn.Module, teacher: nn.Module, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = Refinement(4, 32, precision="float32", code_rate=0.0)
    whole = tuned(rough, teacher, images, how)
    monkeypatch.setattr(loop, "_LIVE_BYTES", 1)
    parts = tuned(rough, teacher, images, how)
    assert torch.allclose(whole(images), parts(images), atol=1e-2)


def test_no_iterations_change_nothing(rough: nn.Module, teacher: nn.Module, images: Tensor) -> None:
    model = tuned(rough, teacher, images, Refinement(0))
    assert torch.equal(model(images), rough(images))


def test_features_are_matched(rough: nn.Module, teacher: nn.Module, images: Tensor) -> None:
    def features(model: nn.Module) -> list[Tensor]:
        inner: list[Tensor] = []
        kinds = (nn.Conv2d, nn.Linear)
        layers = [module for module in model.modules() if isinstance(module, kinds)]
        handles = [layer.register_forward_hook(lambda _m, _i, output: inner.append(output)) for layer in layers]
        with torch.no_grad():
            model(images)
        for handle in handles:
            handle.remove()
        return inner

    expected = features(teacher)
    errors = []
    for weight in (0.0, 20.0):
        model = tuned(rough, teacher, images, Refinement(30, 32, features=weight, augment=False, precision="float32"))
        pairs = zip(features(model), expected, strict=True)
        errors.append(sum(float((given - due).square().sum() / due.square().sum()) for given, due in pairs))
    assert errors[1] < errors[0]
    assert not any(module._forward_hooks for module in teacher.modules())


class TwoHeads(nn.Module):
    """A regression model with a mapping for an output."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.box, self.score = nn.Conv2d(1, 6, 3), nn.Linear(6, 4), nn.Linear(6, 1)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        found = self.body(pixels).relu().mean((2, 3))
        return {"boxes": self.box(found), "scores": self.score(found)}


@pytest.mark.parametrize("own", [False, True])
def test_any_model_and_a_loss_of_the_users(images: Tensor, own: bool) -> None:
    model = TwoHeads()
    small = images[:64]

    def boxes(output: dict[str, Tensor], reference: dict[str, Tensor]) -> Tensor:
        return (output["boxes"] - reference["boxes"]).abs().mean()

    loss = boxes if own else None
    how = Refinement(60, 32, bias_rate=1e-3, code_rate=0.0, augment=False, precision="float32")
    errors = []
    for tuning in (Refinement(0), how):
        coded = corank.quantize(model, small, bits=2, preset="nearest", refinement=tuning, loss=loss, all_layers=True)
        with torch.no_grad():
            errors.append(float((loss or output_distance)(coded(small), model(small))))
    assert errors[1] < errors[0]


def test_networks_that_bfloat16_autocast_breaks_are_refined_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    class Adds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.zeros(len(x), 8)
            hidden.index_add_(0, torch.arange(len(x)), self.first(x))  # refuses another dtype
            return self.last(hidden.relu())

    monkeypatch.setattr(Refinement, "uses_bfloat16", lambda self, device: self.precision != "float32")
    model, data = Adds().eval(), torch.randn(32, 6)
    how = Refinement(iterations=2)
    small = corank.quantize(model, data, bits=3, budget=0, refinement=how)
    assert any("does not run under bfloat16" in text for text in small.corank_run.notes)
    plain = corank.quantize(model, data, bits=3, budget=0, refinement=dataclasses.replace(how, precision="float32"))
    assert not plain.corank_run.notes
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in small.state_dict().items())
    with pytest.raises(DataError, match="same scalar type"):
        corank.quantize(model, data, bits=3, refinement=dataclasses.replace(how, precision="bfloat16"))

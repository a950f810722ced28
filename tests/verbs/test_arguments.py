"""What a caller may get wrong: an error of corank's own that says what was given and what would do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import corank


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"layers": ["0"]}, r"layers=\['0'\]: exceptions by name pattern"),
        ({"layers": {0: 4}}, "the pattern 0 is no text"),
        ({"plan": "plan.json"}, r"Plan\.load"),
        ({"refinement": 10}, r"corank\.Refinement\(iterations=100\)"),
        ({"budget": "0.25"}, "budget='0.25': extra bits per weight"),
        ({"budget": 1000}, r"from 0 \(no adapters\) to 32"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": None}, "batch_size=None"),
        ({"device": None}, "device=None"),
        ({"loss": "mse"}, "loss='mse': a function of two outputs"),
        ({"loss": lambda a, b: a - b}, r"is a tensor \(2, 5\), not a finite scalar"),
        ({"loss": lambda a, b: 0.0}, "is 0.0, not a finite scalar"),
        ({"loss": lambda a, b: (a - b).sum() / 0}, "not a finite scalar"),
        ({"loss": lambda a, b: a["logits"]}, "could not read the model's output"),
    ],
)
def test_arguments_of_another_kind(images: Tensor, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(corank.CorankError, match=said):
        corank.quantize(small_net(), images, **{"bits": 4, "budget": 0, **settings})


def test_models_of_another_kind(images: Tensor) -> None:
    for model, said in (("digits", "models.resolve"), (None, "not a torch.nn.Module"), (nn.ReLU, "not a torch.nn.Mod")):
        with pytest.raises(corank.ModelError, match=said):
            corank.quantize(model, images)  # pyright: ignore[reportArgumentType]
    with pytest.raises(corank.ModelError, match=r"torch\.jit"):
        corank.quantize(torch.jit.trace(small_net(), images[:1]), images)  # pyright: ignore[reportArgumentType]
    with pytest.raises(corank.ModelError, match="has no shape yet"):
        corank.quantize(nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(2)), images)


def test_a_model_that_cannot_be_copied(images: Tensor) -> None:
    model = small_net()
    model.__dict__["kept"] = torch.ones(2, requires_grad=True) * 2  # with a graph
    with pytest.raises(corank.ModelError, match=r"tensor\.detach"):
        corank.quantize(model, images)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("0.bias", float("nan"), "'0.bias' holds values that are not finite"),
        ("1.running_var", -1.0, "'1.running_var' holds negative variances"),
        ("1.running_mean", float("nan"), "'1.running_mean' holds values"),
    ],
)
def test_outputs_that_are_no_numbers(images: Tensor, name: str, value: float, said: str) -> None:
    model = small_net()
    model.state_dict()[name].fill_(value)
    with pytest.raises(corank.ModelError, match=said):
        corank.quantize(model, images, bits=4)


def test_save_and_load_with_arguments_in_the_wrong_order(images: Tensor, tmp_path: Path) -> None:
    small, path = corank.quantize(small_net(), images, bits=4, budget=0), tmp_path / "small.safetensors"
    for wrong in ((path, small), (small, None), ("digits", path)):
        with pytest.raises(corank.ConfigError, match="a quantized model, then a path"):
            corank.save(*wrong)  # pyright: ignore[reportArgumentType]
    corank.save(small, path)
    with pytest.raises(corank.ConfigError, match="the path of a file comes first, not Sequential"):
        corank.load(small_net(), path)  # pyright: ignore[reportArgumentType]


def test_labels_that_are_none(images: Tensor) -> None:
    model = small_net()
    for labels, said in (
        (torch.zeros(16, 5), r"\(16, 5\) of torch.float32"),
        (torch.zeros(15, dtype=torch.long), r"\(15,\)"),
        (torch.full((16,), 99), "the label 99 is none of the model's 5 classes, 0 to 4"),
    ):
        with pytest.raises(corank.DataError, match=said):
            corank.evaluate(model, [(images, labels)])


@pytest.mark.parametrize("size", range(4300, 4900, 50))
def test_any_size_between_the_smallest_and_the_float_one(images: Tensor, size: int, tmp_path: Path) -> None:
    """What is left after the widest codes may be less than any adapter takes."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(512, 5)
    )
    small = corank.quantize(model, images, size=size, preset="nearest")
    assert corank.save(small, tmp_path / "small.safetensors") <= size
    assert (small.corank_run.budget or 0) <= 32  # pyright: ignore


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_norms_of_half_models_are_folded(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
    for _ in range(6):
        layers += [nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 64, 4))
    x = torch.randn(8, 3, 8, 8)
    with torch.no_grad():
        for _ in range(5):
            model(x)
    small = corank.quantize(model.eval().to(dtype), x.to(dtype), bits=4, budget=0)
    assert len(small.corank_run.folded) == 7  # pyright: ignore


def test_files_of_wrapped_models_say_so(images: Tensor, tmp_path: Path) -> None:
    plain, path = small_net(), tmp_path / "small.safetensors"
    wrapped = nn.DataParallel(plain)
    corank.save(corank.quantize(wrapped, images, bits=4, budget=0), path)
    corank.load(path, wrapped)
    with pytest.raises(corank.ArtifactError, match=r"the model in the file was wrapped by torch\.nn\.DataParallel"):
        corank.load(path, plain)
    corank.save(corank.quantize(plain, images, bits=4, budget=0), path)
    for other, name in ((wrapped, "DataParallel"), (torch.compile(plain, backend="eager"), "compile")):
        with pytest.raises(corank.ArtifactError, match=rf"this model is wrapped by torch\..*{name}"):
            corank.load(path, other)  # pyright: ignore[reportArgumentType]


def test_weights_that_are_no_layers_are_named() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head, self.start = nn.LSTM(8, 16), nn.Linear(16, 4), nn.Parameter(torch.zeros(3, 1, 16))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.cell(x)[0][:, -1])

    small = corank.quantize(Recurrent(), torch.randn(16, 5, 8), bits=4, budget=0)
    skipped = corank.inspect(small)["skipped"]
    assert "(LSTM: weight_ih_l0, weight_hh_l0, bias_ih_l0, ...; 1,664 numbers)" in skipped["cell"]
    assert "(Recurrent: start; 48 numbers)" in skipped[""]
    encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    small = corank.quantize(encoder, torch.randn(16, 5, 16), bits=4, budget=0)
    assert "in_proj_weight" in small.corank_run.skipped["self_attn"]  # pyright: ignore


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([np.zeros((4, 1, 8, 8), np.float32)], r"torch\.from_numpy\(array\)"),
        ([{"input": torch.zeros(4, 1, 8, 8), "flag": True}], "whose 'flag' is none; leave it out"),
        ([{}], "an empty dict"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.float64), r"data\.to\(torch\.float32\), or model\.float\(\)"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.uint8), r"the data is torch\.uint8 and the model torch\.float32"),
    ],
)
def test_data_that_is_none(data: Any, said: str) -> None:
    with pytest.raises(corank.DataError, match=said):
        corank.quantize(small_net(), data, bits=4, budget=0)


def test_two_inputs_need_a_mapping() -> None:
    class Siamese(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.head(a) - self.head(b)

    first, second = torch.randn(2, 8, 4)
    with pytest.raises(corank.DataError, match="takes mappings as batches"):
        corank.quantize(nn.Sequential(Siamese()), [(first, second)], bits=4)
    corank.quantize(Siamese(), [{"a": first, "b": second}], bits=4, budget=0)


def test_a_range_needs_inputs_that_are_rounded(images: Tensor) -> None:
    with pytest.raises(corank.ConfigError, match=r"activation_range='kl'.*activations=8, activation_range='kl'"):
        corank.quantize(small_net(), images, bits=4, activation_range="kl")
    corank.quantize(small_net(), images, bits=4, budget=0, preset="nearest", activations=8, activation_range="minmax")
    plan = corank.quantize(small_net(), images, bits=4, budget=0, preset="nearest").corank_run.plan
    with pytest.raises(corank.ConfigError, match="plan and activation_range were both given"):
        corank.quantize(small_net(), images, plan=plan, activation_range="kl")
    rounded = {"*": corank.LayerPlan(corank.Uniform(4), inputs=8)}
    corank.quantize(small_net(), images, budget=0, preset="nearest", layers=rounded, activation_range="minmax")


def test_progress_is_called(images: Tensor) -> None:
    model = small_net()
    for call in (
        lambda progress: corank.quantize(model, images, bits=4, progress=progress),
        lambda progress: corank.evaluate(model, images, model, progress=progress),
        lambda progress: corank.quantize_smallest(model, images, 1.0, images, progress=progress),
        lambda progress: corank.compare(model, images, images, [], progress=progress),
    ):
        with pytest.raises(corank.ConfigError, match=r"progress=5: a function of \(what, done, total\)"):
            call(5)

"""torch.set_default_dtype(torch.float64) changes nothing of what becomes of a float32 network."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.codecs import CODECS
from corank.errors import ConfigError
from corank.rounding import ROUNDERS
from corank.statistics import Gram

PACKAGE = Path(__file__).parent.parent / "src" / "corank"
FACTORIES = {"zeros", "ones", "empty", "eye", "rand", "randn", "linspace", "logspace"}
CALLS: dict[str, dict[str, Any]] = {
    "default": {"bits": 3, "search": corank.CoRa(iterations=4)},
    "best": {"preset": "best", "refinement": corank.Refinement(iterations=3, code_rate=0.1, features=0.5)},
    "paper": {"preset": "paper", "search": corank.CoRa(iterations=3, start=0.9)},
    "nearest": {"preset": "nearest", "budget": 0.3},
    "rate": {"rate": 2.0},
    "blocks": {"bits": 3, "budget": 0.0, "refinement": corank.BlockReconstruction(iterations=3, drop=0.5)},
    "activations": {"activations": 4, "refinement": corank.Refinement(iterations=3, drop=0.5)},
    "joint": {"search": "joint"},
}
SETTINGS: tuple[dict[str, Any], ...] = (
    {}, {"group": 8}, {"group": -1}, {"per": "row", "scaled": False}, {"zero": True}, {"levels": "kmeans"},
    {"range": "mse"}, {"range": "mse", "half": True}, {"symmetric": True, "range": "mse"}, {"threshold": "twn"},
    {"power_of_two_scale": True}, {"nearest": "log"},
)  # fmt: skip


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 16),
        nn.ReLU(),
        nn.Linear(16, 5),
    ).eval()


def images() -> Tensor:
    return torch.randn(48, 3, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float32)


def dtype_free(source: str) -> Iterator[int]:
    """Lines of calls that make floats of whatever the default dtype is."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if not isinstance(node.func.value, ast.Name) or node.func.value.id != "torch":
            continue
        named = {keyword.arg for keyword in node.keywords}
        numbers = [part for part in node.args if isinstance(_unsigned(part), ast.Constant)]
        if (node.func.attr in FACTORIES and "dtype" not in named) or (node.func.attr == "where" and len(numbers) == 2):
            yield node.lineno


def _unsigned(node: ast.expr) -> ast.expr:
    return node.operand if isinstance(node, ast.UnaryOp) else node


def test_dtype_free_sees() -> None:
    assert list(dtype_free("torch.zeros(3)\ntorch.where(a, -1.0, 1.0)\ntorch.randn(2, device=d)")) == [1, 2, 3]
    assert not list(dtype_free("torch.zeros(3, dtype=d)\ntorch.where(a, b, 1.0)\nnp.zeros(2)\ntorch.arange(4)"))


def test_every_factory_call_names_its_dtype() -> None:
    errors = [
        f"{path.relative_to(PACKAGE)}:{line}: name the dtype; the caller's default may be float64"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] != "testing"
        for line in dtype_free(path.read_text())
    ]
    assert not errors, "\n".join(errors)


def fitted(name: str, weight: Tensor, gram: Tensor) -> list[Tensor]:
    """All that every setting of a codec gives for a weight."""
    found = []
    for bits in (1, 2, 3, 4, 8):
        for settings in SETTINGS:
            kind: Any = CODECS[name]
            try:
                book = kind(bits=bits, **settings).fit(weight, gram)
            except (ConfigError, TypeError):  # a width or a setting that it does not have
                continue
            codes = book.nearest(weight)
            found += [*book.tensors().values(), codes, book.values(codes), *book.neighbours(weight)]
    return found


@pytest.mark.parametrize("name", sorted(CODECS))
def test_codecs_fit_the_same(name: str) -> None:
    weight = torch.randn(6, 24, dtype=torch.float32) * 0.1
    rows = torch.randn(1, 100, 24, dtype=torch.float32)
    gram = rows.transpose(1, 2) @ rows / 100
    expected = fitted(name, weight, gram)
    with default_dtype(torch.float64):
        given = fitted(name, weight, gram)
    assert len(given) == len(expected)
    assert all(one.dtype == other.dtype and torch.equal(one, other) for one, other in zip(given, expected, strict=True))


@pytest.mark.parametrize("name", sorted(ROUNDERS))
def test_rounders_round_the_same(name: str) -> None:
    weight, rows = torch.randn(6, 24, dtype=torch.float32), torch.randn(1, 100, 24, dtype=torch.float32)

    def codes() -> Tensor:
        gram = Gram(1, 24)
        gram.update(rows, 1)
        return ROUNDERS[name]()(weight, corank.Uniform(3).fit(weight), {Gram: gram})

    expected = codes()
    with default_dtype(torch.float64):
        assert torch.equal(codes(), expected)


@pytest.mark.parametrize("call", CALLS)
def test_the_public_call_gives_the_same(call: str) -> None:
    model = network()
    expected = corank.quantize(model, images(), **CALLS[call]).state_dict()
    with default_dtype(torch.float64):
        given = corank.quantize(model, images(), **CALLS[call]).state_dict()
    assert given.keys() == expected.keys()
    assert all(value.dtype == expected[name].dtype for name, value in given.items())
    assert all(torch.equal(value, expected[name]) for name, value in given.items())


@pytest.mark.parametrize("call", CALLS)
def test_float64_networks_are_taken(call: str) -> None:
    single, double = network(), network().double()
    expected = corank.quantize(single, images(), **CALLS[call])
    with default_dtype(torch.float64):
        given = corank.quantize(double, images().double(), **CALLS[call])
    outputs = given(images().double())
    assert outputs.dtype == torch.float64
    # Sums in float32 and float64 differ in the last digits, which here and there moves a code.
    assert float((outputs - expected(images())).norm() / outputs.norm()) < 0.02
    for run in (given.corank_run, expected.corank_run):
        assert len(run.layers) == 4

"""Exact float32 within, torch's settings as they were outside: however they were set, by however many threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

import corank
from corank import precision
from corank.precision import exact_float32


def by_operator() -> None:
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"


WAYS: dict[str, Callable[[], None]] = {
    "as torch has them": lambda: None,
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "no TF32": lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
    "by operator": by_operator,
    "all at once": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
}


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = settings()
    yield
    torch.backends.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    for (_, change, _), value in zip(precision._switches(), before, strict=True):
        change(value)
    assert settings() == before


def settings() -> list[object]:
    return [read() for read, _, _ in precision._switches()]


@pytest.mark.parametrize("way", WAYS)
def test_exact_within_and_as_before_outside(way: str) -> None:
    WAYS[way]()
    before = settings()
    with exact_float32():
        assert set(settings()) == {"ieee"}
        with exact_float32():
            assert set(settings()) == {"ieee"}
        assert set(settings()) == {"ieee"}
    assert settings() == before


def test_the_last_of_several_threads_undoes_it() -> None:
    before = settings()
    entered, go_on = threading.Semaphore(0), threading.Event()

    def hold() -> None:
        with exact_float32():
            entered.release()
            go_on.wait()

    other = threading.Thread(target=hold)
    with exact_float32():
        other.start()
        entered.acquire()
    assert set(settings()) == {"ieee"}  # the first has left, the second is there
    go_on.set()
    other.join()
    assert settings() == before


def test_an_error_undoes_it() -> None:
    before = settings()
    with pytest.raises(ZeroDivisionError), exact_float32():
        raise ZeroDivisionError
    assert settings() == before


def test_older_torch_is_set_by_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.8.0"))
    torch.set_float32_matmul_precision("high")
    with exact_float32():
        assert not torch.backends.cudnn.allow_tf32 and torch.get_float32_matmul_precision() == "highest"
    assert torch.backends.cudnn.allow_tf32 and torch.get_float32_matmul_precision() == "high"


class Spy(nn.Linear):
    """Keeps torch's settings as its passes saw them."""

    def __init__(self) -> None:
        super().__init__(6, 4)
        self.seen: set[object] = set()

    def forward(self, x: Tensor) -> Tensor:
        SEEN.update(settings())
        return super().forward(x)


SEEN: set[object] = set()


def test_calibration_and_evaluation_are_exact() -> None:
    torch.set_float32_matmul_precision("high")
    model, data = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), Spy()), torch.randn(16, 6)
    SEEN.clear()
    corank.quantize(model, data, bits=3, budget=0, device="cpu")
    assert {"ieee"} == SEEN
    SEEN.clear()
    corank.evaluate(model, [(data, torch.zeros(16, dtype=torch.long))])
    assert {"ieee"} == SEEN
    model(data)
    assert "tf32" in SEEN

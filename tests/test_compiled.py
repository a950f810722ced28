"""Models that torch compiled are quantized like plain ones; nothing is compiled, no compiler loaded without need."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import corank
from corank.compiled import uncompiled
from corank.storage.model_record import run_of


class Wrapped(nn.Module):
    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.head = inner, nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(x).mean((2, 3)))


def test_a_compiled_part_is_watched_as_it_was_written() -> None:
    compiled: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        compiled.append(str(graph.graph))
        return graph.forward

    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3))
    x = torch.randn(16, 3, 8, 8)
    model = Wrapped(inner)
    plain = corank.quantize(model, x, bits=3, budget=0)
    model.inner = torch.compile(inner, backend=backend)
    small = corank.quantize(model, x, bits=3, budget=0)
    assert not compiled
    with torch.no_grad():
        assert torch.equal(small(x), plain(x))
    names = [name.replace("._orig_mod", "") for name in run_of(small).plan.layers]
    assert names == list(run_of(plain).plan.layers)
    assert len(run_of(small).folded) == 1


def test_the_compiler_is_not_loaded_without_need() -> None:
    code = (
        "import sys, torch, corank\n"
        "net = torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(3)))\n"
        "corank.quantize(net, torch.randn(32, 8), rate=2.0)\n"
        "print('torch._dynamo' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stdout + done.stderr


def test_threads_that_overlap_leave_torch_as_it_was() -> None:
    import torch._dynamo

    def stance() -> str:
        return torch._dynamo.eval_frame._stance.stance

    before, first, second = stance(), uncompiled(), uncompiled()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert stance() == "force_eager"  # the second is within still
    second.__exit__(None, None, None)
    assert stance() == before
    with uncompiled(), uncompiled():
        assert stance() == "force_eager"
    assert stance() == before

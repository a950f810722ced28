"""Networks that send samples to experts: other samples in the coded network than in the float one, to some none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.rounding import Qronos
from corank.storage.model_record import run_of

QRONOS = corank.LayerPlan(corank.Uniform(3), Qronos(), sequential=True, bias_correction=True)
LAYERS = ("gate", "experts.0", "experts.1", "head")
CALLS: dict[str, dict[str, Any]] = {
    "codes alone": {"bits": 3, "budget": 0},
    "default": {"bits": 3, "search": corank.CoRa(iterations=4)},
    "rate": {"rate": 2},
    "best": {"preset": "best", "refinement": corank.Refinement(iterations=4, features=0.5, code_rate=0.1)},
    "paper": {"preset": "paper", "search": corank.CoRa(iterations=4, start=0.9)},
    "nearest": {"preset": "nearest"},
    "activations": {"activations": 4, "budget": 0, "refinement": corank.Refinement(iterations=4, drop=0.5)},
    "activations, one by one": {"preset": "nearest", "activations": 4},
    "greedy": {"search": "greedy"},
    "joint": {"search": corank.Joint(sensitivity="measured")},
    "uniform ranks": {"search": "uniform", "budget": 2.0},
    "blocks": {"bits": 3, "budget": 0, "refinement": corank.BlockReconstruction(iterations=4, drop=0.5)},
    "codec": {"codec": "kmeans", "bits": 2, "budget": 0},
    "qronos": {"plan": corank.Plan(dict.fromkeys(LAYERS, QRONOS))},
    "size": {"size": 3000, "search": "greedy"},
    "rate for size": {"size": 3000, "rate": "auto"},
}


class Router(nn.Module):
    """Each row goes to the expert of its largest score.

    Args:
        calls_empty: experts are called with the rows sent to them even where there are none.
        never: the second expert gets no row, whatever the input.
        turns: how often all rows are sent.
    """

    def __init__(self, calls_empty: bool = True, never: bool = False, turns: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gate, self.head = nn.Linear(8, 2), nn.Linear(8, 5)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        self.calls_empty, self.turns = calls_empty, turns
        if never:
            self.gate.bias.data[1] = -1e3

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.turns):
            chosen, found = self.gate(x).argmax(-1), torch.zeros_like(x)
            for number, expert in enumerate(self.experts):
                rows = (chosen == number).nonzero()[:, 0]
                if self.calls_empty or len(rows):
                    found = found.index_add(0, rows, expert(x[rows]))
            x = x + found.relu()
        return self.head(x)


def inputs(count: int = 512) -> Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("calls_empty", [True, False])
@pytest.mark.parametrize("never", [False, True])
@pytest.mark.parametrize("call", CALLS)
def test_every_call_takes_them(call: str, never: bool, calls_empty: bool) -> None:
    model = Router(calls_empty, never).eval()
    small = corank.quantize(model, inputs(), **CALLS[call])
    run, given = run_of(small), small(inputs())
    assert set(run.layers) == set(LAYERS)
    assert bool(torch.isfinite(given).all())
    assert float((given - model(inputs())).detach().norm() / given.detach().norm()) < 0.5
    said = [text for text in run.notes if "no sample reaches it" in text]
    assert [text.partition(":")[0] for text in said] == (["layer 'experts.1'"] if never else [])
    assert corank.inspect(small)["notes"] == list(run.notes)


@pytest.mark.parametrize("call", ["codes alone", "default", "activations", "best", "blocks"])
def test_batches_of_one_row_and_experts_called_twice(call: str) -> None:
    for model in (Router(turns=2), Router(calls_empty=False, turns=2)):
        small = corank.quantize(model.eval(), inputs(24), batch_size=1, **CALLS[call])
        assert bool(torch.isfinite(small(inputs())).all())


def test_an_expert_that_no_sample_reaches_is_rounded_to_nearest() -> None:
    model = Router(never=True).eval()
    small = corank.quantize(model, inputs(), bits=3, budget=1.0, activations=4, search="greedy")
    run, expert = run_of(small), model.requires_grad_(False).experts[1]
    layer = run.plan.layers["experts.1"]
    assert (layer.rank, layer.inputs) == (0, None) and run.plan.layers["experts.0"].inputs == 4
    assert layer.codec is not None
    book = layer.codec.fit(expert.weight)
    expected = book.values(book.nearest(expert.weight))
    found = small.get_submodule("experts.1").weight
    assert torch.equal(found, expected)
    energy = expert.weight.square().sum() + expert.bias.square().sum()
    error = float((expert.weight - expected).square().sum() / energy)
    assert run.layers["experts.1"].relative_output_error == pytest.approx(error, rel=1e-3)


@pytest.mark.parametrize(("call", "plain"), [({"rate": 2.0}, {"rate": 2.0}), ({"search": "joint"}, {})])
def test_a_search_of_codecs_leaves_it_what_was_asked_for(call: dict[str, Any], plain: dict[str, Any]) -> None:
    asked = corank.quantize(Router(never=True), inputs(), search="uniform", budget=0, **plain)
    found = corank.quantize(Router(never=True), inputs(), **call)
    assert run_of(found).plan.layers["experts.1"].codec == run_of(asked).plan.layers["experts.1"].codec


def test_files_and_checkpoints_keep_what_is_special_of_it(tmp_path: Path) -> None:
    call: dict[str, Any] = {"activations": 4, "budget": 0, "checkpoint": tmp_path / "kept"}
    first = corank.quantize(Router(never=True), inputs(), **call)
    again = corank.quantize(Router(never=True), inputs(), **call)
    assert run_of(again).notes == run_of(first).notes != ()
    corank.save(first, tmp_path / "small.safetensors")
    loaded = corank.load(tmp_path / "small.safetensors", Router(never=True))
    expected = first.eval()(inputs())
    assert torch.equal(again.eval()(inputs()), expected) and torch.equal(loaded.eval()(inputs()), expected)
    assert run_of(loaded).plan.layers["experts.1"].inputs is None


def test_an_expert_that_waiting_samples_miss_is_coded_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory holds some samples only, those that do not wait tell of the layers that these do not reach."""
    import corank.coding.sequence as sequence

    model, data = Router().eval(), inputs()
    first = data[model.gate(data).argmax(-1) == 0]
    data = torch.cat([first[:64], data])
    whole = corank.quantize(model, data, bits=3, budget=0, activations=4)
    monkeypatch.setattr(sequence, "waiting_samples", lambda _model, _layers, context: context.samples.take(64))
    part = corank.quantize(model, data, bits=3, budget=0, activations=4)
    assert not [text for text in run_of(part).notes if "no sample reaches" in text]
    assert run_of(part).plan.layers["experts.1"].inputs == 4
    for small in (whole, part):
        error = run_of(small).layers["experts.1"].relative_output_error
        assert 0 < error < 0.1

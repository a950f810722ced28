"""Steps kept in a folder, and runs that are interrupted at every kind of step and continue."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import corank
from corank.calibration import live_numbers
from corank.checkpoint import Checkpoint, fingerprint
from corank.data import load as load_images
from corank.models.digits import digits_net
from corank.presets import PRESETS
from corank.rounding import AdaRound

BEST = PRESETS["best"]


@pytest.fixture(scope="module")
def images() -> Tensor:
    return load_images("digits:train").tensor()[:128]


def test_a_step_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4), "b": torch.arange(5, dtype=torch.uint8), "c": torch.zeros(0)}
    Checkpoint(tmp_path / "kept", {"seed": 1}).save("one", tensors, {"rank": 3, "name": "ä"})
    found = Checkpoint(tmp_path / "kept", {"seed": 1}).load("one")
    assert found is not None
    assert found[1] == {"rank": 3, "name": "ä"}
    assert all(torch.equal(found[0][name], tensor) for name, tensor in tensors.items())
    assert Checkpoint(tmp_path / "kept", {"seed": 1}).load("two") is None
    assert not list(tmp_path.rglob("*.tmp"))


def test_another_runs_folder_is_refused(tmp_path: Path) -> None:
    Checkpoint(tmp_path, {"seed": 1, "model": "x"})
    with pytest.raises(corank.ConfigError, match=r"another run \(seed differs\)"):
        Checkpoint(tmp_path, {"seed": 2, "model": "x"})
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(corank.ConfigError, match="another run"):
        Checkpoint(tmp_path, {"seed": 2})


def test_a_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(corank.ConfigError, match="other files"):
        Checkpoint(tmp_path, {})
    with pytest.raises(corank.OutputError):
        Checkpoint(tmp_path / "thesis.txt", {})


@pytest.mark.parametrize("damage", [b"", b"\0" * 40, b"\xff" * 200])
def test_a_damaged_step_says_so(tmp_path: Path, damage: bytes) -> None:
    kept = Checkpoint(tmp_path, {})
    kept.save("one", {"a": torch.zeros(2)})
    (tmp_path / "one.safetensors").write_bytes(damage)
    with pytest.raises(corank.ConfigError, match="damaged"):
        kept.load("one")


def test_a_flipped_bit_of_a_step_is_found(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path, {})
    kept.save("one", {"a": torch.arange(4.0), "b": torch.tensor(2)}, {"rank": 3})
    path = tmp_path / "one.safetensors"
    data = path.read_bytes()
    assert kept.load("one") is not None
    for place in (data.index(b"rank"), data.index(b"[4]") + 1, len(data) - 1):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(corank.ConfigError, match="damaged"):
            kept.load("one")


def test_no_folder_keeps_nothing() -> None:
    kept = Checkpoint(None, {})
    kept.save("one", {"a": torch.zeros(2)})
    assert kept.load("one") is None


def test_fingerprints_tell_values_shapes_and_dtypes_apart() -> None:
    values = [
        torch.zeros(4),
        torch.zeros(2, 2),
        torch.zeros(4).half(),
        torch.ones(4),
        torch.zeros(4, dtype=torch.int32),
    ]
    assert len({fingerprint([value]) for value in values}) == len(values)
    assert fingerprint([torch.zeros(4)]) == fingerprint([torch.zeros(4)])


class Stop(Exception):
    """An interruption."""


@pytest.mark.parametrize(
    ("preset", "search", "stage", "place"),
    [
        ("best", None, "coding", 3),
        ("best", None, "refining", 40),
        ("fast", "greedy", "coding", 4),
        ("paper", None, "coding", 2),
    ],
)
def test_an_interrupted_run_continues_to_the_identical_file(
    images: Tensor, tmp_path: Path, preset: str, search: str | None, stage: str, place: int
) -> None:
    finder = corank.CoRa(iterations=4, batch_size=16) if preset == "paper" else search
    chosen = replace(BEST, layer=replace(BEST.layer, rounder=AdaRound(40))) if preset == "best" else preset

    def run(folder: Path | None, stop_at: int | None = None) -> bytes:
        seen: list[str] = []

        def progress(what: str, done: int, total: int) -> None:
            seen.append(what)
            if what == stage and done == stop_at:
                raise Stop

        quantized = corank.quantize(
            digits_net(), images, bits=2, budget=0.2, preset=chosen, search=finder, checkpoint=folder,
            progress=progress, refinement=corank.Refinement(60, 16) if preset == "best" else None,
        )  # fmt: skip
        counts.append(seen.count(stage))
        corank.save(quantized, tmp_path / "out")
        return (tmp_path / "out").read_bytes()

    counts: list[int] = []
    whole = run(None)
    with pytest.raises(Stop):
        run(tmp_path / "kept", place)
    assert run(tmp_path / "kept") == whole
    if stage == "refining":
        assert counts == [60, 60 - place // 25 * 25]
    assert run(tmp_path / "kept") == whole  # a finished run, too


def test_another_model_does_not_continue(images: Tensor, tmp_path: Path) -> None:
    model = digits_net()
    corank.quantize(model, images, bits=3, preset="nearest", checkpoint=tmp_path / "kept")
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    with pytest.raises(corank.ConfigError, match="model differs"):
        corank.quantize(model, images, bits=3, preset="nearest", checkpoint=tmp_path / "kept")
    assert json.loads((tmp_path / "kept" / "run.json").read_text())["seed"] == 0


def test_live_numbers_count_inner_outputs() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    assert live_numbers(model, torch.zeros(7, 4)) == 3 + 3 + 2


@pytest.mark.parametrize("call", ["Checkpoint(sys.argv[1], {})", "Checkpoint(sys.argv[1], {}).save('one', {})"])
def test_a_folder_of_a_run_that_was_killed_while_it_wrote_goes_on(call: str, tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom corank.checkpoint import Checkpoint\nreal = os.replace\n"
        "def killed(*paths):\n"
        f"    if 'save' in {call!r} and str(paths[1]).endswith('.json'):\n        return real(*paths)\n"
        "    os._exit(9)\n"
        f"os.replace = killed\n{call}\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "kept")]).returncode == 9
    assert any(path.name.endswith(".tmp") for path in (tmp_path / "kept").iterdir())
    kept = Checkpoint(tmp_path / "kept", {})
    assert kept.load("one") is None
    kept.save("one", {"a": torch.ones(2)})
    assert kept.load("one") is not None
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["one.safetensors", "run.json"]


def distances(power: float) -> list[Callable[..., Tensor]]:
    return [
        lambda output, reference: (output - reference).abs().pow(power).mean(),
        lambda output, reference: (output - reference).abs().pow(power).amax(),
    ]


def test_another_loss_does_not_continue(images: Tensor, tmp_path: Path) -> None:
    def run(loss: Callable[..., Tensor]) -> torch.nn.Module:
        search = corank.CoRa(iterations=2, batch_size=16)
        return corank.quantize(
            digits_net(), images[:32], bits=2, budget=0.2, preset="paper", search=search, loss=loss,
            checkpoint=tmp_path / "kept",
        )  # fmt: skip

    first = run(distances(2.0)[0])
    for other in (distances(2.0)[1], distances(1.5)[0]):
        with pytest.raises(corank.ConfigError, match="loss differs"):
            run(other)
    assert run(distances(2.0)[0]).corank_run.plan == first.corank_run.plan


def test_the_number_of_processes_tells_runs_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Checkpoint(tmp_path, {})
    monkeypatch.setattr("corank.checkpoint.number_of_processes", lambda: 2)
    with pytest.raises(corank.ConfigError, match="processes differs"):
        Checkpoint(tmp_path, {})

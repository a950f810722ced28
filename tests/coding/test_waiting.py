"""As many samples as the machine has memory for, and word of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.calibration import Context, Samples
from corank.checkpoint import Checkpoint
from corank.coding import waiting
from corank.coding.waiting import waiting_samples
from corank.layers import prepare
from corank.notes import collected_notes


def wide() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 64, 4)
    )


SAMPLE = 4 * 16 * 64  # bytes of the widest inputs
IMAGES = 64


@pytest.fixture
def images() -> Tensor:
    return torch.randn(IMAGES, 3, 8, 8)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch):
    def only(samples: float | None) -> None:
        size = None if samples is None else int(samples * 6 * SAMPLE)
        monkeypatch.setattr(waiting, "free_bytes", lambda _device: size)

    return only


def taken(images: Tensor, kept: Checkpoint | None = None) -> tuple[int, list[str]]:
    prepared = prepare(wide(), lambda model: model(images[:2]))
    context = Context(prepared, Samples.of(images, IMAGES, 4), checkpoint=kept or Checkpoint(None))
    with collected_notes() as notes:
        samples = waiting_samples(prepared.model, prepared.targets, context)
    return len(samples), list(notes.texts)


@pytest.mark.parametrize(
    ("room", "expected"),
    [(None, 64), (4 * 64, 64), (130, 64), (127, 56), (80, 40), (17, 8), (9, 4), (0.1, 4)],
)
def test_as_many_wait_as_fit_in_whole_eighths(room: float | None, expected: int, images: Tensor, free) -> None:
    """Below 2 GB half of what is free is spent; a batch of four is the least."""
    free(room)
    count, notes = taken(images)
    assert count == expected
    assert bool(notes) == (count < IMAGES)
    if notes:
        assert f"from {count} of the 64 samples" in notes[0]


def test_a_quarter_is_spent_where_there_is_much(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_USUAL_BYTES", 6 * SAMPLE)
    for room, expected in ((64 * 4, 64), (63 * 4, 56), (1.5, 4)):
        monkeypatch.setattr(waiting, "free_bytes", lambda _device, room=room: int(room * 6 * SAMPLE))
        assert taken(images)[0] == expected


def test_few_samples_are_never_none(free) -> None:
    free(0.0)
    assert taken(torch.randn(3, 3, 8, 8))[0] == 3  # one batch


def test_a_run_that_goes_on_elsewhere_takes_as_many(images: Tensor, tmp_path: Path, free) -> None:
    free(80)
    assert taken(images, Checkpoint(tmp_path, {}))[0] == 40
    free(1000)
    assert taken(images, Checkpoint(tmp_path, {}))[0] == 40
    assert taken(images)[0] == 64


def test_the_record_says_how_many(images: Tensor, tmp_path: Path, free) -> None:
    def coded(folder: Path | None = None) -> nn.Module:
        return corank.quantize(wide(), images, bits=3, budget=0, batch_size=4, checkpoint=folder)

    free(None)
    whole = corank.inspect(coded())
    assert whole["samples"] == IMAGES and whole["notes"] == []
    free(80)
    first = corank.inspect(coded(tmp_path / "kept"))
    assert first["samples"] == 40 and "from 40 of the 64 samples" in first["notes"][0]
    free(1000)  # the same run on a larger machine
    again = corank.inspect(coded(tmp_path / "kept"))
    assert {**again, "seconds": 0} == {**first, "seconds": 0}
    corank.save(coded(), tmp_path / "small.safetensors")
    read = corank.inspect(tmp_path / "small.safetensors")
    assert read["samples"] is None and read["notes"] == []


def test_a_layer_of_many_numbers_does_not_leave_samples_out() -> None:
    """64 x 112 x 112 numbers: 111 samples in 2 GB."""
    from corank.memory import free_bytes

    left = free_bytes()
    if left is None or left < 10 << 30:
        pytest.skip("needs 10 GB of free memory")
    model = nn.Sequential(nn.Conv2d(1, 64, 1), nn.ReLU(), nn.Conv2d(64, 2, 1))
    samples = Samples(tuple(torch.zeros(8, 1, 1, 1).expand(8, 1, 112, 112) for _ in range(15)), True)
    assert waiting._affordable(model, {"2": model[2]}, samples) == 120

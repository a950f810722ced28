"""Batches as a function of seed and step, of samples in every form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from corank.calibration import Batches, batches
from corank.errors import DataError

ROWS = torch.arange(10.0)[:, None] + torch.tensor([0.0, 100.0])
CLASSES = torch.arange(10)


class Lazy:
    """A source that counts what is read."""

    def __init__(self) -> None:
        self.read: list[list[int]] = []

    @property
    def labels(self) -> tuple[Tensor, ...]:
        return (CLASSES,)

    def __len__(self) -> int:
        return 10

    def rows(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        self.read.append(indices.tolist())
        return ROWS[indices], CLASSES[indices]


def made(kind: str, size: int = 4, seed: int = 0) -> Batches:
    if kind == "tensor":
        return Batches.of(ROWS, CLASSES, size, seed)
    if kind == "mapping":
        return Batches.of({"x": ROWS, "labels": CLASSES}, None, size, seed)
    if kind == "pieces":
        return Batches.of(zip(ROWS.split(3), CLASSES.split(3), strict=True), None, size, seed)
    return Batches(Lazy(), size, seed)


KINDS = ("tensor", "mapping", "pieces", "lazy")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 3, 4, 10, 64])
def test_an_epoch_sees_every_sample_in_turn_with_its_label(kind: str, size: int) -> None:
    found = made(kind, size)
    assert len(found) == 10 and found.batch_size == min(size, 10) and found.steps_an_epoch == 10 // min(size, 10)
    for epoch in range(2):
        seen: list[int] = []
        for step in range(epoch * found.steps_an_epoch, (epoch + 1) * found.steps_an_epoch):
            inputs, labels = found(step)
            inputs = inputs["x"] if kind == "mapping" else inputs
            assert labels is not None and torch.equal(inputs, ROWS[labels]) and len(labels) == found.count(step)
            seen += labels.tolist()
        assert len(set(seen)) == len(seen) == found.steps_an_epoch * found.batch_size


def test_a_step_depends_on_seed_and_step_alone() -> None:
    drawn = {kind: [made(kind).draw(step).tolist() for step in (7, 0, 3, 7)] for kind in KINDS}
    assert all(drawn[kind] == drawn["tensor"] for kind in KINDS)
    assert drawn["tensor"][0] == drawn["tensor"][3] != drawn["tensor"][1]
    assert made("tensor", 10).draw(0).tolist() != made("tensor", 10).draw(1).tolist()  # epochs of their own
    assert made("tensor", 10, 1).draw(0).tolist() != made("tensor", 10, 4097).draw(0).tolist()
    assert made("tensor").step_seed(1) != made("tensor").step_seed(2) != made("tensor", seed=1).step_seed(2)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_make_up_the_batch(kind: str) -> None:
    found = made(kind)
    parts = [found.part(5, start, 3) for start in (0, 3)]
    inputs, labels = found(5)
    pick = (lambda one: one["x"]) if kind == "mapping" else (lambda one: one)
    assert torch.equal(torch.cat([pick(part[0]) for part in parts]), pick(inputs))
    assert torch.equal(torch.cat([part[1] for part in parts if part[1] is not None]), labels)  # pyright: ignore[reportArgumentType]


def test_of_a_lazy_source_only_the_part_is_read() -> None:
    source = Lazy()
    found = Batches(source, 4)
    found.part(1, 2, 2)
    assert source.read[1:] == [found.draw(1).tolist()[2:]]


def test_samples_that_cannot_be_stacked_keep_their_batches() -> None:
    data = [(torch.randn(2, 3, 8), torch.tensor([0, 1])), (torch.randn(3, 3, 6), torch.tensor([2, 2, 1]))]
    found = Batches.of(data, None, 4)
    assert not found.stacked and len(found) == 5 and found.batch_size == 3 and found.steps_an_epoch == 2
    assert {found.count(step) for step in (0, 1)} == {2, 3}
    for step in range(4):
        inputs, labels = found(step)
        whole, own = next(pair for pair in data if pair[0].shape == inputs.shape)
        assert torch.equal(inputs, whole) and labels is not None and torch.equal(labels, own)
        assert torch.equal(found.part(step, 1, 1)[0], whole[1:2])
    assert len(found.first(1)) == 1 and len(found.samples(5)) == 5


def test_token_sequences_fill_batches_by_tokens_and_predict_what_follows() -> None:
    ids = torch.arange(40 * 256).view(40, 256) % 17
    found = Batches.of(ids.to(torch.uint8), None, 8)
    assert found.batch_size == 8 * 64 // 256 and found.labelled
    inputs, labels = found(0)
    assert inputs.dtype == torch.int64 and labels is not None
    assert torch.equal(labels[:, :-1], inputs[:, 1:]) and bool((labels[:, -1] == -100).all())
    found.check_labels("labels", torch.randn(1, 256, 17))
    with pytest.raises(DataError, match="the label 9 is none of the model's 9 classes"):
        found.check_labels("labels", torch.randn(1, 256, 9))


def test_pixels_stay_bytes() -> None:
    pixels = torch.randint(0, 256, (6, 3, 4, 4), dtype=torch.uint8)
    assert Batches.of(pixels)(0)[0].dtype == torch.uint8


def test_a_limit_takes_samples_from_the_front_and_reads_no_further() -> None:
    def endless() -> Any:
        while True:
            yield ROWS, CLASSES

    found = Batches.of(endless(), None, 4, 0, 13)
    assert len(found) == 13
    assert torch.equal(found.source.labels[1], CLASSES[:3])


def test_an_endless_iterable_stops_before_memory_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter([100, 80, 50, 19])
    monkeypatch.setattr(batches, "free_bytes", lambda: next(left))
    with pytest.raises(DataError, match=r"after 30 samples memory is nearly full .*samples=15"):
        Batches.of(iter([ROWS] * 9))


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_the_first_in_order(kind: str) -> None:
    found = made(kind).samples(6, 4)
    given = [batch["x"] if kind == "mapping" else batch for batch in found.batches]
    assert [len(one) for one in given] == [4, 2] and torch.equal(torch.cat(given), ROWS[:6])


def test_labels_are_checked_before_the_first_step() -> None:
    found, bare = made("tensor"), Batches.of(ROWS)
    assert found.labelled and not bare.labelled
    bare.check_labels("distil", torch.randn(1, 3))
    with pytest.raises(DataError, match=r"loss='both' needs labels.*loss='distil'"):
        bare.check_labels("both")
    found.check_labels("labels", torch.randn(1, 10))
    with pytest.raises(DataError, match="the label 5 is none of the model's 5 classes"):
        found.check_labels("labels", torch.randn(1, 5))
    with pytest.raises(DataError, match=r"labels are torch.int64 \(10,\)"):
        Batches.of(torch.ones(10, 4, dtype=torch.int64), CLASSES).check_labels("labels", torch.randn(2, 4, 12))
    soft = Batches.of(ROWS, torch.rand(10, 3))
    soft.check_labels("labels", torch.randn(1, 3))
    with pytest.raises(DataError, match="whole numbers"):
        soft.check_labels("labels", torch.randn(1, 4))


def test_identity_tells_samples_apart() -> None:
    other = ROWS.clone()
    other[3, 1] += 1
    same = {made("tensor").identity, made("pieces").identity, Batches.of(ROWS.clone(), CLASSES.clone()).identity}
    assert made("tensor").identity in same
    assert len({made("tensor").identity, Batches.of(other, CLASSES).identity, Batches.of(ROWS).identity}) == 3


@pytest.mark.parametrize(
    ("data", "labels", "words"),
    [
        (torch.randn(4), None, r"expected \(N, ...\)"),
        ([], None, "empty"),
        ("data.npz", None, "corank.data.load"),
        (3, None, "not int"),
        ([(ROWS, CLASSES), ROWS], None, "only 1 of the 2 batches have labels"),
        ([ROWS], CLASSES, "stand with each"),
        (ROWS, CLASSES[:4], "4 labels for 10 samples"),
    ],
)
def test_what_is_refused(data: Any, labels: Tensor | None, words: str) -> None:
    with pytest.raises(DataError, match=words):
        Batches.of(data, labels)

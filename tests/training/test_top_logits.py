"""The largest logits of a teacher and the mass of the rest: a divergence of k + 1 outcomes, kept in little."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import corank
from corank import Recipe
from corank.calibration import Batches
from corank.storage.artifact import serialized
from corank.training import loop
from corank.training.teacher_cache import Remembering, TeacherOutputs
from corank.training.top_logits import LargestLogits, TopLogits, divergence_from_top
from corank.training.weights import StraightThrough
from corank.verbs import training_data

VOCABULARY, KEPT, T = 70, 4, 2.0


def logits(seed: int) -> Tensor:
    return 3 * torch.randn(2, 5, VOCABULARY, generator=torch.Generator().manual_seed(seed))


def plain(given: Tensor, expected: Tensor) -> Tensor:
    given, expected = ((one / T).flatten(0, 1).log_softmax(1) for one in (given, expected))
    return F.kl_div(given, expected, log_target=True, reduction="batchmean")


def kept(expected: Tensor, count: int) -> TopLogits:
    values, indices = expected.topk(count)
    others = (expected / T).scatter(-1, indices, -torch.inf).logsumexp(-1, keepdim=True)
    return TopLogits(values, indices.int(), others)


def test_all_of_the_vocabulary_is_the_plain_loss() -> None:
    ours = logits(0).requires_grad_()
    both = [divergence_from_top(ours, kept(logits(1), VOCABULARY), T), plain(ours, logits(1))]
    assert torch.allclose(both[0], both[1], rtol=1e-6)
    slopes = [torch.autograd.grad(one, ours)[0] for one in both]
    assert torch.allclose(slopes[0], slopes[1], atol=1e-7) and bool(slopes[0].isfinite().all())


@pytest.mark.parametrize("count", [1, KEPT, VOCABULARY // 2])
def test_it_is_the_divergence_of_the_outcomes_that_are_told_apart(count: int) -> None:
    places = logits(1).topk(count).indices
    sums = []
    for one in (logits(0), logits(1)):
        chances = (one / T).double().softmax(-1)
        among = chances.gather(-1, places)
        sums.append(torch.cat([among, 1 - among.sum(-1, keepdim=True)], -1))
    expected = (sums[1] * (sums[1] / sums[0]).log()).sum(-1).mean()
    found = divergence_from_top(logits(0), kept(logits(1), count), T)
    assert torch.allclose(found.double(), expected, rtol=1e-4)
    assert 0 < found < plain(logits(0), logits(1)), "outcomes that are put together tell less apart"
    assert abs(float(divergence_from_top(logits(1), kept(logits(1), count), T))) < 1e-6


def test_only_logits_of_large_vocabularies_are_shortened() -> None:
    short = LargestLogits(KEPT, T)
    found = short({"logits": logits(1)})
    for one, other in zip(found, kept(logits(1), KEPT), strict=True):
        assert torch.equal(one, other)
    small, images = logits(1)[..., : 16 * KEPT], torch.randn(3, VOCABULARY)
    assert short(small) is small and short(images) is images


class Teacher(nn.Module):
    """Tokens (N, T) to logits; counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.middle, self.head = nn.Embedding(VOCABULARY, 8), nn.Linear(8, 8), nn.Linear(8, VOCABULARY)
        self.seen = 0

    def forward(self, ids: Tensor) -> Tensor:
        self.seen += len(ids)
        return self.head(self.middle(self.table(ids)).relu())


def tokens() -> Tensor:
    return torch.randint(VOCABULARY, (12, 6), generator=torch.Generator().manual_seed(2))


def test_what_is_kept_is_small_and_the_batches_are_the_same(tmp_path: Path) -> None:
    batches, short = Batches.of(tokens(), None, 5), LargestLogits(KEPT, T)
    how = Remembering(9, tmp_path, 0, shortened=short)
    found = TeacherOutputs(Teacher(), batches, how)
    assert found.kept == "folder"
    held = sum(file.stat().st_size for file in tmp_path.glob("*.bin"))
    assert held == tokens().numel() * (8 * KEPT + 4) < tokens().numel() * 4 * VOCABULARY
    with torch.no_grad():
        for step in range(4):
            inputs = batches(step)[0]
            assert torch.equal(inputs, Batches.of(tokens(), None, 5)(step)[0])
            for one, other in zip(found.outputs(step, inputs), short(Teacher()(inputs)), strict=True):
                assert torch.allclose(one, other, atol=1e-6)
    again, warmer = Teacher(), Teacher()
    TeacherOutputs(again, batches, how)
    assert again.seen == 5, "found there; one block tells the shape"
    TeacherOutputs(warmer, batches, Remembering(9, tmp_path, 0, shortened=LargestLogits(KEPT, 1.0)))
    assert warmer.seen > len(tokens()), "of another temperature"
    whole = TeacherOutputs(Teacher(), batches, Remembering(9, tmp_path, shortened=short))
    assert whole.kept == "memory" and isinstance(whole.outputs(0, batches(0)[0]), Tensor), "what fits stays whole"


class Killed(Exception):
    """Stands for the end of the process."""


def trained(folder: Path | None, stop: int | None = None, top: int = KEPT) -> bytes:
    def progress(what: str, done: int, _total: int) -> None:
        if what.startswith("training") and done == stop:
            raise Killed

    recipe = Recipe(
        StraightThrough(corank.Uniform(2)), batch_size=4, iterations=8, augment="none", temperature=T, top_logits=top
    )
    network = Teacher().eval()
    return bytes(serialized(corank.train(network, tokens(), recipe, checkpoint=folder, progress=progress)))


def test_a_training_on_them_resumes_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_data, "Remembering", partial(Remembering, memory_bytes=0))
    monkeypatch.setattr(loop, "_KEPT_EVERY", 3)
    expected = trained(tmp_path / "whole")
    assert (tmp_path / "whole" / "teacher" / "teacher.2.bin").exists()
    with pytest.raises(Killed):
        trained(tmp_path / "cut", stop=5)
    assert trained(tmp_path / "cut") == expected
    assert trained(tmp_path / "all", top=0) != expected, "whole logits are another loss"

"""A teacher's outputs, computed each time and kept in memory or in a folder: the same for every step."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from corank.calibration import Batches
from corank.errors import OutputError
from corank.notes import collected_notes
from corank.training import teacher_cache
from corank.training.teacher_cache import Remembering, TeacherOutputs

Disk = namedtuple("Disk", "free")


class Counted(nn.Module):
    """A network that counts its samples."""

    def __init__(self, kind: Any = None) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.inner, self.seen, self.kind = nn.Linear(3, 2), 0, kind

    def forward(self, x: Tensor) -> Any:
        self.seen += len(x)
        output = self.inner(x)
        return output if self.kind is None else self.kind(output)


def data(size: int = 7) -> Batches:
    return Batches.of(torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), None, size)


def by_the_step(batches: Batches, step: int) -> Tensor:
    with torch.no_grad():
        return Counted().inner(batches(step)[0])


@pytest.mark.parametrize("where", [None, "memory", "folder"])
def test_every_step_has_its_outputs(where: str | None, tmp_path: Path) -> None:
    batches, teacher = data(), Counted()
    how = Remembering(20, tmp_path / "kept", 0 if where == "folder" else 1 << 20)
    found = TeacherOutputs(teacher, batches, None if where is None else how)
    assert found.kept == where
    counted = teacher.seen
    for step in (0, 3, 17):
        given = found.outputs(step, batches(step)[0])
        assert torch.allclose(given, by_the_step(batches, step), atol=1e-6) and not given.requires_grad
        part = found.outputs(step, batches.part(step, 2, 3)[0], 2)
        assert torch.allclose(part, given[2:5], atol=1e-6)
    assert teacher.seen == (counted if where else 3 * (7 + 3))


def test_what_is_kept_is_bit_for_bit_the_same_wherever(tmp_path: Path) -> None:
    batches = data()
    memory = TeacherOutputs(Counted(), batches, Remembering(20))
    folder = TeacherOutputs(Counted(), batches, Remembering(20, tmp_path, 0))
    teacher = Counted()
    again = TeacherOutputs(teacher, batches, Remembering(20, tmp_path, 0))
    assert teacher.seen <= 7  # one block alone, for the shape of its outputs
    for step in range(6):
        given = [one.outputs(step, batches(step)[0]) for one in (memory, folder, again)]
        assert torch.equal(given[0], given[1]) and torch.equal(given[0], given[2])


@pytest.mark.parametrize("change", ["teacher", "samples", "damage"])
def test_outputs_of_something_else_are_computed_anew(change: str, tmp_path: Path) -> None:
    TeacherOutputs(Counted(), data(), Remembering(20, tmp_path, 0))
    batches, teacher = data(), Counted()
    if change == "teacher":
        with torch.no_grad():
            teacher.inner.bias.add_(1)
    elif change == "samples":
        batches = Batches.of(torch.ones(40, 3), None, 7)
    else:
        (tmp_path / "teacher.0.bin").write_bytes(b"half")
    found = TeacherOutputs(teacher, batches, Remembering(20, tmp_path, 0))
    assert teacher.seen >= 40
    with torch.no_grad():
        expected = teacher.inner(batches(2)[0])
    assert torch.allclose(found.outputs(2, batches(2)[0]), expected, atol=1e-6)


def test_outputs_of_several_tensors_and_of_a_part(tmp_path: Path) -> None:
    batches = data()
    for place in (None, tmp_path):
        how = Remembering(20, place, 1 << 20 if place is None else 0)
        both = TeacherOutputs(Counted(lambda one: {"logits": one, "half": one.bfloat16()}), batches, how)
        given = both.outputs(1, batches(1)[0])
        assert torch.allclose(given["logits"], by_the_step(batches, 1), atol=1e-6)
        assert torch.equal(given["half"], given["logits"].bfloat16())
    logits = TeacherOutputs(
        Counted(lambda one: {"logits": one, "n": 3}), batches, Remembering(20), lambda o: o["logits"]
    )
    assert logits.kept == "memory" and isinstance(logits.outputs(0, batches(0)[0]), Tensor)
    never = TeacherOutputs(Counted(lambda one: one), batches, None, lambda output: output[:, 0])
    assert never.outputs(0, batches(0)[0]).shape == (7,)


def test_nothing_is_kept_where_it_would_not_help() -> None:
    batches = data()
    assert TeacherOutputs(Counted(), batches, Remembering(5)).kept is None  # no sample is seen twice
    assert TeacherOutputs(Counted(lambda one: one.sum(0)), batches, Remembering(20)).kept is None
    apart = Batches.of([torch.randn(2, 3), torch.randn(2, 4, 3)])
    assert TeacherOutputs(Counted(), apart, Remembering(20)).kept is None
    with collected_notes() as notes:
        assert TeacherOutputs(Counted(), batches, Remembering(20, None, 0)).kept is None
    assert "computed anew" in " ".join(notes.texts)


def test_a_full_disk_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher_cache.shutil, "disk_usage", lambda _: Disk(100))
    with pytest.raises(OutputError, match=r"take 0.0 GB, .* left; give a folder with more room"):
        TeacherOutputs(Counted(), data(), Remembering(20, tmp_path, 0))
    assert not list(tmp_path.iterdir())


SCRIPT = """
import sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_teacher_cache import Counted, data
from corank.processes import init_processes
from corank.training.teacher_cache import Remembering, TeacherOutputs
import torch.distributed as dist
torch.set_num_threads(1)
init_processes()
folder, batches, found = Path(sys.argv[1]), data(), []
for place in (None, folder / "kept", folder / "kept"):
    teacher = Counted()
    outputs = TeacherOutputs(teacher, batches, Remembering(20, place, 1 << 20 if place is None else 0))
    found.append((teacher.seen, torch.cat([outputs.outputs(step, batches(step)[0]) for step in range(6)])))
torch.save(found, folder / str(dist.get_rank()))
dist.barrier()
"""


@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="needs accelerate")
def test_two_processes_share_the_work_and_keep_what_one_keeps(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launcher, str(script), str(tmp_path), str(Path(__file__).parent)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    batches = data()
    one = TeacherOutputs(Counted(), batches, Remembering(20))
    expected = torch.cat([one.outputs(step, batches(step)[0]) for step in range(6)])
    for rank in (0, 1):
        found = torch.load(tmp_path / str(rank))
        assert all(torch.equal(values, expected) for _, values in found)
        assert found[0][0] <= 28 + 7 and found[2][0] <= 7

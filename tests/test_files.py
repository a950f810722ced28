"""Files that appear whole or not at all, with the mode they should have, and under no name that others know."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import corank
from corank.checkpoint import Checkpoint
from corank.errors import OutputError
from corank.files import is_scratch, make_directory, read_at_most, staged, write_whole
from corank.plan import LayerPlan, Plan


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def mask() -> Iterator[Callable[[int], None]]:
    before = os.umask(0o022)
    yield lambda value: os.umask(value) and None
    os.umask(before)


def save_model(path: Path) -> None:
    small = corank.quantize(nn.Sequential(nn.Linear(8, 4)), torch.randn(8, 8), bits=4, preset="nearest")
    corank.save(small, path)


def save_plan(path: Path) -> None:
    Plan({"head": LayerPlan(None)}).save(path)


def save_step(path: Path) -> None:
    Checkpoint(path.parent / "kept", {}).save(path.name, {"a": torch.zeros(2)})
    os.replace(path.parent / "kept" / f"{path.name}.safetensors", path)


WRITERS = pytest.mark.parametrize("write", [save_model, save_plan, save_step, lambda path: write_whole(path, "text")])


@WRITERS
@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_a_new_file_has_the_mode_that_the_umask_gives(
    write: Callable[[Path], None], umask: int, mode: int, mask: Callable[[int], None], tmp_path: Path
) -> None:
    mask(umask)
    write(tmp_path / "new")
    assert mode_of(tmp_path / "new") == mode


@pytest.mark.parametrize("write", [save_model, save_plan])
def test_a_file_that_is_replaced_keeps_its_mode(write: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    (tmp_path / "old").chmod(0o640)
    write(tmp_path / "old")
    assert mode_of(tmp_path / "old") == 0o640 and (tmp_path / "old").stat().st_size > 0


@pytest.mark.parametrize("suffix", [".tmp", ".partial"])
def test_a_link_under_a_likely_name_is_not_followed(suffix: str, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    (tmp_path / f"plan.json{suffix}").symlink_to(tmp_path / "mine")
    save_plan(tmp_path / "plan.json")
    assert (tmp_path / "mine").read_text() == "precious"
    assert (tmp_path / f"plan.json{suffix}").is_symlink()


@WRITERS
def test_the_data_are_on_the_disk_before_the_name_is(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: done.append("sync") or sync(number))
    monkeypatch.setattr(os, "replace", lambda *paths: done.append("rename") or replace(*paths))
    write(tmp_path / "file")
    assert done[:2] == ["sync", "rename"]


def test_what_fails_leaves_all_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "file", b"first")
    for place in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, place, lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            with pytest.raises(OutputError, match=r"cannot write .*No space left"):
                write_whole(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("path", ["absent/file", ".", "\N{GRINNING FACE}" * 80])
def test_places_that_cannot_be_written(path: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        write_whole(tmp_path / path, b"")
    assert not list(tmp_path.iterdir())


def test_names_of_many_bytes_can_be_written(tmp_path: Path) -> None:
    write_whole(tmp_path / ("\N{GRINNING FACE}" * 60), "smile")
    assert len(list(tmp_path.iterdir())) == 1


def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for write in (lambda path: write_whole(path, b""), save_model):
        with pytest.raises(OutputError, match="not a file"):
            write(tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


def test_tools_write_beside_their_targets(tmp_path: Path, mask: Callable[[int], None]) -> None:
    mask(0o027)
    targets = (tmp_path / "net.bin", tmp_path / "net.xml")
    targets[0].touch()
    targets[0].chmod(0o604)
    with staged(*targets) as scratch:
        assert [path.name for path in scratch] == ["net.bin", "net.xml"]
        assert mode_of(scratch[0].parent) == 0o700
        for path in scratch:
            path.write_text(path.name)
            path.chmod(0o600)
        assert not targets[1].exists()
    assert [path.read_text() for path in targets] == ["net.bin", "net.xml"]
    assert [mode_of(path) for path in targets] == [0o604, 0o640]
    assert len(list(tmp_path.iterdir())) == 2


def test_tools_that_fail_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no"), staged(tmp_path / "net.onnx") as (scratch,):
        scratch.touch()
        raise ValueError("no")
    with pytest.raises(OutputError, match="cannot write"), staged(tmp_path / "net.onnx"):
        pass  # the tool wrote nothing
    with pytest.raises(OutputError, match="cannot write"), staged(tmp_path / "absent" / "net.onnx"):
        pass
    assert not list(tmp_path.iterdir())


def test_scratch_files_are_known_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: seen.append(Path(paths[0])) or replace(*paths))
    write_whole(tmp_path / "a.json", "1")
    assert is_scratch(seen[0]) and not is_scratch(tmp_path / "a.json") and not is_scratch(Path(".a.tmp"))


def test_small_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 10)
    assert read_at_most(tmp_path / "file", 10) == b"x" * 10
    with pytest.raises(ValueError, match="larger than 0 MB"):
        read_at_most(tmp_path / "file", 9)


def test_folders(tmp_path: Path) -> None:
    make_directory(tmp_path / "a" / "b")
    make_directory(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot create the folder"):
        make_directory(tmp_path / "file" / "c")

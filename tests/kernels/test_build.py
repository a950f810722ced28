"""Libraries are built once, whole, and where nobody else can write."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from corank.kernels import build
from corank.kernels.build import NotBuiltError, built, cache_folder

SOURCE = 'extern "C" int answer() { return %d; }\n'


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if build.os.name != "posix" or not any(build.shutil.which(name) for name in build.COMPILERS):
        pytest.skip("no C++ compiler")
    # what a shell would read as something else
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "it's; a $(cache)"))
    path = tmp_path / "answer.cpp"
    path.write_text(SOURCE % 41)
    return path


def libraries() -> list[str]:
    return sorted(path.name for path in cache_folder().iterdir())


def test_a_library_is_built_once(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert built(source).answer() == 41
    (name,) = libraries()
    assert name.startswith("answer-") and cache_folder().stat().st_mode & 0o077 == 0
    before = (cache_folder() / name).stat().st_mtime_ns
    assert built(source).answer() == 41
    assert libraries() == [name] and (cache_folder() / name).stat().st_mtime_ns == before
    source.write_text(SOURCE % 42)
    assert built(source).answer() == 42 and len(libraries()) == 2
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-DOTHER"))
    assert built(source).answer() == 42 and len(libraries()) == 3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a fork beside threads
def test_several_processes_at_once_find_a_whole_one(source: Path) -> None:
    processes = multiprocessing.get_context("fork")
    start, found = processes.Barrier(3), processes.Queue()

    def build_it() -> None:
        start.wait(30)
        found.put(built(source).answer())

    running = [processes.Process(target=build_it) for _ in range(3)]
    for one in running:
        one.start()
    assert [found.get(timeout=600) for _ in running] == [41] * 3
    for one in running:
        one.join()
    assert len(libraries()) == 1


def test_what_cannot_be_built_says_why(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source.write_text("this is no C++")
    with pytest.raises(NotBuiltError, match=r"failed: .*error"):
        built(source)
    assert libraries() == []
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NotBuiltError, match="no C\\+\\+ compiler"):
        built(source)


def test_a_folder_that_others_write_to_is_refused(source: Path) -> None:
    cache_folder().mkdir(parents=True)
    cache_folder().parent.chmod(0o700)
    cache_folder().chmod(0o777)
    with pytest.raises(NotBuiltError, match="chmod 700"):
        built(source)
    assert libraries() == []


def test_a_relative_cache_folder_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "somewhere")
    assert cache_folder() == Path.home() / ".cache" / "corank" / "kernels"

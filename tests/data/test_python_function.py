from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from corank.data.python_function import REFERENCE, call_function, own_function
from corank.errors import DataError, ModelError


def write(folder: Path, text: str) -> Path:
    (folder / "own.py").write_text(text)
    return folder / "own.py"


def test_dataclasses_and_neighbours_work(tmp_path: Path) -> None:
    (tmp_path / "corank_test_neighbour.py").write_text("SEVEN = 7\n")
    text = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "from corank_test_neighbour import SEVEN\n@dataclass\nclass A:\n    x: int\n"
        "def make():\n    return A(SEVEN).x\n"
    )
    before = list(sys.path)
    assert call_function(write(tmp_path, text), "make", DataError) == 7
    assert sys.path == before


def test_two_files_of_one_name_are_two_modules(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, f"def make():\n    return __name__ + {name!r}\n")
    first, second = (call_function(tmp_path / name / "own.py", "make", DataError) for name in "ab")
    assert str(first)[:-1] != str(second)[:-1]


def test_a_failing_function_shows_its_last_line(tmp_path: Path) -> None:
    path = write(tmp_path, "def make():\n    x = 1\n    return x / 0\n")
    with pytest.raises(ModelError, match=r"make failed \(line 3\): ZeroDivisionError: division by zero"):
        call_function(path, "make", ModelError)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import no_such_package_here", "ModuleNotFoundError"),
        ("def broken(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("def make(size): ...", "TypeError"),
    ],
)
def test_a_failing_file_says_why(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        call_function(write(tmp_path, text), "make", DataError)


def test_unknown_functions_list_the_known(tmp_path: Path) -> None:
    path = write(tmp_path, "def resnet20(): ...\ndef other(): ...\nmake = 3\n")
    with pytest.raises(ModelError, match=r"it has resnet20$"):
        call_function(path, "resnet2", ModelError)
    with pytest.raises(ModelError, match=r"it has resnet20, other$"):
        call_function(path, "make", ModelError)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        call_function(tmp_path / "x.py", "make", DataError)


def test_references() -> None:
    match = REFERENCE.fullmatch(r"C:\my nets\a.py:make")
    assert match is not None and match["path"] == r"C:\my nets\a.py" and match["function"] == "make"
    assert REFERENCE.fullmatch("a.py") is None and REFERENCE.fullmatch("hf:a.b") is None


def test_neighbours_of_one_name_do_not_meet(tmp_path: Path) -> None:
    """A model's file and a data file in two folders, each with a neighbour of its own that has the same name."""
    files = []
    for name in ("a", "b"):
        (tmp_path / name / "corank_test_pack").mkdir(parents=True)
        (tmp_path / name / "corank_test_pack" / "__init__.py").write_text("from corank_test_pack.part import NAME\n")
        (tmp_path / name / "corank_test_pack" / "part.py").write_text(f"NAME = {name!r}\n")
        (tmp_path / name / "corank_test_plain.py").write_text(f"NAME = {name!r}\n")
        text = "import corank_test_pack, corank_test_plain\n"
        text += "def make():\n    return corank_test_pack.NAME + corank_test_plain.NAME\n"
        files.append(write(tmp_path / name, text))
    assert [call_function(file, "make", DataError) for file in files] == ["aa", "bb"]
    assert call_function(files[0], "make", DataError) == "aa"


def test_a_file_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    before, path = set(sys.modules), list(sys.path)
    with pytest.raises(DataError):
        call_function(write(tmp_path, "x = 1\nraise ValueError(x)\n"), "make", DataError)
    assert set(sys.modules) == before and sys.path == path


def test_two_threads_run_files_one_after_the_other(tmp_path: Path) -> None:
    def work(number: int) -> object:
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "corank_test_own.py").write_text(f"NUMBER = {number}\n")
        text = "import time\ntime.sleep(0.01)\nimport corank_test_own\ndef make():\n    return corank_test_own.NUMBER\n"
        return call_function(write(folder, text), "make", DataError)

    before = list(sys.path)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(8))) == list(range(8))
    assert sys.path == before


def test_a_function_may_be_called_again(tmp_path: Path) -> None:
    path = write(tmp_path, "calls = []\ndef make():\n    calls.append(1)\n    return len(calls)\n")
    own = own_function(path, "make", DataError)
    assert [own(), own()] == [1, 2]

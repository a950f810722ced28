from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from corank.errors import ModelError
from corank.models.from_python_file import load_python_file
from corank.models.loader import Request


def test_a_factory_is_called(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("from torch import nn\ndef net():\n    return nn.Flatten()\n")
    assert isinstance(load_python_file(Request(f"{tmp_path}/a.py:net")).model, nn.Flatten)


@pytest.mark.parametrize(
    ("body", "said"),
    [("return 3", "returned int"), ("raise KeyError('stem')", r"\(line 2\): KeyError: 'stem'")],
)
def test_a_factory_that_fails(tmp_path: Path, body: str, said: str) -> None:
    (tmp_path / "a.py").write_text(f"def net():\n    {body}\n")
    with pytest.raises(ModelError, match=said):
        load_python_file(Request(f"{tmp_path}/a.py:net"))


def test_a_name_without_a_factory() -> None:
    with pytest.raises(ModelError, match=r"file\.py:factory"):
        load_python_file(Request("a.py"))

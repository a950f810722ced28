"""Every Python example of README.md and docs/ runs: the blocks of a page in order, sharing one namespace.

A fence ```` ```python no-run ```` marks a block that needs what a test has not (a download, a real data
set): it is compiled only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from corank.codecs import CODECS
from corank.training.callbacks import CALLBACKS
from corank.training.inputs import INPUTS
from corank.training.penalties import PENALTIES
from corank.training.weights import WEIGHTS

ROOT = Path(__file__).parent.parent
REGISTRIES: tuple[Any, ...] = (CODECS, WEIGHTS, INPUTS, PENALTIES, CALLBACKS)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)``` *$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    line: int
    source: str
    runs: bool


def python_blocks(text: str) -> list[Block]:
    """The fenced blocks whose language is python, in order."""
    blocks = []
    for match in FENCE.finditer(text):
        info = match["info"].replace("{", " ").replace("}", " ").split()
        if info and info[0] in ("python", "py"):
            indent = len(match["indent"])
            source = "".join(line[indent:] or "\n" for line in match["body"].splitlines(keepends=True))
            blocks.append(Block(text.count("\n", 0, match.start("body")), source, "no-run" not in info))
    return blocks


@contextmanager
def registries_restored() -> Iterator[None]:
    """What is registered inside is unknown again after it: other tests of the process find what they would alone."""
    before = [dict(registry._classes) for registry in REGISTRIES]
    try:
        yield
    finally:
        for registry, classes in zip(REGISTRIES, before, strict=True):
            registry._classes.clear()
            registry._classes.update(classes)


def run_page(text: str, name: str) -> None:
    """Runs a page and forgets what it registered; lines in a traceback are those of the page."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    with registries_restored():
        for block in python_blocks(text):
            code = compile("\n" * block.line + block.source, name, "exec", dont_inherit=True)
            if block.runs:
                exec(code, namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(page.read_text(), str(page))


def test_there_are_examples() -> None:
    assert any(python_blocks(page.read_text()) for page in PAGES)


def test_blocks_share_a_namespace_and_no_run_is_compiled() -> None:
    run_page("```python\nx = 1\n```\n```python no-run\nraise OSError\n```\n```python\nassert x == 1\n```\n", "page")
    with pytest.raises(SyntaxError):
        run_page("```python no-run\nx = = 1\n```\n", "page")
    with pytest.raises(ZeroDivisionError):
        run_page("- item\n\n  ```python\n  1 / 0\n  ```\n", "page")
    run_page("```bash\nnot python\n```\n", "page")


def test_what_a_page_registers_is_unknown_after_it() -> None:
    known = [dict(registry) for registry in REGISTRIES]
    page = (
        "```python\nimport corank\nfrom corank.codecs import CODECS, Uniform\n"
        "corank.register_codec('of-a-page', Uniform)\nassert 'of-a-page' in CODECS\n{last}\n```\n"
    )
    run_page(page.format(last=""), "page")
    assert [dict(registry) for registry in REGISTRIES] == known and "of-a-page" not in CODECS
    with pytest.raises(ZeroDivisionError):
        run_page(page.format(last="1 / 0"), "page")
    assert [dict(registry) for registry in REGISTRIES] == known


def test_lines_are_those_of_the_page() -> None:
    with pytest.raises(SyntaxError) as caught:
        run_page("title\n\n```python\nx = 1\nx = = 1\n```\n", "page")
    assert caught.value.lineno == 5

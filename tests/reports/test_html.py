"""The page holds what the records say, needs nothing else, and obeys nothing in them."""

from __future__ import annotations

import base64
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="reports need the extra `report`")
pytest.importorskip("jinja2", reason="reports need the extra `report`")

from corank.errors import ConfigError, DataError, OutputError
from corank.reports import write_report

VOID = {"meta", "img", "br"}
HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(1)>' {{ 7*7 }} </style></pre>"


class Page(HTMLParser):
    """Reads tags, attributes and text, and checks that tags are nested as they should be."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return "\n".join(self.words)

    def count(self, tag: str) -> int:
        return sum(found == tag for found, _ in self.tags)


@pytest.fixture
def few_layers(run: dict[str, Any]) -> dict[str, Any]:
    return {**run, "layers": run["layers"][:3]}


def test_a_single_run(tmp_path: Path, run: dict[str, Any]) -> None:
    index = write_report(tmp_path / "a" / "report", [run], title="ResNet-20")
    assert index == tmp_path / "a" / "report" / "index.html"
    page = Page(index)
    for shown in ("ResNet-20", "81.00 %", "80.25 %", "0.75 points lost", "120.50 KB", "9.0x", "from 1.09 MB"):
        assert shown in page.words
    assert "layer2.0.downsample" in page.words and "float by the pattern '*.downsample'" in page.words
    assert run["reproduce"] in page.words
    assert '"kind": "uniform"' in page.text
    assert all(layer["name"] in page.words for layer in run["layers"])
    assert page.count("img") == 4 and page.count("details") == 1


def test_the_pictures_beside_the_page_are_those_in_it(tmp_path: Path, few_layers: dict[str, Any]) -> None:
    index = write_report(tmp_path, [few_layers])
    images = [attributes for tag, attributes in Page(index).tags if tag == "img"]
    embedded = [base64.b64decode((image["src"] or "").removeprefix("data:image/png;base64,")) for image in images]
    names = ["ranks.png", "errors.png", "spectrum.png", "course.png"]
    assert embedded == [(tmp_path / name).read_bytes() for name in names]
    assert all(image["alt"] for image in images)
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", *names}


def test_many_runs(tmp_path: Path, runs: list[dict[str, Any]]) -> None:
    small = [{**run, "layers": run["layers"][:2], "search_history": [], "plan": None} for run in runs]
    index = write_report(tmp_path, small)
    page = Page(index)
    assert page.count("details") == 5
    assert "fast 3+0.2, the smallest within one point of float of 5 runs" in page.text
    assert [attributes for tag, attributes in page.tags if tag == "tr" and attributes] == [{"class": "best"}]
    assert (tmp_path / "accuracy.png").is_file()
    assert (tmp_path / "04-fast-3-0-2-ranks.png").is_file()
    assert page.count("img") == 1 + 5 * 3


def test_nothing_is_fetched_and_nothing_runs(tmp_path: Path, few_layers: dict[str, Any]) -> None:
    page = Page(write_report(tmp_path, [few_layers]))
    assert page.count("script") == page.count("link") == page.count("iframe") == 0
    addresses = [
        value or ""
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "poster")
    ]
    assert addresses and all(address.startswith("data:image/png;base64,") for address in addresses)
    assert not re.search(r"https?:|url\(|@import", page.source)
    policies = [attributes["content"] for _, attributes in page.tags if attributes.get("http-equiv")]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_hostile_texts_are_shown_as_text(tmp_path: Path, run: dict[str, Any]) -> None:
    texts = dict.fromkeys(("label", "model", "command", "version", "metric", "preset", "search", "reproduce"), HOSTILE)
    layers = [{**run["layers"][1], "name": HOSTILE}]
    hostile = {**run, **texts, "layers": layers, "skipped": {HOSTILE: HOSTILE}, "plan": {HOSTILE: HOSTILE}}
    plain = Page(write_report(tmp_path / "plain", [{**run, "layers": layers}], title="t"))
    page = Page(write_report(tmp_path / "hostile", [hostile], title=HOSTILE))
    assert page.count("script") == 0 and page.count("img") == plain.count("img") == 4
    assert page.count("style") == 1
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.words.count(HOSTILE) >= 5
    assert "49" not in page.words


def test_a_hostile_label_cannot_leave_the_folder(tmp_path: Path, bare: dict[str, Any]) -> None:
    hostile = {**bare, "label": "../../etc/passwd\x00", "layers": [{"name": "a", "rank": 1}]}
    write_report(tmp_path / "report", [hostile, hostile])
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert names == {"index.html", "01-etc-passwd-ranks.png", "02-etc-passwd-ranks.png"}


def test_a_record_that_says_almost_nothing(tmp_path: Path, bare: dict[str, Any]) -> None:
    page = Page(write_report(tmp_path, [bare]))
    assert page.count("img") == 0
    assert "The record lists no layers." in page.words
    assert page.words.count("–") >= 4
    unpaired = {**bare, "label": "\ud800", "plan": {"\ud800": "\ud800"}, "reproduce": "\ud800"}
    assert "\ufffd" in Page(write_report(tmp_path, [unpaired])).words


def test_no_run_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least one run"):
        write_report(tmp_path / "report", [])
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_stays_as_it_was(tmp_path: Path, bare: dict[str, Any]) -> None:
    (tmp_path / "report").write_text("mine")
    with pytest.raises(OutputError, match="cannot create the folder"):
        write_report(tmp_path / "report", [bare])
    assert (tmp_path / "report").read_text() == "mine"


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib.figure"])
def test_a_missing_extra_is_named(
    tmp_path: Path, few_layers: dict[str, Any], missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=r"pip install 'corank\[report\]'"):
        write_report(tmp_path / "report", [few_layers])
    assert not (tmp_path / "report").exists()

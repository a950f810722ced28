"""The page holds what the records say, needs nothing else, and obeys nothing in them."""

from __future__ import annotations

import base64
import hashlib
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
from corank.reports.plots.style import COLOUR_NAMES

VOID = {"meta", "img", "br", "path", "use", "wbr", "circle"}
TAGS = {
    "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "p", "dl", "dt", "dd", "div", "figure",
    "figcaption", "svg", "path", "use", "defs", "text", "table", "thead", "tbody", "tr", "th", "td", "code", "details",
    "summary", "span", "pre", "wbr", "b", "a", "circle", "script",
}  # fmt: skip
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

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["script"]:
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
    assert page.count("svg") == 9 and page.count("details") == 1
    assert page.source.count("Where it is fragile") == 1 and "--layer layer2.1.conv2=8" in page.words
    assert [path.name for path in index.parent.iterdir()] == ["index.html"]
    assert index.stat().st_size < 150_000


def test_what_a_layer_of_a_rate_is_advised_costs_what_the_page_says(tmp_path: Path, run: dict[str, Any]) -> None:
    """Eight bits would more than double a small file."""
    layers = [{**layer, "rank": 0, "file_bits_per_weight": 0.4} for layer in run["layers"]]
    plan = {"default": {"codec": {"kind": "rate-uniform", "bits": 4, "rate": 0.5}}}
    rated = {**run, "layers": layers, "plan": plan}
    page = Page(write_report(tmp_path, [rated]))
    assert "--layer layer2.1.conv2=2" in page.words
    trained = Page(write_report(tmp_path / "trained", [{**rated, "command": "train"}]))
    assert "--layer layer2.1.conv2=uniform:2" in trained.words  # whose codes have no price
    fragile = next(layer for layer in layers if layer["name"] == "layer2.1.conv2")
    rows, columns = fragile["shape"]
    assert f"{rows * columns * 1.6 / 8000:.2f} KB" in page.words
    assert "Ranks of the adapters" not in page.source  # there are none


def test_the_page_may_be_called_by_name(tmp_path: Path, bare: dict[str, Any]) -> None:
    index = write_report(tmp_path / "new" / "run.html", [bare])
    assert index == tmp_path / "new" / "run.html" and index.is_file()
    (tmp_path / "old.html").mkdir()
    assert write_report(tmp_path / "old.html", [bare]) == tmp_path / "old.html" / "index.html"


def test_who_does_not_see_is_told(tmp_path: Path, run: dict[str, Any], runs: list[dict[str, Any]]) -> None:
    small = [{**one, "layers": one["layers"][:2], "search_history": []} for one in (run, runs[0])]
    page = Page(write_report(tmp_path, small))
    pictures = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert pictures and all(one["role"] in ("img", "group") and len(one["aria-label"] or "") > 40 for one in pictures)
    headings = [attributes.get("scope") for tag, attributes in page.tags if tag == "th"]
    assert set(headings) == {"col", "row"}
    regions = [attributes for tag, attributes in page.tags if attributes.get("role") == "region"]
    assert len(regions) == page.count("table") and all(one["aria-label"] and one["tabindex"] == "0" for one in regions)
    assert dict(page.tags[0][1])["lang"] == "en"
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_many_runs(tmp_path: Path, runs: list[dict[str, Any]]) -> None:
    small = [{**run, "layers": run["layers"][:2], "search_history": [], "plan": None} for run in runs]
    index = write_report(tmp_path, small)
    page = Page(index)
    assert page.count("details") == 5
    assert page.source.index(">file</th>") < page.source.index(">bits</th>")
    assert "fast 3+0.2, the smallest within one point of float of 5 runs" in page.text
    assert [attributes for tag, attributes in page.tags if tag == "tr" and attributes] == [{"class": "best"}]
    assert [attributes for tag, attributes in page.tags if tag == "details" and "open" in attributes] == [
        {"class": "run", "id": "run-3", "open": None}
    ]
    points = [attributes for tag, attributes in page.tags if tag == "a"]
    assert sorted(one["href"] or "" for one in points) == [f"#run-{place}" for place in range(5)]
    assert {"class": "point", "href": "#run-2", "aria-label": "fast 2+0.4: 73.00 % in 92.40 KB"} in points
    assert page.count("svg") == 1 + 5 * 7


def test_nats_are_called_so(tmp_path: Path, bare: dict[str, Any]) -> None:
    values = {"metric": "nats per token", "float_value": 1.304, "agreement": 95.5, "stored_bytes": 900}
    runs = [{**bare, **values, "quantized_value": value, "label": str(value)} for value in (1.31, 1.4)]
    page = Page(write_report(tmp_path, runs))
    for shown in ("1.3040 nats", "1.3100 nats", "0.0060 nats lost", "same next token as float"):
        assert shown in page.words
    assert "float model: 1.3040 nats. Drop in nats per token. 1 KB is 1000 bytes." in page.words
    assert "points" not in page.text


def test_nothing_is_fetched_and_nothing_runs_but_the_script_of_the_page(
    tmp_path: Path, few_layers: dict[str, Any]
) -> None:
    page = Page(write_report(tmp_path, [few_layers]))
    assert page.count("link") == page.count("iframe") == 0 and page.count("script") == 1
    assert page.count("img") == 0 and {tag for tag, _ in page.tags} <= TAGS
    addresses = [
        value or ""
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "poster")
    ]
    assert addresses and all(re.fullmatch(r"#(accuracy|r0p\d+)-m[0-9a-f]+", address) for address in addresses)
    assert not re.search(r"https?:|url\(|@import", page.source)
    policies = [attributes["content"] for _, attributes in page.tags if attributes.get("http-equiv")]
    (script,) = re.findall(r"<script>(.*?)</script>", page.source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policies == [f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"]


def test_hostile_texts_are_shown_as_text(tmp_path: Path, run: dict[str, Any]) -> None:
    texts = dict.fromkeys(("label", "model", "command", "version", "metric", "preset", "search", "reproduce"), HOSTILE)
    layers = [{**run["layers"][1], "name": HOSTILE}]
    hostile = {**run, **texts, "layers": layers, "skipped": {HOSTILE: HOSTILE}, "plan": {HOSTILE: HOSTILE}}
    plain = Page(write_report(tmp_path / "plain", [{**run, "layers": layers}], title="t"))
    page = Page(write_report(tmp_path / "hostile", [hostile], title=HOSTILE))
    assert page.count("script") == 1 and page.count("img") == 0 and page.count("svg") == plain.count("svg") == 9
    assert {tag for tag, _ in page.tags} <= TAGS
    assert page.count("style") == 1
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.words.count(HOSTILE) >= 5
    assert "49" not in page.words


def test_a_hostile_label_cannot_leave_the_folder(tmp_path: Path, bare: dict[str, Any]) -> None:
    hostile = {**bare, "label": "../../etc/passwd\x00", "layers": [{"name": "a", "rank": 1}]}
    write_report(tmp_path / "report", [hostile, hostile])
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["index.html"]


def test_hostile_numbers_are_shown_or_left_out(tmp_path: Path, run: dict[str, Any]) -> None:
    numbers = (1e308, -1e308, 1e-320, -1, 0, 10**19)
    layers = [
        {
            **{key: value for key in run["layers"][0] if key not in ("name", "shape")},
            "name": f"layer {place}",
            "shape": [value, value],
            "spectrum": [value, 1.0, value],
            "code_counts": [value, 3],
            "weight_range": [-abs(value), value],
            "coded_counts": [1, value],
            "float_counts": [value],
            "stored_bits": {"codes": value, "scales": -1, "adapter": value, "more": []},
        }
        for place, value in enumerate(numbers)
    ]
    for value in (1e308, 10**18, -1):
        hostile = {key: value if isinstance(old, int | float) else old for key, old in run.items()}
        history = [dict.fromkeys(step, value) for step in run["search_history"]]
        parts = {"codes": value, "header": value, "scales": "text"}
        hostile.update({"format": 1, "layers": layers, "search_history": history, "stored_parts": parts})
        assert Page(write_report(tmp_path, [hostile])).count("script") == 1


def test_a_record_that_says_almost_nothing(tmp_path: Path, bare: dict[str, Any]) -> None:
    page = Page(write_report(tmp_path, [bare]))
    assert page.count("svg") == 0
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


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_stand_out_in_light_dark_and_print(tmp_path: Path, bare: dict[str, Any]) -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    source = Page(write_report(tmp_path, [bare])).source
    blocks = re.findall(r":root \{(.*?)\}", source, re.DOTALL)
    palettes = [dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block)) for block in blocks]
    assert len(palettes) == 3 and set(palettes[0]) == set(palettes[1]) == set(palettes[2]) >= set(COLOUR_NAMES.values())
    assert {name: colour for colour, name in COLOUR_NAMES.items()}.items() <= palettes[0].items()
    for palette in palettes:
        for ground in ("paper", "card", "mark"):
            for text in ("ink", "muted", "accent"):
                assert contrast(palette[text], palette[ground]) >= 4.5, (text, ground)
        for mark in ("blue", "vermilion", "green", "purple", "orange", "sky", "soft"):
            assert contrast(palette[mark], palette["card"]) >= 3, mark

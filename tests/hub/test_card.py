"""The model card: metadata that the hub's own library reads, the table of results, and text that stays text."""

from __future__ import annotations

from typing import Any

import pytest

import corank
from corank.hub.card import Card, facts, model_card

huggingface_hub = pytest.importorskip("huggingface_hub")

PLAN = {"format": 1, "default": {}, "layers": {}}
ABOUT: dict[str, Any] = {
    "model": "torchvision:resnet18", "preset": "fast", "search": "cora", "bits": 4, "budget": 0.25, "activations": None,
    "seed": 0, "equivalent_bits": 4.3124, "stored_bytes": 6_000_000, "float_bytes": 46_000_000, "plan": PLAN,
}  # fmt: skip
RECORD = {
    "plan": PLAN, "metric": "top-1", "float_value": 69.76, "quantized_value": 69.2, "agreement": 93.5,
    "eval_samples": 50000, "float_bytes": 46_800_000, "reproduce": "corank quantize torchvision:resnet18 --bits 4",
}  # fmt: skip


def read(text: str) -> Any:
    """The card as huggingface_hub reads it."""
    return huggingface_hub.ModelCard(text)


def test_metadata_is_read_by_the_hubs_own_library() -> None:
    card = Card(RECORD, "bsd-3-clause", "timm/resnet18.tv_in1k", "image-classification", "imagenet-1k", ("resnet",))
    data = read(model_card(ABOUT, card, "user/small")).data
    assert data.library_name == "corank" and data.license == "bsd-3-clause"
    assert data.base_model == "timm/resnet18.tv_in1k" and data.base_model_relation == "quantized"
    assert data.pipeline_tag == "image-classification"
    assert data.tags == ["4-bit", "corank", "quantized", "resnet"]
    (result,) = data.eval_results
    assert (result.dataset_type, result.metric_type, result.metric_value) == ("imagenet-1k", "accuracy", 69.2)
    plain = read(model_card(ABOUT, Card(), "user/small")).data.to_dict()
    assert plain == {"library_name": "corank", "tags": ["4-bit", "corank", "quantized"]}


def test_the_table_of_results() -> None:
    text = model_card(ABOUT, Card(RECORD), "user/small")
    for row in (
        "| top-1 | 69.76 % | 69.20 % |",
        "| same class as float |  | 93.50 % |",
        "| file, bytes | 46,800,000 | 6,000,000 |",
        "| smaller |  | 7.8 x |",
        "| bits per quantized weight, before entropy coding | 32 | 4.312 |",
    ):
        assert row in text.splitlines()
    assert "Scored on 50,000 samples." in text and "```sh\ncorank quantize torchvision:resnet18 --bits 4\n```" in text
    bare = model_card(ABOUT, Card(), "user/small")
    assert "top-1" not in bare and "| file, bytes | 46,000,000 | 6,000,000 |" in bare and "Reproduce" not in bare
    other = model_card(ABOUT, Card({**RECORD, "metric": "perplexity"}), "user/small")
    assert "| perplexity | 69.760 | 69.200 |" in other


@pytest.mark.parametrize(
    ("reference", "line"),
    [
        ("torchvision:resnet18", 'corank.from_pretrained("u/m", lambda: resolve("torchvision:resnet18").model)'),
        ("net.py:make", 'corank.from_pretrained("u/m", make_network)'),
        (None, 'corank.from_pretrained("u/m", make_network)'),
        ('x"); import os; ("', 'corank.from_pretrained("u/m", make_network)'),
    ],
)
def test_how_to_load_it(reference: str | None, line: str) -> None:
    text = model_card({**ABOUT, "model": reference}, Card(), "u/m")
    assert line in text
    (block,) = [part for part in text.split("```") if part.startswith("python")]
    compile(block.removeprefix("python"), "card", "exec")
    assert ("import resolve" in block) is ("resolve(" in line)


def test_text_of_others_stays_text() -> None:
    record = {**RECORD, "reproduce": "a\n```\n# x <b>", "metric": "m|\n|# <b>"}
    about = {**ABOUT, "model": "[a](b) <script>\n# head", "preset": "`"}
    text = model_card(about, Card(record, license="x: y\n---\n# z"), "user/small")
    assert "<script>" not in text and "\\[a\\](b) \\<script\\> \\# head" in text
    assert "| m\\|\\|\\# \\<b\\> |" in text.replace(" \\|", "\\|")
    assert text.count("```") == 4
    assert read(text).data.license == "x: y\n---\n# z"


def test_facts_are_plain() -> None:
    given = facts(ABOUT)
    assert given["stored_bytes"] == 6_000_000 and given["weights"] == "corank.safetensors"
    assert given["corank_version"] == corank.__version__ and given["plan"] == PLAN


@pytest.mark.parametrize("value", [None, float("nan"), "99", [99]])
def test_numbers_that_are_none_are_left_out(value: object) -> None:
    assert "top-1" not in model_card(ABOUT, Card({**RECORD, "quantized_value": value}), "m")

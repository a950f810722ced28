"""The model card of a quantized model, and the facts beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from corank.errors import ConfigError

__all__ = ["WEIGHTS", "Card", "facts", "hub_client", "model_card"]

WEIGHTS = "corank.safetensors"
_TOP1 = "top-1"
_LONGEST = 2000
_SIGNS = frozenset("\\`*_{}[]<>|#$")
_FACTS = ("model", "preset", "search", "bits", "budget", "activations", "seed", "equivalent_bits", "stored_bytes")


@dataclass(frozen=True)
class Card:
    """What a model card says that the model itself does not know.

    Args:
        record: of the run, as ``corank quantize --record`` or ``corank evaluate --record`` writes it: accuracies and
            the command to reproduce it. It must be of the same model. None: the card shows sizes only.
        license: of the weights, such as "apache-2.0".
        base_model: the float model's name on the hub.
        pipeline_tag: the task, such as "image-classification".
        dataset: what the record was scored on; with it the accuracy also enters the card's metadata.
        tags: further ones.
    """

    record: Mapping[str, Any] | None = None
    license: str | None = None
    base_model: str | None = None
    pipeline_tag: str | None = None
    dataset: str | None = None
    tags: tuple[str, ...] = ()


def model_card(about: Mapping[str, Any], card: Card, repo_id: str) -> str:
    """The text of a README.md: metadata, the table of results, how to load it, how it was made.

    Args:
        about: from :func:`corank.inspect`, and ``float_bytes``.
        card: further facts.
        repo_id: the repository's name.

    Raises:
        ConfigError: for a record of another model, or where huggingface_hub is not installed.
    """
    record = card.record or {}
    if record and record.get("plan") != about["plan"]:
        raise ConfigError("the record is of another model: its plan differs; give the one written with this model")
    reference = about["model"]
    command = str(record.get("reproduce") or "")[:_LONGEST].replace("```", "")
    parts = [
        f"---\n{_metadata(about, card, repo_id)}\n---\n",
        f"# {_text(repo_id)}\n",
        f"{_text(reference or 'A network')}, {_recipe(about)}, made by corank: low-bit codes{_way(about)}. "
        "The file is small; once loaded, the network computes in float.\n",
        _table(about, record),
        "## Use\n",
        *_use(about, repo_id),
        *(("## Reproduce\n", f"```sh\n{command}\n```\n") if command else ()),
    ]
    return "\n".join(parts)


def _use(about: Mapping[str, Any], repo_id: str) -> tuple[str, str]:
    """How the model is loaded, as Python, and a sentence on it."""
    reference, auto = about["model"], about.get("auto_class")
    if auto is not None:
        return (
            f"```python\nimport corank.hf\nfrom transformers import {auto}\n\n"
            f"model = {auto}.from_pretrained({_quoted(repo_id)})\n```\n",
            "The network's code is that of transformers. No code is loaded from here.\n",
        )
    maker = f"lambda: resolve({_quoted(reference)}).model" if _is_plain(reference) else "make_network"
    lead = "from corank.models import resolve\n" if _is_plain(reference) else ""
    return (
        f"```python\nimport corank\n{lead}\nmodel = corank.from_pretrained({_quoted(repo_id)}, {maker})\n```\n",
        "The network's code comes from you: a module, or a function that makes one. No code is loaded from here.\n",
    )


def _metadata(about: Mapping[str, Any], card: Card, repo_id: str) -> str:
    client = hub_client()
    value = _number(card.record or {}, "quantized_value")
    results = None
    if value is not None and card.dataset is not None:
        metric = _metric(card.record or {})
        results = [
            client.EvalResult(
                task_type=card.pipeline_tag or ("image-classification" if metric == _TOP1 else "text-generation"),
                dataset_type=card.dataset,
                dataset_name=card.dataset,
                metric_type="accuracy" if metric == _TOP1 else metric,
                metric_name=metric,
                metric_value=round(value, 4),
            )
        ]
    bits = [] if about["bits"] is None else [f"{about['bits']}-bit"]
    data = client.ModelCardData(
        library_name="corank",
        license=card.license,
        base_model=card.base_model,
        base_model_relation="quantized" if card.base_model else None,
        pipeline_tag=card.pipeline_tag,
        tags=sorted({"corank", "quantized", *bits, *card.tags}),
        model_name=repo_id.rpartition("/")[2] if results else None,
        eval_results=results,
    )
    return data.to_yaml().strip()


def _table(about: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    original, quantized = _number(record, "float_value"), _number(record, "quantized_value")
    before, after = _number(record, "float_bytes") or about["float_bytes"], about["stored_bytes"]
    metric, form = _metric(record), "{:.2f} %" if _metric(record) == _TOP1 else "{:.3f}"
    rows = [
        (_text(metric), _shown(original, form), _shown(quantized, form)),
        ("same class as float", "", _shown(_number(record, "agreement"), "{:.2f} %")),
        ("file, bytes", f"{before:,}", f"{after:,}"),
        ("smaller", "", f"{before / after:.1f} x"),
        ("bits per quantized weight, before entropy coding", "32", f"{about['equivalent_bits']:.3f}"),
        ("bits of the layers' inputs", "32", _shown(about["activations"], "{}")),
    ]
    lines = ["| | float | quantized |", "|---|--:|--:|"]
    lines += [f"| {name} | {left} | {right} |" for name, left, right in rows if right]
    samples = _number(record, "eval_samples")
    return "\n".join(lines) + (f"\n\nScored on {samples:,.0f} samples.\n" if samples else "\n")


def _way(about: Mapping[str, Any]) -> str:
    return ", and low-rank adapters of what rounding loses" if about.get("recipe") is None else " that it trained with"


def _recipe(about: Mapping[str, Any]) -> str:
    bits = "by a plan of its own" if about["bits"] is None else f"at {about['bits']} bits"
    return bits + (f" + {about['budget']:.4g} for adapters" if about["budget"] else "")


def facts(about: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json holds: plain facts for a reader; nothing of it is executed."""
    return {
        "library_name": "corank",
        "corank_version": version("corank"),
        "weights": about.get("weights", WEIGHTS),
        "quantization_config": {"quant_method": "corank", "bits": about["bits"]},
        **{name: about[name] for name in _FACTS},
        "float_bytes": about["float_bytes"],
        "plan": about["plan"],
    }


def _number(record: Mapping[str, Any], name: str) -> float | None:
    value = record.get(name)
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None


def _metric(record: Mapping[str, Any]) -> str:
    return str(record.get("metric") or _TOP1)


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _is_plain(reference: object) -> bool:
    """Whether a reference can stand in a line of Python as it is, and leads anyone to the same code."""
    return (
        isinstance(reference, str)
        and all(one.isalnum() or one in ":._-/" for one in reference)
        and ".py" not in reference
    )


def _quoted(text: str) -> str:
    """As a string in a block of Python."""
    return json.dumps(text[:_LONGEST]).replace("`", "")


def _text(value: object) -> str:
    """Text from a file or a person as text in Markdown."""
    words = " ".join(str(value).split())[:_LONGEST]
    return "".join("\\" + one if one in _SIGNS else one for one in words if one.isprintable())


def hub_client() -> Any:
    """The library huggingface_hub; ConfigError where it is not installed."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise ConfigError("the hub needs the library huggingface_hub: pip install 'corank[hf]'") from error
    return huggingface_hub

"""What a command did, as one plain record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from corank import __version__, evaluate
from corank.attacks import Attack
from corank.cli.progress import renamed
from corank.cli.screen import NATS
from corank.data import BatchSet, ImageSet, TokenSet
from corank.errors import ConfigError
from corank.evaluation import Evaluation, peak_memory_bytes, speed_of
from corank.models import ResolvedModel
from corank.progress import Progress
from corank.reports.cells import show_bits
from corank.reports.fields import file_bits, is_rated
from corank.storage.contents import float_bytes

__all__ = ["METRIC", "Made", "Scores", "float_record", "label_of", "record_of", "score", "speeds"]

METRIC = "top-1"


@dataclass(frozen=True)
class Scores:
    """What a float and a quantized model score; None where it was not asked for or there are no labels.

    Attributes:
        float_value, quantized_value: top-1 in percent, or nats per token of a language model.
        agreement: percent of samples (or tokens) given the same class by both.
        kl: nats.
        samples: how many were scored; tokens, of a language model.
        metric: what the values are.
        float_attacked, attacked: by attack, top-1 in percent of both under it.
    """

    float_value: float | None = None
    quantized_value: float | None = None
    agreement: float | None = None
    kl: float | None = None
    samples: int | None = None
    metric: str = METRIC
    float_attacked: Mapping[str, float] = field(default_factory=dict)
    attacked: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, found: Evaluation, original: Evaluation | None = None) -> Scores:
        """What was found of the quantized model and, if it was looked at, of the float one."""
        if found.nats is None:
            value = original.top1 if original else None
            under = (original.attacked if original else None) or {}
            scores = (value, found.top1, found.agreement, found.kl, found.samples)
            return cls(*scores, float_attacked=under, attacked=found.attacked or {})
        value = original.nats if original else None
        return cls(value, found.nats, found.agreement, found.kl, found.tokens, NATS)


def score(
    original: nn.Module,
    quantized: nn.Module,
    samples: ImageSet | TokenSet | BatchSet,
    progress: Progress,
    attacks: Sequence[Attack] = (),
) -> Scores:
    """Scores both models; the float one by itself only where there are labels, or tokens to predict."""
    found = evaluate(quantized, samples, original, attacks=attacks, progress=renamed(progress, "scoring"))
    if found.top1 is None and found.nats is None:
        return Scores.of(found)
    named = renamed(progress, "scoring the float model")
    return Scores.of(found, evaluate(original, samples, attacks=attacks, progress=named))


def speeds(quantized: nn.Module, original: nn.Module | None, samples: ImageSet | TokenSet | BatchSet) -> dict[str, Any]:
    """How fast language models read the first sequence and write behind it, and what they hold in memory.

    Raises:
        ConfigError: for samples that are no token sequences.
    """
    if not isinstance(samples, TokenSet):
        raise ConfigError("--speed is of language models: --data is a text file or an .npz of token ids then")
    models = {"float": original, "quantized": quantized}
    found = {name: speed_of(one, next(iter(samples))).to_json() for name, one in models.items() if one is not None}
    return {"threads": torch.get_num_threads(), **found}


def label_of(
    preset: str | None,
    bits: int | None,
    budget: float | None,
    activations: int | None = None,
    codec: str | None = None,
) -> str:
    """A short name: "fast 3+0.25", "fast W4A8+0.25", "fast dense-shift 3"; the usual codec is not named."""
    name = preset or "run"
    if codec not in (None, "uniform"):
        name = f"{name} {codec}"
    if bits is None:
        return name
    return f"{name} {show_bits(bits, activations)}" + (f"+{budget:.3g}" if budget else "")


@dataclass(frozen=True)
class Made:
    """How a record came about.

    Attributes:
        command: that made it.
        reproduce: the command line.
        label: short name; None makes one.
    """

    command: str
    reproduce: str
    label: str | None = None


def record_of(made: Made, about: Mapping[str, Any], scores: Scores, source: ResolvedModel | None) -> dict[str, Any]:
    """The record of one quantized model.

    Args:
        made: by which command.
        about: from :func:`corank.inspect`.
        scores: of the model.
        source: of the float model; None where only the file is known.
    """
    budget = about["budget"]
    return {
        "command": made.command,
        "version": __version__,
        "label": made.label or _label(about),
        **about,
        "model": about["model"] or (source.reference if source else None) or "unknown",
        "metric": scores.metric,
        "float_value": scores.float_value,
        "quantized_value": scores.quantized_value,
        "agreement": scores.agreement,
        "kl": scores.kl,
        "eval_samples": scores.samples,
        **_attacked(scores),
        "scored": "images" if source is None or source.sampling is None else "recordings",
        "float_bytes": float_bytes(source.model) if source else None,
        "weights": source.weights if source else None,
        "weights_sha256": source.weights_sha256 if source else None,
        "random_weights": source.random if source else None,
        "search_history": [{**step, "budget_bits": budget} for step in about["search_history"]],
        "peak_memory_bytes": peak_memory_bytes(),
        "reproduce": made.reproduce,
    }


def _attacked(scores: Scores) -> dict[str, Any]:
    """What both score under attacks; nothing where none was asked for."""
    if not scores.attacked:
        return {}
    found = {"attacked": dict(scores.attacked)}
    return {**found, "float_attacked": dict(scores.float_attacked)} if scores.float_attacked else found


def _label(about: Mapping[str, Any]) -> str:
    if about["bits"] is None:
        return label_of("plan", None, None)
    codec = about["plan"]["default"].get("codec") or {}
    coded = file_bits(about)
    if is_rated(about) and coded is not None:  # layers have rates of their own: say what came out
        return f"{label_of(about['preset'], None, None, None, codec.get('kind'))} {coded:.2f}"
    return label_of(about["preset"], about["bits"], about["budget"], about["activations"], codec.get("kind"))


def float_record(command: str, value: float, source: ResolvedModel, seed: int, reproduce: str) -> dict[str, Any]:
    """The record of the float model itself, for comparisons: 32 bits a weight, nothing quantized."""
    size = float_bytes(source.model)
    nothing = ("bits", "budget", "activations", "preset", "search", "iterations", "seconds", "plan")
    return {
        "command": command,
        "version": __version__,
        "label": "float",
        "model": source.reference,
        "seed": seed,
        "metric": METRIC,
        "float_value": value,
        "quantized_value": value,
        "agreement": 100.0,
        "kl": 0.0,
        **dict.fromkeys(nothing),
        "equivalent_bits": 32.0,
        "stored_bytes": size,
        "float_bytes": size,
        "weights": source.weights,
        "weights_sha256": source.weights_sha256,
        "random_weights": source.random,
        "layers": [],
        "folded": [],
        "skipped": {},
        "search_history": [],
        "peak_memory_bytes": peak_memory_bytes(),
        "reproduce": reproduce,
    }

"""corank's own settings as a space, and a configuration as the arguments of :func:`corank.quantize`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from corank.codecs import Codec, Uniform
from corank.presets import AUTO, PRESETS, Preset, chosen_codec
from corank.refine import Refinement
from corank.rounding import ROUNDERS, Gptq
from corank.tuning.space import Choice, Configuration, Space

__all__ = ["own_space", "quantize_arguments", "smallest_arguments"]

_RATE, _FIXED = ("rate",), ("uniform", "icquant", "kmeans")
_STEPS, _CODE_RATE = 100, 0.003
_LEAST_RATE = 0.1


def own_space(sized: bool) -> Space:
    """What decides on a file of :func:`corank.quantize`.

    ``codes``: equal steps of a rate, or codes of a fixed width (uniform, ICQuant, k-means). Where no size is given a
    rate or bits are chosen, too, and with codes of fixed width how much adapters may take; where there is one, the rate
    is the one that fits and adapters take what it leaves. ``search``: of the adapters' ranks.

    Args:
        sized: whether the file has a size to keep to.
    """
    free = () if sized else (
        Choice("rate", (0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0), when={"codes": _RATE}),
        Choice("bits", (2, 3, 4), when={"codes": _FIXED}),
        Choice("budget", (0.0, 0.15, 0.3), when={"codes": _FIXED}),
    )  # fmt: skip
    return Space(
        "corank-sized" if sized else "corank",
        (
            Choice("codes", (*_RATE, *_FIXED)),
            *free,
            Choice("adapters", (0.0, 0.1), when={"codes": _RATE}),
            Choice("adapter_bits", (8, 4), when={"codes": _FIXED}),
            Choice("search", ("greedy", "cora"), when={"codes": _FIXED}),
            Choice("group", (0, 64), when={"codes": ("uniform",)}),
            Choice("rounder", ("gptq", "qronos", "nearest")),
            Choice("edges", ("own", "all")),
            Choice("distilled", (False, True)),
            Choice("codes_move", (False, True), when={"codes": _FIXED, "distilled": (True,)}),
            Choice("activations", (None,)),
        ),
    )


def quantize_arguments(configuration: Configuration, size: int | None) -> dict[str, Any]:
    """The arguments of :func:`corank.quantize` that say the same.

    Args:
        configuration: of :func:`own_space`.
        size: bytes that the file may have; None for any.
    """
    chosen = dict(configuration)
    own = "rate" in chosen or "bits" in chosen  # which say how large the file is
    found: dict[str, Any] = {
        "preset": _preset(chosen),
        "all_layers": chosen["edges"] == "all",
        "activations": chosen["activations"],
        "refinement": _refinement(chosen),
        "size": None if own else size,
    }
    if chosen["codes"] == "rate":
        return {**found, "rate": chosen.get("rate", AUTO), "budget": chosen["adapters"]}
    found |= {"adapter_bits": chosen["adapter_bits"], "search": chosen["search"]}
    return {**found, "bits": chosen["bits"], "budget": chosen["budget"]} if own or size is None else found


def smallest_arguments(configuration: Configuration) -> dict[str, Any]:
    """The same for the smallest file that such codes can make, without adapters."""
    given = quantize_arguments(configuration, 1)
    preset: Preset = given["preset"]
    least = {"rate": _LEAST_RATE} if "rate" in given else {"bits": preset.widths[0]}
    return {**given, "size": None, "budget": 0.0, **least}


def _preset(chosen: dict[str, Any]) -> Preset:
    """The preset "fast" with other codes and another rounder."""
    fast = PRESETS["fast"]
    preset = fast if chosen["codes"] == "rate" else fast.with_codec(_codec(chosen, fast.codec))
    kind = ROUNDERS[str(chosen["rounder"])]
    rounder = fast.layer.rounder if kind is Gptq else kind()
    return replace(preset, layer=replace(preset.layer, rounder=rounder), edge=replace(preset.edge, rounder=rounder))


def _refinement(chosen: dict[str, Any]) -> Refinement:
    steps = _STEPS if chosen["distilled"] else 0
    return Refinement(steps, code_rate=_CODE_RATE if chosen.get("codes_move") else 0.0)


def _codec(chosen: dict[str, Any], own: Codec) -> Codec:
    if chosen["codes"] == "uniform":
        return Uniform(range="mse", half=True, group=chosen["group"])
    return chosen_codec(str(chosen["codes"]), own)

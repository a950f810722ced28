"""What rounding does to gradients, and whether the stochastic rounder is what it should be."""

from __future__ import annotations

from statistics import median

from corank.reports.analyses.view import AnalysisView, Drawing, TableView, reasons
from corank.reports.cells import NOTHING
from corank.reports.fields import Record, entries, layer_name, number
from corank.reports.plots import slopes

__all__ = ["straight_through_view"]

GRADIENTS = ("layer", "bits", "true slope", "straight-through", "ratio", "noise", "nearest")
ROUNDER = ("layer", "weights", "beyond the range", "mean error", "variance", "of the step²", "noise as before")
GRADIENTS_NOTE = (
    "Slopes per step of the quantizer, all weights of the layer against the gradient's sign. Noise is the variance "
    "of one "
    "draw's gradient over the mean gradient's square; nearest, the cosine of the gradient at the nearest values "
    "with the "
    "mean."
)
ROUNDER_NOTE = (
    "Mean error, and likeness to the noise of the layer before, in standard errors: sound within about four. "
    "Variance over "
    "what it should be: sound at 1. The squared error over the squared step: at most 0.25."
)
FAR = 4.0  # standard errors that a sound rounder does not reach


def straight_through_view(found: Record) -> AnalysisView:
    """The view of ``corank.analyse(..., what="straight-through")``."""
    layers = entries(found, "layers")
    drawings = (
        [Drawing(lambda: slopes.draw(found), slopes.describe(found), slopes.CAPTION)] if slopes.can_draw(found) else []
    )
    return AnalysisView(
        "Do straight-through gradients tell the truth?", _verdict(found), _cards(found),
        [
            TableView("Gradients", GRADIENTS_NOTE, GRADIENTS, [_gradient_row(layer) for layer in layers]),
            TableView("The stochastic rounder", ROUNDER_NOTE, ROUNDER, [_rounder_row(layer) for layer in layers]),
        ],
        drawings, _remarks(found), reasons(found),
    )  # fmt: skip


def _verdict(found: Record) -> str:
    layers = slopes.measured(found)
    if not layers:
        return "No layer's slopes could be compared."
    off = [layer for layer in layers if slopes.is_off(layer)]
    middle = median(number(layer, "ratio") or 0.0 for layer in layers)
    sound = (
        "unbiased, with noise of its own in every layer"
        if not _unsound(found)
        else f"not sound in {', '.join(_unsound(found))}"
    )
    said = f"In {len(layers) - len(off)} of the {len(layers)} layers that can be measured no difference is seen"
    named = f"; it is off in {', '.join(map(layer_name, off[:3]))}{' and more' if len(off) > 3 else ''}" if off else ""
    return (
        f"{said}{named}. In the middle layer the straight-through gradient says {middle:.2f} times the true slope. The "
        f"stochastic rounder is {sound}."
    )


def _unsound(found: Record) -> list[str]:
    return [
        layer_name(layer)
        for layer in entries(found, "layers")
        if abs(number(layer, "mean_error") or 0.0) > FAR
        or abs(number(layer, "noise_like_before") or 0.0) > FAR
        or (number(layer, "variance_of_step") or 0.0) > 0.25
    ]


def _cards(found: Record) -> list[tuple[str, str, str]]:
    layers = slopes.measured(found)
    ratios = [number(layer, "ratio") or 0.0 for layer in layers]
    noises = [value for layer in layers if (value := number(layer, "noise")) is not None]
    nearest = [value for layer in layers if (value := number(layer, "nearest")) is not None]
    return [
        ("layers off", f"{sum(map(slopes.is_off, layers))} of {len(layers)}", "by over two standard errors"),
        ("said over true", f"{median(ratios):.2f}" if ratios else NOTHING, "slope, median layer"),
        ("noise", f"{median(noises):.2g}×" if noises else NOTHING, "of one draw, over the mean's square"),
        ("nearest values", f"{median(nearest):.2f}" if nearest else NOTHING, "cosine with the mean gradient"),
    ]


def _remarks(found: Record) -> list[str]:
    said, known = [], [layer_name(layer) for layer in slopes.measured(found)]
    noisy = [layer_name(layer) for layer in entries(found, "layers") if layer_name(layer) not in known]
    if noisy:
        said.append(f"The true slope of {', '.join(noisy[:6])} is lost in noise: more --samples may show it.")
    if known:
        said.append("Of twenty layers one is off by over two standard errors by chance.")
    if not found.get("labelled"):
        said.append("The samples have no labels: the loss is that of the classes that the float network chooses.")
    tried = number(found, "trial_bits")
    if tried is not None:
        said.append(f"No quantized network was given: every layer has {tried:g} bits, rows with uniform steps.")
    draws, samples = number(found, "draws"), number(found, "samples")
    if draws is not None and samples is not None:
        said.append(f"{draws:g} draws of the rounding, on {samples:g} samples; all layers are rounded at once.")
    return said


def _gradient_row(layer: Record) -> tuple[str, ...]:
    return (
        layer_name(layer),
        _of(number(layer, "bits"), "g"),
        _with_error(layer, "slope"),
        _with_error(layer, "straight_through"),
        _with_error(layer, "ratio"),
        _of(number(layer, "noise"), ".2g"),
        _of(number(layer, "nearest"), ".2f"),
    )


def _rounder_row(layer: Record) -> tuple[str, ...]:
    clipped = number(layer, "clipped")
    return (
        layer_name(layer),
        _of(number(layer, "weights"), ",.0f"),
        NOTHING if clipped is None else f"{100 * clipped:.1f} %",
        _of(number(layer, "mean_error"), "+.1f"),
        _of(number(layer, "variance"), ".3f"),
        _of(number(layer, "variance_of_step"), ".3f"),
        _of(number(layer, "noise_like_before"), "+.1f"),
    )


def _with_error(layer: Record, key: str) -> str:
    value, error = number(layer, key), number(layer, f"{key}_error")
    return NOTHING if value is None or error is None else f"{value:.2g} ± {error:.1g}".replace("-", "−")


def _of(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form).replace("-", "−")

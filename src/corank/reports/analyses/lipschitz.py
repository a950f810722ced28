"""Which layers hurt when they are coded, what is left of them, and how much they can stretch a change."""

from __future__ import annotations

import shlex

from corank.reports.analyses.view import AnalysisView, Drawing, TableView, notes, reasons
from corank.reports.cells import NOTHING
from corank.reports.fields import Record, clean, entries, layer_name, number
from corank.reports.plots import harm, norms, residuals
from corank.reports.plots.style import shorten

__all__ = ["lipschitz_view"]

COLUMNS = ("layer", "bits", "rank", "harm alone", "share", "without adapter", "residual / weight", "before adapter",
           "norm", "at most")  # fmt: skip
MOST_NAMED = 3


def lipschitz_view(found: Record) -> AnalysisView:
    """The view of ``corank.analyse(..., what="lipschitz")``."""
    layers = entries(found, "layers")
    worst, total = harm.worst_first(layers), harm.total(layers)
    drawings = [
        Drawing(lambda part=part: part.draw(found), part.describe(found), part.CAPTION)
        for part in (harm, residuals, norms)
        if part.can_draw(found)
    ]
    return AnalysisView(
        "Which layers hurt?",
        _verdict(found, worst, total),
        _cards(found, worst, total),
        [TableView("Layers", "First layer on top. Norms are those of the layer as an operator on its own input size.",
                   COLUMNS, [_row(layer, total) for layer in layers])],
        drawings,
        [*_remarks(found), *(f"{name} is not compared: {why}" for name, why in reasons(found, "not_compared"))],
        reasons(found),
    )  # fmt: skip


def _verdict(found: Record, worst: list[Record], total: float) -> str:
    if not worst or not total:
        return "No layer is coded, so none hurts; norms and bounds are below."
    first, share = worst[0], 100 * (number(worst[0], "harm") or 0.0) / total
    named = (
        " and ".join(filter(None, [", ".join(map(layer_name, worst[1:-1])), layer_name(worst[-1])]))
        if worst[1:]
        else ""
    )
    together = 100 * sum(number(one, "harm") or 0.0 for one in worst) / total
    rest = f" With {named} it makes up {together:.0f} %." if named else ""
    tried = number(found, "trial_bits")
    how = "as the file has it" if tried is None else f"rounded to nearest at {tried:g} bits"
    more = _advice(found, first, total)
    count = len([one for one in entries(found, "layers") if number(one, "harm") is not None])
    return (
        f"{layer_name(first)} hurts most: coded alone, {how}, it does {share:.0f} % of the harm that the {count} "
        f"layers do one by one.{rest}{more}"
    )


def _advice(found: Record, worst: Record, total: float) -> str:
    """How to spare the worst layer; of a trial, the worst of those that are not spared as it is."""
    said, spared = "", found.get("spared") or []
    if number(found, "trial_bits") is not None and worst.get("name") in spared:
        named = " and ".join(shorten(clean(one)) for one in spared[:2])
        said = f" corank quantize spares {named} by itself, with 8 bits."
        others = [one for one in entries(found, "layers") if one.get("name") not in spared]
        worst = next(iter(harm.worst_first(others)), worst)
        share = 100 * (number(worst, "harm") or 0.0) / total
        said += f" Of the others {layer_name(worst)} does most, {share:.0f} %." if others else ""
    bits = number(worst, "bits")
    if bits is None or bits >= 8 or (said and worst.get("name") in spared):
        return said
    return f"{said} Spare it by --layer {shlex.quote(f'{layer_name(worst)}=8')}."


def _cards(found: Record, worst: list[Record], total: float) -> list[tuple[str, str, str]]:
    upper, lower = number(found, "upper"), number(found, "lower")
    together = number(found, "harm_together")
    first = (
        [
            (
                "hurts most",
                shorten(layer_name(worst[0]), 16),
                f"{100 * (number(worst[0], 'harm') or 0) / total:.0f} % of the harm",
            )
        ]
        if total
        else []
    )
    harm_card = (
        "harm of all layers",
        NOTHING if together is None else f"{together:.3g}",
        "nats, or the loss that was given",
    )
    if together is None:
        harm_card = ("sum of the layers' harm", f"{total:.3g}", "each layer alone, in nats")
    return [
        *first,
        harm_card,
        ("stretches a change by", NOTHING if lower is None else f"≥ {lower:.3g}", "seen on a sample"),
        ("and never by more than", NOTHING if upper is None else f"{upper:.2g}", "product of the layers' bounds"),
    ]


def _remarks(found: Record) -> list[str]:
    upper, lower = number(found, "upper"), number(found, "lower")
    said = notes(found)
    if upper is not None and lower is not None and upper > 1000 * lower:
        said.insert(0, "The upper bound holds, and says little: products over many layers do not know that no input is "
                       "stretched most by all of them.")  # fmt: skip
    return said


def _row(layer: Record, total: float) -> tuple[str, ...]:
    harm_alone, before = number(layer, "harm"), number(layer, "harm_before")
    norm = number(layer, "norm")
    rank = number(layer, "rank")
    return (
        layer_name(layer),
        _of(number(layer, "bits"), "g"),
        _of(rank, "g"),
        _of(harm_alone, ".2g"),
        NOTHING if harm_alone is None or not total else f"{100 * harm_alone / total:.0f} %",
        _of(before, ".2g") if rank else NOTHING,
        _share(number(layer, "residual"), norm),
        _share(number(layer, "residual_before"), norm) if rank else NOTHING,
        _of(norm, ".3g"),
        _of(number(layer, "bound"), ".3g"),
    )


def _share(part: float | None, whole: float | None) -> str:
    return NOTHING if part is None or not whole else f"{100 * part / whole:.2g} %"


def _of(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)

"""Which frequencies of images count, for the float network and the quantized one."""

from __future__ import annotations

from corank.reports.analyses.view import AnalysisView, Drawing, TableView, reasons
from corank.reports.cells import NOTHING
from corank.reports.fields import Record, number, numbers
from corank.reports.plots import bands

__all__ = ["spectral_view"]

COLUMNS = ("band", "cycles a pixel", "float", "quantized", "moved", "standard error")


def spectral_view(found: Record) -> AnalysisView:
    """The view of ``corank.analyse(..., what="spectral")``."""
    drawings = []
    if bands.can_draw(found):
        drawings = [
            Drawing(lambda: bands.draw(found), bands.describe(found), bands.SHARE_CAPTION),
            Drawing(lambda: bands.draw_right(found), bands.describe_right(found), bands.RIGHT_CAPTION),
        ]
    note = (
        "Shares of the Shapley values' sum. What moved is the quantized network's share less the float one's, on "
        "the same images."
    )
    return AnalysisView(
        "What does the quantized network no longer see?", _verdict(found), _cards(found),
        [TableView("Bands", note, COLUMNS, _rows(found))], drawings, _remarks(found), reasons(found),
    )  # fmt: skip


def _verdict(found: Record) -> str:
    moved, errors, lost = numbers(found, "moved"), numbers(found, "moved_error"), bands.lost(found)
    if not moved or len(errors) != len(moved) or lost is None:
        return "The record holds no values of bands."
    sure = [band for band in range(len(moved)) if abs(moved[band]) > 2 * errors[band]]
    less = [str(band + 1) for band in sure if moved[band] < 0]
    more = [str(band + 1) for band in sure if moved[band] > 0]
    whole = (
        f"On whole images the quantized network gives the right class {abs(lost):.2f} nats "
        f"{'less' if lost > 0 else 'more'}."
    )
    if not less and not more:
        return f"{whole} It looks at the same bands as the float network, as far as {_count(found)} images can tell."
    parts = [f"less on band{_plural(less)} {', '.join(less)}"] if less else []
    parts += [f"more on band{_plural(more)} {', '.join(more)}"] if more else []
    return f"{whole} Of what images tell it, it rests {' and '.join(parts)} (1 is coarse, 8 is fine)."


def _plural(names: list[str]) -> str:
    return "s" if len(names) > 1 else ""


def _count(found: Record) -> str:
    return f"{number(found, 'samples') or 0:.0f}"


def _cards(found: Record) -> list[tuple[str, str, str]]:
    cards = []
    for key in ("float", "quantized"):
        right = numbers(bands.side(found, key), "right")
        shown = f"{right[-1]:.0f} %" if right else NOTHING
        cards.append((f"{key}, right", shown, f"of {_count(found)} whole images"))
    for key in ("float", "quantized"):
        score = number(bands.side(found, key), "score")
        cards.append((f"{key}, score", NOTHING if score is None else f"{score:.2f}", "1: coarse bands alone"))
    return cards


def _remarks(found: Record) -> list[str]:
    said = []
    if not found.get("labelled"):
        said.append("The samples have no labels: right is what the float network sees in the whole image.")
    tried = number(found, "trial_bits")
    if tried is not None:
        said.append(f"No quantized network was given: every layer is rounded to nearest at {tried:g} bits.")
    before, after = (number(bands.side(found, key), "none") for key in ("float", "quantized"))
    if before is not None and after is not None and abs(before - after) > 0.5:
        said.append(
            f"Of an empty image the networks think differently: log-probability {before:.2f} and {after:.2f} nats of "
            "the right class. So shares are compared, and not nats."
        )
    return said


def _rows(found: Record) -> list[tuple[str, ...]]:
    shares = [numbers(bands.side(found, key), "share") for key in ("float", "quantized")]
    moved, errors, edges = numbers(found, "moved"), numbers(found, "moved_error"), numbers(found, "edges")
    count = len(moved)
    if any(len(one) != count for one in (*shares, errors)) or len(edges) != count + 1:
        return []
    return [
        (
            str(band + 1), f"{edges[band]:.2f} to {edges[band + 1]:.2f}", f"{100 * shares[0][band]:.1f} %",
            f"{100 * shares[1][band]:.1f} %", f"{100 * moved[band]:+.1f}".replace("-", "−"),
            f"{100 * errors[band]:.1f}",
        )
        for band in range(count)
    ]  # fmt: skip

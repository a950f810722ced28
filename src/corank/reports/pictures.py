"""The pictures of a page: each with its title, what it shows and how to read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from corank.reports.analyses import AnalysisView
from corank.reports.cells import show_bytes, show_value
from corank.reports.fields import Record, clean, number, run_label
from corank.reports.plots import (
    accuracy,
    bits,
    codes,
    course,
    errors,
    ranks,
    refinement,
    size,
    spectrum,
    training,
    utterance,
    weights,
)
from corank.reports.svg import NO_POINTS, svg_element

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Picture", "accuracy_picture", "analysis_pictures", "picture_of", "run_pictures"]

LONG_DESCRIPTION = 1200


@dataclass(frozen=True)
class Plot:
    """One plot of a run: whether there is something to draw, the figure, what it shows in words, how to read it."""

    can_draw: Callable[[Record], bool]
    draw: Callable[[Record], Figure]
    describe: Callable[[Record], str]
    caption: str


PLOTS = (
    Plot(size.can_draw, size.draw, size.describe, "The file's bytes. Scales include offsets and the inputs' steps."),
    Plot(
        bits.can_draw,
        bits.draw,
        bits.describe,
        "All that a layer stores over the number of its weights, first layer on top. The diamond is the entropy of its "
        "codes: what they would take if each were coded by how often it occurs. The dash is what the layer takes in "
        "the file.",
    ),
    Plot(
        ranks.can_draw,
        ranks.draw,
        ranks.describe,
        "Rank of each layer's adapter, first layer on top. The colour says how many bits the layer's codes have.",
    ),
    Plot(
        errors.can_draw,
        errors.draw,
        errors.describe,
        "Energy of the error of each layer's output over the output's energy, on the calibration inputs, as it was "
        "coded, before any refinement. A diamond marks the layers over twice the median.",
    ),
    Plot(
        spectrum.can_draw,
        spectrum.draw,
        spectrum.describe,
        "How the energy of what quantization lost is spread over singular directions. The adapter gives back those "
        "left of the red cut.",
    ),
    Plot(
        codes.can_draw,
        codes.draw,
        codes.describe,
        "Codes that are rarely taken buy little. An entropy far under the bits says that a coded file would be "
        "smaller.",
    ),
    Plot(
        weights.can_draw,
        weights.draw,
        weights.describe,
        "Filled: codes and adapter together. Line: the float weights, norms folded, where they are known.",
    ),
    Plot(
        course.can_draw,
        course.draw,
        course.describe,
        "Top: how far the outputs are from the float network's on each batch (for a classifier the KL divergence of "
        "its probabilities, in nats; 1 nat is 1.44 bits). Below: what the ranks spend; a penalty keeps it in the "
        "budget.",
    ),
    Plot(
        refinement.can_draw,
        refinement.draw,
        refinement.describe,
        "How far the outputs are from the float network's (for a classifier the KL divergence of its probabilities, "
        "in nats), on each batch as it is augmented. The result is kept only if it is nearer on samples as they are.",
    ),
    Plot(
        training.can_draw,
        training.draw,
        training.describe,
        "What was measured at the steps of a training. An oscillation is a code that moves against the way it moved "
        "last; many of them late say that the rate is too high to settle. Norms that grow make steps shorter where "
        "the scale follows the weights.",
    ),
    Plot(
        utterance.can_draw,
        utterance.draw,
        utterance.describe,
        "The first recording that was scored, or else trained on: its samples, the log-mels that the network's front "
        "end makes of them (darker is louder; mean and deviation are taken out), and the likeliest classes. Where it "
        "has a label, blue is what was said and red what it was taken for.",
    ),
)
ACCURACY_CAPTION = "What each file scores; the dashed line is the float model."


@dataclass(frozen=True)
class Picture:
    """An `<svg>` element, made here and safe to stand in a page as it is, and how to read it."""

    markup: str
    caption: str


def run_pictures(run: Record, place: int) -> list[Picture]:
    """Draw what the record has data for. `place` is the run's index in the page."""
    return [
        picture_of(plot.draw(run), f"r{place}p{number}", plot.describe(run), plot.caption)
        for number, plot in enumerate(PLOTS)
        if plot.can_draw(run)
    ]


def analysis_pictures(view: AnalysisView, place: int) -> list[Picture]:
    """Draw what an analysis shows. `place` is its run's index in the page."""
    return [
        picture_of(one.draw(), f"r{place}a{number}", one.description, one.caption)
        for number, one in enumerate(view.drawings)
    ]


def accuracy_picture(runs: Sequence[Record]) -> Picture | None:
    """Accuracy against file size, or None where there are not two points to compare."""
    if not accuracy.can_draw(runs):
        return None
    named = [(place, run_label(run), run) for place, run in accuracy.named_points(runs)]
    points = {
        f"run-{place}": f"{label}: {show_value(run, 'quantized_value')} in {show_bytes(number(run, 'stored_bytes'))}"
        for place, label, run in named
    }
    return picture_of(accuracy.draw(runs), "accuracy", accuracy.describe(runs), ACCURACY_CAPTION, points)


def picture_of(
    figure: Figure, name: str, description: str, caption: str, points: Mapping[str, str] = NO_POINTS
) -> Picture:
    """A figure as it stands in a page; `name` is of no other picture there, `description` for who does not see it.

    `points` are those that a reader can choose, as for `svg_element`.
    """
    return Picture(svg_element(figure, name, clean(description, LONG_DESCRIPTION), points), caption)

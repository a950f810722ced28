"""The pictures of a report: drawn once, as PNG, each with its file name and what it shows."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass

from corank.reports.fields import Record, run_label
from corank.reports.plots import accuracy, course, errors, ranks, spectrum
from corank.reports.plots.style import image_bytes

__all__ = ["Picture", "accuracy_picture", "run_pictures"]

PLOTS = (
    (
        "ranks",
        ranks,
        "Rank of each layer's adapter, from the first layer on top to the last. The colour says how many "
        "bits the layer's codes have.",
    ),
    (
        "errors",
        errors,
        "Error of each layer's output, relative to the output's energy. Layers over twice the median are fragile.",
    ),
    (
        "spectrum",
        spectrum,
        "How the energy of what quantization lost is spread over singular directions. The adapter has those "
        "left of the red cut.",
    ),
    (
        "course",
        course,
        "What the search minimised at each iteration, and the bits it spent on adapters beside its budget.",
    ),
)
ACCURACY_CAPTION = "Accuracy against file size; the dashed line is the float model."


@dataclass(frozen=True)
class Picture:
    """A PNG file: its name, its bytes and what it shows."""

    file_name: str
    content: bytes
    caption: str

    @property
    def data_uri(self) -> str:
        """The picture as a `data:` address, for a page that needs no other file."""
        return "data:image/png;base64," + base64.b64encode(self.content).decode("ascii")


def run_pictures(run: Record, place: int | None) -> list[Picture]:
    """Draw what the record has data for. `place` is the run's index among several, None for the only run."""
    prefix = "" if place is None else f"{place + 1:02d}-{_slug(run_label(run))}-"
    return [
        Picture(f"{prefix}{name}.png", image_bytes(plot.draw(run)), caption)
        for name, plot, caption in PLOTS
        if plot.can_draw(run)
    ]


def accuracy_picture(runs: Sequence[Record]) -> Picture | None:
    """Accuracy against file size, or None where fewer than two runs know both."""
    if not accuracy.can_draw(runs):
        return None
    return Picture("accuracy.png", image_bytes(accuracy.draw(runs)), ACCURACY_CAPTION)


def _slug(label: str) -> str:
    # A label comes from a file of someone else: only letters and digits of it may reach a file name.
    return "-".join(re.findall(r"[a-z0-9]+", label.lower()))[:40].strip("-") or "run"

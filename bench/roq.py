"""Does a network that trains at quantized weights come by the optimum again and again? The two-layer teacher of RoQ.

    python bench/roq.py [--steps 100000] [--picture docs/pictures/roq_recurrence.png] [--out build/roq.json]

The theory (arXiv 2012.05529): `y = v . 1{Z w > 0}` with Gaussian patches Z `(m, n)`, squared loss to a teacher of
weights `w*`, `v` known. A step goes along the coarse gradient (the activation's derivative replaced by the ReLU's) at
the quantized weights `Q(w) = sign(w) / sqrt(n)`. Its expectation is `|v|^2 / (2 sqrt(2 pi)) (Q(w) - w* / |w*|)`.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from corank.reports.plots.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LABEL_SIZE,
    MUTED,
    PAGE_INCHES,
    VERMILION,
    add_legend,
    image_bytes,
    new_figure,
    style_axes,
)

N, M = 8, 16
V = torch.linspace(0.5, 1.5, M, dtype=torch.float64)
FACTOR = float(V.square().sum()) / (2 * math.sqrt(2 * math.pi))  # of the expected coarse gradient
BATCH = 16

Gradient = Callable[[Tensor, Tensor], Tensor]


def quantized(weight: Tensor) -> Tensor:
    """`sign(w) / sqrt(n)`, of unit length; zero goes up."""
    return torch.where(weight < 0, -1.0, 1.0).to(weight.dtype) / math.sqrt(len(weight))


def expected_gradient(codes: Tensor, teacher: Tensor) -> Tensor:
    """The coarse gradient in expectation over all patches; codes and teacher of unit length."""
    return FACTOR * (codes - teacher)


def sampled_gradient(codes: Tensor, teacher: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """The mean coarse gradient of `count` drawn inputs."""
    patches = torch.randn(count, M, N, dtype=torch.float64, generator=generator)
    active, wanted = (patches @ codes > 0).double(), (patches @ teacher > 0).double()
    error = (active - wanted) @ V
    return torch.einsum("b,bm,bmn->n", error, active * V, patches) / count


@dataclass(frozen=True)
class Course:
    """What a run went through: codes `(T, n)`, and the first and last float weights."""

    codes: Tensor
    first: Tensor
    last: Tensor
    rate: float

    def visits(self, teacher: Tensor) -> Tensor:
        """Whether each step was at the optimum, `Q(w*)`."""
        return (self.codes == quantized(teacher)).all(1)

    def mean(self) -> Tensor:
        """The mean of the codes so far, `(T, n)`."""
        return self.codes.cumsum(0) / torch.arange(1, len(self.codes) + 1, dtype=torch.float64)[:, None]


def iterate(teacher: Tensor, first: Tensor, steps: int, gradient: Gradient, rate: float = 0.05) -> Course:
    """The core iteration, `w <- w - rate * coarse gradient at Q(w)`."""
    weight, codes = first.clone(), torch.empty(steps, len(first), dtype=torch.float64)
    for step in range(steps):
        codes[step] = quantized(weight)
        weight = weight - rate * gradient(codes[step], teacher)
    return Course(codes, first, weight, rate)


def least_share(teacher: Tensor) -> float:
    """Of the steps that are at the optimum in the long run, at least.

    A coordinate with `a = sqrt(n) |w*_i| >= 1` ends on its right side for good. One below it has the mean code `a`
    times its right one, by the averaging identity, and so is wrong in a share `(1 - a) / 2` of the steps. Where those
    shares sum to less than one, all are right in at least the rest.
    """
    size = math.sqrt(len(teacher)) * teacher.abs()
    return max(0.0, 1 - float(((1 - size).clamp(min=0) / 2).sum()))


def off_the_teacher(course: Course, teacher: Tensor) -> Tensor:
    """How far the mean code so far is from the teacher, `(T,)`, over the coordinates that stay in bounds."""
    inner = math.sqrt(len(teacher)) * teacher.abs() < 1
    return (course.mean() - teacher)[:, inner].norm(dim=1)


def teachers() -> dict[str, Tensor]:
    """Unit weights: close to their codes; less so; and three coordinates whose wrong steps can take turns."""
    close = torch.tensor([1.0, -0.93, 1.06, 0.95, -1.03, -0.97, 1.05, 1.0], dtype=torch.float64)
    loose = torch.tensor([1.0, -0.75, 1.2, 0.8, -1.1, -0.9, 1.15, 0.95], dtype=torch.float64)
    outer = math.sqrt((N - 3 / 9) / 5)
    apart = torch.tensor([1 / 3, 1 / 3, 1 / 3, outer, -outer, outer, -outer, outer], dtype=torch.float64)
    return {name: one / one.norm() for name, one in (("close", close), ("looser", loose), ("avoiding", apart))}


def avoiding_start(teacher: Tensor, rate: float = 0.05) -> Tensor:
    """A start of the third teacher from which its three small coordinates are wrong in turn, and never right together.

    Each repeats after three steps: two at the right sign, then one at the wrong one. A third of the way apart, one of
    them is always wrong.
    """
    unit = rate * FACTOR / math.sqrt(N)  # a right step takes 2/3 of it off, a wrong one adds 4/3
    return torch.tensor([0.3 * unit, 0.97 * unit, -0.37 * unit, *teacher[3:]], dtype=torch.float64)


def courses(steps: int) -> dict[str, tuple[Tensor, Course]]:
    """Every run of the picture."""
    known, generator = teachers(), torch.Generator().manual_seed(0)

    def drawn(codes: Tensor, teacher: Tensor) -> Tensor:
        return sampled_gradient(codes, teacher, BATCH, generator)

    start = 0.1 * torch.randn(N, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = {}
    for name in ("close", "looser"):
        found[name] = known[name], iterate(known[name], start, steps, expected_gradient)
    found[f"close, {BATCH} inputs a step"] = known["close"], iterate(known["close"], start, steps, drawn)
    apart = known["avoiding"]
    found["avoiding"] = apart, iterate(apart, avoiding_start(apart), steps, expected_gradient)
    return found


def draw(found: dict[str, tuple[Tensor, Course]], path: Path) -> None:
    """Share of the steps at the optimum, and how far the mean of the codes is from the teacher."""
    figure = new_figure(5.6, PAGE_INCHES)
    upper, lower = figure.subplots(2, 1, sharex=True)
    for (name, (teacher, course)), colour in zip(found.items(), (BLUE, GREEN, INK, VERMILION), strict=True):
        steps = torch.arange(1, len(course.codes) + 1, dtype=torch.float64)
        shown = torch.logspace(0, math.log10(len(steps)), 400, dtype=torch.float64).long().unique() - 1
        share = course.visits(teacher).double().cumsum(0) / steps
        upper.plot(steps[shown], share[shown], color=colour, linewidth=1.5, label=name)
        if least_share(teacher) > 0 and "," not in name:
            upper.axhline(least_share(teacher), color=colour, linewidth=1.0, linestyle=(0, (4, 2)))
        # The largest of three steps: the avoiding run is exact at every third, which no logarithm shows.
        apart = torch.nn.functional.max_pool1d(off_the_teacher(course, teacher)[None], 3, 1, 1)[0]
        lower.plot(steps[shown], apart[shown], color=colour, linewidth=1.5)
    for power, name in ((1.0, "1 / T"), (0.5, "1 / √T")):
        guide = steps[shown] ** -power
        lower.plot(steps[shown], guide, color=GREY, linewidth=1.0, linestyle=(0, (4, 2)))
        lower.annotate(
            name, (float(steps[-1]) / 4, 1.3 * (float(steps[-1]) / 4) ** -power), color=MUTED, fontsize=LABEL_SIZE - 1
        )
    style_axes(upper, "Steps at the optimum", "", "share so far")
    style_axes(lower, "", "step", "mean code off the teacher")
    upper.set_xscale("log")
    upper.set_ylim(-0.03, 1.03)
    lower.set_yscale("log")
    add_legend(upper, columns=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image_bytes(figure, path.suffix[1:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--picture", type=Path, default=Path("build/roq_recurrence.png"))
    parser.add_argument("--out", type=Path, default=Path("build/roq.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    found, results = courses(options.steps), {}
    for name, (teacher, course) in found.items():
        visits, half = course.visits(teacher), options.steps // 2
        results[name] = {
            "visits": int(visits.sum()),
            "visits in the second half": int(visits[half:].sum()),
            "share": float(visits.double().mean()),
            "share at least": least_share(teacher),
            "codes visited": len(course.codes.unique(dim=0)),
            "mean code from the teacher": float(off_the_teacher(course, teacher)[-1]),
        }
        print(name, json.dumps(results[name]))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    draw(found, options.picture)


if __name__ == "__main__":
    main()

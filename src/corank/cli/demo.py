"""`corank demo`: the whole job on a network and images that ship with the package."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import typer

import corank
import corank.cli.options as options
from corank import __version__
from corank.cli.invocation import command_line
from corank.cli.outputs import Told, check_distinct, write_all
from corank.cli.progress import progress_bar
from corank.cli.record import Made, float_record, label_of, record_of, score
from corank.cli.screen import errors_console, results_console, show_lines
from corank.data import ImageSet, load
from corank.models import ResolvedModel, resolve
from corank.progress import Progress, labelled
from corank.reports import comparison_table, write_record, write_report

__all__ = ["demo"]

MODEL, CALIBRATION, TEST = "digits", "digits:train", "digits:test"
BUDGETS = {4: 0.25, 3: 0.25, 2: 0.4}


@dataclass(frozen=True)
class DemoRun:
    """One quantization of the demo: codes of ``bits`` bits with adapters, or of a ``rate``."""

    preset: str
    bits: int | None = None
    budget: float = 0.0
    rate: float | None = None

    @property
    def label(self) -> str:
        """Such as "fast 3+0.25" or "fast rate 1"."""
        if self.rate is not None:
            return f"{self.preset} rate {self.rate:g}"
        return label_of(self.preset, self.bits, self.budget)

    @property
    def options(self) -> str:
        """What the command line says of it."""
        if self.rate is not None:
            return f"--preset {self.preset} --rate {self.rate:g}"
        return f"--preset {self.preset} --bits {self.bits} --budget {self.budget:g}"


RUNS = (
    *(
        DemoRun(preset, bits, 0.0 if preset == "nearest" else budget)
        for bits, budget in BUDGETS.items()
        for preset in ("nearest", "paper", "fast")
    ),
    *(DemoRun("fast", rate=rate) for rate in (2.0, 1.0)),
)


def demo(context: typer.Context, told: Told, seed: options.Seed = 0) -> None:
    """Quantize a small digits network to 4, 3, 2 and 1 bits: rounding alone, the paper's way, and fast."""
    told.checked()
    check_distinct((told.record, told.report))
    source = resolve(MODEL)
    images, scored = (load(name, source.preprocessing) for name in (CALIBRATION, TEST))
    value = corank.evaluate(source.model, scored).top1
    runs = [float_record("demo", value or 0.0, source, seed, f"corank demo --seed {seed}")]
    with (
        progress_bar(told.quiet) as progress,
        _one_thread(),
        tempfile.TemporaryDirectory(prefix="corank-demo-") as folder,
    ):
        shared = _Demo(source, images, scored, seed, Path(folder))
        runs += [shared.record(one, progress) for one in RUNS]
    whole = {
        "command": "demo",
        "version": __version__,
        "model": MODEL,
        "seed": seed,
        "reproduce": command_line(context),
        "runs": runs,
    }
    if told.report is not None and not told.quiet:
        show_lines(errors_console(), ["drawing the report"])
    written = write_all(
        (told.record, lambda path: write_record(path, whole)),
        (told.report, lambda path: write_report(path, runs, "corank demo: handwritten digits")),
    )
    if not told.quiet:
        console = results_console()
        console.print(comparison_table(runs))
        show_lines(console, [f"scored on {len(scored)} images of {TEST}", *(f"wrote {path}" for path in written)])


@contextmanager
def _one_thread() -> Iterator[None]:
    """The network is so small that a second thread costs several times what it brings, on busy cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class _Demo:
    """What all runs share."""

    source: ResolvedModel
    images: ImageSet
    scored: ImageSet
    seed: int
    folder: Path

    def record(self, one: DemoRun, progress: Progress) -> dict[str, Any]:
        """One network quantized, saved and scored."""
        named = labelled(progress, one.label)
        quantized = corank.quantize(
            self.source.model, self.images, bits=one.bits, rate=one.rate, budget=one.budget, preset=one.preset,
            seed=self.seed, device="cpu", reference=MODEL, progress=named,
        )  # fmt: skip
        path = self.folder / "model.safetensors"
        corank.save(quantized, path)
        about = {**corank.inspect(quantized, codes=True), "stored_bytes": path.stat().st_size}
        scores = score(self.source.model, quantized, self.scored, named)
        words = f"--data {CALIBRATION} --eval {TEST} {one.options} --seed {self.seed} --out model.safetensors"
        return record_of(Made("demo", f"corank quantize {MODEL} {words}", one.label), about, scores, self.source)

"""`corank adapt`: a quantized file and a task's samples in, one small file of what the task adds out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import nn

import corank
import corank.cli.options as options
import corank.cli.quantize_options as shared
import corank.cli.train_options as training
from corank.cli.adapter import adapter_facts
from corank.cli.invocation import command_line
from corank.cli.outputs import check_distinct, check_file, write_all
from corank.cli.progress import progress_bar, renamed
from corank.cli.record import Made, Scores, record_of
from corank.cli.screen import facts_table, results_console, show_json, show_lines
from corank.cli.sources import InputOptions, Work, own_dtype
from corank.cli.training_request import teacher_of
from corank.models import ResolvedModel, resolve
from corank.progress import Progress
from corank.reports import write_record

__all__ = ["AdaptingRequest", "adapt"]

HOW = "What the task adds"


@dataclass(frozen=True)
class AdaptingRequest:
    """What was asked for, None where nothing was."""

    rank: Annotated[
        int | None, typer.Option(help="Of each layer's factors, at most what it takes; 4.", rich_help_panel=HOW)
    ] = None
    size: Annotated[
        str | None, typer.Option(help="Instead of --rank: of the adapter's file, such as 12KB.", rich_help_panel=HOW)
    ] = None
    classes: Annotated[
        int | None,
        typer.Option(help="Of a new last layer; the labels' if they are not the base's.", rich_help_panel=HOW),
    ] = None
    biases: Annotated[
        bool, typer.Option("--biases/--no-biases", help="Train biases and norms, too.", rich_help_panel=HOW)
    ] = True
    adapter_bits: Annotated[int, typer.Option(help="Of the factors' codes, 2 to 8.", rich_help_panel=HOW)] = 8
    loss: training.Loss = None
    teacher: training.Teacher = None
    teacher_weights: training.TeacherWeights = None
    iterations: Annotated[int, typer.Option(help="Steps.", rich_help_panel=training.HOW)] = 300
    batch_size: Annotated[int, typer.Option(help="Samples a step.", rich_help_panel=training.HOW)] = 64
    learning_rate: Annotated[
        float, typer.Option(help="In units of each layer's weights.", rich_help_panel=training.HOW)
    ] = 1e-2
    checkpoint: shared.Checkpoint = None

    def __call__(self, base: nn.Module, data: Any, work: Work, progress: Progress) -> nn.Module:
        """The base with the task's adapter."""
        return corank.adapt(
            base, data, self.rank, size=self.size, classes=self.classes, loss=self.loss,
            teacher=teacher_of(self.teacher, self.teacher_weights, work), biases=self.biases,
            adapter_bits=self.adapter_bits, iterations=self.iterations, batch_size=self.batch_size,
            learning_rate=self.learning_rate, seed=work.seed, device=work.place, checkpoint=self.checkpoint,
            progress=progress,
        )  # fmt: skip


def adapt(
    context: typer.Context,
    base: Annotated[Path, typer.Argument(help="Written by corank quantize or train.")],
    model: options.ModelOption,
    data: options.Data,
    out: shared.Out,
    request: AdaptingRequest,
    view: InputOptions,
    work: Work,
    evaluation: shared.Evaluation = None,
    merged: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also write base and adapter as one quantized file.", rich_help_panel=options.OUTPUT
        ),
    ] = None,
    record: options.RecordFile = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Teach a quantized file a task: low-rank factors beside its codes, which stay as they are, in a file of their own.

    MODEL gives the network's code; what the file says of its origin is never run. corank evaluate and predict
    take the adapter by --adapter.
    """
    check_distinct((out, merged, record), (base, model, data, evaluation, request.teacher_weights))
    check_file(out, "--out", ".safetensors")
    check_file(merged, "--merged", ".safetensors")
    check_file(record, "--record", ".json")
    source = resolve(model, seed=work.seed)
    images, *scored = view.read(source, data, *([evaluation] if evaluation else []))
    small = corank.load(base, source.model, work.place, dtype=own_dtype(source.model))
    with progress_bar(quiet) as progress:
        task = request(small, images, work, progress)
        scores = Scores.of(corank.evaluate(task, scored[0], progress=renamed(progress, "scoring"))) if scored else None
    written = write_all((out, lambda path: corank.save_adapter(task, path)), (merged, lambda p: corank.save(task, p)))
    result = _record(task, scores or Scores(), source, command_line(context)) | _sizes(base, out)
    written += write_all((record, lambda path: write_record(path, result)))
    if as_json:
        show_json(result)
    elif not quiet:
        console, score = results_console(), result["quantized_value"]
        told = {} if score is None else {result["metric"]: f"{score:.2f} of {result['eval_samples']:,} samples"}
        console.print(facts_table({**adapter_facts(result["adapter"], result["adapter_bytes"]), **told}))
        show_lines(console, [*(f"note: {text}" for text in result["notes"]), *(f"wrote {path}" for path in written)])


def _record(task: nn.Module, scores: Scores, source: ResolvedModel, command: str) -> dict[str, Any]:
    found = record_of(Made("adapt", command, "adapter"), corank.inspect(task), scores, source)
    return {**found, "adapter": task.__dict__["corank_adapter"].about()}


def _sizes(base: Path, out: Path) -> dict[str, Any]:
    return {"base_bytes": base.stat().st_size, "adapter_bytes": out.stat().st_size}

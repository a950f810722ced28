"""`corank quantize`: a trained network and samples in, a small file out."""

from __future__ import annotations

import typer

import corank
import corank.cli.options as options
import corank.cli.quantize_options as asked
from corank.cli.invocation import command_line
from corank.cli.made_network import MadeFiles, show_made
from corank.cli.outputs import Told, check_distinct
from corank.cli.progress import progress_bar
from corank.cli.record import Made, Scores, record_of, score
from corank.cli.request import Request
from corank.cli.sources import InputOptions, ModelOptions, Work
from corank.processes import is_main

__all__ = ["quantize"]


def quantize(
    context: typer.Context,
    model: options.Model,
    data: options.Data,
    out: asked.Out,
    request: Request,
    network: ModelOptions,
    view: InputOptions,
    work: Work,
    told: Told,
    evaluation: asked.Evaluation = None,
    save_plan: asked.SavePlan = None,
) -> None:
    """Quantize a trained network; no training (but with --prune), no labels (but for --eval)."""
    check_distinct((out, save_plan, told.record, told.report), (network.weights, request.plan, model, data, evaluation))
    files = MadeFiles(out, save_plan, "plan", told).checked()
    request = request.checked(evaluation is not None)
    source = request.source(model, network, work.seed)
    images, *scored = samples = view.read(source, data, *([evaluation] if evaluation else []))
    with progress_bar(told.quiet) as progress:
        quantized, tried = request(source, samples, work, progress)
        scores = score(source.model, quantized, scored[0], progress) if scored else Scores()
    if not is_main():  # of several processes one writes and speaks
        return
    about = corank.inspect(quantized, True, request.coder)
    result = record_of(Made("quantize", command_line(context)), about, scores, source)
    result |= {"tried": [trial._asdict() for trial in tried], **files.heard(quantized, (scored or [images])[0])}
    written = files.write(lambda path: corank.save(quantized, path, request.coder), result)
    show_made(result, written, quiet=told.quiet)

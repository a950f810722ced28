"""`corank train`: a trained network and samples in, a small file out whose weights trained as codes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
from safetensors.torch import save as float_file
from torch import nn

import corank
import corank.cli.options as options
import corank.cli.quantize_options as shared
import corank.cli.train_options as asked
from corank.cli.invocation import command_line
from corank.cli.made_network import MadeFiles, show_made
from corank.cli.outputs import Told, check_distinct
from corank.cli.progress import progress_bar
from corank.cli.record import Made, Scores, float_record, record_of, score
from corank.cli.sources import InputOptions, ModelOptions, Work, warn_if_random
from corank.cli.training_request import TrainingRequest
from corank.files import write_whole
from corank.layers import structure_of
from corank.models import ResolvedModel, resolve
from corank.processes import is_main

__all__ = ["train"]


def train(
    context: typer.Context,
    model: options.Model,
    data: options.Data,
    out: shared.Out,
    request: TrainingRequest,
    network: ModelOptions,
    view: InputOptions,
    work: Work,
    told: Told,
    evaluation: shared.Evaluation = None,
    save_recipe: asked.SaveRecipe = None,
) -> None:
    """Train a network while its weights are low-bit codes; labels only where --loss asks for them."""
    inputs = (network.weights, request.recipe, model, data, evaluation, request.teacher_weights)
    check_distinct((out, save_recipe, told.record, told.report), inputs)
    files = MadeFiles(out, save_recipe, "recipe", told).checked()
    how = request.check()
    source = resolve(model, pretrained=network.pretrained, weights=network.weights, seed=work.seed)
    if how.start != "scratch":  # which has weights of its own
        warn_if_random(source)
    images, *scored = view.read(source, data, *([evaluation] if evaluation else []))
    with progress_bar(told.quiet) as progress:
        trained, steps = request(source, images, work, progress)
        scores = score(source.model, trained, scored[0], progress) if scored else Scores()
    if not is_main():  # of several processes one writes and speaks
        return
    made = Made("train", command_line(context), request.label)
    seen = None if how.ends_in_float else corank.inspect(trained, True, request.coder)
    result = record_of(made, seen, scores, source) if seen else _of_float(made, scores, source, how, work.seed)
    result |= files.heard(trained, (scored or [images])[0]) | ({} if seen else {"search_history": steps})
    written = files.write(lambda path: _save(trained, result, path, request.coder), result)
    show_made(result, written, "trained", told.quiet)


def _of_float(made: Made, scores: Scores, source: ResolvedModel, how: corank.Recipe, seed: int) -> dict[str, Any]:
    """The record of a training that ends in float weights."""
    result = float_record(made.command, scores.quantized_value or 0.0, source, seed, made.reproduce)
    own = {"float_value": scores.float_value, "quantized_value": scores.quantized_value, "kl": scores.kl}
    note = "what trained is in float, as the recipe says: corank quantize MODEL --weights FILE makes it small"
    return {
        **result, **own, "agreement": scores.agreement, "metric": scores.metric, "eval_samples": scores.samples,
        "label": made.label, "iterations": how.iterations, "recipe": how.to_json(), "notes": [note],
    }  # fmt: skip


def _save(trained: nn.Module, result: Mapping[str, Any], path: Path, coder: str) -> None:
    """The coded network; the state of one that ended in float, as --weights reads it."""
    if result["layers"]:
        corank.save(trained, path, coder)
        return
    if structure_of(trained):
        corank.save(trained, path)
        return
    # safetensors takes no two tensors of one storage
    write_whole(path, float_file({name: one.clone().contiguous() for name, one in trained.state_dict().items()}))

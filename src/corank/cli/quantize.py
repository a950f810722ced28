"""`corank quantize`: a trained network and samples in, a small file out."""

from __future__ import annotations

import typer

import corank
import corank.cli.options as options
import corank.cli.quantize_options as asked
from corank.cli.invocation import command_line
from corank.cli.made_network import MadeFiles, show_made
from corank.cli.outputs import check_distinct
from corank.cli.progress import progress_bar
from corank.cli.record import Made, Scores, record_of, score
from corank.cli.request import Request
from corank.cli.sources import InputOptions, chosen_device
from corank.processes import is_main

__all__ = ["quantize"]


def quantize(
    context: typer.Context,
    model: options.Model,
    data: options.Data,
    out: asked.Out,
    bits: asked.Bits = None,
    codec: asked.CodecName = None,
    rate: asked.Rate = None,
    budget: asked.Budget = None,
    size: asked.Size = None,
    prune: asked.Prune = None,
    max_drop: asked.MaxDrop = None,
    preset: asked.Preset = None,
    search: asked.Search = None,
    iterations: asked.Iterations = None,
    plan: asked.Plan = None,
    save_plan: asked.SavePlan = None,
    coder: asked.Coder = "auto",
    layer: asked.Layer = None,
    all_layers: asked.AllLayers = False,
    rotate: asked.Rotate = None,
    adapter_bits: asked.AdapterBits = None,
    activations: asked.Activations = None,
    activation_range: asked.ActivationRange = None,
    weights: options.Weights = None,
    pretrained: options.Pretrained = False,
    evaluation: asked.Evaluation = None,
    samples: asked.Samples = None,
    image_size: options.ImageSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    image_key: options.ImageKey = None,
    label_key: options.LabelKey = None,
    length: options.Length = None,
    label: options.LabelPattern = None,
    checkpoint: asked.Checkpoint = None,
    stream: asked.Stream = False,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    record: options.RecordFile = None,
    report: options.ReportFolder = None,
    quiet: options.Quiet = False,
) -> None:
    """Quantize a trained network; no training (but with --prune), no labels (but for --eval)."""
    check_distinct((out, save_plan, record, report), (weights, plan, model, data, evaluation))
    files = MadeFiles(out, save_plan, "plan", record, report).checked()
    request = Request(bits, budget, size, max_drop, preset, search, iterations, plan, tuple(layer or ()), all_layers,
                      adapter_bits, samples, seed, model, chosen_device(device), checkpoint, activations, codec,
                      activation_range, rate, prune, stream, rotate).checked(evaluation is not None, coder)  # fmt: skip
    source = request.source(pretrained, weights)
    view = InputOptions(image_size, mean, std, image_key, label_key, length, label)
    images, *scored = view.read(source, data, *([evaluation] if evaluation else []))
    with progress_bar(quiet) as progress:
        quantized, tried = request(source.model, images, scored[0] if scored else None, progress)
        scores = score(source.model, quantized, scored[0], progress) if scored else Scores()
    if not is_main():  # of several processes one writes and speaks
        return
    result = record_of(Made("quantize", command_line(context)), corank.inspect(quantized, True, coder), scores, source)
    result |= {"tried": [trial._asdict() for trial in tried], **files.heard(quantized, (scored or [images])[0])}
    written = files.write(lambda path: corank.save(quantized, path, coder), result)
    show_made(result, written, quiet=quiet)

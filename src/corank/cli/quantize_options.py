"""The options that only `corank quantize` has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from corank.cli.completion import names
from corank.cli.options import INPUT, OUTPUT
from corank.codecs import CODECS
from corank.layers import ROTATIONS
from corank.presets import PRESETS, SEARCH_NAMES
from corank.statistics.input_ranges import RANGES
from corank.storage.coders import CODERS

__all__ = [
    "ActivationRange",
    "Activations",
    "AdapterBits",
    "AllLayers",
    "Bits",
    "Budget",
    "Checkpoint",
    "CodecName",
    "Coder",
    "Evaluation",
    "Iterations",
    "Layer",
    "MaxDrop",
    "Out",
    "Plan",
    "Preset",
    "Prune",
    "Rate",
    "Rotate",
    "Samples",
    "SavePlan",
    "Search",
    "Size",
    "Stream",
]

HOW = "How small"
PLAN = "Plan"

Out = Annotated[Path, typer.Option(metavar="FILE", help="The .safetensors file.", rich_help_panel=OUTPUT)]
Bits = Annotated[
    int | None, typer.Option(help="Of a code, 1 to 8; the codec's (4) unless --size is given.", rich_help_panel=HOW)
]
Activations = Annotated[
    int | None, typer.Option(help="Of the layers' inputs, 2 to 8; float if not given.", rich_help_panel=HOW)
]
Rate = Annotated[
    str | None,
    typer.Option(
        help="Instead of --bits: bits a weight after entropy coding, 0.1 to 6; auto for --size or --max-drop.",
        rich_help_panel=HOW,
    ),
]
ActivationRange = Annotated[
    str | None,
    typer.Option(
        help="Where inputs are clipped: mse, minmax, kl or kl-mass.", rich_help_panel=PLAN, autocompletion=names(RANGES)
    ),
]
Budget = Annotated[
    float | None, typer.Option(help="Extra bits per weight for the adapters; 0.25.", rich_help_panel=HOW)
]
Size = Annotated[
    str | None,
    typer.Option(
        help="Of the file, such as 1.2MB: finds the rate that fits; with --bits, --codec or --search the budget.",
        rich_help_panel=HOW,
    ),
]
Prune = Annotated[
    str | None,
    typer.Option(
        metavar="SHARES",
        help="With --size: weigh fewer channels against fewer bits; auto, or shares such as 0.2p,0.4p.",
        rich_help_panel=HOW,
    ),
]
MaxDrop = Annotated[
    float | None, typer.Option(help="Find the smallest file within so many points.", rich_help_panel=HOW)
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="fast (if not given), best, paper or nearest.", rich_help_panel=PLAN, autocompletion=names(PRESETS)
    ),
]
CodecName = Annotated[
    str | None,
    typer.Option(
        "--codec",
        help="Which values weights may take, by name (uniform), and settings: uniform:half=false:group=32.",
        rich_help_panel=PLAN,
        autocompletion=names(CODECS),
    ),
]
Search = Annotated[
    str | None,
    typer.Option(
        help="cora, cora-from-0.9, greedy, joint, rates, uniform.",
        rich_help_panel=PLAN,
        autocompletion=names(SEARCH_NAMES),
    ),
]
Iterations = Annotated[
    int | None, typer.Option(help="Steps of distillation after the coding; 250 for best.", rich_help_panel=PLAN)
]
Plan = Annotated[Path | None, typer.Option(help="Carry out this plan; search nothing.", rich_help_panel=PLAN)]
SavePlan = Annotated[Path | None, typer.Option(help="Write the plan as JSON.", rich_help_panel=OUTPUT)]
Layer = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN=BITS", help="Bits, float or a codec for some layers; repeat it.", rich_help_panel=PLAN
    ),
]
AllLayers = Annotated[
    bool, typer.Option("--all-layers", help="Code the first and last layer like the others.", rich_help_panel=PLAN)
]
Rotate = Annotated[
    str | None,
    typer.Option(
        help="Spread outliers first: fold (Llamas), layers (any).",
        rich_help_panel=PLAN,
        autocompletion=names(ROTATIONS),
    ),
]
AdapterBits = Annotated[int | None, typer.Option(help="Of the adapters, 2 to 8; 8.", rich_help_panel=PLAN)]
Coder = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Of the codes: auto; fixed or rans for readers without a C++ compiler; ...",
        rich_help_panel=OUTPUT,
        autocompletion=names(("auto", *CODERS)),
    ),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Keep what is done; go on from there.", rich_help_panel=OUTPUT),
]
Evaluation = Annotated[
    str | None, typer.Option("--eval", help="Samples to score on, as --data.", rich_help_panel=INPUT)
]
Samples = Annotated[
    int | None,
    typer.Option(help="Calibration images (1600) or sequences (102,400 tokens), at most.", rich_help_panel=INPUT),
]
Stream = Annotated[
    bool,
    typer.Option(
        "--stream",
        help="Read a language model's folder one decoder layer at a time, for models larger than memory.",
        rich_help_panel=HOW,
    ),
]

"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "AsJson", "Data", "Device", "ImageKey", "ImageSize", "LabelKey", "LabelPattern", "Length", "Mean", "Model",
    "ModelOption", "Packed", "Pretrained", "Quiet", "RecordFile", "ReportFolder", "Seed", "Speed", "Std", "Weights",
]  # fmt: skip

INPUT = "Images, or tokens"
OUTPUT = "Output"
MODEL = "Model"

MODELS = (
    "torchvision:NAME, timm:NAME, hf:NAME_OR_DIR, file.py:factory, speech-resnet:CLASSES, binary-vit:CLASSES, "
    "elastic:CLASSES or digits."
)

Model = Annotated[
    str,
    typer.Argument(help=MODELS),
]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        help=MODELS,
        rich_help_panel=MODEL,
    ),
]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        help="A folder, .zip, .npz, shards, digits or file.py:function; a text or .npz of tokens; recordings; a slice "
        "may follow: [0::2].",
        rich_help_panel=INPUT,
    ),
]  # fmt: skip
Weights = Annotated[
    Path | None,
    typer.Option(help="The model's trained weights: .safetensors, .pt, .pth, .bin.", rich_help_panel=MODEL),
]
Pretrained = Annotated[
    bool,
    typer.Option("--pretrained", help="Use the published weights; may download them.", rich_help_panel=MODEL),
]
Packed = Annotated[
    bool,
    typer.Option(
        "--packed", help="Keep codes packed in memory and multiply by them as they are.", rich_help_panel=MODEL
    ),
]
Speed = Annotated[
    bool,
    typer.Option("--speed", help="Language models: tokens a second and memory, too; --reference adds the float one."),
]
ImageSize = Annotated[
    int | None,
    typer.Option(help="Side in pixels. This, mean and std come from the model if not given.", rich_help_panel=INPUT),
]
Mean = Annotated[
    str | None, typer.Option(metavar="A,B,C", help="Per channel; one number for grey.", rich_help_panel=INPUT)
]
Std = Annotated[
    str | None, typer.Option(metavar="A,B,C", help="Per channel; one number for grey.", rich_help_panel=INPUT)
]
ImageKey = Annotated[str | None, typer.Option(help="Name of the images, or tokens, in an .npz.", rich_help_panel=INPUT)]
LabelKey = Annotated[str | None, typer.Option(help="Name of the labels in an .npz.", rich_help_panel=INPUT)]
Length = Annotated[
    int | None, typer.Option(help="Tokens of a sequence; the data are text or token ids.", rich_help_panel=INPUT)
]
LabelPattern = Annotated[
    str | None,
    typer.Option(
        "--label",
        metavar="PATTERN",
        help='What names of recordings say, such as "{label}_{group}_{index}"; classes are folders if not given.',
        rich_help_panel=INPUT,
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Seed = Annotated[int, typer.Option(help="Draws samples and batches; the same seed gives the same result.")]
RecordFile = Annotated[
    Path | None,
    typer.Option("--record", metavar="FILE.json", help="Write what was done as JSON.", rich_help_panel=OUTPUT),
]
ReportFolder = Annotated[
    Path | None,
    typer.Option("--report", metavar="DIR|FILE.html", help="Write an HTML page with pictures.", rich_help_panel=OUTPUT),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Only warnings and errors.", rich_help_panel=OUTPUT)]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="The record as JSON on stdout instead of tables.", rich_help_panel=OUTPUT),
]

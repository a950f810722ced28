"""The options that `corank tune` has beside those of other commands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from corank.cli.completion import names
from corank.cli.options import INPUT, MODELS, OUTPUT
from corank.tuning.tuners import TUNERS

__all__ = ["Data", "Model", "Out", "Show", "TuneOptions"]

WHAT, HOW = "What is chosen", "How it is chosen"

Model = Annotated[str | None, typer.Argument(help=MODELS)]
Data = Annotated[
    str | None,
    typer.Option(
        "--data", help="Samples to calibrate on and, without --eval, to choose on; labels are not read.",
        rich_help_panel=INPUT,
    ),
]  # fmt: skip
Samples = Annotated[int, typer.Option(help="To calibrate on, at most.", rich_help_panel=INPUT)]
Selection = Annotated[
    int,
    typer.Option(
        help="Samples that trials are scored on, at most; as many others give the final number.", rich_help_panel=INPUT
    ),
]
Space = Annotated[
    str,
    typer.Option(
        metavar="NAME|FILE.toml",
        help="corank (codes, rounder, adapters, ...), int8 (96 ways to int8 in ONNX Runtime), or a file of your own.",
        rich_help_panel=WHAT,
        autocompletion=names(["corank", "int8"]),
    ),
]
Choices = Annotated[
    list[str] | None,
    typer.Option(
        "--choice", metavar="NAME=A,B", help="Other values for a choice of the space; may be repeated.",
        rich_help_panel=WHAT,
    ),
]  # fmt: skip
Size = Annotated[
    str | None, typer.Option(help="Of the file, at most, such as 60KB: the best score within it.", rich_help_panel=WHAT)
]
Least = Annotated[
    float | None, typer.Option(help="Score that is good enough: the smallest file that has it.", rich_help_panel=WHAT)
]
Latency = Annotated[
    bool,
    typer.Option(
        "--latency", help="Measure the time of one sample, too; it decides between equals.", rich_help_panel=WHAT
    ),
]
Trials = Annotated[int, typer.Option(help="In all, those in the storage among them.", rich_help_panel=HOW)]
TunerName = Annotated[
    str, typer.Option("--tuner", help=f"{', '.join(TUNERS)}.", rich_help_panel=HOW, autocompletion=names(TUNERS))
]
Patience = Annotated[
    int,
    typer.Option(help="Trials without a gain over the score's error that end it; 0 for none.", rich_help_panel=HOW),
]
Whole = Annotated[
    bool, typer.Option("--whole", help="Every trial on all data, without a cheap look first.", rich_help_panel=HOW)
]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Where trials are kept, for runs to come and processes beside this one: sqlite:///FILE.db, or any of "
        "optuna's; FILE.study.db beside --out FILE.",
        rich_help_panel=HOW,
    ),
]
Study = Annotated[str, typer.Option(help="Name of the study in the storage.", rich_help_panel=HOW)]
Records = Annotated[
    list[Path] | None,
    typer.Option(help="What other models scored, as --remember writes it; may be repeated.", rich_help_panel=HOW),
]
Remember = Annotated[
    Path | None, typer.Option(metavar="FILE.json", help="Add what was measured here.", rich_help_panel=HOW)
]
Configuration = Annotated[
    str | None,
    typer.Option(
        metavar="NAME=VALUE,...", help="Make and measure this one alone, as --show prints it.", rich_help_panel=WHAT
    ),
]
Show = Annotated[int | None, typer.Option(metavar="N", help="Print what makes trial N of a storage again, and stop.")]
Out = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The best trial's file: .safetensors, or .onnx of int8.", rich_help_panel=OUTPUT),
]


@dataclass(frozen=True)
class TuneOptions:
    """What is chosen, and how."""

    space: Space = "corank"
    size: Size = None
    least: Least = None
    choice: Choices = None
    latency: Latency = False
    configuration: Configuration = None
    trials: Trials = 20
    tuner: TunerName = "boosted"
    patience: Patience = 10
    whole: Whole = False
    storage: Storage = None
    study: Study = "corank"
    records: Records = None
    remember: Remember = None
    samples: Samples = 1600
    selection: Selection = 2000

    @property
    def settings(self) -> dict[str, Any]:
        """As ``corank.tune`` takes them; what must be read first is not among them."""
        return {
            "size": self.size, "least": self.least, "trials": self.trials, "tuner": self.tuner, "study": self.study,
            "samples": self.samples, "selection": self.selection, "rungs": (1.0,) if self.whole else None,
            "patience": self.patience or None, "latency": self.latency, "records": self.records or (),
            "remember": self.remember,
        }  # fmt: skip

"""The options that `corank prune` has of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from corank.cli.completion import names
from corank.cli.options import INPUT
from corank.errors import ConfigError
from corank.pruning.request import METHODS, Share, chosen_method
from corank.training.recipe import LOSSES
from corank.verbs.prune import FINETUNE

__all__ = ["PruneOptions"]

HOW = "What goes, and how the rest heals"

Remove = Annotated[
    str,
    typer.Option(
        metavar="SHARE", help="Of the multiply-adds, such as 0.4; 0.4p of the parameters.", rich_help_panel=HOW
    ),
]
Method = Annotated[
    str,
    typer.Option(
        help=f"How channels are weighed: {', '.join(METHODS)}.", rich_help_panel=HOW, autocompletion=names(METHODS)
    ),
]
Iterations = Annotated[int, typer.Option(help="Steps of training in all; 0 for none.", rich_help_panel=HOW)]
Drawn = Annotated[
    float,
    typer.Option(
        metavar="SHARE", help="Of the steps, those that draw channels to zero before they go.", rich_help_panel=HOW
    ),
]
BatchSize = Annotated[int, typer.Option(help="Samples a step.", rich_help_panel=HOW)]
Loss = Annotated[
    str,
    typer.Option(
        help="distil (from the whole network, no labels), labels or both.",
        rich_help_panel=HOW,
        autocompletion=names(LOSSES),
    ),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Layers that keep their channels; repeat it.", rich_help_panel=HOW),
]
RoundTo = Annotated[
    int,
    typer.Option(help="Channels left of a layer are multiples of it: 8 for ONNX Runtime.", rich_help_panel=HOW),
]
Samples = Annotated[
    int | None,
    typer.Option(help="Samples that channels are weighed and norms estimated on (1600).", rich_help_panel=INPUT),
]


@dataclass(frozen=True)
class PruneOptions:
    """What goes, and how the rest heals."""

    remove: Remove
    method: Method = "first-order"
    iterations: Iterations = 400
    drawn: Drawn = 0.25
    batch_size: BatchSize = 128
    loss: Loss = "distil"
    keep: Keep = None
    round_to: RoundTo = 1
    samples: Samples = None

    def checked(self) -> dict[str, Any]:
        """As ``corank.prune`` takes it.

        Raises:
            ConfigError: for what cannot be.
        """
        share, method = Share.read(self.remove), chosen_method(self.method)
        if self.loss not in LOSSES:
            raise ConfigError(f"--loss {self.loss}: one of {', '.join(LOSSES)}; only distil needs no labels")
        return {
            "remove": str(share), "method": method, "iterations": self.iterations, "drawn": self.drawn,
            "batch_size": self.batch_size, "keep": self.keep or (), "recipe": FINETUNE.replaced(loss=self.loss),
            "samples": self.samples, "round_to": self.round_to,
        }  # fmt: skip

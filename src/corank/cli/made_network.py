"""What a command that makes a network leaves behind: files, a record, a report, and lines on the screen."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from torch import nn

from corank.cli.outputs import Told, check_file, write_all
from corank.cli.screen import results_console, show_lines, show_skipped, show_tried, summary_table
from corank.cli.utterance import utterance_of
from corank.data import BatchSet, ImageSet, TokenSet
from corank.files import write_whole
from corank.reports import write_record, write_report

__all__ = ["MadeFiles", "show_made"]


@dataclass(frozen=True)
class MadeFiles:
    """The paths of what is written, None where it was not asked for.

    Attributes:
        out: of the network.
        settings: of the JSON that would make it again.
        what: the record's name for those settings, "plan" or "recipe"; the option is ``--save-WHAT``.
        told: of what was done.
    """

    out: Path
    settings: Path | None
    what: str
    told: Told

    def checked(self) -> Self:
        """Itself; raises ConfigError or OutputError for what cannot be written there, before the work."""
        check_file(self.out, "--out", ".safetensors")
        check_file(self.settings, f"--save-{self.what}", ".json")
        self.told.checked()
        return self

    def heard(self, network: nn.Module, samples: ImageSet | TokenSet | BatchSet) -> dict[str, Any]:
        """What the report draws of the first recording, where there are recordings and a report."""
        return {} if self.told.report is None else utterance_of(network, samples)

    def write(self, save: Callable[[Path], Any], result: Mapping[str, Any]) -> list[Path]:
        """Writes all of it, the network by ``save``; returns what was written."""
        settings = json.dumps(result[self.what], indent=1) + "\n"
        return write_all(
            (self.out, save),
            (self.settings, lambda path: write_whole(path, settings.encode())),
            (self.told.record, lambda path: write_record(path, result)),
            (self.told.report, lambda path: write_report(path, [result], f"{result['model']}, {result['label']}")),
        )


def show_made(result: Mapping[str, Any], written: Sequence[Path], made: str = "quantized", quiet: bool = False) -> None:
    """The float network and the one that was ``made`` of it, what is worth knowing, and where it went; unless quiet."""
    if quiet:
        return
    console = results_console()
    console.print(summary_table(result, made))
    show_skipped(console, result["skipped"])
    show_tried(console, result)
    show_lines(console, [f"note: {text}" for text in result["notes"]])
    show_lines(console, [f"wrote {path}" for path in written])

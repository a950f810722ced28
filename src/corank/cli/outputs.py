"""Files that a command writes: checked before the work, written whole after it."""

from __future__ import annotations

import importlib.util
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import corank.cli.options as options
from corank.cli.errors import Interrupted
from corank.errors import ConfigError, OutputError
from corank.reports.html import page_path

__all__ = ["Told", "check_distinct", "check_file", "check_kind", "check_report", "write_all"]

# What a suffix promises, of those that are known to mean something else.
KINDS = {
    ".safetensors": "a quantized file (corank quantize) or weights",
    ".onnx": "ONNX (corank export --to onnx)",
    ".xml": "OpenVINO IR (corank export --to openvino)",
    ".bin": "weights, of OpenVINO or PyTorch",
    ".pt": "PyTorch's",
    ".pth": "PyTorch's",
    ".ckpt": "PyTorch's",
    ".gguf": "llama.cpp's",
    ".tflite": "TensorFlow Lite's",
    ".json": "a record or a plan",
    ".html": "a report (--report)",
    ".npz": "arrays of numpy",
    ".npy": "an array of numpy",
    ".zip": "an archive",
    ".png": "a picture",
    ".py": "Python",
}

Step = tuple[Path | None, Callable[[Path], object]]


@dataclass(frozen=True)
class Told:
    """What a command tells beside its result."""

    record: options.RecordFile = None
    report: options.ReportFolder = None
    quiet: options.Quiet = False

    def checked(self) -> Self:
        """Itself; raises ConfigError or OutputError for what cannot be written there, before the work."""
        check_file(self.record, "--record", ".json")
        check_report(self.report)
        return self


def check_file(path: Path | None, option: str, *own: str) -> None:
    """Whether a file of the suffixes ``own`` can be written there, as ``option`` asks; changes nothing.

    Raises:
        ConfigError: its name promises a file of another kind.
        OutputError: its folder is missing or read-only, or something that is no file stands there.
    """
    if path is None:
        return
    check_kind(option, path, *own)
    if path.exists() and not path.is_file():
        raise OutputError(f"cannot write {path}: it is {'a folder' if path.is_dir() else 'not a regular file'}")
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {path.parent}; create it, or give another path")
    _probe(path, path.parent)


def check_kind(option: str, path: Path | None, *own: str) -> None:
    """Whether the name of an output does not promise a file of another kind.

    Args:
        option: that gave it.
        path: to be written; None is nothing.
        own: the suffixes of what is written; none for a folder. Names without a suffix, or with one that says nothing
            here, may be given too.

    Raises:
        ConfigError: naming what writes files of that suffix.
    """
    suffix = "" if path is None else path.suffix.lower()
    if path is None or suffix not in KINDS or suffix in own:
        return
    wanted = own[0] if own else "a folder"
    example = path.with_suffix(own[0] if own else "")
    raise ConfigError(f"{option} {path}: {suffix} is {KINDS[suffix]}, and what is written is {wanted}; give {example}")


def check_report(folder: Path | None) -> None:
    """Whether a report can be written into that folder, or as that `.html` file; creates nothing.

    Raises:
        OutputError: the folder cannot be made or written to. ConfigError: matplotlib or jinja2 is missing.
    """
    if folder is None:
        return
    missing = [name for name in ("matplotlib", "jinja2") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"reports need {' and '.join(missing)}: pip install 'corank[report]'")
    there = page_path(folder).parent.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise OutputError(f"cannot write the report to {folder}: {there} is not a folder")
    _probe(folder, there)


def check_distinct(outputs: Sequence[Path | None], inputs: Sequence[Path | str | None] = ()) -> None:
    """Whether no output stands in the way of another one or of an input.

    Args:
        outputs: paths that will be written.
        inputs: paths, or what the command line says of models and data, such as "net.py:make", "images.npz[:100]" and
            "hf:folder".

    Raises:
        ConfigError: two are the same file, or an output is a file of a folder with a model.
    """
    given = [path.resolve() for path in outputs if path is not None]
    kept = {path for one in inputs if one is not None for path in _files_of(one)}
    for place, path in enumerate(given):
        if path in given[:place] or path in kept:
            raise ConfigError(f"{path} would be overwritten; give every input and output a path of its own")


def _files_of(given: Path | str) -> set[Path]:
    """The files that a path, or a reference to a model or data, reads."""
    place = Path(given)
    if place.is_file():
        return {place.resolve()}
    if isinstance(given, Path):
        if place.is_dir():  # of weights
            return {path.resolve() for path in place.iterdir()}
        given = str(given)  # perhaps FILE:KEY
    if given.startswith("hf:") and (folder := Path(given.removeprefix("hf:"))).is_dir():
        return {path.resolve() for path in folder.iterdir()}
    parts = re.sub(r"\[[^\[\]]*\]$", "", given).split(":")
    places = [given, *(":".join(parts[:end]) for end in range(1, len(parts) + 1))]
    return {Path(place).resolve() for place in places if Path(place).is_file()}


def write_all(*steps: Step) -> list[Path]:
    """Takes each step (a path, or None to leave it out, and what writes it whole or not at all) in order.

    Returns:
        What was written; a step may return the path to show for it, such as a folder's page.

    Raises:
        Interrupted: for Ctrl-C, with what was written by then. OutputError: from a step.
    """
    written: list[Path] = []
    try:
        for path, write in steps:
            if path is not None:
                result = write(path)
                written.append(result if isinstance(result, Path) else path)
    except KeyboardInterrupt:
        raise Interrupted([str(path) for path in written]) from None
    return written


def _probe(path: Path, folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; give a path you may write to") from error

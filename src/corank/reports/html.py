"""One self-contained page of runs: nothing is fetched when it is opened, and no script runs but the page's own."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from corank.errors import ConfigError, DataError
from corank.files import make_directory, write_whole
from corank.reports.fields import Record
from corank.reports.page import page_of
from corank.reports.svg import colour_rules

__all__ = ["page_path", "rendered", "write_report"]


def write_report(path: str | Path, runs: Sequence[Record], title: str = "corank report") -> Path:
    """Write one HTML file, which needs no other file and no network; returns its path.

    Every text of a record is shown as text, never as markup. An earlier report of the same name is replaced.

    Args:
        path: a folder, made where it is missing, that gets an `index.html`; or a name that ends in `.html`.
        runs: records, of one run or several.
        title: of the page.

    Raises:
        DataError: `runs` is empty.
        ConfigError: matplotlib or jinja2 is not installed.
        OutputError: the folder or the file cannot be written.
    """
    if not runs:
        raise DataError(
            "a report needs at least one run, got none; write_report(directory, read_record(path)) gives it"
        )
    content = rendered("template.html", page_of(runs, title))
    target = page_path(Path(path))
    make_directory(target.parent)
    write_whole(target, content.encode("utf-8"))
    return target


def page_path(path: Path) -> Path:
    """Where the page of a report to `path` stands: there if it is called so, else in the folder of that name."""
    return path if path.suffix.lower() in (".html", ".htm") and not path.is_dir() else path / "index.html"


def rendered(template: str, page: object) -> str:
    """A template of this folder, filled with what a page says.

    Raises:
        ConfigError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise ConfigError("reports need jinja2: pip install 'corank[report]'") from error

    def read(name: str) -> str:
        return files("corank.reports").joinpath(name).read_text(encoding="utf-8")

    environment = Environment(
        loader=FunctionLoader(read), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # Only what was made here, from numbers and escaped texts, may stand in the page as it is.
    style, script = Markup(f"{read('page.css')}{colour_rules()}"), Markup(read("page.js"))
    return environment.get_template(template).render(page=page, style=style, script=script, digest=_digest(script))


def _digest(script: str) -> str:
    """By which the page's policy knows the one script that may run."""
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")

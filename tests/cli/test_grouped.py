"""Options in groups: the command line sees each by itself."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from corank.cli.grouped import flat

Name = Annotated[str, typer.Option("--name", help="Of somebody.")]


@dataclass(frozen=True)
class Group:
    name: Name
    count: Annotated[int, typer.Option()] = 2
    said: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "said", self.name * self.count)


def command(place: Annotated[str, typer.Argument()], group: Group, loud: bool = False) -> None:
    typer.echo(f"{place}: {group.said.upper() if loud else group.said}")


def test_each_option_stands_where_its_group_stood() -> None:
    found = inspect.signature(flat(command)).parameters
    assert list(found) == ["place", "name", "count", "loud"]
    assert found["name"].annotation == Name and found["name"].default is inspect.Parameter.empty
    assert found["count"].default == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["here", "--name", "ab"], "here: abab"),
        (["here", "--name", "ab", "--count", "1", "--loud"], "here: AB"),
    ],
)
def test_a_command_gets_its_groups(words: list[str], said: str) -> None:
    app = typer.Typer()
    app.command()(flat(command))
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, done.output.strip()) == (0, said)


def test_two_options_of_one_name() -> None:
    def twice(group: Group, name: Name) -> None: ...

    with pytest.raises(ValueError, match="name"):
        flat(twice)

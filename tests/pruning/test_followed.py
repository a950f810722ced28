"""Channels are followed to every place, with every origin, and never without end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from corank.errors import ModelError
from corank.pruning.followed import followed

torch_pruning = pytest.importorskip("torch_pruning")


class Pruner:
    def prune_out_channels(self) -> None: ...

    def prune_in_channels(self) -> None: ...


PRUNER = Pruner()


def graph(*shifts: tuple[str, str, int]) -> Any:
    """Nodes a and b; an edge carries channels on, shifted."""
    from torch_pruning._helpers import _HybridIndex

    nodes = {name: SimpleNamespace(module=name, dependencies=[]) for name in ("a", "b")}
    for source, target, shift in shifts:
        nodes[source].dependencies.append(
            SimpleNamespace(
                target=nodes[target],
                handler=PRUNER.prune_out_channels,
                is_triggered_by=lambda given: given == PRUNER.prune_out_channels,
                index_mapping=[
                    lambda many, shift=shift: [
                        _HybridIndex(idx=one.idx + shift, root_idx=one.root_idx) for one in many
                    ],
                    None,
                ],
            )
        )
    return SimpleNamespace(module2node=nodes, get_pruner_of_module=lambda _: PRUNER)


def test_every_origin_is_kept() -> None:
    found = {one.node.module: one.pairs for one in followed(graph(("a", "b", 0), ("a", "b", 2)), "a", range(4))}
    assert found["b"] == {(at, at) for at in range(4)} | {(at + 2, at) for at in range(4)}


def test_rounds_that_come_back_end() -> None:
    found = {one.node.module: one.pairs for one in followed(graph(("a", "b", 1), ("b", "a", -1)), "a", [0, 1])}
    assert found == {"a": {(0, 0), (1, 1)}, "b": {(1, 0), (2, 1)}}


def test_rounds_that_never_come_back_are_refused() -> None:
    with pytest.raises(ModelError, match="come back as other channels"):
        followed(graph(("a", "b", 0), ("b", "a", 1)), "a", range(4))

"""What `corank supernet` did, as records: a training as one of a run, a search as one of a study."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from corank import __version__
from corank.training.subnets import space_of
from corank.tuning.importance import importance
from corank.tuning.space import Choice, Configuration, Space
from corank.tuning.trial import COMPLETE, Goal, Measurement, Trial
from corank.verbs.subnet_search import ScoredSubnet, SubnetSearch

__all__ = ["search_record", "training_record"]


def training_record(net: nn.Module, model: str, reproduce: str) -> dict[str, Any]:
    """The record of a supernet that was trained.

    Args:
        net: it.
        model: what it began from, as it was typed.
        reproduce: the command line.
    """
    found = net.__dict__["corank_supernet"]
    about = {"bits": found.bits, "inherited": found.inherited, "iterations": found.iterations}
    choices = {name: list(values) for name, values in space_of(net).items()}
    return {
        "command": "supernet train", "version": __version__, "model": model, "seed": found.seed,
        "label": f"supernet {'float' if found.bits is None else f'W{found.bits}A{found.bits}'}", "bits": found.bits,
        "iterations": found.iterations, "seconds": found.seconds, "supernet": {**about, "choices": choices},
        "search_history": [dict(one) for one in found.history], "reproduce": reproduce,
    }  # fmt: skip


def search_record(
    found: SubnetSearch, files: Mapping[int, Path], goal: Goal, typed: str, more: Mapping[str, object]
) -> dict[str, Any]:
    """A search as the record of a study, every subnet a trial whose command takes it out.

    Args:
        found: it.
        files: supernets by their bits.
        goal: the size, where one was asked for.
        typed: the command line.
        more: options that taking out needs, too, by name; None for those that were not given.
    """
    options = [str(word) for name, value in more.items() if value is not None for word in (name, value)]
    trials = [
        Trial(place, COMPLETE, _configuration(one), (Measurement(one.score, size_bytes=one.size_bytes),),
              command=_extraction(one, files[one.bits], options))
        for place, one in enumerate(found.trials)
    ]  # fmt: skip
    front = [found.trials.index(one) for one in found.front]
    space = _space([one.configuration for one in trials])
    told = [{**asdict(one), "configuration": dict(one.configuration)} for one in trials]
    for one, subnet in zip(told, found.trials, strict=True):
        one["rungs"][0]["multiply_adds"] = subnet.multiply_adds
    return {
        "command": "supernet search", "version": __version__, "space": space.to_json(), "goal": goal.to_json(),
        "by": found.by, "best": front[-1], "front": front, "importance": importance(space, trials, goal),
        "trials": told, "reproduce": typed,
    }  # fmt: skip


def _configuration(one: ScoredSubnet) -> Configuration:
    return {"bits": one.bits, **one.chosen}


def _extraction(one: ScoredSubnet, file: Path, options: Sequence[str]) -> str:
    named = one.reference or ",".join(f"{name}={value}" for name, value in one.chosen.items())
    words = ("corank", "supernet", "extract", str(file), *options, "--subnet", named, "--out", "subnet.safetensors")
    return shlex.join(words)


def _space(configurations: Sequence[Configuration]) -> Space:
    """What was tried of each choice."""
    names = dict.fromkeys(name for one in configurations for name in one)
    values = {name: {one[name] for one in configurations if name in one} for name in names}
    return Space("subnets", tuple(Choice(name, tuple(sorted(found, key=str))) for name, found in values.items()))

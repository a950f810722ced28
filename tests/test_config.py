"""Frozen dataclasses to plain JSON and back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from corank.codecs import CODECS, Uniform
from corank.config import choose, from_json, to_json
from corank.errors import ConfigError
from corank.rounding import ROUNDERS, Gptq, Nearest


@pytest.mark.parametrize("codec", [Uniform(), Uniform(1, True), Uniform(3, group=64, range="std", deviations=2.5)])
def test_round_trip(codec: Uniform) -> None:
    text = json.dumps(to_json(codec, CODECS))
    assert from_json(json.loads(text), CODECS, "codec") == codec


def test_only_what_was_chosen_is_written() -> None:
    assert to_json(Uniform(bits=3), CODECS) == {"kind": "uniform", "bits": 3}
    assert to_json(Nearest(), ROUNDERS) == {"kind": "nearest"}
    assert to_json(Gptq(block=8), ROUNDERS) == {"kind": "gptq", "block": 8}


def test_unregistered_kinds_are_refused() -> None:
    with pytest.raises(ConfigError, match="Gptq is not registered"):
        to_json(Gptq(), CODECS)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"kind": "unifrom"}, "did you mean 'uniform'"),
        ({"kind": ["uniform"]}, "no codec"),
        ({"kind": {}}, "no codec"),
        ({"kind": None}, "no codec"),
        ({"bits": 3}, "kind"),
        ("uniform", "kind"),
        (None, "kind"),
        ({"kind": "uniform", "bit": 3}, "no field 'bit'"),
        ({"kind": "uniform", "bits": [3]}, "number"),
        ({"kind": "uniform", "bits": "3"}, "bits"),
        ({"kind": "uniform", "bits": 3.0}, "bits"),
        ({"kind": "uniform", "bits": True}, "bits"),
        ({"kind": "uniform", "deviations": "wide"}, "deviations|not supported"),
        ({"kind": "uniform", "group": 1.5}, "group"),
        ({"kind": "uniform", "range": 4}, "range"),
    ],
)
def test_bad_json(data: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        from_json(data, CODECS, "codec")


def test_choose_names_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"no rounder is called 'gtpq'; known: .*gptq, nearest.*; did you mean 'gptq'"
    ):
        choose("gtpq", ROUNDERS, "rounder")
    assert choose("gptq", ROUNDERS, "rounder") is Gptq

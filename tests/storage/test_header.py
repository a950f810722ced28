"""Headers that are not sound: each entry by itself."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from fuzzing.artifacts import SAMPLES, sample_model
from fuzzing.forged_headers import hostile
from fuzzing.parts import CurrentParts

from corank.errors import ArtifactError, ConfigError
from corank.storage.artifact import serialized
from corank.storage.contents import header_of
from corank.storage.header import parse_object, read_run, read_tensors
from corank.storage.packed_header import pack_header, unpack_header
from corank.training.recipe import Recipe
from corank.training.recipes import RECIPES


@pytest.fixture(scope="module")
def data() -> bytes:
    return serialized(sample_model(SAMPLES["convolution"]), "fixed")


@pytest.fixture
def header(data: bytes) -> dict[str, Any]:
    return CurrentParts.of(data).long_header()


def test_a_sound_header_is_read_and_written_back_as_it_is(header: dict[str, Any]) -> None:
    assert header_of(read_run(header), header["tensors"], "float32") == header


def test_tensors_are_listed_by_dtype_in_order(header: dict[str, Any]) -> None:
    given = {"float16": [["a", [2, 3]], ["b", []]], "int64": [["c", [0]]]}
    assert read_tensors({"tensors": given}) == {"float16": {"a": (2, 3), "b": ()}, "int64": {"c": (0,)}}
    assert sum(math.prod(shape) for shape in read_tensors(header)["float16"].values()) == 8 + 8 + 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not sound"),
        ("[]", "it is no object"),
        ("3", "it is no object"),
        ('{"format": 1, "format": 1}', "gives a key twice"),
        ('{"format": 1, "a": {"b": 1, "b": 2}}', "gives a key twice"),
        ('{"format": 1, "a": NaN}', "NaN is no JSON number"),
        ('{"format": 1, "a": -Infinity}', "-Infinity is no JSON number"),
        ('{"format": 1, "a": [-1e999]}', "-1e999 is no JSON number, or not a finite one"),
        ('{"format": 1, "a": ' + "[" * 100000, "not sound"),
        ('{"format": 1, "a": ' + "[" * 13 + "]" * 13 + "}", "nested more than 12 deep"),
        ('{"format": ' + "9" * 5000 + "}", "not sound"),
    ],
)
def test_texts_that_are_no_header(text: str, said: str) -> None:
    with pytest.raises(ArtifactError, match=said):
        parse_object(text)


ENTRIES: list[tuple[str, Any, str]] = [
    ("model", 3, "model is 3, not a text"),
    ("model", "\ud800", "not a text"),
    ("preset", ["fast"], "preset is a list of 1"),
    ("bits", True, "bits is True, not a whole number"),
    ("bits", 3.0, "bits is 3.0"),
    ("budget", math.inf, "budget is inf, not a number"),
    ("budget", 10**400, "budget is a huge number"),
    ("budget", "0.25", "budget is '0.25'"),
    ("activations", 8.5, "activations is 8.5"),
    ("seed", None, "seed is None"),
    ("seed", 1 << 63, "seed is a huge number, not a whole number of 64 bits"),
    ("iterations", "0", "iterations is '0'"),
    ("dtype", "int64", "dtype is 'int64'"),
    ("dtype", ["float32"], "dtype is a list"),
    ("plan", 3, "a plan is"),
    ("plan", {"layers": {}, "defaults": {}}, "unknown entry 'defaults'"),
    ("layers", [], "layers is a list of 0, not an object"),
    ("layers", {}, "the plan and the list of layers differ"),
    ("layers", {"0": [1, 8, 18]}, "an entry is"),
    ("layers", {"0": [True, 8, 18, 0.1]}, "has a shape of"),
    ("layers", {"0": [1, 1 << 31, 18, 0.1]}, "has a shape of"),
    ("layers", {"0": [1, 8, 18, "0.1"]}, "a layer's error is '0.1'"),
    ("layers", {"\udfff": [1, 8, 18, 0.1]}, "a layer's name"),
    ("folded", "1", "folded is '1', not a list"),
    ("folded", ["1", "1"], "folded names one twice"),
    ("folded", [1], "folded is 1, not a text"),
    ("skipped", ["x"], "skipped is a list"),
    ("skipped", {"x": None}, "skipped is None"),
    ("recipe", None, "recipe is None, not an object"),
    ("recipe", "stats-2bit", "recipe is 'stats-2bit'"),
    ("recipe", [], "recipe is a list of 0"),
    ("recipe", {"a": {"b": [1, math.inf]}}, "recipe has inf"),
    ("recipe", {"a": 1 << 63}, "a recipe's number is a huge number"),
    ("recipe", {"a": ["\ud800"]}, "a recipe's text"),
    ("recipe", {"\ud800": 1}, "a recipe's key"),
    ("recipe", {"a": {1: 2}}, "a recipe's key is 1"),
    ("recipe", {"a": b"x"}, "recipe has b'x'"),
    ("recipe", {"a": [0] * 10_001}, "more than 10000 values"),
]


@pytest.mark.parametrize(("key", "value", "said"), ENTRIES, ids=[f"{entry[0]}-{n}" for n, entry in enumerate(ENTRIES)])
def test_entries_of_another_kind(header: dict[str, Any], key: str, value: Any, said: str) -> None:
    with pytest.raises(ArtifactError, match=said):
        read_run({**header, key: value})


def test_entries_that_are_missing_or_unknown(header: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match="it has no 'seed'"):
        read_run({key: value for key, value in header.items() if key != "seed"})
    with pytest.raises(ArtifactError, match="unknown entry 'licence'"):
        read_run({**header, "licence": "MIT"})
    before_inputs_were_rounded = {key: value for key, value in header.items() if key != "activations"}
    assert read_run(before_inputs_were_rounded).activations is None


def test_a_recipe_is_kept_as_it_is_and_costs_nothing_where_there_is_none(header: dict[str, Any]) -> None:
    assert "recipe" not in header and read_run(header).recipe is None
    known = {**header, "recipe": {"format": 1, "weights": {"kind": "nowhere", "x": [1, 0.5, True, None, "a"]}}}
    run = read_run(known)
    assert run.recipe == known["recipe"]
    assert header_of(run, header["tensors"], "float32") == known
    assert unpack_header(pack_header(known)) | {"format": known["format"]} == known


def test_a_forged_recipe_is_refused_or_kept_and_never_stops_a_reader(header: dict[str, Any]) -> None:
    draw, refused = random.Random(0), Counter[str]()
    for number in range(600):
        recipe: Any = json.loads(
            json.dumps(RECIPES[draw.choice(("stats", "lsq", "parq", "s3", "cga"))](3, 4).to_json())
        )
        if number % 3 == 0:
            recipe = hostile(draw)
        for holder, key in draw.sample(list(places(recipe)), 1) if number % 3 and recipe else ():
            holder[key] = hostile(draw)
        try:
            run = read_run({**header, "recipe": recipe})
        except ArtifactError:
            refused["file"] += 1
            continue
        try:
            assert isinstance(Recipe.from_json(run.recipe).in_words(), str)
        except ConfigError:
            refused["recipe"] += 1
    assert refused["file"] > 100 and refused["recipe"] > 100 and refused.total() < 600


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key or index) of everything below ``value``."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from places(inner)


def test_an_error_that_is_not_known_is_null(header: dict[str, Any]) -> None:
    header["layers"]["0"][3] = None
    run = read_run(header)
    assert math.isnan(run.layers["0"].relative_output_error)
    assert header_of(run, header["tensors"], "float32") == header


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ([], "tensors is a list"),
        ({"float99": []}, "dtype 'float99'"),
        ({"float32": {}}, "not a list"),
        ({"float32": ["a"]}, r"an entry is \[name, shape\]"),
        ({"float32": [["a", 3]]}, "shape is 3, not a list"),
        ({"float32": [["a", [-1]]]}, "a tensor of shape"),
        ({"float32": [["a", [True]]]}, "is True, not a whole number"),
        ({"float32": [["a", [1 << 40, 1 << 40]]]}, "a tensor of shape"),
        ({"float32": [[3, [1]]]}, "a tensor's name is 3"),
        ({"float32": [["a", [1]], ["a", [1]]]}, "name one twice"),
        ({"float32": [["a", [1]]], "float16": [["a", [1]]]}, "tensors names one twice"),
    ],
)
def test_lists_of_tensors_that_are_not_sound(tensors: Any, said: str) -> None:
    with pytest.raises(ArtifactError, match=said):
        read_tensors({"tensors": tensors})

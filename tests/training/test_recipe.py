"""A recipe as JSON and back, in words, and what is no recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from corank.codecs import RateUniform, StatsQ, Uniform
from corank.errors import ConfigError
from corank.training import Optimizer, Recipe, Schedule
from corank.training.callbacks import Confidence, Meters
from corank.training.inputs import LearnedStepInputs
from corank.training.penalties import Rate
from corank.training.recipes import RECIPES
from corank.training.recipes.rate import rate
from corank.training.weights import LearnedStep, Relaxed, StraightThrough

WHOLE = Recipe(
    Relaxed(StraightThrough(StatsQ(3), refit=7)), LearnedStepInputs(3), edge=LearnedStep(Uniform(7)),
    edge_inputs=LearnedStepInputs(5), penalties=(Rate(0.7, weight=2.0),), callbacks=(Meters(), Confidence()),
    loss="both", temperature=3.0, top_logits=5, start="float", optimizer=Optimizer("sgd", rate=0.1, clip=1.0),
    schedule=Schedule("linear", floor=0.25), iterations=7, batch_size=9, augment="none", norms="frozen", average=0.5,
    precision="float32", structure=("rprelu",),
)  # fmt: skip


def written(recipe: Recipe) -> Any:
    return json.loads(json.dumps(recipe.to_json()))


def test_every_field_comes_back() -> None:
    assert Recipe.from_json(written(WHOLE)) == WHOLE
    assert set(written(WHOLE)) == {"format", *Recipe.__dataclass_fields__}
    assert Recipe.from_json({}) == Recipe() and written(Recipe()) == {"format": 2}
    assert Recipe.from_json({"format": 1}) == Recipe(augment="flip-shift"), "what was meant when it was written"
    assert Recipe.from_json({"format": 1, "augment": "none"}) == Recipe(augment="none")


@pytest.mark.parametrize("method", sorted(RECIPES))
def test_every_method_comes_back(method: str) -> None:
    for bits, inputs in ((1, None), (2, None), (3, 3), (4, 4), (8, 8)):
        try:
            recipe = RECIPES[method](bits, inputs)
        except ConfigError:
            continue
        assert Recipe.from_json(written(recipe)) == recipe
        assert f"loss {recipe.loss}" in recipe.in_words()


def test_only_what_was_chosen_is_written() -> None:
    given = Recipe(optimizer=Optimizer(rate=0.5), schedule=Schedule(warm=0.2), iterations=3)
    assert written(given) == {"format": 2, "optimizer": {"rate": 0.5}, "schedule": {"warm": 0.2}, "iterations": 3}


def test_in_words() -> None:
    said = "weights straight-through (statsq, 2 bits), inputs learned-step (4 bits); 400 steps of 128, loss distil, "
    assert RECIPES["stats"](2, 4).in_words() == said + "from codes"
    assert "weights learned-step (rate-uniform, 5 bits), inputs float, rate (0.5 bits); 400" in rate(0.5).in_words()
    assert "dense-shift (3 bits)" in RECIPES["dense-shift"](3, None).in_words()
    assert "weights float, " in Recipe(None).in_words()


def test_a_file_of_a_recipe(tmp_path: Path) -> None:
    WHOLE.save(tmp_path / "recipe.json")
    assert Recipe.load(tmp_path / "recipe.json") == WHOLE
    for text in ("", "[", "3", '{"format": 3}', '{"weights": ' * 5000, '{"x": 1}'):
        (tmp_path / "no.json").write_text(text)
        with pytest.raises(ConfigError, match="recipe"):
            Recipe.load(tmp_path / "no.json")
    with pytest.raises(ConfigError, match="cannot read a recipe"):
        Recipe.load(tmp_path / "nowhere.json")


def test_what_is_nested_too_deep_is_no_recipe() -> None:
    deep: dict[str, Any] = {"kind": "straight-through"}
    for _ in range(3000):
        deep = {"kind": "relaxed", "inner": deep}
    with pytest.raises(ConfigError):
        Recipe.from_json({"weights": deep})


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "a recipe is"),
        ({"weight": {}}, "no field 'weight'; it has"),
        ({"weights": 3}, "a way to train weights is written"),
        ({"weights": {"kind": "straight"}}, "did you mean 'straight-through'"),
        ({"weights": {"kind": "straight-through", "codec": {"kind": "uniform", "bits": 99}}}, "bits"),
        ({"weights": {"kind": "straight-through", "refit": "1"}}, "refit"),
        ({"penalties": {}}, "penalties are a list"),
        ({"callbacks": [{"kind": "meter"}]}, "did you mean 'meters'"),
        ({"loss": "label"}, "'distil', 'labels', 'both'"),
        ({"loss": ["labels"]}, "loss="),
        ({"iterations": 1.5}, "a whole number of steps"),
        ({"batch_size": 0}, "a positive whole number"),
        ({"augment": 3}, "augment=3"),
        ({"optimizer": {"learning_rate": 1}}, "optimizer has the fields name, rate"),
        ({"optimizer": {"name": 3}}, "the name of one"),
        ({"optimizer": {"rate": None}}, "a number from 0"),
        ({"schedule": {"name": ["cosine"]}}, "'cosine', 'linear'"),
        ({"schedule": {"warm": "0.1"}}, "a number, e.g."),
        ({"schedule": []}, "schedule has the fields"),
    ],
)
def test_what_is_no_recipe(data: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Recipe.from_json(data)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"weights": StatsQ(2)}, r"a WeightTraining, e.g. Recipe\(weights=StraightThrough\(StatsQ\(2\)\)\)"),
        ({"inputs": 4}, r"Recipe\(inputs=LearnedStepInputs\(4\)\)"),
        ({"optimizer": "adamw"}, r"Recipe\(optimizer=Optimizer\('adamw'\)\)"),
        ({"schedule": None}, "a Schedule"),
        ({"penalties": [Rate(0.5)]}, "a tuple of them"),
        ({"callbacks": (Rate(0.5),)}, "a tuple of them"),
        ({"weights": LearnedStep(RateUniform(5)), "start": "scratch"}, "LearnedStep starts from 'codes' or 'float'"),
    ],
)
def test_a_part_of_another_kind(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Recipe(**fields)

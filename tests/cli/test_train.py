"""`corank train` and `corank recipes`: what they write and show, and what they say when they cannot."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import Result

import corank
from corank.models.digits import digits_net
from corank.training import Recipe
from corank.training.recipes import RECIPES, chosen_recipe

Invoke = Callable[..., Result]

NETWORK = """
import torch
from torch import nn


def network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8, momentum=1.0), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(128, 10),
    )
    model(images())
    return model.eval(), {"mean": (0.5,), "std": (0.5,), "size": 8}


def images():
    return torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def labelled():
    return images(), torch.arange(64) % 10


def wrong():
    return images(), torch.full((64,), 10)


def wide():
    return images().repeat(1, 2, 1, 1)
"""
FEW = ("--iterations", "2", "--batch-size", "16", "--samples", "32", "--device", "cpu")


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "net.py"
    path.write_text(NETWORK)
    return path


@pytest.fixture
def train(invoke: Invoke, net: Path, tmp_path: Path) -> Invoke:
    """Calls `corank train` on the network in net.py, writing model.safetensors and record.json, for a few steps."""

    def call(*words: str | Path, data: str = "images") -> Result:
        out = ("--out", tmp_path / "model.safetensors", "--record", tmp_path / "record.json")
        return invoke("train", f"{net}:network", "--data", f"{net}:{data}", *FEW, *out, *words)

    return call


def done(result: Result, folder: Path) -> dict[str, Any]:
    """The record of a run that must have ended well."""
    assert result.exit_code == 0, result.output
    return json.loads((folder / "record.json").read_text())


def refused(result: Result, said: str, folder: Path) -> None:
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.output.split()), result.output
    assert not (folder / "model.safetensors").exists()


def test_the_whole_run(invoke: Invoke, tmp_path: Path) -> None:
    out, page = tmp_path / "model.safetensors", tmp_path / "page"
    result = invoke(
        "train", "digits", "--data", "digits:train", "--eval", "digits:test", "--recipe", "lsq-2bit", *FEW,
        "--out", out, "--record", tmp_path / "record.json", "--save-recipe", tmp_path / "recipe.json",
    )  # fmt: skip
    record = done(result, tmp_path)
    assert [record[key] for key in ("command", "label", "model", "iterations")] == ["train", "lsq-2bit", "digits", 2]
    assert record["float_value"] > 95 and record["quantized_value"] > 80 and record["agreement"] > 80
    assert record["stored_bytes"] == out.stat().st_size < record["float_bytes"] / 12
    assert [step["iteration"] for step in record["search_history"]] == [1, 2]
    assert record["recipe"] == json.loads((tmp_path / "recipe.json").read_text())
    assert corank.recipe_of(out) == chosen_recipe("lsq-2bit").replaced(iterations=2, batch_size=16)
    assert "top-1 of 449 images" in result.stdout and f"wrote {out}" in result.stdout
    assert corank.load(out, digits_net()) is not None
    pytest.importorskip("matplotlib")
    shown = invoke("report", tmp_path / "record.json", "--out", page)
    assert shown.exit_code == 0 and "lsq-2bit" in (page / "index.html").read_text()


def test_inspect_says_the_recipe_in_a_line(invoke: Invoke, train: Invoke, tmp_path: Path) -> None:
    done(train("--recipe", "lsq-w3a4"), tmp_path)
    shown = invoke("inspect", tmp_path / "model.safetensors")
    said = (
        "weights learned-step (uniform, 3 bits), inputs learned-step (4 bits); 2 steps of 16, loss distil, from codes"
    )
    assert said in " ".join(shown.stdout.split()) and "W3A4" in shown.stdout
    as_json = json.loads(invoke("inspect", tmp_path / "model.safetensors", "--json").stdout)
    assert Recipe.from_json(as_json["recipe"]).iterations == 2
    assert "recipe" not in invoke("inspect", Path(__file__).parents[1] / "golden/v3/codecs.safetensors").stdout


def test_a_recipe_by_name_by_its_file_and_by_the_file_of_its_network(train: Invoke, tmp_path: Path) -> None:
    written = tmp_path / "recipe.json"
    done(train("--recipe", "parq-2bit", "--save-recipe", written), tmp_path)
    by_name = (tmp_path / "model.safetensors").read_bytes()
    record = done(train("--recipe", written), tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == by_name and record["label"] == "recipe"
    (tmp_path / "model.safetensors").rename(tmp_path / "first.safetensors")
    done(train("--recipe", tmp_path / "first.safetensors"), tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == by_name
    done(train("--recipe", written, "--seed", "1"), tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() != by_name


def test_exceptions_by_layer(train: Invoke, tmp_path: Path) -> None:
    record = done(train("--layer", "3=4", "--layer", "0=float", "--all-layers"), tmp_path)
    assert {layer["name"]: layer["bits"] for layer in record["layers"]} == {"3": 4, "6": 2}
    assert record["label"] == "stats-2bit" and "0" in record["skipped"]


@pytest.mark.parametrize("loss", ["labels", "both"])
def test_labels(train: Invoke, tmp_path: Path, loss: str) -> None:
    record = done(train("--loss", loss, "--parts", "5", data="labelled"), tmp_path)
    assert record["recipe"]["loss"] == loss


def test_a_rate_and_a_size(train: Invoke, tmp_path: Path) -> None:
    record = done(train("--rate", "1.5"), tmp_path)
    assert record["label"] == "rate 1.5" and record["recipe"]["penalties"] == [
        {"kind": "rate", "bits": 1.5, "reached": 0.35}
    ]
    record = done(train("--recipe", "rate", "--bits-per-weight", "1.5", "--loss", "labels", data="labelled"), tmp_path)
    assert (
        record["recipe"]["penalties"] == [{"kind": "rate", "bits": 1.5, "reached": 0.35}]
        and record["recipe"]["loss"] == "labels"
    )
    record = done(train("--size", "2600"), tmp_path)
    assert record["label"] == "rate 2600" and (tmp_path / "model.safetensors").stat().st_size <= 2600


def test_a_run_that_was_killed_goes_on(train: Invoke, tmp_path: Path) -> None:
    done(train("--checkpoint", tmp_path / "kept"), tmp_path)
    first = (tmp_path / "model.safetensors").read_bytes()
    assert any((tmp_path / "kept").iterdir())
    done(train("--checkpoint", tmp_path / "kept"), tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == first


def test_what_ends_in_float_is_weights_for_quantize(invoke: Invoke, train: Invoke, net: Path, tmp_path: Path) -> None:
    record = done(train("--recipe", "gradient-l1", "--eval", f"{net}:labelled", data="labelled"), tmp_path)
    assert record["layers"] == [] and record["equivalent_bits"] == 32 and record["recipe"]["weights"] is None
    assert 0 <= record["quantized_value"] <= 100 and record["label"] == "gradient-l1"
    weights = load_file(tmp_path / "model.safetensors")
    assert weights["0.weight"].dtype == torch.float32 and "1.running_mean" in weights
    result = invoke(
        "quantize", f"{net}:network", "--weights", tmp_path / "model.safetensors", "--data", f"{net}:images",
        "--preset", "nearest", "--out", tmp_path / "small.safetensors",
    )  # fmt: skip
    assert result.exit_code == 0, result.output


def test_quiet_says_nothing(train: Invoke) -> None:
    assert train("--quiet").output == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--recipe", "stast-2bit"), "did you mean 'stats-2bit'?"),
        (("--recipe", "stats"), "needs its bits: stats-2bit"),
        (("--recipe", "rate"), "--recipe rate needs what to meet; add --rate 0.5, or --size 20KB"),
        (("--recipe", "nowhere.json"), "cannot read a recipe from nowhere.json"),
        (("--recipe", "nowhere.safetensors"), "nowhere.safetensors cannot be read as an artifact"),
        (("--rate", "0.5", "--size", "20KB"), "--rate and --size were given; choose one"),
        (("--rate", "9"), "rate=9.0: bits a weight after coding"),
        (("--size", "20XB"), "20XB"),
        (("--size", "20KB", "--coder", "ham"), "leave --coder ham out"),
        (("--size", "300"), "a file of 300 bytes is not possible"),
        (("--loss", "label"), "--loss label: one of distil, labels, both"),
        (("--loss", "labels"), "loss='labels' needs labels, and this data has none"),
        (("--iterations", "-1"), "a whole number of steps"),
        (("--batch-size", "0"), "a positive whole number"),
        (("--layer", "0"), "give PATTERN=BITS"),
        (("--layer", "nothing=4"), "matches none of the 3 layers"),
        (("--coder", "zip"), "zip"),
    ],
)
def test_what_cannot_be(train: Invoke, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    refused(train(*words), said, tmp_path)


def test_data_that_do_not_fit(train: Invoke, net: Path, tmp_path: Path) -> None:
    refused(train("--loss", "labels", data="wrong"), "the label 10 is none of the model's 10 classes", tmp_path)
    refused(train(data="wide"), "could not run on a batch of shape (2, 2, 8, 8)", tmp_path)
    refused(train("--save-recipe", tmp_path / "recipe.onnx"), "is ONNX", tmp_path)
    refused(train("--save-recipe", tmp_path / "model.safetensors"), "would be overwritten", tmp_path)
    recipe = tmp_path / "recipe.json"
    Recipe().save(recipe)
    refused(train("--recipe", recipe, "--save-recipe", recipe), "would be overwritten", tmp_path)


def test_images_of_an_npz_with_labels(invoke: Invoke, net: Path, tmp_path: Path) -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", pixels=pixels, kinds=np.arange(40) % 10)
    result = invoke(
        "train", f"{net}:network", "--data", f"{tmp_path / 'data.npz'}[:32]", "--image-key", "pixels",
        "--label-key", "kinds", "--loss", "both", *FEW, "--out", tmp_path / "model.safetensors",
    )  # fmt: skip
    assert result.exit_code == 0, result.output


def test_recipes_are_listed_one_a_line(invoke: Invoke) -> None:
    lines = invoke("recipes").stdout.splitlines()
    named = {line.split()[0]: line for line in lines if line}
    assert set(RECIPES) | {"rate"} <= set(named)
    assert named["stats"].split()[1] == "1-8" and "verified" in named["stats"] and "2302.02210" in named["stats"]
    assert named["direct"].split()[1] == "1-8" and "reconstruction" in named["direct"]
    found = json.loads(invoke("recipes", "--json").stdout)["methods"]
    assert {method["name"] for method in found} == set(RECIPES) | {"rate"}


def test_one_recipe_is_printed_for_its_file(invoke: Invoke, tmp_path: Path) -> None:
    for name in ("stats-2bit", "lsq-w4a4", "rate"):
        (tmp_path / "recipe.json").write_text(invoke("recipes", name).stdout)
        found = Recipe.load(tmp_path / "recipe.json")
        assert found == chosen_recipe(name) if name != "rate" else found.penalties
    result = invoke("recipes", "stast-2bit")
    assert result.exit_code == 2 and "did you mean 'stats-2bit'" in " ".join(result.output.split())


COLOURS = """
import torch
from torch import nn


def colours():
    images = torch.rand(48, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(48) % 3
    return images + 2 * nn.functional.one_hot(labels)[:, :, None, None], labels


def images():
    return colours()[0]


def means():
    torch.manual_seed(torch.seed() % 1000)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3)), {"mean": (0.0, 0.0, 0.0)}
"""
VIT = "binary-vit:3,size=8,patch=2,width=8,depths=1,ratios=2,reductions=1"


def test_a_binary_transformer_learns_from_labels_and_from_a_teacher(invoke: Invoke, tmp_path: Path) -> None:
    path, weights = tmp_path / "colours.py", tmp_path / "means.safetensors"
    path.write_text(COLOURS)
    save_file({"2.weight": torch.eye(3), "2.bias": torch.zeros(3)}, weights)
    out = ("--recipe", "binary-vit-w1a1", "--out", tmp_path / "model.safetensors", "--record", tmp_path / "record.json")
    record = done(invoke("train", VIT, "--data", f"{path}:colours", *FEW, *out), tmp_path)
    assert record["recipe"]["loss"] == "labels" and len([one for one in record["layers"] if one["bits"] == 1]) == 6
    taught = ("--teacher", f"{path}:means", "--teacher-weights", weights)
    record = done(invoke("train", VIT, "--data", f"{path}:images", *taught, *FEW, *out), tmp_path)
    assert record["recipe"].get("loss", "distil") == "distil" and any("teacher" in text for text in record["notes"])
    assert corank.recipe_of(tmp_path / "model.safetensors").loss == "distil"
    (tmp_path / "model.safetensors").unlink()
    for words, said in (
        (("--teacher", VIT), "has random weights; give its own by --teacher-weights FILE"),
        (taught[2:], "--teacher-weights are those of --teacher, which is missing"),
        ((*taught, "--loss", "labels"), "--loss labels learns nothing from --teacher"),
    ):
        refused(invoke("train", VIT, "--data", f"{path}:colours", *words, *FEW, *out), said, tmp_path)

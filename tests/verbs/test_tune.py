"""`corank.tune`: the three kinds of spaces, the file that is made again, and what it refuses."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("optuna")

import corank
from corank.calibration import Samples
from corank.data.arrays import TensorSource
from corank.data.images import ImageSet
from corank.data.preprocessing import Preprocessing
from corank.errors import BudgetError, ConfigError, ModelError
from corank.storage.artifact import serialized
from corank.tuning import Choice, Configuration, Goal, Measurement, Space
from corank.tuning.int8_space import INT8
from corank.tuning.own_space import own_space, quantize_arguments
from corank.tuning.records import load_records
from corank.tuning.selection import Selection
from corank.tuning.tuners import RandomDraws

OWN = Space("own", (Choice("depth", (1, 2, 3)), Choice("width", (8, 16))))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(64, 10),
    ).eval()  # fmt: skip


def images() -> Tensor:
    return torch.randn(120, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def quick(*names: str) -> Space:
    """The own space where nothing takes long."""
    space = own_space(True).restricted("distilled", ["false"]).restricted("edges", ["all"])
    space = space.restricted("search", ["greedy"])
    return space.restricted("codes", names or ["uniform", "kmeans"]).restricted("rounder", ["nearest", "gptq"])


def test_a_file_within_a_size_is_made_again_to_the_same_bytes(tmp_path: Path) -> None:
    kept = f"sqlite:///{tmp_path / 'study.db'}"
    given = {"space": quick(), "size": "2.6KB", "samples": 40, "selection": 30, "seed": 3}
    found = corank.tune(network(), images(), trials=4, storage=kept, tuner="random", **given)
    assert found.file is not None and found.best.measurement is not None and found.final is not None
    assert len(found.file) == found.best.measurement.size_bytes <= 2600
    assert hashlib.sha256(found.file).hexdigest() == found.best.measurement.sha256
    again = corank.tune(network(), images(), configuration=found.best.configuration, **given)
    assert again.file == found.file and again.final == found.final and len(again.trials) == 1
    found.save(tmp_path / "best.safetensors")
    assert corank.load(tmp_path / "best.safetensors", network) is not None
    resumed = corank.tune(network(), images(), trials=4, storage=kept, tuner="random", **given)
    assert resumed.trials == found.trials and resumed.file == found.file
    with pytest.raises(ConfigError, match="another one: its goal"):
        corank.tune(network(), images(), trials=5, storage=kept, **{**given, "size": 9999})
    with pytest.raises(ConfigError, match="another one: its model"):
        corank.tune(nn.Sequential(*network()).requires_grad_(False).apply(_shaken), images(), storage=kept, **given)


def _shaken(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        module.weight.add_(0.01)


def test_calibration_and_settings_are_those_of_quantize() -> None:
    space = quick("uniform").restricted("rounder", ["gptq"])
    one = {"codes": "uniform", "adapter_bits": 8, "group": 0, "rounder": "gptq", "edges": "all", "distilled": False,
           "activations": None, "search": "greedy"}  # fmt: skip
    found = corank.tune(network(), images(), space=space, size=2600, samples=40, selection=30, configuration=one)
    drawn = images()[np.random.RandomState(0).permutation(120)[:40]]
    expected = corank.quantize(network(), list(drawn.split(40)), **quantize_arguments(one, 2600))
    assert found.file == serialized(expected)


def test_too_small_a_size_names_the_smallest_that_there_is() -> None:
    with pytest.raises(BudgetError, match=r"no configuration of 2 is within 300 bytes; the smallest, trial \d"):
        corank.tune(network(), images(), space=quick("uniform"), size=300, trials=2, samples=20, selection=20)


def test_int8_is_scored_in_onnx_runtime_by_labels(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    labels = network()(images()).argmax(1).numpy().astype(np.int64)
    scored = ImageSet(TensorSource(images()), Preprocessing(), labels)
    memory = tmp_path / "records.json"
    found = corank.tune(
        network(), images(), space="int8", trials=3, evaluation=scored, samples=40, selection=60, latency=True,
        reference="net", remember=memory, patience=None,
    )  # fmt: skip
    assert found.scored == "top-1" and found.reference == 100.0 and found.file is not None
    assert all(one.rungs[-1].latency_ms or 0.0 > 0 for one in found.trials)
    (record,) = load_records(memory)
    assert record.model == "net" and len(record.trials) == 3 and record.descriptors["layers"] == 4
    found.save(tmp_path / "best.onnx")
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "best.onnx"), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"input": images().numpy()})
    assert float((output.argmax(1) == labels).mean()) > 0.8


def test_ones_own_space_and_score() -> None:
    def score(one: Configuration) -> Measurement | float | dict[str, float]:
        if one["depth"] == 3:
            raise MemoryError("too deep")
        value = float(one["depth"] or 0) + float(one["width"] or 0) / 100
        return {"score": value, "size_bytes": int(value)} if one["width"] == 8 else value

    found = corank.tune(space=OWN, score=score, trials=99, tuner=RandomDraws(), seed=5)
    assert found.best.configuration == {"depth": 2, "width": 16} and found.file is None and found.final is None
    assert sum(one.state == "failed" for one in found.trials) == 2 and len(found.trials) == 6
    assert found.best.command == "score({'depth': 2, 'width': 16})"
    with pytest.raises(ModelError, match="makes no file"):
        found.save("nowhere.safetensors")
    plain = found.to_json()
    assert plain["importance"][0]["name"] == "depth" and len(plain["trials"]) == 6


def test_the_standard_error_is_that_of_the_difference_to_float() -> None:
    samples = Samples.of(images(), 120, 30)
    model = network()
    selection = Selection.of(model, samples)
    same = selection.measured(model)
    assert (same.score, same.error, same.samples) == (100.0, 0.0, 120)
    other = nn.Sequential(model, _Turned())
    found = selection.measured(other)
    apart = (other(images()).argmax(1) != model(images()).argmax(1)).double()
    assert found.score == pytest.approx(100 * (1 - float(apart.mean())))
    assert found.error == pytest.approx(100 * float(apart.std(correction=0)) / 120**0.5)
    assert selection.measured(other, 0.25).samples == 30


class _Turned(nn.Module):
    """Turns the classes of the samples whose first logit is above zero."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x[:, :1] > 0, x.flip(1), x)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"trials": 0}, "trials=0"), ({"patience": 0}, "patience=0"), ({"tuner": "best"}, "no tuner is called"),
        ({"space": "int4"}, "space='int4'"), ({"rungs": (0.5,)}, "ascending to 1"),
        ({"rungs": (1.0, 0.5)}, "ascending"),
        ({"size": 1, "least": 2.0}, "both"), ({"seed": -1}, "seed"), ({"progress": 3}, "progress"),
        ({"space": OWN}, "score=function"), ({"records": ["missing.json"]}, "cannot read the records"),
        ({"configuration": {"codes": "odd"}}, "'codes' is 'odd'"),
    ],
)  # fmt: skip
def test_bad_arguments(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        corank.tune(network(), images(), **{"samples": 20, "selection": 20, **given})  # pyright: ignore[reportArgumentType]


def test_a_model_is_needed_for_spaces_that_ship() -> None:
    with pytest.raises(ConfigError, match="needs a model and data"):
        corank.tune(space=INT8)
    assert Goal(size="2KB").to_json() == {"size": 2000, "least": None}

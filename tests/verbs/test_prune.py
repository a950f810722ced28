"""The call that prunes, whole: what goes, what it leaves alone, what its files give."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pruning.networks import NETWORKS, images, network
from torch import Tensor, nn

import corank
from corank.errors import ArtifactError, BudgetError, ConfigError, ModelError
from corank.pruning.record import pruned_of
from corank.training import loop
from corank.training.recipe import Recipe
from corank.verbs.prune import FINETUNE

pytest.importorskip("torch_pruning")

FRESH = """
import sys, torch, corank
sys.path.insert(0, sys.argv[2])
from pruning.networks import NETWORKS, images, network
for name in sys.argv[3:]:
    for kind in ("float", "coded"):
        loaded = corank.load(f"{sys.argv[1]}/{name}-{kind}.safetensors", network(name))
        expected = torch.load(f"{sys.argv[1]}/{name}-{kind}.pt")
        with torch.no_grad():
            assert torch.equal(loaded(images(name)), expected), (name, kind)
assert not any(one.startswith("torch_pruning") for one in sys.modules)
print("equal")
"""


def many(name: str = "residual", count: int = 48) -> Tensor:
    return torch.randn(count, *NETWORKS[name][1][1:], generator=torch.Generator().manual_seed(2))


def test_pruned_files_load_in_a_fresh_process(tmp_path: Path) -> None:
    """Without the package that found what goes together, into the network as its class makes it."""
    names = [name for name in NETWORKS if name != "padded"]
    for name in names:
        small = corank.prune(network(name), images(name), 0.3, "magnitude", iterations=0)
        before, after = pruned_of(small).multiply_adds
        assert after <= 0.7 * before
        coded = corank.quantize(small, images(name), bits=4, budget=0.0)
        for kind, model in (("float", small), ("coded", coded)):
            corank.save(model, tmp_path / f"{name}-{kind}.safetensors")
            with torch.no_grad():
                torch.save(model(images(name)), tmp_path / f"{name}-{kind}.pt")
    command = [sys.executable, "-c", FRESH, str(tmp_path), str(Path(__file__).parent.parent), *names]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.stdout == "equal\n", done.stderr


@pytest.mark.parametrize("method", ("perspective", "magnitude", "first-order", "group-lasso"))
def test_every_method_removes_trains_and_tells(method: str) -> None:
    model = network("residual")
    state = copy.deepcopy(model.state_dict())
    small = corank.prune(model, many(), 0.4, method, iterations=4, batch_size=16)
    record = pruned_of(small)
    assert record.multiply_adds[1] <= 0.6 * record.multiply_adds[0]
    assert record.parameters == tuple(sum(p.numel() for p in one.parameters()) for one in (model, small))
    assert record.channels and all(1 <= after < before for before, after in record.channels.values())
    assert record.left == {"head": "it gives the network's outputs"}
    assert len(record.history) == 4 and record.drawn == (1 if method in ("perspective", "group-lasso") else 0)
    assert ("penalty" in record.history[0]) == (record.drawn == 1)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not small.training and small(images("residual")).shape == (2, 5)


def test_training_heals() -> None:
    model, data, apart = network("joined"), many(), []
    with torch.no_grad():  # logits of a trained network's size
        model.get_submodule("head").weight.mul_(10)  # pyright: ignore[reportCallIssue]
    for iterations in (0, 40):
        small = corank.prune(model, data, 0.5, "first-order", iterations=iterations, batch_size=16)
        apart.append(corank.evaluate(small, [data], model).kl)
    assert apart[1] < 0.7 * apart[0]


def test_parameters_can_be_asked_for() -> None:
    small = corank.prune(network("residual"), many(), "0.5p", "magnitude", iterations=0)
    before, after = pruned_of(small).parameters
    assert after <= 0.5 * before and pruned_of(small).remove == "0.5p"


def test_what_is_kept_keeps_its_channels() -> None:
    small = corank.prune(network("residual"), many(), 0.3, "magnitude", iterations=0, keep=["grouped", "in*"])
    record = pruned_of(small)
    assert record.left["grouped"] == record.left["inner"] == "it was asked to keep its channels"
    assert set(record.channels) == {"stem", "outer", "depthwise"}


def test_the_structure_travels_through_training_and_loading(tmp_path: Path) -> None:
    model, data = network("residual"), many()
    small = corank.prune(model, data, 0.3, "magnitude", iterations=0)
    trained = corank.train(small, data, "stats-2bit", iterations=2, batch_size=16)
    tuned = corank.train(small, data, FINETUNE, iterations=2, batch_size=16)
    again = corank.prune(small, data, 0.3, "magnitude", iterations=0)
    for place, one in enumerate((trained, tuned, again)):
        corank.save(one, tmp_path / f"{place}.safetensors")
        loaded = corank.load(tmp_path / f"{place}.safetensors", model)
        with torch.no_grad():
            assert torch.equal(loaded(images("residual")), one(images("residual")))
        corank.save(loaded, tmp_path / "again.safetensors")
        assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / f"{place}.safetensors").read_bytes()
    listed = corank.inspect(trained)["structure"]
    assert listed and all(entry["kind"] == "width" for entry in listed)


def test_a_network_keeps_its_precision(tmp_path: Path) -> None:
    model = network("residual").half()
    small = corank.prune(model, many().half(), 0.3, "magnitude", iterations=2, batch_size=16)
    assert {one.dtype for one in small.parameters()} == {torch.float16}
    corank.save(small, tmp_path / "half.safetensors")
    loaded = corank.load(tmp_path / "half.safetensors", network("residual"))
    assert {one.dtype for one in loaded.parameters()} == {torch.float16}
    assert {
        one.dtype for one in corank.load(tmp_path / "half.safetensors", model, dtype=torch.float32).parameters()
    } == {torch.float32}


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("stop", (2, 7))
def test_a_killed_run_goes_on_to_the_same_end(stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_KEPT_EVERY", 2)
    model, data, steps = network("residual"), many(), []

    def progress(what: str, _done: int, _total: int) -> None:
        if what.startswith("training"):
            steps.append(what)
            if len(steps) == stop:
                raise Killed

    asked: dict[str, Any] = {"iterations": 8, "drawn": 0.5, "batch_size": 16, "seed": 3}
    whole = corank.prune(model, data, 0.4, **asked)
    with pytest.raises(Killed):
        corank.prune(model, data, 0.4, checkpoint=tmp_path / "run", progress=progress, **asked)
    resumed = corank.prune(model, data, 0.4, checkpoint=tmp_path / "run", **asked)
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())
    assert pruned_of(resumed).history == pruned_of(whole).history
    with pytest.raises(ConfigError, match="another run"):
        corank.prune(model, data, 0.3, checkpoint=tmp_path / "run", **asked)


def test_a_share_that_empties_a_layer_names_the_largest() -> None:
    with pytest.raises(
        BudgetError, match=r'largest share of the multiply-adds that works is 0\.\d+: remove="0\.\d+"'
    ) as told:
        corank.prune(network("residual"), many(), 0.99, iterations=0)
    works = str(told.value).rpartition('remove="')[2].rstrip('"')
    small = corank.prune(network("residual"), many(), works, "magnitude", iterations=0)
    assert pruned_of(small).multiply_adds[1] > 0


@pytest.mark.parametrize(
    "normed",
    [
        torch.nn.utils.parametrizations.weight_norm,
        torch.nn.utils.parametrizations.spectral_norm,
        torch.nn.utils.spectral_norm,
    ],
)
def test_computed_weights_become_plain(normed: Any, tmp_path: Path) -> None:
    """The files load into the network whose modules compute them."""

    def made() -> nn.Module:
        torch.manual_seed(0)
        first, second = normed(nn.Conv2d(3, 8, 3, padding=1)), normed(nn.Conv2d(8, 8, 3, padding=1))
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), normed(nn.Linear(128, 5))).eval()

    images = torch.randn(48, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    model = made()
    expected = model(images).detach()
    small = corank.prune(model, images, 0.3, iterations=2, batch_size=16)
    assert torch.equal(model(images), expected) and pruned_of(small).channels
    for one in (small, corank.quantize(small, images, bits=4, budget=0.0)):
        corank.save(one, tmp_path / "small.safetensors")
        assert torch.equal(corank.load(tmp_path / "small.safetensors", made())(images), one(images))


@pytest.mark.parametrize("share", [0.3, "0.3p"])
def test_widths_are_rounded(share: float | str) -> None:
    """Also of groups, of which each has its part; layers with too few channels keep all."""
    model = network("residual")
    small = corank.prune(model, many(), share, "magnitude", iterations=0, round_to=4)
    record, whole = pruned_of(small), dict(model.named_modules())
    assert record.channels
    for name, module in small.named_modules():
        if isinstance(module, nn.Conv2d):
            before = whole[name].out_channels
            assert module.out_channels == before or module.out_channels % 4 == 0
    with pytest.raises(BudgetError, match=r"without 4 channels \(round_to\); the largest share"):
        corank.prune(model, many(), 0.95, "magnitude", iterations=0, round_to=4)
    with pytest.raises(BudgetError, match="round_to=64: no layer has so many channels to spare"):
        corank.prune(model, many(), share, "magnitude", iterations=0, round_to=64)


def test_bad_input_is_one_sentence() -> None:
    model, data = network("residual"), many()
    for error, said, given in (
        (ConfigError, "between 0 and 1", {"remove": 1.2}),
        (ConfigError, "one of first-order", {"method": "best"}),
        (ConfigError, "round_to=0: a whole number of channels", {"round_to": 0}),
        (ConfigError, "share of the steps", {"drawn": 1}),
        (ConfigError, "a list of names", {"keep": "stem"}),
        (ConfigError, "no module has that name", {"keep": ["layer9"]}),
        (ConfigError, "trains float weights", {"recipe": Recipe()}),
        (ConfigError, "iterations", {"iterations": -1}),
    ):
        with pytest.raises(error, match=said):
            corank.prune(model, data, **{"iterations": 0, **given})
    with pytest.raises(ModelError, match="no channels of this Sequential can go"):
        corank.prune(nn.Sequential(nn.Linear(4, 2)), torch.randn(4, 4), iterations=0)


def test_files_that_lie(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = network("residual")
    small = corank.prune(model, many(), 0.3, "magnitude", iterations=0)
    tensors = {name: one.contiguous() for name, one in small.state_dict().items()}
    path = tmp_path / "lies.safetensors"
    for text in (
        "{", "{}", '[{"kind": "width", "module": "stem", "sizes": {"out_channels": 99}}]',
        '[{"kind": "width", "module": "nowhere", "sizes": {"out_channels": 1}}]', "[]", '[{"kind": "eval"}]',
    ):  # fmt: skip
        save_file(tensors, path, {"corank-structure": text})
        with pytest.raises(ArtifactError):
            corank.load(path, model)
    corank.save(small, path)
    with pytest.raises(ArtifactError, match="does not fit"):
        corank.load(path, network("joined"))
    with pytest.raises(ArtifactError, match="a pruned network in float"):
        corank.inspect(path)

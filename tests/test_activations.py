"""Quantized inputs end to end, on the network that ships with the package."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.data import load as load_images
from corank.errors import ArtifactError, ConfigError
from corank.layers import CodedLayer, prepare
from corank.models.digits import digits_net
from corank.storage.contents import ArtifactContents, contents_of, predict_bytes
from corank.storage.model_record import run_of


@pytest.fixture(scope="module")
def images() -> Tensor:
    return load_images("digits:train").tensor()[:160]


@pytest.fixture(scope="module")
def small(images: Tensor) -> nn.Module:
    return corank.quantize(digits_net(), images, bits=4, activations=4, budget=0.2, search="greedy")


def coded(model: nn.Module) -> dict[str, CodedLayer]:
    return {name: module for name, module in model.named_modules() if isinstance(module, CodedLayer)}


def levels_seen(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Distinct values that each layer's own computation is given."""
    seen: dict[str, Tensor] = {}
    for name, layer in coded(model).items():
        quantizer = layer.input_quantizer()
        if quantizer is not None:
            layer.register_forward_pre_hook(
                lambda _m, args, name=name, quantizer=quantizer: seen.__setitem__(name, quantizer(args[0]).unique())
            )
    with torch.no_grad():
        model(images)
    return seen


def test_every_layer_has_its_width_and_the_edges_have_eight_bits(small: nn.Module, images: Tensor) -> None:
    widths = [layer.inputs for layer in coded(small).values()]
    assert widths[0] == widths[-1] == 8 and set(widths[1:-1]) == {4}
    for name, values in levels_seen(copy.deepcopy(small), images).items():
        assert 2 < len(values) <= 2 ** (coded(small)[name].inputs or 0)
    assert all(layer.inputs == 4 for layer in coded(quantized(images, all_layers=True)).values())
    assert all(layer.inputs is None for layer in coded(quantized(images, activations=None)).values())


def quantized(images: Tensor, activations: int | None = 4, **more: bool) -> nn.Module:
    return corank.quantize(
        digits_net(), images, bits=4, activations=activations, budget=0, preset="nearest", all_layers=bool(more)
    )


def test_exceptions_keep_the_width(images: Tensor) -> None:
    model = corank.quantize(
        digits_net(), images, bits=4, activations=6, budget=0, preset="nearest",
        layers={"*.1.*": 8, "stage2.0.*": corank.Uniform(3), "head": corank.LayerPlan(corank.Uniform(5))},
    )  # fmt: skip
    plans = run_of(model).plan.layers
    assert {plan.inputs for name, plan in plans.items() if ".1." in name or "stage2.0" in name} == {6}
    assert plans["head"].inputs is None


@pytest.mark.parametrize("preset", ["nearest", "fast"])
def test_the_network_stays_close(images: Tensor, preset: str) -> None:
    test = load_images("digits:test")
    truth, pixels = test.labels, test.tensor()
    assert truth is not None

    def top1(model: nn.Module) -> float:
        with torch.no_grad():
            return 100 * float((model(pixels).argmax(1) == torch.as_tensor(truth)).float().mean())

    plain, eight, four = (
        top1(corank.quantize(digits_net(), images, bits=4, activations=width, budget=0, preset=preset))
        for width in (None, 8, 4)
    )
    assert abs(eight - plain) < 1 and four > plain - 4


def test_round_trip_bytes_and_record(small: nn.Module, images: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    stored = corank.save(small, path, coder="fixed")
    again = corank.load(path, digits_net())
    assert torch.equal(again(images), small(images))
    corank.save(again, tmp_path / "again", coder="fixed")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    prepared = prepare(digits_net(), lambda one: one(images[:2]))
    run = run_of(small)
    assert predict_bytes(prepared, run) == pytest.approx(stored, rel=0.02)
    assert run.plan == corank.Plan.from_json(json.loads(json.dumps(run.plan.to_json())))
    plain = corank.Plan({name: corank.LayerPlan(**{**vars(p), "inputs": None}) for name, p in run.plan.layers.items()})
    bits = {name: layer.stored_bits(plain.layers[name]) for name, layer in run.layers.items()}
    assert run.stored_bits == sum(bits.values()) + sum(16 + (p.inputs or 0) for p in run.plan.coded().values())
    for record in (corank.inspect(small), corank.inspect(path)):
        assert record["activations"] == 4 and record["bits"] == 4
        for entry, (name, layer) in zip(record["layers"], coded(small).items(), strict=True):
            quantizer = layer.input_quantizer()
            assert quantizer is not None and entry["name"] == name
            assert entry["inputs"] == quantizer.bits
            assert (entry["input_step"], entry["input_offset"]) == (float(quantizer.step), quantizer.offset)


def test_a_plan_says_it_all(small: nn.Module, images: Tensor) -> None:
    again = corank.quantize(digits_net(), images, plan=run_of(small).plan)
    assert run_of(again).plan == run_of(small).plan
    with torch.no_grad():
        expected, given = small(images), again(images)
    assert float((given - expected).norm() / expected.norm()) < 0.05  # a last bit of a sum may move a code


def test_copies_casts_and_to_float(small: nn.Module, images: Tensor) -> None:
    expected = small(images)
    for other in (copy.deepcopy(small), pickle.loads(pickle.dumps(small)), copy.deepcopy(small).half().float()):
        assert torch.equal(other(images), expected)
    fresh = copy.deepcopy(small)
    for layer in coded(fresh).values():
        layer._buffers["input_step"].fill_(1.0)  # pyright: ignore[reportOptionalMemberAccess]
        layer._feed = None
    assert not torch.equal(fresh(images), expected)
    fresh.load_state_dict(small.state_dict())
    assert torch.equal(fresh(images), expected)
    assert torch.isfinite(copy.deepcopy(small).bfloat16()(images.bfloat16())).all()
    plain = corank.to_float(small)
    floating = copy.deepcopy(small)
    for layer in coded(floating).values():
        layer.inputs = None
    torch.testing.assert_close(plain(images), floating(images))


class Shared(nn.Module):
    """One layer used twice, and a transposed one called by keyword with an output size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.shared = nn.Conv2d(4, 4, 3, padding=1)
        self.alias = self.shared
        self.up = nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1)
        self.head = nn.Linear(3, 5)

    def forward(self, pixels: Tensor) -> Tensor:
        hidden = self.alias(self.shared(self.stem(pixels)).tanh())
        return self.head(input=self.up(hidden, output_size=[16, 16]).mean((2, 3)))


@pytest.mark.parametrize("preset", ["nearest", "fast"])
def test_shared_layers_keywords_and_output_sizes(images: Tensor, preset: str) -> None:
    torch.manual_seed(0)
    model = Shared().eval()
    small = corank.quantize(model, images[:64], bits=8, activations=8, budget=0, preset=preset)
    assert small.shared is small.alias and isinstance(small.shared, CodedLayer) and small.shared.inputs == 8
    with torch.no_grad():
        expected, given = model(images), small(images)
    assert float((given - expected).norm() / expected.norm()) < 0.05


def test_layers_are_coded_against_rounded_inputs(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """What reaches the moments of a sequential layer is rounded: 4 bits leave at most 16 values."""
    seen: list[int] = []
    kept = corank.statistics.CrossMoments.update_pair

    def watch(self: object, float_rows: Tensor, rows: Tensor, positions: int) -> None:
        seen.append(len(rows.unique()))
        assert len(float_rows.unique()) > 16
        kept(self, float_rows, rows, positions)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(corank.statistics.CrossMoments, "update_pair", watch)
    corank.quantize(digits_net(), images[:32], bits=4, activations=4, budget=0, preset="fast", all_layers=True)
    assert seen and max(seen) <= 16


def test_the_network_that_is_coded_is_the_network_that_ships(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last layer is calibrated on what the finished network feeds it."""
    fed: dict[str, Tensor] = {}
    kept = corank.coding.sequence.fitted_here

    def watch(stream, name, *rest):
        found = kept(stream, name, *rest)
        fed[name] = stream.inputs(0, name).clone()
        return found

    monkeypatch.setattr(corank.coding.sequence, "fitted_here", watch)
    small = corank.quantize(digits_net(), images[:32], bits=4, activations=4, budget=0, preset="fast", batch_size=32)
    got: dict[str, Tensor] = {}
    for name, layer in coded(small).items():
        layer.register_forward_pre_hook(lambda _m, args, name=name: got.__setitem__(name, args[0]))
    with torch.no_grad():
        small(images[:32])
    for name, inputs in got.items():
        torch.testing.assert_close(fed[name], inputs, rtol=1e-3, atol=1e-4 + 0.02 * float(inputs.abs().max()))


def test_checkpoints_carry_the_steps(images: Tensor, tmp_path: Path) -> None:
    models = [
        corank.quantize(digits_net(), images[:64], bits=3, activations=4, budget=0, checkpoint=tmp_path / "kept")
        for _ in range(2)
    ]
    assert torch.equal(models[0](images), models[1](images))


@pytest.mark.parametrize("width", [1, 9, 0, -4, True, 4.0, "4"])
def test_bad_widths(images: Tensor, width: object) -> None:
    with pytest.raises(ConfigError, match="2 to 8 bits"):
        corank.quantize(digits_net(), images, activations=width)  # pyright: ignore[reportArgumentType]
    if width == 1 and width is not True:
        return  # training gives such plans
    with pytest.raises(ConfigError, match="1 to 8 bits"):
        corank.LayerPlan(corank.Uniform(4), inputs=width)  # pyright: ignore[reportArgumentType]


def test_a_plan_and_a_width_exclude_each_other(small: nn.Module, images: Tensor) -> None:
    with pytest.raises(ConfigError, match="plan and activations"):
        corank.quantize(digits_net(), images, plan=run_of(small).plan, activations=8)


def test_files_from_before_load_and_bad_steps_do_not(small: nn.Module, images: Tensor, tmp_path: Path) -> None:
    plain = quantized(images, None)
    contents = contents_of(plain, run_of(plain))
    contents.header.pop("activations")
    contents.header["plan"]["default"].pop("inputs")
    (tmp_path / "old").write_bytes(contents.serialize())
    assert torch.equal(corank.load(tmp_path / "old", digits_net())(images), plain(images))
    contents = contents_of(small, run_of(small))
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        scales = contents.blobs["scales"].clone()
        scales[-1] = bad
        (tmp_path / "bad").write_bytes(
            ArtifactContents(contents.header, {**contents.blobs, "scales": scales}).serialize()
        )
        for read in (corank.inspect, lambda path: corank.load(path, digits_net())):
            with pytest.raises(ArtifactError, match=r"have a step of|is not finite"):
                read(tmp_path / "bad")

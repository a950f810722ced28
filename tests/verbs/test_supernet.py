"""One network that holds many: trained, handed on, one taken out, and the search among them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import corank
from corank.calibration import Samples
from corank.calibration.seeds import generator_of
from corank.errors import BudgetError, ConfigError, DataError, ModelError
from corank.export.onnx import export_onnx
from corank.models import resolve
from corank.models.elastic import ElasticBlock, ElasticStage
from corank.training.elastic import ConvShape, ElasticConv
from corank.training.subnets import drawn, extreme, space_of
from corank.verbs import subnet_search
from corank.verbs.supernet import at_subnet

NAME = "elastic:3,width=4-4-8,depth=1+2,kernel=3+5,expansion=1+2,resolution=8+10"
LABELS = torch.arange(48) % 3
IMAGES = torch.randn(48, 3, 10, 10, generator=torch.Generator().manual_seed(1)) + LABELS[:, None, None, None] - 1.0
DATA = (IMAGES, LABELS)


def trained(model: nn.Module, bits: int | None, **given) -> nn.Module:
    return corank.train_supernet(model, DATA, bits, **{"iterations": 3, "batch_size": 16, "random": 1, **given})


@pytest.fixture(scope="module")
def floating() -> nn.Module:
    return trained(resolve(NAME).model, None, iterations=12)


@pytest.fixture(scope="module")
def four(floating: nn.Module) -> nn.Module:
    return trained(floating, 4, iterations=6)


@pytest.fixture(scope="module")
def two(four: nn.Module) -> nn.Module:
    return trained(four, 2)


def sliced(net: nn.Module, chosen: Mapping[str, int]) -> tuple[nn.Module, Tensor]:
    """The supernet itself as that subnet, and images of its resolution."""
    own, side = copy.deepcopy(net), chosen["resolution"]
    at_subnet(own, chosen, Samples.of(IMAGES, 48, 64))
    if side == IMAGES.shape[-1]:
        return own, IMAGES
    return own, F.interpolate(IMAGES, (side, side), mode="bilinear", align_corners=False, antialias=True)


@pytest.mark.parametrize("seed", range(3))
def test_a_subnet_taken_out_is_the_slice_bit_for_bit_and_an_ordinary_file(
    two: nn.Module, seed: int, tmp_path: Path
) -> None:
    chosen = extreme(space_of(two), False) if seed == 0 else drawn(space_of(two), generator_of(seed, "test"))
    small = corank.extract_subnet(two, IMAGES, chosen)
    own, images = sliced(two, chosen)
    with torch.no_grad():
        expected = own(IMAGES)
    assert torch.equal(small(images), expected)
    run = small.corank_run
    assert run.bits == run.activations == 2 and run.plan.layers["stem.conv"].codec.bits == 8
    path = tmp_path / "small.safetensors"
    corank.save(small, path)
    back = corank.load(path, resolve(run.model).model)
    assert torch.equal(back(images), expected)
    assert corank.inspect(back)["model"] == run.model


def test_a_subnet_runs_in_onnx(four: nn.Module, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    small = corank.extract_subnet(four, IMAGES, extreme(space_of(four), False))
    images = sliced(four, extreme(space_of(four), False))[1]
    result = export_onnx(small, tmp_path / "small.onnx", images[:1])
    options = onnxruntime.SessionOptions()
    for name, value in result.options.items():
        options.add_session_config_entry(name, value)
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx", options)
    given = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])
    assert float((given.argmax(1) == small(images).argmax(1)).float().mean()) >= 0.95


def test_a_float_subnet_is_a_float_network(floating: nn.Module) -> None:
    chosen = drawn(space_of(floating), generator_of(5, "test"))
    small, (own, images) = corank.extract_subnet(floating, IMAGES, chosen), sliced(floating, chosen)
    with torch.no_grad():
        assert torch.equal(small(images), own(IMAGES))
    assert type(small.get_submodule("stem.conv")) is nn.Conv2d  # which quantize and train take


def test_it_learns_and_bits_are_handed_on(floating: nn.Module, four: nn.Module, two: nn.Module) -> None:
    losses = [one["largest"] for one in floating.corank_supernet.history]
    assert losses[-1] < losses[0]
    assert (four.corank_supernet.bits, four.corank_supernet.inherited) == (4, None)
    assert (two.corank_supernet.bits, two.corank_supernet.inherited) == (2, 4)
    handed = trained(four, 2, iterations=0)
    assert torch.equal(
        handed.get_submodule("stages.0.0.expand").steps["shared"].weight.book().scale,  # pyright: ignore[reportIndexIssue]
        4 * four.get_submodule("stages.0.0.expand").steps["shared"].weight.book().scale,  # pyright: ignore[reportIndexIssue]
    )


def test_the_given_network_stays_and_the_same_seed_gives_the_same(floating: nn.Module) -> None:
    before = {name: one.clone() for name, one in floating.state_dict().items()}
    first, again, other = (trained(floating, 3, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(before[name], one) for name, one in floating.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert any(
        not torch.equal(a, b) for a, b in zip(first.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_the_default_dtype_changes_nothing(floating: nn.Module) -> None:
    expected = trained(floating, 4, iterations=1)
    torch.set_default_dtype(torch.float64)
    try:
        given = trained(floating, 4, iterations=1)
        small = corank.extract_subnet(given, IMAGES)
    finally:
        torch.set_default_dtype(torch.float32)
    pairs = zip(given.state_dict().values(), expected.state_dict().values(), strict=True)
    assert all(one.dtype == other.dtype and torch.equal(one, other) for one, other in pairs)
    assert torch.equal(small(IMAGES), corank.extract_subnet(expected, IMAGES)(IMAGES))


def test_killed_and_started_again_it_ends_in_the_same(
    floating: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corank.training.loop._KEPT_EVERY", 2)
    whole = trained(floating, 3, iterations=5)

    def stop(_what: str, done: int, _total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(floating, 3, iterations=5, checkpoint=tmp_path / "kept", progress=stop)
    went = trained(floating, 3, iterations=5, checkpoint=tmp_path / "kept")
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), went.state_dict().values(), strict=True))
    assert went.corank_supernet.history == whole.corank_supernet.history
    with pytest.raises(ConfigError, match="another run"):
        trained(floating, 3, iterations=5, checkpoint=tmp_path / "kept", random=2)


def test_without_labels_there_must_be_a_teacher(floating: nn.Module) -> None:
    with pytest.raises(DataError):
        corank.train_supernet(floating, IMAGES, 4, iterations=1)
    teacher = corank.extract_subnet(floating, IMAGES)
    taught = corank.train_supernet(floating, IMAGES, 4, iterations=2, batch_size=16, teacher=teacher)
    assert all(one["largest"] >= 0 for one in taught.corank_supernet.history)


class Own(nn.Module):
    """A network of one's own: an elastic stage between layers of fixed size."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ElasticConv(ConvShape(3, 4, 3, edge=True))
        self.stage = ElasticStage([ElasticBlock(4, 4, (3, 5), (1, 2)) for _ in range(2)], (1, 2))
        self.last = ElasticConv(ConvShape(4, 3, norm=False, relu=False, edge=True))

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.stage(self.first(images)).mean((2, 3), keepdim=True)).flatten(1)


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = trained(Own(), 4)
    chosen = {name: values[0] for name, values in space_of(net).items()}
    small = corank.extract_subnet(net, IMAGES, chosen)
    own = copy.deepcopy(net)
    at_subnet(own, chosen, Samples.of(IMAGES, 48, 64))
    with torch.no_grad():
        assert torch.equal(small(IMAGES), own(IMAGES)) and small.corank_run.model is None
    corank.save(small, tmp_path / "own.safetensors")
    corank.save_supernet(net, tmp_path / "net.safetensors")
    assert torch.equal(corank.load_supernet(tmp_path / "net.safetensors", Own)(IMAGES), net(IMAGES))
    with pytest.raises(ConfigError, match="does not name its network"):
        corank.load_supernet(tmp_path / "net.safetensors")


def test_what_cannot_be(four: nn.Module, floating: nn.Module) -> None:
    with pytest.raises(ModelError, match="no elastic layers"):
        trained(nn.Sequential(nn.Flatten(), nn.Linear(300, 3)), 4)
    with pytest.raises(ConfigError, match="hands on fewer bits, not 6"):
        trained(four, 6)
    with pytest.raises(ConfigError, match="has 4 bits already"):
        trained(four, None)
    with pytest.raises(ConfigError, match="2 to 8"):
        trained(floating, 1)
    with pytest.raises(DataError, match="NaN"):
        corank.train_supernet(floating, (IMAGES * float("nan"), LABELS), 4, iterations=1)


def test_search_finds_a_front_under_a_limit_and_goes_on_where_it_was(
    four: nn.Module, two: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"trials": 5, "size": 1500, "seed": 3}
    whole = corank.search_subnets([four, two], IMAGES, [DATA], **given)
    assert len(whole.trials) == 5 == len({(one.bits, one.reference) for one in whole.trials})
    assert all(one.size_bytes <= 1500 for one in whole.trials) and {one.bits for one in whole.trials} == {2, 4}
    front = whole.front
    assert [one.size_bytes for one in front] == sorted(one.size_bytes for one in front)
    for one in whole.trials:  # none is better at the same bytes or fewer
        assert any(other.size_bytes <= one.size_bytes and other.score >= one.score for other in front)
    best = front[-1]
    small = corank.extract_subnet(four if best.bits == 4 else two, IMAGES, best.chosen)
    assert corank.save(small, tmp_path / "best.safetensors") == best.size_bytes
    assert small.corank_run.model == best.reference
    images = sliced(four, best.chosen)[1]
    assert corank.evaluate(small, [(images, LABELS)]).top1 == best.score

    real, seen = subnet_search._Trying.scored, list[int]()

    def killed(self, *one):
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return real(self, *one)

    monkeypatch.setattr(subnet_search._Trying, "scored", killed)
    with pytest.raises(KeyboardInterrupt):
        corank.search_subnets([four, two], IMAGES, [DATA], **given, checkpoint=tmp_path / "kept")
    again = corank.search_subnets([four, two], IMAGES, [DATA], **given, checkpoint=tmp_path / "kept")
    assert again == whole and len(seen) == 3 + 3


def test_search_says_what_cannot_be(four: nn.Module, floating: nn.Module) -> None:
    with pytest.raises(BudgetError, match=r"the smallest subnet, of 4 bits, takes [0-9]+ bytes"):
        corank.search_subnets(four, IMAGES, [DATA], size=300)
    with pytest.raises(ConfigError, match="float supernet"):
        corank.search_subnets(floating, IMAGES, [DATA])
    with pytest.raises(ConfigError, match="two supernets of 4 bits"):
        corank.search_subnets([four, four], IMAGES, [DATA])
    with pytest.raises(ConfigError, match="trials=0"):
        corank.search_subnets(four, IMAGES, [DATA], trials=0)
    with pytest.raises(ConfigError, match="these differ"):
        corank.search_subnets([], IMAGES, [DATA])


def test_without_labels_the_score_is_agreement_with_the_largest(four: nn.Module) -> None:
    found = corank.search_subnets(four, IMAGES, [IMAGES], trials=1)
    assert found.trials[0].score == 100.0 and found.trials[0].multiply_adds > 0


def test_multiply_adds_by_hand(two: nn.Module) -> None:
    """The smallest: 8 x 8, expansions of 1, kernels of 3."""
    found = corank.search_subnets(two, IMAGES, [DATA], trials=2, by="multiply_adds")
    smallest = min(found.trials, key=lambda one: one.multiply_adds)
    stem, first = 64 * 4 * 27, 64 * (4 * 4 + 4 * 9 + 4 * 4)
    second = 64 * 4 * 4 + 16 * (4 * 9 + 4 * 8)
    assert smallest.multiply_adds == stem + first + second + 3 * 8

"""BinaryViT: its parts by their equations, the paper's shape, and its name on a command line."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corank.errors import ConfigError, ModelError
from corank.models import BinaryViT, BinaryViTShape, resolve
from corank.models.binary_attention import Attention, OneLevel, ShiftedSigns, Unit, attended
from corank.models.binary_vit import Block, LayerScale, Transition

LIKE = torch.zeros(1)
TINY = BinaryViTShape(16, 2, 8, (1, 1), (4, 2), (2, 1))


def moved(module: nn.Module) -> nn.Module:
    """In evaluation mode, every parameter and statistic drawn anew, as fp16 holds it."""
    for one in module.parameters():
        one.data = torch.randn(one.shape).mul(0.5).half().float()
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            assert norm.running_mean is not None and norm.running_var is not None
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return module.eval()


def prelu(unit: nn.Module, x: Tensor) -> Tensor:
    shift, slope, lift = (unit.get_parameter(f"act.{name}") for name in ("shift", "slope", "lift"))
    away = x - shift
    return torch.where(away > 0, away, slope * away) + lift


def test_probabilities_are_zero_or_one_level() -> None:
    level = OneLevel(LIKE)
    chances = torch.tensor([0.0, 0.001, 0.0025, 0.0026, 0.004, 0.005, 0.0051, 1.0], requires_grad=True)
    found = level(chances)
    c = torch.tensor(0.005)
    torch.testing.assert_close(found, c * torch.tensor([0.0, 0, 0, 1, 1, 1, 1, 1]))
    given = torch.randn(8)
    (found * given).sum().backward()
    assert chances.grad is not None and level.growth.grad is not None
    assert torch.equal(chances.grad, given * torch.tensor([1.0, 1, 1, 1, 1, 1, 0, 0]))
    place = chances.detach() / c
    of_level = torch.where(place <= 1, place.round() - place, torch.ones(8))
    torch.testing.assert_close(level.growth.grad, (given * of_level).sum() * c)  # c = start exp(growth)


def test_the_level_stays_positive() -> None:
    level = OneLevel(LIKE)
    with torch.no_grad():
        level.growth.fill_(-8.0)
    assert 0 < float(level(torch.ones(1)).detach()) < 1e-5


def test_signs_have_a_shift_each_and_the_polynomial_gradient() -> None:
    signs = moved(ShiftedSigns(3, LIKE))
    inputs = torch.randn(4, 5, 3).half().float().requires_grad_()
    inputs.data[0, 0] = signs.get_parameter("shift").data
    found, given = signs(inputs), torch.randn(4, 5, 3)
    away = inputs.detach() - signs.get_parameter("shift").detach()
    assert torch.equal(found, torch.where(away >= 0, 1.0, -1.0))
    (found * given).sum().backward()
    through = given * (2 - 2 * away.abs()).clamp(min=0)
    assert inputs.grad is not None and signs.get_parameter("shift").grad is not None
    torch.testing.assert_close(inputs.grad, through)
    torch.testing.assert_close(signs.get_parameter("shift").grad, -through.sum((0, 1)))


def test_attention_between_signs() -> None:
    queries, keys, values = (torch.randn(2, n, 8) for n in (9, 4, 4))
    expected = F.scaled_dot_product_attention(
        *(one.unflatten(2, (2, 4)).transpose(1, 2) for one in (queries, keys, values))
    )
    found = attended((queries, keys, values), 2, nn.Identity())
    torch.testing.assert_close(found, expected.transpose(1, 2).flatten(2))


@pytest.mark.parametrize(("inputs", "outputs"), [(6, 6), (6, 18), (18, 6)])
def test_a_unit_is_its_equation(inputs: int, outputs: int) -> None:
    unit, x = moved(Unit(inputs, outputs)), torch.randn(2, 4, inputs)
    layer, norm = unit.get_submodule("linear.layer"), unit.get_submodule("linear.norm")
    assert isinstance(layer, nn.Linear) and layer.bias is None
    past = x.repeat(1, 1, 3) if outputs > inputs else F.avg_pool1d(x, 3) if outputs < inputs else x
    expected = prelu(unit, norm(layer(x).flatten(0, 1)).unflatten(0, (2, 4)) + past)
    torch.testing.assert_close(unit(x), expected)


@pytest.mark.parametrize(("reduction", "binary"), [(1, False), (2, True), (4, True)])
def test_attention_is_its_equation(reduction: int, binary: bool) -> None:
    attention, x = moved(Attention(8, 2, reduction, binary)), torch.randn(3, 16, 8)
    grid = x.transpose(1, 2).reshape(3, 8, 4, 4)
    z = F.avg_pool2d(grid, reduction).flatten(2).transpose(1, 2)
    q, (k, v) = attention.query(x), (attention.key(z), attention.value(z))
    read = attended(tuple(sign(one) for sign, one in zip(attention.signs, (q, k, v), strict=True)), 2, attention.level)
    up = [
        one.transpose(1, 2).reshape(3, 8, 4 // reduction, -1).repeat_interleave(reduction, 2)
        .repeat_interleave(reduction, 3).flatten(2).transpose(1, 2)
        for one in (k, v)
    ]  # fmt: skip
    context = prelu(attention, attention.norm(read) + q + up[0] + up[1])
    torch.testing.assert_close(attention(x), attention.out(context))
    assert bool(binary) == isinstance(attention.level, OneLevel)


def test_pools_give_nothing_at_first_and_then_their_means() -> None:
    block, x = moved(Block(TINY, 0)), torch.randn(2, 64, 8)
    for scale in block.pools:
        assert isinstance(scale, LayerScale)
        scale.reset_parameters()
    after = x + block.scale1(block.attention(block.norm1(x)))
    y = block.norm2(after)
    without = after + block.scale2(block.down(block.up(y)))
    torch.testing.assert_close(block(x), without)
    with torch.no_grad():
        block.pools[2].scale.fill_(0.5)
        block.pools[2].bias.fill_(0.25)
    grid = F.pad(y.transpose(1, 2).reshape(2, 8, 8, 8), (2, 2))
    mean = sum(grid[..., place : place + 8] for place in range(5)) / 5
    expected = without + (0.5 * mean + 0.25).flatten(2).transpose(1, 2)
    torch.testing.assert_close(block(x), expected)


def test_a_block_starts_as_the_paper_s() -> None:
    block = Block(TINY, 0)
    assert bool((block.scale1.scale == 0.1).all()) and bool((block.scale2.scale == 0.1).all())
    assert all(not bool(one.any()) for one in block.pools.parameters())
    assert bool((block.up.act.slope == 0.25).all()) and not bool(block.up.act.shift.any())


def test_a_transition_is_its_equation() -> None:
    transition, x = moved(Transition(4, 3)), torch.randn(2, 4, 6, 6)
    y = transition.before(x)
    past = F.avg_pool2d(y, 2).repeat(1, 2, 1, 1)
    inner = transition.norm(F.conv2d(y, transition.conv.weight, stride=2)) + past
    expected = prelu(transition, inner.movedim(1, -1)).movedim(-1, 1) + transition.position.table
    torch.testing.assert_close(transition(x), expected)
    assert expected.shape == (2, 8, 3, 3)


def test_the_paper_s_shape() -> None:
    with torch.device("meta"):
        model = BinaryViT(1000)
    assert [model.shape.grid(stage) for stage in range(4)] == [56, 28, 14, 7]
    of = [stage.blocks for stage in model.stages]
    assert [len(blocks) for blocks in of] == [3, 4, 8, 4]
    assert [blocks[0].up.linear.layer.out_features for blocks in of] == [512, 1024, 1024, 2048]
    assert [blocks[0].attention.heads for blocks in of] == [1, 2, 4, 8]
    assert [blocks[0].attention.reduction for blocks in of] == [8, 4, 1, 1]
    assert [blocks[0].attention.query.linear.layer.in_features for blocks in of] == [64, 128, 256, 512]


@pytest.mark.parametrize("form", ["binary", "float"])
def test_images_become_logits_and_every_parameter_learns(form: str) -> None:
    torch.manual_seed(0)
    model = BinaryViT(3, BinaryViTShape(16, 2, 8, (1, 1), (4, 2), (2, 1), form))
    logits = model(torch.randn(8, 3, 16, 16))
    assert logits.shape == (8, 3)
    F.cross_entropy(logits, torch.arange(8) % 3).backward()
    silent = [name for name, one in model.named_parameters() if one.grad is None or not bool(one.grad.any())]
    assert silent == []
    alone = model.eval()(torch.ones(2, 3, 16, 16))
    assert torch.equal(alone[0], alone[1])


@pytest.mark.parametrize(
    "wrong",
    [{"size": 31}, {"form": "half"}, {"depths": (1,)}, {"reductions": (3, 1)}, {"ratios": (0, 1)}, {"width": 9000},
     {"depths": (60, 60)}, {"size": 8192}],
)  # fmt: skip
def test_shapes_that_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        BinaryViTShape(**{**vars(TINY), **wrong})
    with pytest.raises(ConfigError, match="classes"):
        BinaryViT(1, TINY)


def test_a_reference_says_classes_and_shape() -> None:
    name = "binary-vit:3,size=16,patch=2,width=8,depths=1-1,ratios=4-2,reductions=2-1"
    source = resolve(name)
    assert isinstance(source.model, BinaryViT) and source.random and source.model.shape == TINY
    assert source.preprocessing.image_size == 16 and source.preprocessing.mean is not None
    assert resolve(f"{name},form=float").model.shape.form == "float"


@pytest.mark.parametrize("name", ["", "ten", "10,heads=3", "10,8", "10,size=big", "1", "10,size=33", "10,depths=1-2",
                                  "10,size=32,size=64", "10,depths=,form=float"])  # fmt: skip
def test_a_reference_that_cannot_be_shows_one_that_can(name: str) -> None:
    with pytest.raises(ModelError, match=r"give binary-vit:10"):
        resolve(f"binary-vit:{name}")

"""Attacks stay in their ball and in the range of pixels, raise the loss, and are what their names say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corank.attacks import Attack, attacked
from corank.errors import ConfigError, DataError, ModelError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NAMES = ("fgsm:2/255", "pgd:2/255,10", "pgd:8/255,3,10/255", "fgsm:0/255")


def images(count: int = 6, dtype: torch.dtype = torch.float32) -> Tensor:
    """Of 8-bit pixels, black and white among them, normalised as Preprocessing does it."""
    pixels = torch.randint(0, 256, (count, 3, 5, 4), generator=torch.Generator().manual_seed(0))
    pixels[0, :, 0, 0], pixels[0, :, 0, 1] = 0, 255
    mean, std = (torch.tensor(one, dtype=dtype).view(-1, 1, 1) for one in (MEAN, STD))
    return (pixels.to(dtype) / 255 - mean) / std


def pixels_of(inputs: Tensor) -> Tensor:
    mean, std = (torch.tensor(one, dtype=torch.float64).view(-1, 1, 1) for one in (MEAN, STD))
    return inputs.double() * std + mean


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(60, 16), nn.Tanh(), nn.Linear(16, 4)).eval()


def loss_of(model: nn.Module, labels: Tensor):
    return lambda inputs: F.cross_entropy(model(inputs), labels, reduction="sum")


@pytest.mark.parametrize("name", NAMES)
def test_what_it_gives_is_in_the_ball_and_in_the_range_of_pixels(name: str) -> None:
    attack, clean = Attack.of(name).seen_by(MEAN, STD), images()
    found = attacked(attack, clean, loss_of(network(), torch.arange(6) % 4), torch.Generator().manual_seed(1))
    before, after = pixels_of(clean), pixels_of(found)
    rounding = 3e-7  # float32's, of numbers up to 1 that were normalised and are not any more
    assert float((after - before).abs().amax()) <= attack.epsilon + rounding
    assert float(after.amin()) >= -rounding and float(after.amax()) <= 1 + rounding
    assert found.shape == clean.shape and found.dtype == clean.dtype and not found.requires_grad
    low, high = attack.bounds(clean)
    assert bool(((found >= low) & (found <= high)).all())  # exactly, as the network reads them
    if attack.epsilon == 0:
        assert torch.equal(found, clean)


def test_fgsm_is_one_step_of_the_sign_in_pixels() -> None:
    model, labels, clean = network(), torch.arange(6) % 4, images()
    found = attacked(Attack.of("fgsm:2/255").seen_by(MEAN, STD), clean, loss_of(model, labels))
    probe = clean.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of(model, labels)(probe), probe)
    expected = (pixels_of(clean) + 2 / 255 * gradient.sign()).clamp(0, 1)
    assert torch.allclose(pixels_of(found), expected, atol=1e-6)


def test_a_linear_loss_is_raised_as_far_as_the_ball_allows() -> None:
    """Of a linear function the largest value in the ball is known: PGD and FGSM both reach it."""
    clean = images()
    slope = torch.randn(clean.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float32)
    for name in ("fgsm:4/255", "pgd:4/255,10"):
        attack = Attack.of(name).seen_by(MEAN, STD)
        found = attacked(attack, clean, lambda inputs: (inputs * slope).sum())
        low, high = attack.bounds(clean)
        assert torch.allclose(found, torch.where(slope > 0, high, low), atol=1e-6)


def test_attacks_raise_the_loss_and_more_steps_raise_it_more() -> None:
    model, labels, clean = network(), torch.arange(6) % 4, images()
    losses = [float(loss_of(model, labels)(clean).detach())]
    for name in ("fgsm:8/255", "pgd:8/255,20"):
        attack = Attack.of(name).seen_by(MEAN, STD)
        found = attacked(attack, clean, loss_of(model, labels))
        losses.append(float(loss_of(model, labels)(found).detach()))
    assert losses[0] < losses[1] <= losses[2] + 1e-4


def test_random_starts_hang_on_the_generator_alone() -> None:
    model, labels, clean = network(), torch.arange(6) % 4, images()
    attack = replace(Attack.of("pgd:8/255,1").seen_by(MEAN, STD), steps=0)
    one, same, other = (
        attacked(attack, clean, loss_of(model, labels), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same) and not torch.equal(one, other) and not torch.equal(one, clean)


def test_networks_in_half_precision_and_callers_without_gradients() -> None:
    model = network().to(torch.bfloat16)
    clean = images().to(torch.bfloat16)
    with torch.no_grad():
        found = attacked(Attack.of("fgsm:8/255").seen_by(MEAN, STD), clean, loss_of(model, torch.arange(6) % 4))
    assert found.dtype == torch.bfloat16 and not torch.equal(found, clean)


@pytest.mark.parametrize("name", [*NAMES, "pgd:0.5/255,7,0.25/255"])
def test_names_are_read_back(name: str) -> None:
    assert Attack.of(name).name == name and Attack.of(Attack.of(name).name) == Attack.of(name)


def test_numbers_of_names() -> None:
    assert Attack.of("fgsm:0.01") == Attack(0.01, 1, 0.01)
    assert Attack.of("pgd:8/255,10") == Attack(8 / 255, 10, 2.5 * (8 / 255) / 10, random=True)
    assert Attack.of("pgd:8/255,10,2/255") == Attack(8 / 255, 10, 2 / 255, random=True)


@pytest.mark.parametrize(
    "text",
    ["", "fgsm", "fgsm:", "fgsm:2/0", "fgsm:2/", "fgsm:/255", "fgsm:2/255,3", "fgsm:-1/255", "fgsm:2", "pgd:2/255",
     "cw:1", "pgd:2/255,0", "pgd:2/255,1.5", "pgd:2/255,1,1,1", "fgsm:1e999", "fgsm:nan", "pgd:2/255,1e9", None, 3,
     "fgsm:2/255 "],
)  # fmt: skip
def test_what_is_no_attack(text: object) -> None:
    with pytest.raises(ConfigError):
        Attack.of(text)  # pyright: ignore[reportArgumentType]


def test_pixels_of_which_nothing_is_known() -> None:
    attack, clean = Attack.of("fgsm:2/255"), images()
    with pytest.raises(ConfigError, match="seen_by"):
        attack.bounds(clean)
    known = attack.seen_by(MEAN, STD)
    assert known.seen_by((0.0,), (1.0,)) == known  # what the attack says itself counts
    with pytest.raises(DataError, match="2 channels"):
        attack.seen_by((0.5, 0.5), (0.5, 0.5)).bounds(clean)
    with pytest.raises(DataError, match="no pixels from 0 to 1"):
        attack.seen_by((0.0,) * 3, (1.0,) * 3).bounds(clean)  # they were normalised otherwise
    with pytest.raises(DataError, match="int64"):
        known.bounds(torch.zeros(4, 7, dtype=torch.int64))
    with pytest.raises(ConfigError, match="one per channel"):
        attack.seen_by((0.5,), (0.5, 0.5))
    with pytest.raises(ConfigError, match="one per channel"):
        attack.seen_by((0.5,), (0.0,))


def test_a_loss_without_a_gradient_is_said() -> None:
    with pytest.raises(ModelError, match="gradient"):
        attacked(Attack.of("fgsm:2/255").seen_by(MEAN, STD), images(), lambda inputs: inputs.detach().sum())

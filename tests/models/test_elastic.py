"""Networks that hold many, and their names."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from corank.calibration.seeds import generator_of
from corank.errors import ConfigError, ModelError
from corank.models import resolve
from corank.models.elastic import MobileSubnet, MobileSupernet
from corank.models.elastic_shape import ElasticShape
from corank.training.subnets import active, choose, drawn, extreme, plain_network, space_of

NAME = "elastic:4,width=8-8-16,depth=1+2,kernel=3+5,expansion=1+2,resolution=8+12"


def supernet() -> MobileSupernet:
    found = resolve(NAME).model
    assert isinstance(found, MobileSupernet)
    return found


def test_a_name_with_choices_is_a_supernet_and_one_without_a_network_of_plain_layers() -> None:
    one = resolve("elastic:4,width=8-8-16,depth=1-2,kernel=3-5-3,expansion=2,resolution=8")
    assert isinstance(one.model, MobileSubnet) and one.random and one.preprocessing.image_size == 8
    kinds = {type(module) for module in one.model.modules() if not list(module.children())}
    assert kinds <= {nn.Conv2d, nn.BatchNorm2d, nn.Identity}
    assert one.model(torch.rand(2, 3, 8, 8)).shape == (2, 4)
    assert len(list(supernet().stages)) == 2


def test_choices_and_what_does_not_run() -> None:
    found = supernet()
    space = space_of(found)
    assert space["resolution"] == (8, 12) and space["stages.1.depth"] == (1, 2) and space["stages.0.1.kernel"] == (3, 5)
    assert len(space) == 1 + 2 + 2 * 4
    choose(found, extreme(space, largest=False))
    assert len(active(found)) == 1 + 2 + 2 * 2 and "stages.0.1.kernel" not in active(found)


@pytest.mark.parametrize("seed", range(4))
def test_the_name_of_a_subnet_makes_it_and_finds_it_again(seed: int) -> None:
    found = supernet().eval()
    chosen = drawn(space_of(found), generator_of(seed, "test"))
    choose(found, chosen)
    reference, plain = found.reference, plain_network(found)
    made = resolve(reference).model
    made.load_state_dict(plain.state_dict())  # the same names and shapes
    assert found.chosen_by(reference) == {name: chosen[name] for name in active(found)}
    images = torch.rand(2, 3, found.resolution, found.resolution)
    assert torch.equal(made.eval()(images), found(images))


def test_images_are_resized_to_the_resolution() -> None:
    found = supernet().eval()
    choose(found, {**extreme(space_of(found), largest=True), "resolution": 8})
    images = torch.rand(2, 3, 20, 20)
    small = nn.functional.interpolate(images, (8, 8), mode="bilinear", align_corners=False, antialias=True)
    assert torch.equal(found(images), found(small)) and found(images).shape == (2, 4)


def test_names_come_back() -> None:
    for text in (NAME, "elastic:10", "elastic:10,width=16-24,stride=2-1,depth=3,kernel=3-5+7-7,resolution=16"):
        shape = ElasticShape.of(text.removeprefix("elastic:"))
        assert ElasticShape.of(shape.reference.removeprefix("elastic:")) == shape


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "classes"), ("x", "classes"), ("1", "classes"), ("10,size=3", "one of width"), ("10,kernel=5+3", "ascend"),
        ("10,kernel=4", "kernels are"), ("10,kernel=9", "3 to 7"), ("10,width=16", "widths"),
        ("10,width=16-16,depth=1-2", "there are 1"), ("10,depth=1-", "depth"), ("10,stride=1-2", "strides"),
        ("10,width=16-99999", "width"), ("10,depth=2,depth=2", "each once"), ("10,resolution=²", "resolution"),
        ("10,width=" + "-".join(["8"] * 40), "40 widths"),
    ],
)  # fmt: skip
def test_a_name_that_is_none_says_what_is_one(name: str, said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        resolve(f"elastic:{name}")
    assert "give elastic:10" in str(caught.value)


def test_choices_that_cannot_be() -> None:
    found = supernet()
    whole = extreme(space_of(found), largest=True)
    with pytest.raises(ConfigError, match="one of 3, 5"):
        choose(found, {**whole, "stages.0.0.kernel": 7})
    with pytest.raises(ConfigError, match="there is no choice 'width'"):
        choose(found, {**whole, "width": 3})
    with pytest.raises(ConfigError, match=r"'stages\.0\.depth' is missing: one of 1, 2"):
        choose(found, {name: value for name, value in whole.items() if name != "stages.0.depth"})
    with pytest.raises(ConfigError, match="no subnet"):
        found.chosen_by("elastic:4,width=8-8-8,depth=1,kernel=3,expansion=1,resolution=8")
    with pytest.raises(ModelError, match="no elastic layers"):
        space_of(nn.Linear(2, 2))

"""Exemplars: how herding chooses, and of what."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from training.tiny_state import labelled_images, small_network

import corank
from corank.errors import ConfigError, DataError
from corank.verbs.exemplars import choose_exemplars, herded

FEATURES = torch.randn(30, 6, generator=torch.Generator().manual_seed(0)) + 0.5


def apart(chosen: torch.Tensor) -> float:
    unit = F.normalize(FEATURES.double(), dim=1)
    return float((unit[chosen].mean(0) - unit.mean(0)).norm())


def test_the_first_is_the_one_closest_to_the_mean() -> None:
    unit = F.normalize(FEATURES.double(), dim=1)
    assert int(herded(FEATURES, 1)) == int((unit - unit.mean(0)).norm(dim=1).argmin())


def test_each_is_the_best_beside_those_before_it() -> None:
    chosen = herded(FEATURES, 5)
    for count in range(1, 6):
        others = [one for one in range(30) if one not in chosen[: count - 1]]
        best = min(others, key=lambda one: apart(torch.tensor([*chosen[: count - 1].tolist(), one])))
        assert int(chosen[count - 1]) == best


def test_a_shorter_choice_is_the_beginning_of_a_longer_one_and_none_comes_twice() -> None:
    whole = herded(FEATURES, 100)
    assert sorted(whole.tolist()) == list(range(30))
    assert torch.equal(herded(FEATURES, 7), whole[:7])
    assert torch.equal(herded(5 * FEATURES, 7), whole[:7])  # of unit length


def test_their_mean_is_closer_than_that_of_random_ones() -> None:
    drawn = [apart(torch.randperm(30, generator=torch.Generator().manual_seed(seed))[:5]) for seed in range(20)]
    assert apart(herded(FEATURES, 5)) < min(drawn)


@pytest.mark.parametrize("method", ["herding", "random"])
def test_both_forms_of_data_give_the_same(method: str) -> None:
    torch.manual_seed(0)
    data, model = labelled_images(32), small_network().eval()
    found = choose_exemplars(model, data, 3, method=method, seed=4)
    assert found.labels is not None and found.labels.tolist() == [kind for kind in range(4) for _ in range(3)]
    inputs, labels = choose_exemplars(model, (data.tensor(), torch.from_numpy(data.labels)), 3, method=method, seed=4)
    assert torch.equal(inputs, found.tensor()) and labels.tolist() == found.labels.tolist()
    assert len(np.unique(found.indices)) == 12
    assert len(choose_exemplars(model, data, 100, method=method)) == 32


def test_random_ones_hang_on_the_seed_and_coded_networks_have_features_too() -> None:
    torch.manual_seed(0)
    data, model = labelled_images(32), small_network().eval()
    one, same, other = (choose_exemplars(model, data, 3, method="random", seed=seed).indices for seed in (1, 1, 2))
    assert one.tolist() == same.tolist() != other.tolist()
    small = corank.quantize(model, data, bits=8, budget=0)
    assert len(choose_exemplars(small, data, 2)) == 8


def test_bad_input() -> None:
    data, model = labelled_images(8), small_network().eval()
    with pytest.raises(ConfigError, match="'herding', 'random'"):
        choose_exemplars(model, data, 2, method="best")
    with pytest.raises(ConfigError, match="per_class=0"):
        choose_exemplars(model, data, 0)
    with pytest.raises(DataError, match="no labels"):
        choose_exemplars(model, corank.data.ImageSet(data.source, data.preprocessing), 2)
    with pytest.raises(DataError, match="not a list"):
        choose_exemplars(model, [data], 2)
    with pytest.raises(DataError, match="one for each sample"):
        choose_exemplars(model, (data.tensor(), torch.zeros(3, dtype=torch.int64)), 2)
    tokens = nn.Sequential(nn.Linear(8, 4)).eval()
    with pytest.raises(DataError, match="one row of features"):
        choose_exemplars(tokens, data, 2)

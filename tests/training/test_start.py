"""What a training starts from."""

from __future__ import annotations

import torch
from training.tiny_state import labelled_images, small_network

from corank.codecs import KMeans
from corank.training.recipe import Recipe
from corank.training.weights import DirectLevels, StraightThrough
from corank.verbs.train import train


def test_levels_of_a_row_take_a_norms_gain() -> None:
    """Among them a gain of zero, whose row says nothing of the weight."""
    network = small_network().eval()
    with torch.no_grad():
        network[1].running_mean.normal_()
        network[1].running_var.uniform_(0.5, 2.0)
        network[1].weight.normal_()
        network[1].weight[2] = 0
    for weights, start in (
        (StraightThrough(KMeans(2, "row", scaled=False)), "codes"),
        (DirectLevels(2, "row"), "float"),
        (DirectLevels(2, "layer"), "float"),
    ):
        recipe = Recipe(weights=weights, start=start)
        found = train(network, labelled_images(), recipe, iterations=3, batch_size=8, all_layers=True)
        assert isinstance(found[1], torch.nn.Identity)

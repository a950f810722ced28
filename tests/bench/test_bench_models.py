"""The networks of bench/models.py are those whose weights were published."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

FACTORIES = runpy.run_path(str(Path(__file__).parents[2] / "bench" / "models.py"))


@pytest.mark.parametrize(("depth", "parameters"), [(20, 269_722), (56, 853_018)])
def test_parameter_count_is_that_of_the_paper(depth: int, parameters: int) -> None:
    model = FACTORIES[f"cifar_resnet{depth}"]()
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize(("depth", "score"), [(20, 0.915), (56, 0.926)])
def test_published_weights_score_as_published(depth: int, score: float, shared: Path) -> None:
    model = FACTORIES[f"cifar_resnet{depth}"]().eval()
    model.load_state_dict(load_file(shared / "models" / f"cifar10_resnet{depth}.safetensors"))
    data = np.load(shared / "data" / "cifar10_exact.npz")
    images = torch.from_numpy(data["x_test"][:500]).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        logits = model((images - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    correct = (logits.argmax(1).numpy() == data["y_test"][:500]).mean()
    assert correct == pytest.approx(score, abs=0.02)

"""The loop over two processes against one, and over parts of a batch."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from corank.data import load as load_images
from corank.models.digits import digits_net
from corank.training.recipe import Recipe
from corank.verbs.train import train

SCRIPT = """
import sys, torch
from safetensors.torch import save_file
sys.path.insert(0, sys.argv[2])
from test_loop import found
from corank.processes import init_processes, is_main
torch.set_num_threads(1)
init_processes()
tensors = found()
if is_main():
    save_file(tensors, sys.argv[1])
"""
WAYS: dict[str, tuple[dict[str, Any], int]] = {
    "adapting": ({"norms": "adapt"}, 0),
    "frozen in parts": ({"norms": "frozen", "augment": "none", "loss": "both"}, 5),
}


def found() -> dict[str, Tensor]:
    """Losses of the steps and outputs of the networks that some ways of training end in."""
    images = load_images("digits:train").sample(150, 0)
    result: dict[str, Tensor] = {}
    for name, (fields, parts) in WAYS.items():
        # No even number for two; codes of quantize itself differ where sums in another order move one midway.
        recipe = Recipe(iterations=6, batch_size=33, precision="float32", start="float", **fields)
        model = train(digits_net(), images, recipe, parts=parts)
        result[f"{name}: losses"] = torch.tensor([step["loss"] for step in vars(model)["corank_run"].history])
        with torch.no_grad():
            result[f"{name}: outputs"] = model(images.tensor())
    return result


@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="needs accelerate")
def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launcher, str(script), str(tmp_path / "two"), str(Path(__file__).parent)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    two, one = load_file(tmp_path / "two"), found()
    for name, expected in one.items():  # where sums in another order move a code, by some thousandths
        assert float((two[name] - expected).norm() / expected.norm()) < 1e-2, name


def test_parts_of_a_batch_add_up_to_it() -> None:
    images = load_images("digits:train").sample(64, 0)
    recipe = Recipe(iterations=3, batch_size=20, precision="float32", norms="frozen")
    losses = []
    for parts in (0, 7):
        model = train(digits_net(), images, recipe, parts=parts)
        losses.append(torch.tensor([step["loss"] for step in vars(model)["corank_run"].history]))
    assert torch.allclose(losses[0], losses[1], rtol=1e-3)


def test_kept_teacher_outputs_train_the_same_and_are_found_again(tmp_path: Path) -> None:
    model, images = digits_net(), load_images("digits:train").sample(64, 0)
    recipe = Recipe(iterations=4, batch_size=32, precision="float32", augment="none")
    kept, often = train(model, images, recipe), train(model, images, recipe.replaced(iterations=2))
    first = [vars(one)["corank_run"].history[:2] for one in (kept, often)]  # of two steps nothing is kept
    assert first[0][0]["loss"] == pytest.approx(first[1][0]["loss"], rel=1e-4)
    again = train(model, images, recipe, checkpoint=tmp_path)
    same = zip(kept.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in same)
    assert isinstance(model, nn.Module) and not (tmp_path / "teacher").exists()  # they fit in memory

"""Two processes under torchrun against one: the same statistics, and the same model within float tolerance."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import corank
from corank.calibration import Samples, collect, collect_gradients
from corank.data import load as load_images
from corank.models.digits import digits_net
from corank.processes import (
    all_reduce,
    broadcast,
    from_main,
    is_main,
    number_of_processes,
    own_part,
    process_here,
    processes_here,
    shard,
)
from corank.refine import Refinement
from corank.statistics import Gram

LAYER = "head"

SCRIPT = """
import sys, torch, corank
from safetensors.torch import save_file
sys.path.insert(0, sys.argv[2])
from test_processes import found
from corank.processes import init_processes, is_main
torch.set_num_threads(1)
init_processes()
tensors = found()
if is_main():
    save_file(tensors, sys.argv[1])
"""


def found() -> dict[str, Tensor]:
    """What one run finds: moments, sensitivities, and the outputs of a fast and a refined network."""
    images = load_images("digits:train").tensor()[:150]
    model = digits_net().eval()
    samples = Samples.of(images, 150, 16)
    targets: dict[str, nn.Module] = {LAYER: model.get_submodule(LAYER)}
    gram = collect(model, targets, samples)[LAYER][Gram]
    assert isinstance(gram, Gram)
    gradient = collect_gradients(model, targets, samples)[LAYER]
    result = {"gram": gram.matrix, "mean": gram.mean, "gradient": gradient.matrix}
    how = Refinement(8, 32, code_rate=0.0, precision="float32")
    for name, tuning in (("coded", None), ("refined", how)):
        quantized = corank.quantize(model, images, bits=4, search="greedy", refinement=tuning, batch_size=16)
        with torch.no_grad():
            result[name] = quantized(images)
    return result


@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="needs accelerate")
def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launcher, str(script), str(tmp_path / "two"), str(Path(__file__).parent)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    two, one = load_file(tmp_path / "two"), found()
    for name in ("gram", "mean", "gradient"):
        assert torch.allclose(two[name], one[name], rtol=1e-4, atol=1e-4 * float(one[name].abs().max())), name
    for name in ("coded", "refined"):  # sums in another order may move a code that lies midway
        assert float((two[name] - one[name]).norm() / one[name].norm()) < 0.02, name


def test_one_process_shares_with_nobody() -> None:
    assert number_of_processes() == 1 and is_main()
    assert shard("abc") == [(0, "a"), (1, "b"), (2, "c")]
    values = torch.ones(3)
    all_reduce([values])
    broadcast(values, 0)
    assert torch.equal(values, torch.ones(3))
    assert own_part(7) == (0, 7) and process_here() == 0


@pytest.mark.parametrize(("count", "processes"), [(7, 2), (128, 3), (1, 4), (0, 2)])
def test_parts_of_processes_are_even_and_leave_nothing_out(
    count: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    for rank in range(processes):
        monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
        monkeypatch.setattr("torch.distributed.get_world_size", lambda: processes)
        monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
        start, length = own_part(count)
        assert count // processes <= length <= -(-count // processes)
        taken += range(start, start + length)
    assert taken == list(range(count))


APART = """
import sys
from pathlib import Path
import torch
import torch.distributed as dist
from corank.checkpoint import Checkpoint
from corank.errors import ConfigError
from corank.processes import init_processes
init_processes()
folder = Path(sys.argv[1]) / str(dist.get_rank())  # disks of their own
kept = Checkpoint(folder, {"seed": 1})
kept.save("one", {"a": torch.full((2,), 3.0)}, {"rank": 2})
found = kept.load("one")
assert found is not None and found[0]["a"].tolist() == [3.0, 3.0] and found[1] == {"rank": 2}
assert kept.load("two") is None
try:
    Checkpoint(folder, {"seed": 2})
    raise SystemExit("it was not refused")
except ConfigError as error:
    assert "seed differs" in str(error)
dist.barrier()
"""


@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="needs accelerate")
def test_all_processes_know_what_the_main_one_kept(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(APART)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*launcher, str(script), str(tmp_path)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["0"]


def test_the_only_process_decides() -> None:
    assert from_main(lambda: 3) == 3 and processes_here() == 1
    with pytest.raises(ValueError, match="no"):
        from_main(lambda: int("no"))

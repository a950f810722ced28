"""Norms over two processes against one process that holds the whole batch."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from corank.errors import ModelError
from corank.processes import number_of_processes, shard
from corank.training import synchronized
from corank.training.synchronized import all_reduced, synchronized_norms

SCRIPT = """
import sys, torch
from safetensors.torch import save_file
sys.path.insert(0, sys.argv[2])
from test_synchronized import found
from corank.processes import init_processes
import torch.distributed as dist
torch.set_num_threads(1)
init_processes()
for dtype in (torch.float32, torch.float64):
    save_file(found(dtype), f"{sys.argv[1]}.{dtype}.{dist.get_rank()}")
dist.barrier()
"""
PARTS = (slice(0, 5), slice(5, 7))  # of unequal size


class Net(nn.Module):
    """A norm of each kind, with and without momentum, affine and running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm2d(3, momentum=0.3)
        self.conv = nn.Conv2d(3, 4, 3)
        self.second = nn.BatchNorm2d(4, momentum=None, affine=False)
        self.volume = nn.BatchNorm3d(2)
        self.head = nn.Linear(36, 6)
        self.bare = nn.BatchNorm1d(6, track_running_stats=False)
        self.frozen = nn.BatchNorm1d(6).eval()

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.second(self.conv(self.first(x))))
        y = self.volume(y.view(-1, 2, 2, 3, 3)).flatten(1)
        return self.frozen(self.bare(self.head(y)).square())


def found(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Outputs, running statistics and gradients after two passes, of this process's part where there are two."""
    torch.manual_seed(3)
    model, whole = Net().to(dtype), torch.randn(2, 7, 3, 5, 5).to(dtype) * 3 + 50  # E[x²] - E[x]² would not survive it
    target = torch.randn(7, 6).to(dtype)
    part = shard(PARTS)[0][1] if number_of_processes() > 1 else slice(None)
    with synchronized_norms(model):
        model(whole[0, part])
        given = whole[1, part].clone().requires_grad_()
        output = model(given)
        (output * target[part]).square().sum().backward()
    grads = {f"grad:{name}": value.grad for name, value in model.named_parameters() if value.grad is not None}
    if number_of_processes() > 1:
        grads = {name: all_reduced(value) for name, value in grads.items()}
    assert given.grad is not None and type(model.first) is nn.BatchNorm2d
    return {"output": output.detach(), "given": given.grad, **dict(model.named_buffers()), **grads}


@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="needs accelerate")
def test_two_processes_normalise_as_one_does(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launcher, str(script), str(tmp_path / "two"), str(Path(__file__).parent)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for dtype, near in ((torch.float32, 1e-5), (torch.float64, 1e-11)):
        two, one = [load_file(tmp_path / f"two.{dtype}.{rank}") for rank in (0, 1)], found(dtype)
        for name, expected in one.items():
            if name in ("output", "given"):
                given = torch.cat([two[0][name], two[1][name]])
            else:
                given = two[0][name]
                assert torch.equal(given, two[1][name]), name
            if not name.startswith("grad:") or dtype == torch.float64:  # those of biases before a norm are all noise
                assert torch.allclose(given, expected, rtol=near, atol=near * max(1, expected.abs().max())), name


@pytest.fixture
def swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The swap, though there is one process, over which sums are what they are."""
    monkeypatch.setattr(synchronized, "number_of_processes", lambda: 2)


@pytest.mark.usefixtures("swapped")
def test_one_process_normalises_as_torch_does() -> None:
    plain, ours = Net(), Net()
    ours.load_state_dict(plain.state_dict())
    images = torch.randn(2, 7, 3, 5, 5)
    with synchronized_norms(ours):
        assert isinstance(ours.first, nn.BatchNorm2d) and type(ours.first) is not nn.BatchNorm2d
        for x in images:
            one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
            expected, given = plain(one), ours(other)
            assert torch.allclose(given, expected, atol=1e-5)
            (expected.sin().sum() + given.sin().sum()).backward()
            assert torch.allclose(other.grad, one.grad, atol=1e-5)  # pyright: ignore[reportArgumentType]
    for (name, value), expected in zip(ours.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.allclose(value, expected, atol=1e-6), name
    assert type(ours.first) is nn.BatchNorm2d


@pytest.mark.usefixtures("swapped")
def test_second_derivatives_pass() -> None:
    norm = nn.BatchNorm1d(3).double()
    with synchronized_norms(norm):
        assert torch.autograd.gradgradcheck(norm, torch.randn(5, 3, dtype=torch.float64, requires_grad=True))


@pytest.mark.usefixtures("swapped")
def test_half_precision_is_normalised_in_float32() -> None:
    norm, images = nn.BatchNorm2d(3), (torch.randn(8, 3, 4, 4) + 9).bfloat16()
    with synchronized_norms(norm), torch.autocast("cpu", torch.bfloat16):
        found = norm(images)
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), nn.BatchNorm2d(3)(images.float()), atol=2e-2)


@pytest.mark.usefixtures("swapped")
def test_an_empty_part_gives_an_empty_output() -> None:
    norm = nn.BatchNorm2d(3)
    with synchronized_norms(norm):
        assert norm(torch.zeros(0, 3, 4, 4)).shape == (0, 3, 4, 4)


@pytest.mark.usefixtures("swapped")
def test_timms_norm_with_activation() -> None:
    pytest.importorskip("timm")
    from timm.layers import BatchNormAct2d

    plain, ours = BatchNormAct2d(3), BatchNormAct2d(3)
    images = torch.randn(6, 3, 4, 4)
    with synchronized_norms(ours):
        assert torch.allclose(ours(images), plain(images), atol=1e-6)
    assert torch.allclose(ours.running_var, plain.running_var)


@pytest.mark.usefixtures("swapped")
def test_a_norm_of_another_kind_is_refused_and_nothing_stays_swapped() -> None:
    class Own(nn.BatchNorm2d):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) + 1

    model = nn.Sequential(nn.BatchNorm2d(3), Own(3))
    with (
        pytest.raises(ModelError, match=r"the norm '1' is a Own .* Recipe\(norms='frozen'\)"),
        synchronized_norms(model),
    ):
        pass
    assert type(model[0]) is nn.BatchNorm2d
    with synchronized_norms(model.eval()):
        pass


def test_a_single_process_changes_nothing() -> None:
    model = Net()
    with synchronized_norms(model):
        assert type(model.first) is nn.BatchNorm2d

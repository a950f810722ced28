"""Compressed sensing by QPAN at 32, 4, 2 and 1 bits, beside ISTA, FISTA and ADMM of as many iterations.

    python bench/qpan.py [--steps 1000] [--layers 10] [--seeds 3] [--record FILE]
    python bench/qpan.py --photographs DIR [--picture FILE.png]     # image patches, 25 % of the measurements

Signals: 64 samples, piecewise constant (first differences are sparse), 32 Gaussian measurements with 40 dB of noise.
Photographs: grey 8 x 8 patches, sparse under the cosine transform, 16 measurements of each; of every fifth photograph.
The classical methods get the threshold that is best on the training signals, from 25; NMSE and PSNR are of others.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import corank
from corank.models.proximal import proximal_l1
from corank.models.qpan import QPAN, ProximalAverage
from corank.training.recipe import Optimizer, Recipe
from corank.training.recipes import chosen_recipe

BITS = {4: "lsq-4bit", 2: "ternary-2bit", 1: "stats-1bit"}  # from 2 bits on with a zero, of which D is made
_FLOAT = Recipe(weights=None, edge=None, edge_inputs=None, start="float", loss="labels", precision="float32")
SIDE = 8


def cosine(size: int) -> Tensor:
    """The orthonormal cosine transform ``(size, size)``."""
    place = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(math.pi / size * (place[None] + 0.5) * place[:, None]) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix.float()


def nmse(found: Tensor, true: Tensor) -> float:
    """In dB: the energy of the error over that of the signals."""
    return 10 * math.log10(float((found - true).square().sum() / true.square().sum()))


def classical(a: Tensor, d: Tensor, steps: int) -> dict[str, Callable[[Tensor, float], Tensor]]:
    """ISTA and FISTA of ``u = D x`` (D is invertible), and ADMM, as functions of measurements and threshold."""
    synthesis = torch.linalg.inv(d.double()).float()
    seen = a @ synthesis
    largest = float(torch.linalg.matrix_norm(seen, 2) ** 2)
    inverse = torch.linalg.inv((a.T @ a + d.T @ d).double()).float()

    def ista(y: Tensor, threshold: float, fast: bool = False) -> Tensor:
        u = ahead = torch.zeros(len(y), len(d))
        t = 1.0
        for _ in range(steps):
            before = u
            u = proximal_l1(ahead - (ahead @ seen.T - y) @ seen / largest, torch.tensor(threshold / largest))
            after = (1 + math.sqrt(1 + 4 * t * t)) / 2
            ahead, t = (u + (t - 1) / after * (u - before), after) if fast else (u, t)
        return u @ synthesis.T

    def admm(y: Tensor, threshold: float) -> Tensor:
        u = v = torch.zeros(len(y), len(d))
        for _ in range(steps):
            x = (y @ a + (u - v) @ d) @ inverse
            u = proximal_l1(x @ d.T + v, torch.tensor(threshold))
            v = v + x @ d.T - u
        return (y @ a + (u - v) @ d) @ inverse

    return {"ISTA": ista, "FISTA": lambda y, t: ista(y, t, True), "ADMM": admm}


def compared(a: Tensor, d: Tensor, signals: tuple[Tensor, Tensor], options: argparse.Namespace, seed: int) -> Any:
    """NMSE in dB and bytes of every method on the second signals, and what recovers them by name."""
    torch.manual_seed(seed)
    train, test = signals
    noise = options.noise * (train @ a.T).std()
    measured = train @ a.T + noise * torch.randn(len(train), len(a))
    y = test @ a.T + noise * torch.randn(len(test), len(a))
    found: dict[str, Any] = {}
    recover: dict[str, Callable[[Tensor], Tensor]] = {}
    for name, method in classical(a, d, options.layers).items():
        some = slice(0, 2000)
        grid = torch.logspace(-4, 1, 25).tolist()
        best = min(grid, key=lambda t: nmse(method(measured[some], t), train[some]))
        recover[name] = lambda y, method=method, best=best: method(y, best)
        found[name] = {"nmse": nmse(recover[name](y), test)}
    pairs = [(measured[i : i + 256], train[i : i + 256]) for i in range(0, len(train), 256)]
    given: dict[str, Any] = {"batch_size": 256, "loss": F.mse_loss, "seed": seed, "iterations": options.steps}
    start = QPAN(
        a, d, options.layers, ProximalAverage(threshold=best)
    )  # ADMM's, the last: training starts from the method itself
    recipe = _FLOAT.replaced(optimizer=Optimizer("adam", rate=1e-3, step_rate=1.0))
    network = corank.train(start, pairs, recipe, **given)
    found["QPAN"] = {"nmse": nmse(network(y), test), "bytes": 4 * sum(p.numel() for p in network.parameters())}
    recover["QPAN"] = network
    for bits, name in BITS.items():
        low = chosen_recipe(name).replaced(loss="labels", precision="float32", optimizer=Optimizer("adam", rate=1e-3))
        small = corank.train(network, pairs, low, **given)
        found[f"QPAN, {bits} bits"] = {"nmse": nmse(small(y), test), "bytes": _bytes(small)}
        recover[f"QPAN, {bits} bits"] = small
    return found, recover, noise


def _bytes(model: nn.Module) -> int:
    with tempfile.TemporaryDirectory() as folder:
        return corank.save(model, Path(folder) / "qpan.safetensors")


def synthetic(seed: int) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """``A``, ``D`` and signals to train and test on."""
    torch.manual_seed(100 + seed)
    n, m, count = 64, 32, 22_000
    jumps = torch.randn(count, n) * (torch.rand(count, n) < 0.08)
    signals = jumps.cumsum(1)
    difference = torch.eye(n) - torch.diag(torch.ones(n - 1), -1)
    return torch.randn(m, n) / m**0.5, difference, (signals[:20_000], signals[20_000:])


def photographs(folder: Path) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor], list[Tensor]]:
    """The same of photographs, and those that test as grey pictures ``(H, W)`` of 0 to 1."""
    with zipfile.ZipFile(folder / "data" / "imagenet_sample.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[::5]
        grey = [np.asarray(Image.open(archive.open(name)).convert("L"), dtype=np.float32) / 255 for name in names]
    pictures = [torch.from_numpy(one[: len(one) // SIDE * SIDE, : one.shape[1] // SIDE * SIDE]) for one in grey]
    test = pictures[::5]
    train = torch.cat([blocks(one) for place, one in enumerate(pictures) if place % 5])
    torch.manual_seed(7)
    train = train[torch.randperm(len(train))[:40_000]]
    # the mean of a patch is one of its measurements, as every camera of this kind takes it; others are random
    random = torch.linalg.qr(torch.randn(SIDE * SIDE, SIDE * SIDE // 4))[0].T
    random[0] = 1 / SIDE
    measuring = torch.linalg.qr(random.T)[0].T
    return measuring, torch.kron(cosine(SIDE), cosine(SIDE)), (train, torch.cat([blocks(one) for one in test])), test


def blocks(picture: Tensor) -> Tensor:
    """``(H, W)`` as its patches ``(N, 64)``."""
    return picture.unfold(0, SIDE, SIDE).unfold(1, SIDE, SIDE).reshape(-1, SIDE * SIDE)


def joined(rows: Tensor, like: Tensor) -> Tensor:
    """The inverse of :func:`blocks`."""
    high, wide = like.shape[0] // SIDE, like.shape[1] // SIDE
    return rows.reshape(high, wide, SIDE, SIDE).permute(0, 2, 1, 3).reshape(like.shape)


def psnr(found: Tensor, true: Tensor) -> float:
    """In dB, of a range of 1."""
    return -10 * math.log10(float((found.clamp(0, 1) - true).square().mean()))


def drawn(path: Path, rows: dict[str, Tensor], true: Tensor) -> None:
    """Pictures side by side, with what each lost."""
    figure, axes = plt.subplots(2, math.ceil((len(rows) + 1) / 2), figsize=(12, 7), layout="constrained")
    told = {"photograph": true, **rows}
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, picture) in zip(axes.flat, told.items(), strict=False):
        axis.imshow(picture.clamp(0, 1), cmap="gray", vmin=0, vmax=1)
        axis.set_title(name if name == "photograph" else f"{name}: {psnr(picture, true):.2f} dB", fontsize=11)
    figure.savefig(path, dpi=110)


def run_photographs(options: argparse.Namespace) -> dict[str, Any]:
    a, d, signals, test = photographs(options.photographs)
    found, recover, noise = compared(a, d, signals, options, 0)
    torch.manual_seed(1)
    for name, how in recover.items():
        with torch.no_grad():
            rows = [joined(how(blocks(one) @ a.T + noise * torch.randn(len(blocks(one)), len(a))), one) for one in test]
        found[name]["psnr"] = statistics.mean(psnr(row, one) for row, one in zip(rows, test, strict=True))
        found[name]["picture"] = rows[options.number]
    pictures = {name: one.pop("picture") for name, one in found.items()}
    if options.picture:
        drawn(options.picture, pictures, test[options.number])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--noise", type=float, default=0.01, help="of measurements, times their standard deviation")
    parser.add_argument("--photographs", type=Path, metavar="DIR", help="folder of real data")
    parser.add_argument("--picture", type=Path, help="of one photograph that tests, recovered by each")
    parser.add_argument("--number", type=int, default=8, help="which photograph")
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.photographs:
        runs = [run_photographs(options)]
    else:
        runs = [compared(*synthetic(seed), options, seed)[0] for seed in range(options.seeds)]
    print("| Method | NMSE, dB | PSNR, dB | Bytes |\n|---|---:|---:|---:|")
    for name in runs[0]:
        scores = [run[name]["nmse"] for run in runs]
        spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
        seen = f"{runs[0][name]['psnr']:.2f}" if "psnr" in runs[0][name] else ""
        size = f"{runs[0][name]['bytes']:,}" if "bytes" in runs[0][name] else ""
        print(f"| {name} | {statistics.mean(scores):.2f}{spread} | {seen} | {size} |")
    if options.record:
        options.record.write_text(json.dumps(runs, indent=1) + "\n")


if __name__ == "__main__":
    main()

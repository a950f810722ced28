"""Trains the network of `corank demo` from scratch and writes the weights that the package ships.

    python bench/train_digits.py [--seed 0] [--epochs 60] [--out src/corank/models/digits.safetensors]

Data: scikit-learn's 1,797 digits; every fourth image (index 3, 7, 11, ...) is kept for the test, which
decides nothing during training. Deterministic for a seed on one machine; under a minute on one core.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from corank.models.digits import DigitsNet

WEIGHTS = Path(__file__).parent.parent / "src/corank/models/digits.safetensors"


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images (N, 1, 8, 8) in 0..1 and labels (N,), then those of the test."""
    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    images = torch.from_numpy(pixels).unsqueeze(1).float() / 255
    labels = torch.from_numpy(bunch.target).long()
    test = torch.arange(len(labels)) % 4 == 3
    return images[~test], labels[~test], images[test], labels[test]


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image turned (up to 12 degrees), scaled (8 %) and shifted (up to one pixel) at random."""
    count = len(images)

    def uniform(limit: float) -> Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * limit

    angle, scale = uniform(math.radians(12)), 1 + uniform(0.08)
    cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
    pixel = 2 / images.shape[-1]
    rows = torch.stack([cosine, -sine, uniform(pixel), sine, cosine, uniform(pixel)], dim=1)
    grid = F.affine_grid(rows.view(count, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def train(images: Tensor, labels: Tensor, epochs: int, seed: int) -> nn.Module:
    """AdamW with a one-cycle schedule and label smoothing."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = DigitsNet()
    size = 64
    steps = epochs * (len(images) // size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for start in range(0, len(images) - size + 1, size):
            batch = order[start : start + size]
            logits = model(augment(images[batch], generator))
            loss = F.cross_entropy(logits, labels[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}/{epochs}  loss {loss.item():.4f}", flush=True)
    return model.eval()


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Top-1 in percent."""
    with torch.no_grad():
        return 100 * (model(images).argmax(1) == labels).float().mean().item()


def write(model: nn.Module, path: Path) -> None:
    """The state in fp16 (counters as they are), put in place in one step."""
    state = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    temporary = path.with_name(path.name + ".partial")
    temporary.write_bytes(save(state))
    os.replace(temporary, path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the digits network that corank ships.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # so small a network gains nothing from more
    torch.use_deterministic_algorithms(True)
    images, labels, test_images, test_labels = digits()
    started = time.perf_counter()
    model = train(images, labels, arguments.epochs, arguments.seed)
    write(model, arguments.out)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{count} parameters, {time.perf_counter() - started:.0f} s, {arguments.out.stat().st_size} bytes")
    print(f"train {accuracy(model, images, labels):.2f} %")
    print(f"test {accuracy(model, test_images, test_labels):.2f} %")


if __name__ == "__main__":
    main()

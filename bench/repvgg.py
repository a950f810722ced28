"""A small RepVGG of A0's shape on CIFAR-10 (JPEG): int8 and int6, plain and split kernels, each input range.

    python bench/repvgg.py --shared DIR [--epochs 6] [--weights FILE] [--out results.json]

Trains the network once (kept in --weights), fuses it, and codes weights and inputs with preset ``nearest`` and 32
calibration images, as the authors of coarse and fine weight splitting do (arXiv 2312.10588). A fused network is split
in every 3x3 convolution.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

import corank
from corank.codecs import Uniform
from corank.layers import centre_codecs, split_centres
from corank.models.repvgg import RepVgg, fuse_repvgg
from corank.models.weights import load_weights

sys.path.insert(0, str(Path(__file__).parent))
from cifar_task import CifarTask

DEPTHS, WIDTHS = (1, 2, 4, 6, 1), (16, 16, 32, 64, 128)


def trained(images: Tensor, labels: Tensor, epochs: int, batch: int = 128) -> nn.Module:
    """One-cycle SGD with flips and shifts; deterministic on one machine."""
    torch.manual_seed(0)
    model = RepVgg(DEPTHS, WIDTHS, 10, small_images=True).train()
    decayed = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, 0.1, momentum=0.9, nesterov=True)
    steps = epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
    started = time.perf_counter()
    for epoch in range(epochs):
        order = torch.randperm(len(images))
        for number, chosen in enumerate(order[: len(order) - len(order) % batch].split(batch)):
            shifted = functional.pad(images[chosen], (4, 4, 4, 4))
            down, right = (int(place) for place in torch.randint(9, (2,)))
            view = shifted[:, :, down : down + 32, right : right + 32]
            view = view.flip(3) if number % 2 else view
            loss = functional.cross_entropy(model(view), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(
            f"epoch {epoch + 1} of {epochs}, loss {loss.item():.3f}, {time.perf_counter() - started:.0f} s", flush=True
        )
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--weights", type=Path, default=Path("build/repvgg.safetensors"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/repvgg.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = CifarTask.of(options.shared, 20, labelled=True)
    if not options.weights.exists():
        images, labels = (torch.cat(parts) for parts in zip(*task.train.batches(500), strict=True))
        options.weights.parent.mkdir(parents=True, exist_ok=True)
        save_file(trained(images, labels, options.epochs).state_dict(), options.weights)
    model = RepVgg(DEPTHS, WIDTHS, 10, small_images=True).eval()
    load_weights(model, options.weights)
    fused = fuse_repvgg(model)
    results = {"float": corank.evaluate(fused, task.test).top1}
    print(f"float {results['float']:.2f}")
    for bits in (8, 6):
        for kind in ("plain", "split"):
            float_model = split_centres(fused, bits, dominance=0) if kind == "split" else fused
            codecs = centre_codecs(float_model, bits) if kind == "split" else {"*": Uniform(bits, symmetric=True)}
            for clip in ("minmax", "kl", "kl-mass", "mse"):
                for seed in range(options.seeds):
                    small = corank.quantize(
                        float_model, task.train, bits=bits, budget=0, activations=bits, activation_range=clip,
                        preset="nearest", layers={**codecs, "head": 8}, samples=32, seed=seed, all_layers=True,
                    )  # fmt: skip
                    score = corank.evaluate(small, task.test).top1
                    results[f"int{bits} {kind} {clip}/{seed}"] = score
                    print(f"int{bits} {kind:<6} {clip:<8} seed {seed}: {score:.2f}", flush=True)
                    options.out.parent.mkdir(parents=True, exist_ok=True)
                    options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""What coding the codes saves: bytes by coder, distance from the entropy, decode speed; and a pruned layer.

    python bench/entropy.py --shared DIR [--bits 4,3,2] [--out results.json]

Trained networks are rounded by preset `nearest` (and ResNet-20 by `fast`, on 64 images), saved by every coder, loaded
again and compared bit for bit. Speeds are of one thread, in millions of codes a second, which is MB/s of codes in a
byte each; "load" reads a whole file. The pruned layer is a VGG-style fully connected one of random normal weights:
the largest 3 % are kept and clustered to 31 values beside zero.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import corank
from corank.codecs import KMeans
from corank.models import resolve
from corank.models.weights import load_weights
from corank.plan import LayerPlan
from corank.storage.artifact import read_coded
from corank.storage.coders import CODERS, entropy
from corank.storage.coders.ham import dictionary_bits
from corank.storage.contents import contents_of
from corank.storage.entropy_coding import encode_contents, relative_codes
from corank.storage.model_record import run_of

sys.path.insert(0, str(Path(__file__).parent))
from models import cifar_resnet20

Row = dict[str, Any]
NAMES = ("fixed", "auto", "deflate", "huffman", "ham", "ans", "rans")


def networks(shared: Path) -> Iterator[tuple[str, Callable[[], nn.Module], Any, dict[str, Any]]]:
    """Name, float network, calibration samples and how it is quantized."""

    def resnet() -> nn.Module:
        model = cifar_resnet20().eval()
        load_weights(model, shared / "models/cifar10_resnet20.safetensors")
        return model

    def squeezenet() -> nn.Module:
        weights = shared / "models/squeezenet1_1_fp16.safetensors"
        return resolve("torchvision:squeezenet1_1", weights=weights).model

    def language_model() -> nn.Module:
        return resolve(f"hf:{shared / 'models/stories260k'}").model

    pictures = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    yield "ResNet-20", resnet, pictures, {"preset": "nearest"}
    yield "ResNet-20, fast + 0.25", resnet, pictures, {"preset": "fast", "search": "uniform"}
    yield "SqueezeNet 1.1", squeezenet, torch.randn(2, 3, 224, 224), {"preset": "nearest"}
    yield "stories260k", language_model, torch.randint(0, 512, (2, 64)), {"preset": "nearest"}


def measure(model: nn.Module, inputs: Any, settings: dict[str, Any], bits: int, folder: Path) -> Row:
    """Sizes of all coders for one network at one width."""
    small = corank.quantize(model, inputs, bits=bits, **settings)
    run = run_of(small)
    contents = contents_of(small, run)
    weights = run.weights
    counted = [(codes, 1 << width) for _, codes, width in relative_codes(run, contents)]
    row: Row = {
        "bits": sum(codes.numel() * (levels - 1).bit_length() for codes, levels in counted) / weights,
        "entropy": sum(codes.numel() * entropy(codes, levels) for codes, levels in counted) / weights,
        "coders": {},
    }
    for name in NAMES:
        started = time.process_time()
        runs = encode_contents(run, contents, name)[1]
        seconds = time.process_time() - started
        file_bytes = corank.save(small, folder / name, coder=name)
        again = corank.load(folder / name, model)
        for key, tensor in small.state_dict().items():
            assert torch.equal(again.state_dict()[key], tensor), f"{name}: {key} differs"
        of_weights = [part for part in runs if part.slot == "codes"]
        codes = sum(part.shape[0] * part.shape[1] for part in runs)
        row["coders"][name] = {
            "file_bytes": file_bytes,
            "bits_per_code": 8 * sum(part.size_bytes for part in of_weights) / weights,
            "encode": codes / 1e6 / seconds,
            "decode": decode_speed(counted, name) if name not in ("auto", "fixed") else None,
            "load_ms": 1e3 * fastest(lambda name=name: read_coded(folder / name)),
        }
    return row


def fastest(what: Callable[[], Any], times: int = 5) -> float:
    """Seconds of computing, the least of several runs."""
    taken = []
    for _ in range(times):
        started = time.process_time()
        what()
        taken.append(time.process_time() - started)
    return min(taken)


def decode_speed(layers: list[tuple[Tensor, int]], name: str) -> float:
    """Millions of codes a second, all layers one after another."""
    coder = CODERS[name]()
    coded = [(coder.encode(codes, levels), (codes.shape[0], codes.shape[1]), levels) for codes, levels in layers]
    seconds = fastest(lambda: [coder.decode(*layer) for layer in coded], 3)
    return sum(codes.numel() for codes, _ in layers) / 1e6 / seconds


def clustered(weight: Tensor, sparsity: float, values: int) -> Tensor:
    """Codes of a pruned layer: 0 for what is pruned, else one of ``values - 1`` clusters (k-means from quantiles)."""
    limit = weight.abs().reshape(-1).kthvalue(int(sparsity * weight.numel())).values
    kept = weight[weight.abs() > limit]
    centres = torch.quantile(kept[:: max(1, len(kept) // 100_000)], torch.linspace(0, 1, values - 1))
    for _ in range(20):
        nearest = torch.bucketize(kept, (centres[1:] + centres[:-1]) / 2)
        sums, counts = (
            torch.zeros(values - 1).index_add_(0, nearest, kept),
            torch.bincount(nearest, minlength=values - 1),
        )
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    codes = torch.zeros(weight.shape, dtype=torch.int64)
    codes[weight.abs() > limit] = 1 + torch.bucketize(kept, (centres[1:] + centres[:-1]) / 2)
    return codes


def pruned_layer(size: int, sparsity: float, values: int) -> Row:
    """Percent of the float layer by coder; values in 32 bits each, and the published dictionary, are counted."""
    weight = torch.randn(size, size, generator=torch.Generator().manual_seed(1)) * 0.01
    codes = clustered(weight, sparsity, values)
    float_bytes = 4 * weight.numel()
    row: Row = {"size": size, "sparsity": sparsity, "values": values, "entropy": entropy(codes, values), "coders": {}}
    for name in ("fixed", "deflate", "huffman", "ham", "sham", "ans", "rans"):
        coder = CODERS[name]()
        data = coder.encode(codes, values)
        seconds = fastest(lambda coder=coder, data=data: coder.decode(data, (size, size), values), 2)
        row["coders"][name] = {
            "percent": 100 * (len(data) + 4 * values) / float_bytes,
            "bits": 8 * len(data) / weight.numel(),
            "decode": weight.numel() / 1e6 / seconds,
        }
    row["dictionary_bytes"] = dictionary_bits(values, 15) / 8
    return row


def pruned_network(folder: Path) -> Row:
    """The same through the library: a layer of 31 clusters and zero, pruned by its plan, saved and loaded."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 10)).eval()
    nn.init.normal_(model[0].weight, std=0.01)
    plan = LayerPlan(KMeans(5, scaled=False, zero=True), sparsity=0.97)
    small = corank.quantize(
        model,
        torch.randn(4, 4096),
        preset="nearest",
        layers={"0": plan, "2": replace(plan, sparsity=0.0)},
    )
    float_bytes = sum(4 * parameter.numel() for parameter in model.parameters())
    row: Row = {}
    for name in ("fixed", "auto", "ans", "rans"):
        stored = corank.save(small, folder / name, coder=name)
        again = corank.load(folder / name, model)
        assert torch.equal(again.get_submodule("0").weight, small.get_submodule("0").weight)
        row[name] = {"file_bytes": stored, "percent": 100 * stored / float_bytes}
    return row


def show(name: str, bits: int, row: Row) -> None:
    fixed = row["coders"]["fixed"]["file_bytes"]
    print(f"\n{name}, {bits} bits: {row['bits']:.3f} stored, entropy {row['entropy']:.3f}", flush=True)
    for coder, found in row["coders"].items():
        speed = "" if found["decode"] is None else f", decode {found['decode']:.0f} MB/s"
        print(
            f"  {coder:8} {found['file_bytes']:>9} bytes {100 * (1 - found['file_bytes'] / fixed):>6.2f} % saved, "
            f"{found['bits_per_code']:.3f} bits a code ({found['bits_per_code'] - row['entropy']:+.3f}), "
            f"encode {found['encode']:.1f} MB/s{speed}, load {found['load_ms']:.0f} ms",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--bits", default="4,3,2")
    parser.add_argument("--size", type=int, default=4096, help="of the pruned layer")
    parser.add_argument("--out", type=Path, default=Path("build/entropy.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, network, inputs, settings in networks(options.shared):
            for bits in map(int, options.bits.split(",")):
                row = measure(network(), inputs, settings, bits, Path(folder))
                results[f"{name}, {bits} bits"] = row
                show(name, bits, row)
        for sparsity, values in ((0.97, 32), (0.97, 256), (0.9, 32), (0.99, 32)):
            row = pruned_layer(options.size, sparsity, values)
            results[f"pruned {sparsity}, {values} values"] = row
            print(f"\n{options.size} x {options.size}, {100 * sparsity:g} % pruned, {values} values: ", row["entropy"])
            for coder, found in row["coders"].items():
                print(f"  {coder:8} {found['percent']:.2f} % of float, {found['bits']:.3f} bits, decode", end=" ")
                print(f"{found['decode']:.0f} MB/s", flush=True)
        results["pruned by a plan"] = pruned_network(Path(folder))
        print("\npruned by a plan:", results["pruned by a plan"])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Trellis codes beside plain ones: known sources, layers, ResNet-20 and MobileNetV2 end to end, time.

    python bench/trellis.py --shared DIR [--only sources|layers|network|time] [--preset fast] [--samples N]
                            [--rates R ...] [--out FILE]

``sources``: dB of squared error at equal bits, without feedback. ``layers``: layers of ResNet-20 with feedback, at
equal output error. ``network``: ResNet-20 whole, files and answers at several rates, without training (preset fast),
and what plain codes would have to take for the trellis' KL. ``time``: rounders side by side, and reading. Results are
added to the file.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import corank
from corank.codecs import Codebook, Codec, RateUniform, Trellis, TrellisCodebook
from corank.codecs.trellis import counted, prices
from corank.evaluation.kept import Recorder, Replay
from corank.kernels.trellis import Chain, cheapest_path, visited_states
from corank.plan import LayerPlan
from corank.rounding import Dependent, Gptq, Rounder
from corank.statistics import Gram, LayerStatistics
from corank.storage.coders import Adaptive

OUT = Path(__file__).parent / "results" / "trellis.json"
RATES = {"plain": (0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 3.3), "trellis": (1.0, 1.5, 2.0, 3.0)}
CURVE = (0.5, 0.7, 0.9, 1.1, 1.4, 1.7, 2.0, 2.4, 2.8, 3.2, 3.6, 4.0)
LAYERS = ("layer1.1.conv2", "layer2.1.conv1", "layer2.2.conv2", "layer3.0.conv2", "layer3.1.conv1", "layer3.2.conv1")


def sources() -> dict[str, Any]:
    """dB of squared error at a rate, of the best price of a bit, plain (priced, too) and by 4 and 8 states."""
    draw, found = np.random.default_rng(0), dict[str, Any]()
    kinds = {"gauss": draw.standard_normal(20000), "laplace": draw.laplace(size=20000) / 2**0.5}
    for kind, weights in kinds.items():
        for rate in (1.0, 2.0, 3.0):
            for states in (1, 4, 8):
                tried = (0.08, 0.12, 0.16) if states == 1 else (0.2, 0.3, 0.4, 0.5)
                best = min(_at_rate(weights, rate, states, price) for price in tried)
                found[f"{kind} {rate} bits, {states} states"] = round(best, 3)
                print(kind, rate, states, round(best, 3), flush=True)
    return found


def _at_rate(weights: np.ndarray, rate: float, states: int, price: float) -> float:
    low, high = 0.05, 4.0
    for _ in range(10):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if _coded(weights / middle, states, price)[0] > rate else (low, middle)
    bits, error = _coded(weights / high, states, price)
    return 10 * float(np.log10(error * high**2 / (weights**2).mean())) + 6.02 * (bits - rate)


def _coded(targets: np.ndarray, states: int, price: float) -> tuple[float, float]:
    """Bits by the entropy in each grid, and the squared error in squared steps, after chances have settled."""
    most, bits, ones = 127, np.zeros((2, 255)), np.ones(len(targets))
    for _ in range(8):
        if states == 1:
            below = np.floor(targets)
            tried = np.stack([below, below + 1, 0 * below]).clip(-most, most)
            costs = (targets - tried) ** 2 + price * bits[0, tried.astype(int) + most]
            values = np.take_along_axis(tried, costs.argmin(0)[None], 0)[0].astype(np.int32)
            counts = np.zeros((2, 255))
            counts[0] = np.bincount(values + most, minlength=255)
            bits = np.broadcast_to(-np.log2((counts[:1] + 0.1) / counts.sum()), (2, 255))
        else:
            values, visited = cheapest_path(Chain(targets, ones), price * bits, states)
            counts = counted(values, visited, states, most)
            bits = prices(counts)
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    entropy = -(counts * np.log2(shares.clip(1e-30))).sum() / len(targets)
    return float(entropy), float(((targets - values) ** 2).mean())


@dataclass(frozen=True)
class Keeping(Gptq):
    """GPTQ that also keeps the weights and moments it was given."""

    def __call__(self, weight: torch.Tensor, codebook: Codebook, statistics: LayerStatistics) -> torch.Tensor:
        KEPT.append((weight.clone(), statistics[Gram]))
        return super().__call__(weight, codebook, statistics)


KEPT: list[tuple[torch.Tensor, Any]] = []


def layers(shared: Path, samples: int) -> dict[str, Any]:
    """Bits as coded that plain codes take more at equal output error, mean over the weights of ResNet-20's layers."""
    from cifar_task import CifarTask

    task = CifarTask.of(shared, 20)
    plans = {name: LayerPlan(RateUniform.of(3.0), Keeping()) for name in LAYERS}
    corank.quantize(task.model, task.train, rate=3.0, layers=plans, samples=samples)
    kept = KEPT[-len(LAYERS) :]
    plain = [[_rounded(RateUniform.of(rate), Gptq(sweeps=3), *one) for rate in CURVE] for one in kept]
    found: dict[str, Any] = {"plain": {str(rate): _means([row[at] for row in plain]) for at, rate in enumerate(CURVE)}}
    count = [weight.numel() for weight, _ in kept]
    for states in (4, 8):
        for rate in RATES["trellis"]:
            codec = replace(Trellis.of(rate), states=states)
            rows = [_rounded(codec, Dependent(sweeps=3), *one) for one in kept]
            gains = {
                kind: [
                    np.interp(-np.log(row[2]), [-np.log(one[2]) for one in curve], [one[at] for one in curve]) - row[at]
                    for row, curve in zip(rows, plain, strict=True)
                ]
                for at, kind in enumerate(("bits saved, entropy", "bits saved, as coded"))
            }
            each = {kind: round(float(np.average(gain, weights=count)), 4) for kind, gain in gains.items()}
            found[f"{states} states, {rate}"] = {**_means(rows), **each}
            print(states, rate, found[f"{states} states, {rate}"], flush=True)
    return found


def _rounded(codec: Codec, rounder: Rounder, weight: torch.Tensor, gram: Any) -> tuple[float, float, float, int]:
    """Entropy (in its grid) and coded bits a weight, output error relative to the output's energy, weights."""
    codebook = codec.fit(weight)
    codes = rounder(weight, codebook, {Gram: gram})
    lost = codebook.values(codes) - weight
    energy, error = (float(((one @ gram.matrix[0]) * one).sum()) for one in (weight, lost))
    values = codes.numpy().astype(np.int32) - codebook.size // 2
    if isinstance(codebook, TrellisCodebook):
        visited = visited_states(values, codebook.states)
        assert visited is not None
        counts = counted(values, visited, codebook.states, codebook.size // 2)
    else:
        counts = np.bincount(codes.reshape(-1))[None].astype(np.float64)
    shares = counts / counts.sum(1, keepdims=True)
    entropy = -float((counts * np.log2(shares.clip(1e-30))).sum()) / codes.numel()
    coded = 8 * len(Adaptive().encode(codes, 1 << codec.bits)) / codes.numel()
    return entropy, coded, error / energy, codes.numel()


def _means(rows: list[tuple[float, float, float, int]]) -> dict[str, float]:
    count = [row[3] for row in rows]
    names = ("entropy", "bits as coded", "relative output error")
    return {
        name: round(float(np.average([row[at] for row in rows], weights=count)), 5) for at, name in enumerate(names)
    }


def network(shared: Path, asked: list[tuple[str, float]], preset: str, samples: int) -> Iterator[tuple[str, Any]]:
    """ResNet-20 at several rates: bytes as stored, answers on the 10,000 test images, seconds."""
    from cifar_task import CifarTask

    task = CifarTask.of(shared, 20)
    recorder = Recorder(task.model)
    float_top1 = corank.evaluate(recorder, task.test).top1
    assert recorder.outputs is not None
    yield "float", {"top1": float_top1}
    for kind, rate in asked:
        started = time.process_time()
        codec = Trellis.of(rate) if kind == "trellis" else RateUniform.of(rate)
        model = corank.quantize(task.model, task.train, rate=rate, codec=codec, preset=preset, samples=samples)
        seconds = time.process_time() - started
        with tempfile.TemporaryDirectory() as folder:
            size = corank.save(model, f"{folder}/file.safetensors")
            record = corank.inspect(f"{folder}/file.safetensors")
        score, layers = corank.evaluate(model, task.test, reference=Replay(recorder.outputs)), record["layers"]
        weights = sum(math.prod(layer["shape"]) for layer in layers)
        bits = sum(math.prod(layer["shape"]) * layer["file_bits_per_weight"] for layer in layers) / weights
        error = sum(math.prod(layer["shape"]) * layer["relative_output_error"] for layer in layers) / weights
        yield f"{kind} {rate}", {
            "bytes": size, "bits a weight": round(bits, 4), "top1": score.top1, "kl": score.kl,
            "agreement": score.agreement, "relative output error": round(error, 5), "cpu seconds": round(seconds, 1),
            "parts": record["stored_parts"],
        }  # fmt: skip


def saved_bits(rows: dict[str, Any]) -> dict[str, float]:
    """Bits a weight that plain codes would take more for the KL of each trellis file, between their own files."""
    plain = sorted((row["kl"], row["bits a weight"]) for name, row in rows.items() if name.startswith("plain"))
    if not plain:
        return {}
    logarithms, bits = np.log([kl for kl, _ in plain]), [each for _, each in plain]
    trellis = {name: row for name, row in rows.items() if name.startswith("trellis")}
    # Beyond the plain files nothing can be read off.
    trellis = {name: row for name, row in trellis.items() if plain[0][0] <= row["kl"] <= plain[-1][0]}
    return {
        name: round(float(np.interp(np.log(row["kl"]), logarithms, bits)) - row["bits a weight"], 4)
        for name, row in trellis.items()
    }


def times() -> dict[str, float]:
    """Seconds of the rounders on a layer of 64 rows and 576 columns with their codecs' fits, and reading in MB/s."""
    torch.manual_seed(0)
    weight, gram = torch.randn(64, 576), Gram(1, 576)
    gram.update(torch.randn(1, 2000, 576) @ torch.randn(576, 576), 2000)
    plain, path = RateUniform.of(2.0), Trellis.of(2.0)

    def scalar() -> object:
        return Gptq(sweeps=3)(weight, plain.fit(weight), {Gram: gram})

    def trellis() -> object:
        return Dependent(sweeps=3)(weight, path.fit(weight), {Gram: gram})

    large = torch.randn(512, 4608)
    codes = Dependent()(large, path.fit(large), {Gram: _plain_gram(4608)})
    data = Adaptive().encode(codes, 1 << path.bits)
    seconds = {"plain": _least(scalar), "trellis": _least(trellis)}
    read = _least(lambda: Adaptive().decode(data, (512, 4608), 1 << path.bits))
    return {
        "plain ms": round(1e3 * seconds["plain"], 1),
        "trellis ms": round(1e3 * seconds["trellis"], 1),
        "times as long": round(seconds["trellis"] / seconds["plain"], 2),
        "read, MB of float32 a second": round(codes.numel() * 4e-6 / read, 1),
        "bits a code": round(8 * len(data) / codes.numel(), 3),
    }


def _plain_gram(columns: int) -> Gram:
    gram = Gram(1, columns)
    gram.update(torch.eye(columns)[None], columns)
    return gram


def _least(call: Callable[[], object]) -> float:
    """CPU seconds of the fastest of five."""
    call()
    found = []
    for _ in range(5):
        started = time.process_time()
        call()
        found.append(time.process_time() - started)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--only", choices=("sources", "layers", "network", "time"))
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--rates", type=float, nargs="*", default=RATES["plain"])
    parser.add_argument("--samples", type=int, default=1600)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    known = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    if arguments.only in (None, "sources"):
        known["sources, dB"] = sources()
    if arguments.only in (None, "time"):
        known["time"] = times()
    if arguments.only in (None, "layers"):
        known["layers of ResNet-20"] = layers(arguments.shared, arguments.samples)
        _note(arguments.out, known)
    if arguments.only in (None, "network"):
        asked = [(kind, rate) for rate in arguments.rates for kind in ("plain", "trellis") if rate in RATES[kind]]
        key = f"ResNet-20, {arguments.preset}, {arguments.samples} samples"
        rows = known.setdefault(key, {})
        for name, row in network(arguments.shared, asked, arguments.preset, arguments.samples):
            rows[name] = row
            print(name, row, flush=True)
            known[f"{key}: bits saved at equal KL"] = saved_bits(rows)
            _note(arguments.out, known)
    _note(arguments.out, known)


def _note(path: Path, known: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()

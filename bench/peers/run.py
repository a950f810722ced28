"""Other tools and corank on one network, one set of images and one evaluation; see README.md beside this file.

    python bench/peers/run.py --shared DIR --envs DIR --tools brevitas,quanto --bits 4,3,2 --seeds 0 --out peers.json

Finished runs are kept in the output file and not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from environments import TOOLS, python_of
from prepared import NETWORKS, folded_network, logits
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from corank.data import ImageSet, Preprocessing, load
from corank.models.weights import load_weights

HERE = Path(__file__).resolve().parent

SAMPLES = 1600  # CIFAR images; of the photographs, all that are not scored
FIELDS = ("tool", "method", "bits", "accuracy", "cpu_seconds", "stored_bits_per_weight", "file_bytes", "note")


@dataclass(frozen=True, order=True)
class Case:
    """One run: what a line of the output file is about."""

    network: str
    tool: str
    method: str
    bits: int
    seed: int

    @property
    def key(self) -> str:
        """Such as ``resnet20/brevitas gpfq/2/0``."""
        return f"{self.network}/{self.tool} {self.method}/{self.bits}/{self.seed}"


Runner = Callable[[Case], dict[str, Any]]


def cases(
    network: str, tools: Sequence[str], bits: Sequence[int], seeds: Sequence[int], methods: Sequence[str] = ()
) -> Iterator[Case]:
    """Every run asked for that the tools have; ``methods`` empty: all of them."""
    for seed in seeds:
        for tool in tools:
            for method, widths in TOOLS[tool].methods.items():
                if not methods or method in methods:
                    yield from (Case(network, tool, method, width, seed) for width in bits if width in widths)


def run_all(wanted: Sequence[Case], runner: Runner, out: Path) -> list[str]:
    """Runs what the output file lacks, writing it after each run; returns what failed."""
    failed = []
    for case in wanted:
        if case.key in read(out):
            continue
        try:
            result = runner(case)
        except (subprocess.CalledProcessError, ValueError) as error:
            print(f"{case.key:<40} failed: {error}", flush=True)
            failed.append(case.key)
            continue
        write(out, {**read(out), case.key: {**result, "network": case.network, "seed": case.seed}})
        print(
            f"{case.key:<40} {result['accuracy']:.2f} at {result['stored_bits_per_weight']:.3f} bits, "
            f"{result['file_bytes']} bytes saved, {result['cpu_seconds']:.1f} CPU s",
            flush=True,
        )
    return failed


def read(out: Path) -> dict[str, Any]:
    """What earlier runs left; nothing where there is no file."""
    return json.loads(out.read_text()) if out.exists() else {}


def write(out: Path, results: dict[str, Any]) -> None:
    """Replaces the file whole, so that an interrupted run leaves the last one."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    partial.write_text(json.dumps(results, indent=1) + "\n")
    os.replace(partial, out)


def last_record(text: str) -> dict[str, Any]:
    """The one JSON line that a tool's script ends with, after whatever its tool printed.

    Raises:
        ValueError: no such line, or one that lacks a field.
    """
    lines = [line for line in text.splitlines() if line.startswith("{")]
    if not lines:
        raise ValueError("the script printed no result")
    record = json.loads(lines[-1])
    missing = [field for field in FIELDS if field not in record]
    if missing:
        raise ValueError(f"the result lacks {', '.join(missing)}")
    return record


def tool_runner(prepared: Path, envs: Path, interpreter: str) -> Runner:
    """Runs a tool's script in its own environment, on one thread."""

    def run(case: Case) -> dict[str, Any]:
        python = python_of(case.tool, envs, interpreter)
        with tempfile.TemporaryDirectory() as scratch:
            command = [str(python), str(HERE / f"with_{case.tool}.py"), "--prepared", str(prepared / str(case.seed))]
            command += ["--scratch", scratch, "--method", case.method, "--bits", str(case.bits)]
            command += ["--seed", str(case.seed)]
            settings = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            done = subprocess.run(command, capture_output=True, text=True, env=settings, cwd=scratch, check=False)
        if done.returncode:
            print(done.stderr[-3000:], file=sys.stderr)
            done.check_returncode()
        return last_record(done.stdout)

    return run


def folded_state(model: nn.Module) -> dict[str, Tensor]:
    """The network's weights with every BatchNorm folded into the convolution that runs before it."""
    parts = dict(model.named_modules())
    state: dict[str, Tensor] = {}
    for name, part in parts.items():
        if isinstance(part, nn.Linear):
            state |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
        if isinstance(part, nn.Conv2d) and part.bias is not None:
            state |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
        elif isinstance(part, nn.Conv2d):
            norm = parts[name.replace("conv", "bn")]
            assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
            weight, bias = fuse_conv_bn_weights(
                part.weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
            state |= {f"{name}.weight": weight, f"{name}.bias": bias}
    return {name: value.detach().contiguous() for name, value in state.items()}


def network_and_images(shared: Path, network: str) -> tuple[nn.Module, ImageSet, ImageSet]:
    """The float network, images to calibrate with, and images to score."""
    preprocessing = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    model = NETWORKS[network]().eval()
    if network == "squeezenet1_1":
        load_weights(model, shared / "models/squeezenet1_1_fp16.safetensors")
        sample, view = str(shared / "data/imagenet_sample.zip"), replace(preprocessing, image_size=224, crop=0.875)
        return model, load(f"{sample}[0::2]", view), load(f"{sample}[1::2]", view, labelled=True)
    load_weights(model, shared / f"models/cifar10_{network}.safetensors")
    train = load(str(shared / "data/cifar10_jpeg_train.zip"), preprocessing)
    return model, train, load(str(shared / "data/cifar10_jpeg_test.zip"), preprocessing, labelled=True)


def prepare(folder: Path, shared: Path, network: str, seeds: Sequence[int]) -> float:
    """Writes what the tools read, one folder for each seed; returns the float network's accuracy."""
    model, train, test = network_and_images(shared, network)
    images, labels = map(torch.cat, zip(*test.batches(500), strict=True))
    state = folded_state(model)
    folded = folded_network(network)
    folded.load_state_dict(state)
    found = logits(folded, images)
    save_file({"images": images, "labels": labels, "logits": found}, folder / "test.safetensors")
    for seed in seeds:
        part = folder / str(seed)
        part.mkdir()
        (part / "network.json").write_text(json.dumps({"network": network}))
        save_file(state, part / "float.safetensors")
        save_file({"images": train.sample(SAMPLES, seed).tensor()}, part / "calibration.safetensors")
        (part / "test.safetensors").hardlink_to(folder / "test.safetensors")
    return 100 * float((found.argmax(1) == labels).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True, help="the folder of weights and images")
    parser.add_argument("--envs", type=Path, required=True, help="where the tools' environments are kept")
    parser.add_argument("--tools", default=",".join(TOOLS))
    parser.add_argument("--methods", default="", help="only these methods of the tools")
    parser.add_argument("--network", choices=tuple(NETWORKS), default="resnet20")
    parser.add_argument("--bits", default="4,3,2")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--python", default="python3.11", help="what makes the environments")
    parser.add_argument("--out", type=Path, default=Path("build/peers.json"))
    options = parser.parse_args()
    tools = options.tools.split(",")
    unknown = [tool for tool in tools if tool not in TOOLS]
    if unknown:
        parser.error(f"--tools {','.join(unknown)}: the tools are {', '.join(TOOLS)}")
    bits, seeds = ([int(part) for part in text.split(",")] for text in (options.bits, options.seeds))
    methods = options.methods.split(",") if options.methods else []
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        prepared = Path(name)
        reference = prepare(prepared, options.shared, options.network, seeds)
        print(f"float {reference:.2f}", flush=True)
        write(options.out, {**read(options.out), f"{options.network}/float": reference})
        wanted = list(cases(options.network, tools, bits, seeds, methods))
        failed = run_all(wanted, tool_runner(prepared, options.envs.resolve(), options.python), options.out)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()

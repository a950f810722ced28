"""One virtual environment for each tool, made once and kept."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["TOOLS", "Tool", "python_of"]

TORCH = "torch==2.13.0"


@dataclass(frozen=True)
class Tool:
    """A peer.

    Attributes:
        methods: name to the bit widths that it has.
        requirements: what pip installs beside torch; empty: the project's own environment.
        unresolved: requirements installed without their dependencies, which pin another torch.
    """

    methods: dict[str, tuple[int, ...]]
    requirements: tuple[str, ...] = ()
    unresolved: tuple[str, ...] = ()


TOOLS: dict[str, Tool] = {
    "corank": Tool(
        {
            "fast": (4, 3, 2),
            "fast+0.1": (2,),
            "fast+0.4": (2,),
            "best": (4, 3, 2),
            "best+0.1": (2,),
            "fast-rate": (4, 3, 2),
            "best-rate": (4, 3, 2),
            "brecq-2000": (4, 3, 2),
            "brecq": (2,),
        }
    ),
    "brevitas": Tool(
        {"nearest": (4, 3, 2), "gptq": (4, 3, 2), "gpfq": (4, 3, 2), "qronos": (4, 3, 2)},
        ("brevitas==0.13.4", "safetensors"),
    ),
    "quanto": Tool({"max": (4, 2), "hqq": (4, 2)}, ("optimum-quanto==0.2.7", "safetensors", "numpy")),
    "hqq": Tool({"hqq": (4, 3, 2)}, ("hqq==0.2.8.post1", "safetensors")),
    "torchao": Tool({"flat": (4, 3, 2), "conv": (4, 3, 2)}, ("torchao==0.18.0", "safetensors", "numpy")),
    "nncodec": Tool({"dq": (6, 5, 4, 3, 2), "uniform": (4, 3, 2)}, ("nncodec==2.1.3", "safetensors")),
    "mct": Tool(
        {"gradient": (4, 3, 2)},
        ("model-compression-toolkit==2.6.1", "safetensors"),
        ("torchvision==0.28.0",),
    ),
    "aimet": Tool(
        {"nearest": (4, 3, 2), "adaround-1000": (4, 3, 2), "adaround": (4, 3, 2)},
        ("aimet-torch==2.42.0", "safetensors"),
    ),
}


def python_of(name: str, envs: Path, interpreter: str) -> Path:
    """The interpreter of a tool's environment, which is made where it is missing or for other requirements."""
    tool = TOOLS[name]
    if not tool.requirements:
        return Path(sys.executable)
    folder = envs / name
    python, stamp = folder / "bin" / "python", folder / "complete.txt"
    wanted = "\n".join((TORCH, *tool.requirements, *tool.unresolved))
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"making the environment of {name}", flush=True)
    envs.mkdir(parents=True, exist_ok=True)
    constraints = envs / "constraints.txt"
    constraints.write_text(TORCH + "\n")
    subprocess.run([interpreter, "-m", "venv", "--clear", str(folder)], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet"]
    # The build of other versions of torch that a tool may ask for brings gigabytes of GPU libraries.
    settings = {**os.environ, "PIP_CONSTRAINT": str(constraints)}
    subprocess.run([*install, TORCH], check=True, env=settings)
    subprocess.run([*install, *tool.requirements], check=True, env=settings)
    if tool.unresolved:
        subprocess.run([*install, "--no-deps", *tool.unresolved], check=True, env=settings)
    stamp.write_text(wanted)
    return python

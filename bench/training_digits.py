"""Spoken digits from scratch: a small log-mel ResNet whose weights are low-bit from the first step on.

    python bench/training_digits.py --shared DIR [--seeds 6] [--only 'dense-shift-*'] [--out results.json]
    python bench/training_digits.py --out results.json --table

Free Spoken Digit Dataset: 2,500 clips of five speakers train, the 500 of the sixth test: seed s leaves speaker s out.
``--split index`` tests on the set's own split instead, clips 0 to 4 of each digit and speaker. A clip is cut or padded
to 0.82 s (64 frames); each trains at four places in time. Labels, no pretrained network; the float rows are the same
network with the same optimizer, batches and steps.
"""

from __future__ import annotations

import io
import math
import sys
import wave
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import corank
from corank.data import ImageSet, Preprocessing
from corank.data.arrays import TensorSource
from corank.training.recipe import Optimizer, Recipe, Schedule
from corank.training.recipes import RECIPES, chosen_recipe

sys.path.insert(0, str(Path(__file__).parent))
from models import stage
from training_runs import Case, Record, named, options_of, run_all, run_case

RATE, WINDOW, HOP, MELS, FRAMES = 8000, 256, 100, 32, 64
LENGTH = WINDOW + HOP * (FRAMES - 1)
PLACES = (-800, -270, 270, 800)  # samples by which a training clip is moved
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")

_LABELLED = {"loss": "labels", "start": "scratch", "augment": "none"}  # a mirrored spectrogram is speech backwards
_SGD = Optimizer("sgd", rate=0.1, step_rate=0.1, decay=1e-4)
_FLOAT = Recipe(weights=None, edge=None, edge_inputs=None, **_LABELLED)
METHODS = {
    "dense-shift": ("3bit", "2bit"),
    "s3": ("3bit",),
    "power-of-two": ("3bit", "4bit"),
    "stats": ("1bit", "2bit", "3bit"),
    "ternary": ("2bit",),
    "dorefa": ("2bit",),
    "direct": ("2bit",),
    "binary-relax": ("1bit",),
    "random-bias": ("1bit",),
}


def cases() -> dict[str, Case]:
    """Float by both optimizers, then the methods that can start from scratch."""
    found = {"float": Case(_FLOAT), "float, sgd": Case(_FLOAT.replaced(optimizer=_SGD, schedule=Schedule(warm=0.0)))}
    for name in named(METHODS):
        recipe = chosen_recipe(name)
        if recipe.weights is not None and "scratch" in recipe.weights.starts:
            found[name] = Case(recipe.replaced(**_LABELLED))
    if "random-bias" in RECIPES:
        found["random-bias-1bit, b = 0"] = Case(found["random-bias-1bit"].recipe.replaced(callbacks=()))
    return found


class DigitsResNet(nn.Module):
    """Log-mels (N, 1, 32, 64) to logits (N, 10): a ResNet of eight layers, 75,000 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.blocks = nn.Sequential(stage(16, 16, 2, 1), stage(16, 32, 2, 1), stage(32, 64, 2, 1))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(torch.relu(self.bn1(self.conv1(x))))
        return self.linear(x.mean(dim=(2, 3)))


@cache
def filters() -> Tensor:
    """``(frequencies, mels)``: triangles that are equally spaced in mels from 40 to 4000 Hz."""

    def mel(hertz: float) -> float:
        return 2595 * math.log10(1 + hertz / 700)

    ends = torch.linspace(mel(40), mel(RATE / 2), MELS + 2, dtype=torch.float64)
    ends = 700 * (10 ** (ends / 2595) - 1)
    bins = torch.linspace(0, RATE / 2, WINDOW // 2 + 1, dtype=torch.float64)[:, None]
    up, down = (bins - ends[:-2]) / (ends[1:-1] - ends[:-2]), (ends[2:] - bins) / (ends[2:] - ends[1:-1])
    return torch.minimum(up, down).clamp(min=0).float()


def features(sound: Tensor) -> Tensor:
    """Log-mels ``(N, 1, 32, 64)`` of clips ``(N, 6556)``, each clip's mean and deviation taken out."""
    window = torch.hann_window(WINDOW, dtype=torch.float32)
    power = torch.stft(sound, WINDOW, HOP, window=window, center=False, return_complex=True).abs().square()
    found = (power.transpose(1, 2) @ filters()).clamp(min=1e-6).log().transpose(1, 2)
    mean, deviation = found.mean((1, 2), keepdim=True), found.std((1, 2), keepdim=True)
    return ((found - mean) / (deviation + 1e-3))[:, None]


@dataclass(frozen=True)
class Clip:
    """One recording: what is said, by whom, its number of 0 to 49, and samples in -1..1."""

    digit: int
    speaker: str
    number: int
    sound: Tensor

    def placed(self, move: int) -> Tensor:
        """``(6556,)``: its middle at that of the window, moved; cut, or zeros where it ends."""
        found = torch.zeros(LENGTH, dtype=torch.float32)
        start = (LENGTH - len(self.sound)) // 2 + move
        first, last = max(0, start), min(LENGTH, start + len(self.sound))
        found[first:last] = self.sound[first - start : last - start]
        return found


def read(path: Path, limit: int | None = None) -> list[Clip]:
    """The clips of the archive; of ``limit``, that many of all, evenly."""
    clips = []
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".wav"))
        for name in names[:: 1 if limit is None else max(1, len(names) // limit)]:
            digit, speaker, number = Path(name).stem.split("_")
            with wave.open(io.BytesIO(archive.read(name))) as sound:
                samples = np.frombuffer(sound.readframes(sound.getnframes()), dtype="<i2")
            whole = torch.from_numpy(samples.astype(np.float32) / 32768)
            clips.append(Clip(int(digit), speaker, int(number), whole))
    return clips


def split(clips: list[Clip], by: str, seed: int) -> tuple[list[Clip], list[Clip]]:
    """Training and test."""

    def tests(clip: Clip) -> bool:
        return clip.number < 5 if by == "index" else clip.speaker == SPEAKERS[seed % len(SPEAKERS)]

    return [clip for clip in clips if not tests(clip)], [clip for clip in clips if tests(clip)]


def labelled(clips: list[Clip], moves: tuple[int, ...]) -> ImageSet:
    """Features and digits of all clips at all places."""
    sound = torch.stack([clip.placed(move) for move in moves for clip in clips])
    labels = np.array([clip.digit for _ in moves for clip in clips], dtype=np.int64)
    values = torch.cat([features(part) for part in sound.split(500)])
    return ImageSet(TensorSource(values), Preprocessing(channels=1), labels)


def main(arguments: list[str] | None = None) -> None:
    parser = options_of(__doc__.splitlines()[0], "build/training_digits.json")
    parser.set_defaults(seeds=6, threads=1)
    parser.add_argument("--split", choices=("speaker", "index"), default="speaker")
    parser.add_argument("--iterations", type=int, default=800)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--clips", type=int, help="of all, to try the script")
    options = parser.parse_args(arguments)
    clips: list[Clip] = []
    sets: dict[int, tuple[ImageSet, ImageSet]] = {}

    def run(case: Case, seed: int) -> Record:
        if not clips:
            clips.extend(read(options.shared / "data" / "spoken_digits.zip", options.clips))
        if seed not in sets:
            train, test = split(clips, options.split, seed)
            sets.clear()
            sets[seed] = labelled(train, PLACES), labelled(test, (0,))
        torch.manual_seed(seed)
        train_set, test_set = sets[seed]

        def score(model: nn.Module) -> Record:
            return {"top1": corank.evaluate(model, test_set).top1, "yardstick": beside(case)}

        given = {"seed": seed, "iterations": options.iterations, "batch_size": options.batch}
        return run_case(case, DigitsResNet().eval(), train_set, score, given)

    run_all(options, cases(), f"spoken digits by {options.split}, {options.iterations} x {options.batch}", run)


def beside(case: Case) -> str:
    """The float row of the case's optimizer."""
    return "float, sgd" if chosen_recipe(case.recipe or "stats-2bit").optimizer.name == "sgd" else "float"


if __name__ == "__main__":
    main()

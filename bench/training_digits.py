"""Spoken digits from scratch: a speech ResNet, from the waveform on, whose weights are low-bit from the first step on.

    python bench/training_digits.py --shared DIR [--seeds 6] [--only 'shift-speech-*'] [--out results.json]
    python bench/training_digits.py --out results.json --table

Free Spoken Digit Dataset: 2,500 recordings of five speakers train, the 500 of the sixth test: seed s leaves speaker s
out. ``--split index`` tests on the set's own split instead, recordings 0 to 4 of each digit and speaker. A second is
heard; training recordings begin at four places in time. Labels, no pretrained network; the float rows are the same
network with the same optimizer, batches and steps.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

import corank
from corank.data import ImageSet, Preprocessing, Sampling, load_samples, matching
from corank.data.arrays import TensorSource
from corank.models import SpeechResNet
from corank.training.recipe import Optimizer, Recipe, Schedule
from corank.training.recipes import RECIPES, chosen_recipe

sys.path.insert(0, str(Path(__file__).parent))
from training_runs import Case, Record, named, options_of, run_all, run_case

HEARS = Sampling(8000, 1.0)
NAMES = "{label}_{group}_{index}"
PLACES = (0, 270, 540, 810)  # samples of silence before a training recording
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")

_LABELLED = {"loss": "labels", "start": "scratch", "augment": "none"}  # a mirrored spectrogram is speech backwards
_SGD = Optimizer("sgd", rate=0.1, step_rate=0.1, decay=1e-4)
_FLOAT = Recipe(weights=None, edge=None, edge_inputs=None, **_LABELLED)
METHODS = {
    "shift-speech": ("4bit", "3bit", "2bit"),
    "shift-speech-s3": ("3bit",),
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


def read(path: Path, limit: int | None = None) -> ImageSet:
    """The recordings of the archive; of ``limit``, that many of all, evenly."""
    found = load_samples(str(path), sampling=HEARS, label=NAMES)
    assert isinstance(found, ImageSet)
    return found if limit is None else found.select(range(0, len(found), max(1, len(found) // limit)))


def split(recordings: ImageSet, by: str, seed: int) -> tuple[ImageSet, ImageSet]:
    """Training and test."""
    if by == "index":
        return matching(recordings, "index>=5"), matching(recordings, "index<5")
    speaker = SPEAKERS[seed % len(SPEAKERS)]
    return matching(recordings, f"group!={speaker}"), matching(recordings, f"group={speaker}")


def placed(recordings: ImageSet, places: tuple[int, ...]) -> ImageSet:
    """All recordings, decoded, with so many samples of silence before each; what then is too long is cut."""
    sound, labels = recordings.tensor(), recordings.labels
    assert labels is not None
    length = sound.shape[1]
    values = torch.cat([torch.nn.functional.pad(sound, (place, 0))[:, :length] for place in places])
    return ImageSet(TensorSource(values), Preprocessing(channels=1), np.tile(labels, len(places)))


def main(arguments: list[str] | None = None) -> None:
    parser = options_of(__doc__.splitlines()[0], "build/training_digits.json")
    parser.set_defaults(seeds=6, threads=1)
    parser.add_argument("--split", choices=("speaker", "index"), default="speaker")
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--clips", type=int, help="of all, to try the script")
    options = parser.parse_args(arguments)
    recordings: list[ImageSet] = []
    sets: dict[int, tuple[ImageSet, ImageSet]] = {}

    def run(case: Case, seed: int) -> Record:
        if not recordings:
            recordings.append(read(options.shared / "data" / "spoken_digits.zip", options.clips))
        if seed not in sets:
            train, test = split(recordings[0], options.split, seed)
            sets.clear()
            sets[seed] = placed(train, PLACES), placed(test, (0,))
        torch.manual_seed(seed)
        train_set, test_set = sets[seed]

        def score(model: nn.Module) -> Record:
            return {"top1": corank.evaluate(model, test_set).top1, "yardstick": beside(case)}

        given = {"seed": seed, "iterations": options.iterations, "batch_size": options.batch}
        return run_case(case, SpeechResNet(10, HEARS).eval(), train_set, score, given)

    run_all(options, cases(), f"spoken digits by {options.split}, {options.iterations} x {options.batch}", run)


def beside(case: Case) -> str:
    """The float row of the case's optimizer."""
    return "float, sgd" if chosen_recipe(case.recipe or "stats-2bit").optimizer.name == "sgd" else "float"


if __name__ == "__main__":
    main()

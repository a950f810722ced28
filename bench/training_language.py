"""A language model at 2 bits, trained on its own calibration tokens without labels: nats a token on the test tokens.

    python bench/training_language.py --shared DIR [--seeds 3] [--iterations 600] [--out results.json]
    python bench/training_language.py --shared DIR --model shakespeare7m --iterations 300 --batch 32 --only lsq-2bit
    python bench/training_language.py --shared DIR --drawn 2048 --only 'lsq-2bit, *rate 4e-3'
    python bench/training_language.py --out results.json --table

Beside each width stands ``quantize`` alone, at the same codes and, by ``quantize(size=...)``, in at least the bytes of
the trained file. First and last layer have 8 bits. ``--drawn`` adds sequences that the float network itself expects
(``corank.draw_tokens``). Finished runs are kept and not run again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

import corank
from corank.codecs import StatsQ, Uniform
from corank.data import TokenSet
from corank.training.recipe import Optimizer
from corank.training.recipes import chosen_recipe

sys.path.insert(0, str(Path(__file__).parent))
from language_sizes import shakespeare7m, stories260k
from training_runs import YARDSTICKS, Case, Record, named, options_of, run_all, run_case

METHODS = {
    "stats": ("2bit",),
    "lsq": ("2bit",),
    "ternary": ("2bit",),
    "cga": ("2bit",),
    "parq": ("2bit",),
    "adamp": ("2bit",),
}
ALONE = ("fast", "best")


def cases(size: int | None = None) -> dict[str, Case]:
    """Float, ``quantize`` alone, then the methods; ``size``: bytes that ``quantize`` may take."""
    found = {"float": Case(YARDSTICKS["float"])}
    codecs = {"uniform": Uniform(2, range="mse", half=True), "statsq": StatsQ(2)}
    for preset in ALONE:
        for name, codec in codecs.items():
            found[f"quantize {preset}, {name}-2bit"] = Case(None, {"preset": preset, "codec": codec})
        if size is not None:
            given = {"preset": preset, "bits": 2, "size": size, "budget": None}
            found[f"quantize {preset}, 2 bits in {size} bytes"] = Case(None, given)
    if size is not None:
        found[f"quantize, entropy coded in {size} bytes"] = Case(None, {"rate": "auto", "size": size, "budget": None})
    for name, case in named(METHODS).items():
        found[name] = case
        slow = chosen_recipe(name)
        found[f"{name}, half the rate"] = Case(slow.replaced(optimizer=_halved(slow.optimizer)))
    sharp = chosen_recipe("lsq-2bit").replaced(temperature=1.0, optimizer=Optimizer(rate=4e-3))
    found["lsq-2bit, temperature 1, rate 4e-3"] = Case(sharp)
    return found


def _halved(optimizer: Optimizer) -> Optimizer:
    return Optimizer(optimizer.name, optimizer.rate / 2, optimizer.step_rate, optimizer.decay)


def main(arguments: list[str] | None = None) -> None:
    parser = options_of(__doc__.splitlines()[0], "build/training_language.json")
    parser.add_argument("--model", choices=("stories260k", "shakespeare7m"), default="stories260k")
    parser.add_argument("--iterations", type=int, default=600)
    parser.add_argument("--batch", type=int, default=128, help="in units of 64 tokens")
    parser.add_argument("--size", type=int, help="bytes for quantize alone: those of a trained file")
    parser.add_argument("--drawn", type=int, default=0, help="sequences of the float network's own beside the data's")
    parser.add_argument("--sequences", type=int, help="of training and of test, to try the script")
    options = parser.parse_args(arguments)
    held: list[tuple[nn.Module, TokenSet, TokenSet]] = []

    def run(case: Case, seed: int) -> Record:
        if not held:
            make, data, test = (shakespeare7m if options.model == "shakespeare7m" else stories260k)(options.shared)
            assert test is not None
            cut = slice(options.sequences)
            model, ids = make(), data.ids[cut]
            if options.drawn:
                first = int(ids[0, 0])
                more = corank.draw_tokens(model, options.drawn, ids.shape[1], first=first)
                ids = torch.cat([ids, more.ids])
            held.append((model, TokenSet(ids), TokenSet(test.ids[cut])))
        model, data, scored = held[0]

        def score(small: nn.Module) -> Record:
            found = corank.evaluate(small, scored, model)
            return {"nats": found.nats, "kl": found.kl, "agreement": found.agreement}

        given = {"seed": seed, "iterations": options.iterations, "batch_size": options.batch}
        return run_case(case, model, data, score, given)

    drawn = f", {options.drawn} drawn" if options.drawn else ""
    group = f"{options.model}{drawn}, {options.iterations} x {64 * options.batch} tokens"
    run_all(options, cases(options.size), group, run)


if __name__ == "__main__":
    main()

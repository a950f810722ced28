"""ResNet-20 on CIFAR-10 (JPEG) in a file of a given size: fewer channels or fewer bits, the curve and the choice.

    python bench/prune_auto.py --shared DIR [--size 40KB] [--preset fast] [--out bench/results/prune_auto.json]
    python bench/prune_auto.py --table

What ``quantize(model, data, size=SIZE, rate="auto", prune="auto")`` does, whose candidates are scored here one by one:
top-1 on test images that nothing else has seen, beside the distance that decides. The row "refined" is the whole
network quantized alone and then distilled for as many steps of as many images as the narrowed ones were. Finished rows
are kept.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

import corank
from corank.pruning.narrowing import Narrowing
from corank.storage.model_record import run_of
from corank.verbs.fewer_channels import WHOLE, quantize_narrowed
from corank.verbs.opening import ContextOptions
from corank.verbs.prune import FINETUNE
from corank.verbs.scoring import Scorer

sys.path.insert(0, str(Path(__file__).parent))
from cifar_task import CifarTask
from training_runs import Kept, Record, file_bytes

SIZES = ("40KB", "30KB", "24KB")


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    kept = Kept(options.out)
    if options.table:
        print(markdown(kept.records))
        return
    task: list[CifarTask] = []
    scorer: list[Scorer] = []
    how = Narrowing(iterations=options.iterations)
    if options.share:
        how = Narrowing(tuple(options.share), iterations=options.iterations)
    for size in options.size or SIZES:
        steps = f"{how.iterations} x {FINETUNE.batch_size}"
        key = f"{options.preset}, {size}, {steps}, {options.samples} samples, seed {options.seed}"
        if key in kept and "refined" in kept.records[key]:
            continue
        task = task or [CifarTask.of(options.shared, 20, images=options.images)]
        scorer = scorer or [Scorer(task[0].model, task[0].test)]
        own = {"size": size, "rate": "auto", "preset": options.preset, "seed": options.seed}
        with tempfile.TemporaryDirectory() as folder:
            healed = options.healed or Path(folder)
            found = kept.records[key] if key in kept else curve(task[0], how, own, options.samples, healed, scorer[0])
        kept.put(key, found)
        kept.put(key, {**found, "refined": refined(task[0], how, {**own, "samples": options.samples}, scorer[0])})
        print(key, kept.records[key], flush=True)


def curve(task: CifarTask, how: Narrowing, own: dict[str, Any], samples: int, healed: Path, scorer: Scorer) -> Record:
    """Every candidate of one size, and which is taken; narrowed networks are those of the sizes before."""
    rows: list[Record] = []

    def coded(narrow: nn.Module, seen: Any, **given: Any) -> nn.Module:
        found = corank.quantize(narrow, seen, **own, **given)
        scored = scorer(found)
        rows.append({"top1": scored.top1, "agreement": scored.agreement, "test_kl": scored.kl})
        print(own["size"], file_bytes(found), rows[-1], flush=True)
        return found

    with tempfile.TemporaryDirectory() as folder:
        if healed.exists():
            shutil.copytree(healed, folder, dirs_exist_ok=True)
        asked = (ContextOptions(samples, seed=own["seed"]), folder)
        best = quantize_narrowed(task.model, task.train, how, asked, coded)
        for share in how.shares:
            shutil.copytree(Path(folder) / f"prune-{share}", healed / f"prune-{share}", dirs_exist_ok=True)
    record, scores = run_of(best), iter(rows)
    tried = [{**one, **(next(scores) if one["why"] is None else {})} for one in record.candidates]
    chosen = record.notes[-1].split(" of the network")[0].removeprefix("without ")
    return {"candidates": tried, "chosen": WHOLE if chosen.startswith("all") else chosen, "told": record.notes[-1]}


def refined(task: CifarTask, how: Narrowing, own: dict[str, Any], scorer: Scorer) -> Record | None:
    """Quantization alone and the same steps; None where the whole network does not fit."""
    steps = corank.Refinement(iterations=how.iterations, batch_size=FINETUNE.batch_size)
    try:
        found = corank.quantize(task.model, task.train, **own, refinement=steps)
    except corank.BudgetError:
        return None
    scored = scorer(found)
    return {"top1": scored.top1, "agreement": scored.agreement, "test_kl": scored.kl, "bytes": file_bytes(found)}


def markdown(records: dict[str, Record]) -> str:
    """A row for each candidate; the one that is taken in bold."""
    lines = [
        "| Size | Parameters that go | Parameters | File | KL, held back | KL, test | Top-1 |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for key, record in records.items():
        for one in record["candidates"]:
            if one["why"] is not None:
                lines.append(f"| {key} | {one['share']} | | does not fit | | | |")
                continue
            top1 = f"{one['top1']:.2f}"
            top1 = f"**{top1}**" if one["share"] == record["chosen"] else top1
            held = "" if one["distance"] is None else f"{one['distance']:.4f}"
            numbers = f"{held} | {one['test_kl']:.4f} | {top1}"
            lines.append(f"| {key} | {one['share']} | {one['parameters']:,} | {one['stored_bytes']:,} | {numbers} |")
        one = record.get("refined")
        if one:
            lines.append(f"| {key} | 0, refined | | {one['bytes']:,} | | {one['test_kl']:.4f} | {one['top1']:.2f} |")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    found.add_argument("--shared", type=Path, help="folder of real data and trained weights")
    found.add_argument("--size", action="append", help=f"of the file; {', '.join(SIZES)}")
    found.add_argument("--preset", default="fast")
    found.add_argument("--iterations", type=int, default=Narrowing.iterations, help="distilled steps of each narrowed")
    found.add_argument("--share", action="append", help="of parameters that go, such as 0.3p; those of auto")
    found.add_argument("--samples", type=int, default=400, help="to calibrate on")
    found.add_argument("--healed", type=Path, help="a folder that keeps narrowed networks")
    found.add_argument("--seed", type=int, default=0)
    found.add_argument("--threads", type=int, default=1)
    found.add_argument("--images", type=int, help="of training and of test, to try the script")
    found.add_argument("--table", action="store_true", help="print the table of what --out holds; run nothing")
    found.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "prune_auto.json")
    return found


if __name__ == "__main__":
    main()

"""ResNet-20 at 2 + 0.4 bits: into peft, tuned there for 40 steps, read back, saved and loaded.

    python bench/peft_roundtrip.py --shared DIR [--steps 40]

Needs the extra `peft`. Trains on labels of the training images; scores on all 10,000 test images.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import peft
import torch
from torch.nn import functional

import corank
from corank.export import export_peft, import_peft, load_peft_base

sys.path.insert(0, str(Path(__file__).parent))
from cifar_task import CifarTask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = CifarTask.of(options.shared, 20, labelled=True)
    small = corank.quantize(task.model, task.train, bits=2, budget=0.4, search="greedy")
    images, labels = (torch.cat(parts) for parts in zip(*task.train.sample(3200, 1).batches(100), strict=True))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written = export_peft(small, folder / "adapter", images[:32])
        base = load_peft_base(folder / "adapter", task.model)
        tuned = peft.PeftModel.from_pretrained(base, folder / "adapter", is_trainable=True).eval()
        with torch.no_grad():
            ours, theirs = small(images[:500]), tuned(images[:500])
        difference = float((ours - theirs).abs().max() / ours.abs().max())
        print(f"largest difference {difference:.1e} of the largest output")
        print(f"the export itself found {written.relative_difference:.1e}")
        optimizer = torch.optim.Adam([one for one in tuned.parameters() if one.requires_grad], 1e-3)
        torch.manual_seed(0)
        for _ in range(options.steps):
            drawn = torch.randint(len(images), (128,))
            optimizer.zero_grad()
            functional.cross_entropy(tuned(images[drawn]), labels[drawn]).backward()
            optimizer.step()
        tuned.save_pretrained(str(folder / "tuned"))
        back = import_peft(small, folder / "tuned").model
        size = corank.save(back, folder / "tuned.safetensors")
        again = corank.load(folder / "tuned.safetensors", task.model)
        with torch.no_grad():
            print("loaded again, outputs are equal:", torch.equal(again(images[:500]), back(images[:500])))
        before, after = (corank.evaluate(model, task.test).top1 for model in (small, again))
        print(f"top-1 {before:.2f} before, {after:.2f} after {options.steps} steps in peft, {size} bytes")


if __name__ == "__main__":
    main()

"""corank itself: a preset and, after a plus, the extra bits per weight that adapters may store ("fast+0.1").

"fast-rate" and "best-rate" ask for as many bits a weight after entropy coding; they are counted as the file has them.

"brecq" is corank's block reconstruction in the manner of BRECQ (arXiv 2102.05426) from nearest rounding, with the
paper's 20,000 iterations a block; "brecq-2000" takes a tenth of them. It is a baseline here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from prepared import report, task

import corank
from corank import BlockReconstruction

BASELINES = {
    "brecq": BlockReconstruction(iterations=20_000),
    "brecq-2000": BlockReconstruction(iterations=2000),
}


def main() -> None:
    run = task("corank")
    preset, _, budget = run.method.removesuffix("-rate").partition("+")
    rated = run.method.endswith("-rate")
    extra, tuning = float(budget or 0), BASELINES.get(run.method)
    started = time.process_time()
    model = corank.quantize(
        run.model,
        run.calibration,
        bits=None if rated else run.bits,
        rate=float(run.bits) if rated else None,
        budget=extra,
        preset="nearest" if tuning else preset,
        refinement=tuning,
        seed=run.seed,
    )
    seconds = time.process_time() - started
    size = corank.save(model, run.scratch / "model.safetensors")
    record = corank.inspect(model, codes=True)
    stored, note = (
        record["equivalent_bits"],
        f"{extra:g} extra bits for adapters, {record['iterations']} gradient steps",
    )
    if rated:
        stored, note = file_bits(record), f"entropy-coded, {record['iterations']} gradient steps"
    report(run, model, seconds, stored=stored, size=size, note=note)


def file_bits(record: Mapping[str, Any]) -> float:
    """Bits a weight that the quantized layers take in the file."""
    counts = [layer["shape"][0] * layer["shape"][1] for layer in record["layers"]]
    coded = [layer["file_bits_per_weight"] for layer in record["layers"]]
    return sum(bits * count for bits, count in zip(coded, counts, strict=True)) / sum(counts)


if __name__ == "__main__":
    main()

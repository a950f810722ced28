"""corank itself: a preset and, after a plus, the extra bits per weight that adapters may store ("fast+0.1").

"brecq" is corank's block reconstruction in the manner of BRECQ (arXiv 2102.05426) from nearest rounding, with the
paper's 20,000 iterations a block; "brecq-2000" takes a tenth of them. It is a baseline here.
"""

from __future__ import annotations

import time

from prepared import report, task

import corank
from corank import BlockReconstruction

BASELINES = {
    "brecq": BlockReconstruction(iterations=20_000),
    "brecq-2000": BlockReconstruction(iterations=2000),
}


def main() -> None:
    run = task("corank")
    preset, _, budget = run.method.partition("+")
    extra, tuning = float(budget or 0), BASELINES.get(run.method)
    started = time.process_time()
    model = corank.quantize(
        run.model,
        run.calibration,
        bits=run.bits,
        budget=extra,
        preset="nearest" if tuning else preset,
        refinement=tuning,
        seed=run.seed,
    )
    seconds = time.process_time() - started
    size = corank.save(model, run.scratch / "model.safetensors")
    record = corank.inspect(model)
    note = f"{preset}, {extra:g} extra bits for adapters, {record['iterations']} gradient steps"
    report(run, model, seconds, stored=record["equivalent_bits"], size=size, note=note)


if __name__ == "__main__":
    main()

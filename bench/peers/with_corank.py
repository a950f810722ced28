"""corank itself: a preset and, after a plus, the extra bits per weight that adapters may store ("fast+0.1")."""

from __future__ import annotations

import time

from prepared import report, task

import corank


def main() -> None:
    run = task("corank")
    preset, _, budget = run.method.partition("+")
    started = time.process_time()
    extra = float(budget or 0)
    model = corank.quantize(run.model, run.calibration, bits=run.bits, budget=extra, preset=preset, seed=run.seed)
    seconds = time.process_time() - started
    size = corank.save(model, run.scratch / "model.safetensors")
    record = corank.inspect(model)
    note = f"preset {preset}, {extra:g} extra bits for adapters, {record['iterations']} gradient steps"
    report(run, model, seconds, stored=record["equivalent_bits"], size=size, note=note)


if __name__ == "__main__":
    main()

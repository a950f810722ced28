"""optimum-quanto: its packed 4 and 2-bit weights, scales by max or by its HQQ optimizer. It has no 3 bits."""

from __future__ import annotations

import time

from optimum.quanto import HqqOptimizer, MaxOptimizer, freeze, qint2, qint4, qint8, quantize
from prepared import file_bytes, layers, report, saved_bits_per_weight, task

TYPES = {4: qint4, 2: qint2}


def main() -> None:
    run = task("quanto")
    started = time.process_time()
    names = list(layers(run.model))
    optimizer = HqqOptimizer() if run.method == "hqq" else MaxOptimizer()
    quantize(run.model, weights=qint8, include=[names[0], names[-1]])
    quantize(run.model, weights=TYPES[run.bits], optimizer=optimizer, include=names[1:-1])
    freeze(run.model)
    seconds = time.process_time() - started
    state = run.model.state_dict()
    stored = saved_bits_per_weight(run.model, {name: part for name, part in state.items() if ".weight." in name})
    size = file_bytes(run.scratch / "model.pt", state)
    note = "packed; float32 scale and shift for each group of 32 to 128 weights of a channel, chosen by the tool"
    report(run, run.model, seconds, stored=stored, size=size, note=note)


if __name__ == "__main__":
    main()

"""NNCodec, the reference coder of the ISO standard for neural networks: data-free, entropy coded, one step for all.

Of its integer quality parameters the finest is taken whose whole stream has at most so many bits a weight.
"""

from __future__ import annotations

import contextlib
import io
import time
from typing import Any

import operators  # noqa: F401
import torch
from prepared import layers, report, task

from nncodec.nn import decode, encode  # isort: skip

COARSEST, FINEST = 0, -80


def main() -> None:
    run = task("nncodec")
    started = time.process_time()
    numbers = {name: one.numpy() for name, one in run.model.state_dict().items() if one.is_floating_point()}
    weights = sum(layer.weight.numel() for layer in layers(run.model).values())

    def coded(qp: int) -> bytes:
        asked = {"qp": qp, "use_dq": run.method == "dq", "results": str(run.scratch), "verbose": False}
        with contextlib.redirect_stdout(io.StringIO()):
            return bytes(encode(numbers, args=asked))

    low, high = FINEST, COARSEST  # bisection: what fits, and what is too large
    found, kept = COARSEST, coded(COARSEST)
    while low < high:
        middle = (low + high) // 2
        stream = coded(middle)
        if 8 * len(stream) <= run.bits * weights:
            found, kept, high = middle, stream, middle
        else:
            low = middle + 1
    with contextlib.redirect_stdout(io.StringIO()):
        read: dict[str, Any] = decode(bytearray(kept))
    seconds = time.process_time() - started
    run.model.load_state_dict({name: torch.tensor(one) for name, one in read.items()}, strict=False)
    path = run.scratch / "model.nnc"
    path.write_bytes(kept)
    note = f"no data; qp {found} for every weight, biases nearly float; whole stream over the weights"
    report(run, run.model, seconds, stored=8 * len(kept) / weights, size=path.stat().st_size, note=note)


if __name__ == "__main__":
    main()

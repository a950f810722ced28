"""How exactly float32 numbers are multiplied: GPUs round them to 11 bits for convolutions, unless told not to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch

__all__ = ["exact_float32", "native_bfloat16"]

_Switch = tuple[Callable[[], Any], Callable[[Any], None], Any]  # reads, sets, and the exact setting


def _precision_of(*, of: Any) -> _Switch:
    return lambda: of.fp32_precision, lambda value: setattr(of, "fp32_precision", value), "ieee"


def _switches() -> list[_Switch]:
    """torch's own, by operator; by library before torch 2.9, which had no others."""
    backends = cast(Any, torch.backends)  # type stubs do not know the settings by operator
    if torch.__version__ >= "2.9":  # compared as versions are
        cuda = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
        cpu = (backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn)
        return [_precision_of(of=one) for one in (*cuda, *cpu)]
    return [
        (lambda: backends.cudnn.allow_tf32, lambda value: setattr(backends.cudnn, "allow_tf32", value), False),
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
    ]


class _Held:
    """torch's settings are the whole process's: whoever comes first makes them exact, whoever leaves last undoes it."""

    def __init__(self) -> None:
        self._lock, self._users, self._before = threading.Lock(), 0, list[Any]()

    def take(self) -> None:
        with self._lock:
            if not self._users:
                switches = _switches()
                self._before = [read() for read, _, _ in switches]
                for _, change, exact in switches:
                    change(exact)
            self._users += 1

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                for (_, change, _), value in zip(_switches(), self._before, strict=True):
                    change(value)


_HELD = _Held()


@contextmanager
def exact_float32() -> Iterator[None]:
    """Within, products of float32 numbers are float32 products: no TF32 on NVIDIA's GPUs, no bfloat16 on CPUs.

    By default torch lets cuDNN's convolutions round float32 inputs to 11 bits (TF32), and a network's logits on a GPU
    are then off by about a thousandth. Calibration, coding and evaluation run within this, since a statistic decides
    codes. A model of your own gives the CPU's outputs on a GPU, but for the order of sums, with
    ``with corank.exact_float32(): model(x)``; it is slower. Models in half precision and autocast regions are not
    touched. The setting is the whole process's, and is as before when the last of several users has left.
    """
    _HELD.take()
    try:
        yield
    finally:
        _HELD.release()


def native_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 numbers natively."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities()
    return device.type == "cpu" and bool(found.get("avx512_bf16") or found.get("amx_bf16"))

"""Which frequencies of an image a network's answers rest on: Shapley values of bands, after I-ASIDE (arXiv 2408.01139).

A reconstruction: eight rings of the plane of frequencies are the players of a game whose value is the expected
log-probability of the right class when only some of them are in the image. 256 coalitions are few enough to be exact.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from corank.analysis.answers import all_inputs, answers_of, log_chances
from corank.analysis.compared import rounded_copy
from corank.calibration import Context
from corank.errors import DataError
from corank.watching import evaluating

__all__ = ["band_parts", "coalitions", "shapley_values", "spectral", "spectral_score"]

BANDS = 8
SMALLEST = 4  # pixels a side: rings that hold no frequency of a small image are worth nothing
DECAY = 0.75  # what a band counts, over the one below it, in the score


def band_parts(images: Tensor, bands: int = BANDS) -> Tensor:
    """Each image's part in each band ``(bands, N, C, H, W)``; their sum is the image.

    Bands are rings of equal width around frequency 0, up to the corner of the plane: the first has what changes slowly.

    Args:
        images: ``(N, C, H, W)`` floating.
        bands: how many.
    """
    height, width = images.shape[-2:]
    rows = torch.fft.fftfreq(height, dtype=torch.float64)
    columns = torch.fft.fftfreq(width, dtype=torch.float64)
    radius = torch.hypot(rows[:, None], columns[None, :])
    ring = (radius / math.sqrt(0.5) * bands).long().clamp(max=bands - 1).to(images.device)
    whole = torch.fft.fft2(images)
    return torch.stack([torch.fft.ifft2(whole * (ring == band)).real for band in range(bands)])


def coalitions(players: int) -> Tensor:
    """Who is in each coalition, bool ``(2 ** players, players)``: number ``s`` has player ``i`` where its bit ``i`` is
    set."""
    numbers = torch.arange(2**players, dtype=torch.int64)
    return (numbers[:, None] >> torch.arange(players, dtype=torch.int64)) % 2 == 1


def shapley_values(values: Tensor) -> Tensor:
    """The Shapley value of each player ``(players, ...)``, exact.

    ``sum over S without i of |S|! (n - |S| - 1)! / n! * (v(S and i) - v(S))``

    Args:
        values: ``(2 ** players, ...)``, of each coalition in the order of :func:`coalitions`.
    """
    players = len(values).bit_length() - 1
    sizes = coalitions(players).sum(1)
    total = math.factorial(players)
    weights = torch.tensor(
        [math.factorial(size) * math.factorial(players - size - 1) / total for size in range(players)],
        dtype=values.dtype, device=values.device,
    )  # fmt: skip
    found = []
    for player in range(players):
        without = torch.tensor([number for number in range(len(values)) if not number >> player & 1], dtype=torch.int64)
        gained = values[without + 2**player] - values[without]
        found.append(torch.tensordot(weights[sizes[without].to(weights.device)], gained, 1))
    return torch.stack(found)


def spectral_score(values: Tensor) -> float:
    """One number from 0 to 1 of Shapley values ``(bands,)``: how much rests on the low ones.

    They are shifted by the least, divided by their sum, and weighed by ``0.75 ** band``.
    """
    shifted = (values - values.min()).double()
    weights = DECAY ** torch.arange(len(values), dtype=torch.float64, device=values.device)
    return float((shifted * weights).sum() / shifted.sum().clamp(min=1e-30))


def spectral(context: Context, labels: Tensor | None, quantized: nn.Module | None, bits: int) -> dict[str, Any]:
    """The importance of each band for the float network and the quantized one, on the same images.

    Args:
        context: the float network and its samples.
        labels: of the samples; None takes what the float network sees in them.
        quantized: None rounds every layer to nearest, at ``bits`` bits.

    Raises:
        DataError: for what are no images ``(N, C, H, W)``. ModelError: for outputs that are no logits.
    """
    images = all_inputs(context, "spectral")
    if images.dim() != 4 or min(images.shape[-2:]) < SMALLEST:
        raise DataError(
            f"spectral looks at images (N, C, H, W) of at least {SMALLEST} pixels a side, not {tuple(images.shape)}"
        )
    with torch.no_grad(), evaluating(context.model):
        right = answers_of(context.model(images), labels)
    parts, other = band_parts(images), quantized if quantized is not None else rounded_copy(context, bits)
    shares, found = [], dict[str, Any]()
    for key, model in (("float", context.model), ("quantized", other)):
        values, hits = _values(context, model, parts, right, key)
        gained = shapley_values(values)
        shares.append(gained / gained.sum(0).mean())
        found[key] = {
            "importance": gained.mean(1).tolist(), "error": _error(gained), "share": shares[-1].mean(1).tolist(),
            "none": float(values[0].mean()), "all": float(values[-1].mean()), "score": spectral_score(gained.mean(1)),
            # how often it is right with the first bands alone, none to all
            "right": [100 * float(hits[2**count - 1].double().mean()) for count in range(BANDS + 1)],
        }  # fmt: skip
    moved = shares[1] - shares[0]  # of the same images, so that errors are small
    return {
        **found, "moved": moved.mean(1).tolist(), "moved_error": _error(moved),
        "edges": [band / BANDS * math.sqrt(0.5) for band in range(BANDS + 1)], "samples": len(images),
        "labelled": labels is not None, "trial_bits": bits if quantized is None else None, "layers": [],
        "no_theory": {}, "notes": [],
    }  # fmt: skip


def _error(values: Tensor) -> list[float]:
    """Standard errors of means over samples."""
    return (values.std(1, correction=0) / math.sqrt(values.shape[1])).tolist()


def _values(context: Context, model: nn.Module, parts: Tensor, right: Tensor, key: str) -> tuple[Tensor, Tensor]:
    """Log-probability of the right class ``(coalitions, N)`` float64, and whether it is the likeliest."""
    members, rows, hits = coalitions(len(parts)), [], []
    with torch.no_grad(), evaluating(model):
        for number, inside in enumerate(members):
            if number % 16 == 0:
                context.progress(f"bands of the {key} network", number, len(members))
            chances = log_chances(model(torch.tensordot(inside.to(parts), parts, 1)))
            rows.append(chances.gather(1, right[:, None])[:, 0].double())
            hits.append(chances.argmax(1) == right)
    return torch.stack(rows), torch.stack(hits)

"""How much a linear layer can stretch its input: the norm of the operator that it is, not of its kernel as a matrix.

A convolution on inputs of one size is a linear map, whose norm (largest singular value) hangs on size and padding. The
norm of the kernel reshaped to ``(R, C)``, which ``torch.nn.utils.spectral_norm`` takes, is below it.

Sedghi, Gupta and Long, "The singular values of convolutional layers" (arXiv 1805.10408) for circular padding; the bound
for zero padding is that of the whole convolution, of which every padding keeps a part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from corank.errors import ModelError
from corank.matrix import Geometry

__all__ = ["Norm", "apply_operator", "norm_bound", "norm_gradient", "operator_norm"]

_CONVOLVE = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
SPAN = 8  # iterates among whose span the most stretched input is looked for
_HELD = 4_000_000  # complex numbers of frequency responses at a time


@dataclass(frozen=True)
class Norm:
    """What products with a layer and its transpose found.

    Attributes:
        value: at most the operator's norm, which it nears from below.
        right: the input of norm 1 ``size`` that is stretched most.
        left: its output over ``value``, of norm 1.
        products: with the layer that it took.
    """

    value: float
    right: Tensor
    left: Tensor
    products: int


def apply_operator(geometry: Geometry, weight: Tensor, inputs: Tensor) -> Tensor:
    """What the layer makes of ``inputs`` ``(N, ...)`` without its bias; differentiable in both.

    Args:
        geometry: of the layer.
        weight: in the layer's own shape.

    Raises:
        ModelError: for a table that is looked up, or a weight that a module's own code reads: there is no such map.
    """
    if geometry.looked_up or geometry.flat:
        raise ModelError("no linear map of inputs is known of a weight that is looked up or read by other code")
    if not geometry.kernel:
        return F.linear(inputs, geometry.to_matrix(weight)[0])
    axes = len(geometry.kernel) - 1
    if geometry.transposed:
        padding = [before for before, _ in geometry.padding]
        options = (geometry.stride, padding, geometry.output_padding, geometry.groups, geometry.dilation)
        return _TRANSPOSED[axes](inputs, weight, None, *options)
    return _CONVOLVE[axes](
        _padded(geometry, inputs), weight, None, geometry.stride, 0, geometry.dilation, geometry.groups
    )


def operator_norm(
    geometry: Geometry, weight: Tensor, size: tuple[int, ...], products: int = 100, start: Tensor | None = None
) -> Norm:
    """The norm by products with the layer and its transpose, on inputs of that size: exact for every padding and
    stride once it has converged, and from below until then.

    It is a power iteration that looks for the most stretched input among the span of a few iterates, not at the last
    one alone (Lanczos, restarted): singular values of convolutions lie so close that the plain one would take long.

    Args:
        geometry: of the layer.
        weight: in the layer's own shape, floating.
        size: of one input, without the axis of samples: ``(C, H, W)``, ``(features,)``.
        products: with the layer, and as many with its transpose, at most; it ends when :data:`SPAN` of them change the
            value by less than 1e-6 of itself (1e-13 in float64).
        start: an input to start from, such as that of an earlier call; None draws one, always the same.

    Raises:
        ModelError: as for :func:`apply_operator`.
    """
    weight = weight.detach()
    tolerance = 1e-13 if weight.dtype == torch.float64 else 1e-6
    drawn = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    right = _unit((drawn if start is None else start).to(weight))
    left, value, done = right, 0.0, 0
    while done < products:
        span, images = [right], []
        for _ in range(min(SPAN, products - done)):
            image, back = _there_and_back(geometry, weight, span[-1])
            images.append(image)
            fresh = _outside(back, span)
            done += 1
            if fresh is None:
                break
            span.append(fresh)
        stacked = torch.stack([one.flatten() for one in images])
        grown, mixes = torch.linalg.eigh((stacked @ stacked.T).double())
        mix = mixes[:, -1].to(weight.dtype)
        last, value = value, math.sqrt(max(0.0, float(grown[-1])))
        right = _unit(torch.tensordot(mix, torch.stack(span[: len(mix)]), 1))
        left = _unit(torch.tensordot(mix, torch.stack(images), 1))
        if value - last <= tolerance * value:
            break
    return Norm(value, right, left, done)


def _there_and_back(geometry: Geometry, weight: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
    """What the layer makes of one input, and what its transpose makes of that."""
    with torch.enable_grad():
        inputs = vector[None].clone().requires_grad_()
        output = apply_operator(geometry, weight, inputs)
    image = output.detach()
    return image[0], torch.autograd.grad(output, inputs, image)[0][0]


def _outside(vector: Tensor, span: list[Tensor]) -> Tensor | None:
    """The part of a vector that orthonormal ones do not span, of norm 1; None where there is none."""
    size = vector.norm()
    for _ in range(2):  # once leaves what rounding lost
        for one in span:
            vector = vector - (one * vector).sum() * one
    kept = vector.norm()
    return vector / kept if bool(kept > 10 * torch.finfo(vector.dtype).eps * size) else None


def norm_gradient(geometry: Geometry, weight: Tensor, norm: Norm) -> Tensor:
    """How the operator's norm moves with the weight, in the weight's shape: ``u v^T`` for a matrix, and for a
    convolution the same summed over the places that one number of its kernel has."""
    with torch.enable_grad():
        moving = weight.detach().clone().requires_grad_()
        output = apply_operator(geometry, moving, norm.right.to(moving)[None])
        return torch.autograd.grad(output, moving, norm.left.to(moving)[None])[0]


def norm_bound(geometry: Geometry, weight: Tensor, size: tuple[int, ...]) -> float:
    """A number that the operator's norm does not exceed.

    It is the norm itself for a linear layer, and for a convolution that pads circularly to its own size, as long as
    that is a multiple of the stride. Otherwise the largest singular value of the frequency responses on a grid that
    holds the whole convolution, since padding with zeros only takes outputs away. Padding that repeats inputs counts
    how often. A stride reads inputs of several phases, which are channels of their own here.

    Raises:
        ModelError: as for :func:`apply_operator`.
    """
    weight = weight.detach().double().cpu()
    if geometry.looked_up or geometry.flat:
        apply_operator(geometry, weight, weight)  # says why there is none
    if not geometry.kernel:
        return float(torch.linalg.matrix_norm(geometry.to_matrix(weight)[0], 2))
    grid, stride, times = _grid(geometry, size)
    groups, rows, _ = geometry.matrix_shape
    taps = geometry.to_matrix(weight).reshape(groups, rows, -1, math.prod(geometry.kernel))
    # The transpose of a transposed convolution is a convolution, of the same norm.
    return times * _largest_response(taps.transpose(1, 2) if geometry.transposed else taps, geometry, grid, stride)


def _grid(geometry: Geometry, size: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...], float]:
    """Points of the grid of outputs along each axis, the strides that it counts with, and what repeated inputs multiply
    the norm by, at most."""
    axes = len(geometry.kernel)
    lengths, times = list(size[-axes:]), 1.0
    reach = [step * (taps - 1) for step, taps in zip(geometry.dilation, geometry.kernel, strict=True)]
    if geometry.transposed:
        lengths = [
            (length - 1) * step + 1 + far for length, step, far in zip(lengths, geometry.stride, reach, strict=True)
        ]
    elif geometry.padding_mode == "circular":
        ends = zip(lengths, geometry.padding, reach, strict=True)
        repeats = math.prod(math.ceil((length + sum(sides) - far) / length) for length, sides, far in ends)
        whole = all(length % step == 0 for length, step in zip(lengths, geometry.stride, strict=True))
        stride = geometry.stride if whole else (1,) * axes
        grid = tuple(length // step for length, step in zip(lengths, stride, strict=True))
        return grid, stride, math.sqrt(max(1, repeats))
    elif geometry.padding_mode in ("reflect", "replicate"):
        ones = torch.ones(1, 1, *lengths, dtype=torch.float64, requires_grad=True)
        with torch.enable_grad():
            padded = _padded(geometry, ones)
        times = math.sqrt(float(torch.autograd.grad(padded.sum(), ones)[0].max()))
        lengths = list(padded.shape[2:])
    spans = zip(lengths, reach, geometry.stride, strict=True)
    # where outputs begin within a stride is left open: one point more
    grid = tuple(
        length + far if step == 1 else math.ceil(length / step) + 1 + far // step for length, far, step in spans
    )
    return grid, geometry.stride, times


def _largest_response(taps: Tensor, geometry: Geometry, grid: tuple[int, ...], stride: tuple[int, ...]) -> float:
    """Over all frequencies of the grid, of kernels ``(G, R, inputs, taps)``."""
    groups, rows, inputs, count = taps.shape
    if count == 1:
        return float(torch.linalg.matrix_norm(taps[..., 0], 2).max())
    steps, phase_of = torch.tensor(stride, dtype=torch.int64), dict[tuple[int, ...], list[int]]()
    places = torch.cartesian_prod(*(torch.arange(n, dtype=torch.int64) for n in geometry.kernel)).reshape(count, -1)
    places = places * torch.tensor(geometry.dilation, dtype=torch.int64)
    for tap, phase in enumerate((places % steps).tolist()):
        phase_of.setdefault(tuple(phase), []).append(tap)
    half = [*grid[:-1], grid[-1] // 2 + 1]  # the others are conjugates: weights are real
    points = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in half)).reshape(math.prod(half), -1)
    turns = 2 * math.pi * points / torch.tensor(grid, dtype=torch.float64)
    phases = (places // steps).double() @ turns.T
    waves, largest = torch.polar(torch.ones_like(phases), -phases), 0.0
    for part in waves.split(max(1, _HELD // (groups * rows * inputs * len(phase_of))), 1):
        pieces = [torch.einsum("grit,tf->gfri", taps[..., own].to(part.dtype), part[own]) for own in phase_of.values()]
        responses = torch.cat(pieces, 3)
        if responses.shape[2] > responses.shape[3]:
            responses = responses.transpose(2, 3)
        largest = max(largest, float(torch.linalg.eigvalsh(responses @ responses.mH)[..., -1].max()))
    return math.sqrt(max(largest, 0.0))


def _padded(geometry: Geometry, inputs: Tensor) -> Tensor:
    amounts = [side for axis in reversed(geometry.padding) for side in axis]
    if not any(amounts):
        return inputs
    return F.pad(inputs, amounts, "constant" if geometry.padding_mode == "zeros" else geometry.padding_mode)


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm().clamp(min=torch.finfo(vector.dtype).tiny)

"""Uniform quantization, 1 to 8 bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from corank.codecs.base import Codec, TensorSpec, as_stored, check_weight
from corank.codecs.scalar import ScalarCodebook
from corank.codecs.scaled import group_shape
from corank.errors import ConfigError
from corank.transfer import sent

__all__ = ["Uniform"]

_SEARCHED = ("mse", "output")  # ranges
_UNSEEN = 1e-3  # of the mean mass, at least
_CHUNK = 1 << 21  # weights searched at once by the least-error range


@dataclass(frozen=True)
class Uniform(Codec):
    """Equally spaced values: ``value = scale * (code - offset)``.

    Args:
        bits: 1 to 8.
        symmetric: levels around zero and no stored offset (at 1 bit: -1 and +1); otherwise a whole-number offset
            (the zero point), so that zero is exactly representable.
        group: columns that share a scale; 0 for one scale a row (output channel), -1 for one a weight.
        range: "minmax", "std" (mean +- ``deviations`` standard deviations, never wider than min-max), "mse" (the
            scale and offset of least squared error), or "output": of least error of the output, as far as inputs are
            not correlated, so that each weight's squared error counts by its input's energy; "mse" where no input is
            known. This is the search for clipping of AWQ (arXiv 2306.00978) with moments in the place of samples.
        half: offsets may lie midway between two levels, where that loses less; zero is then no value of the row. At
            2 bits four values about zero fit most weights better than zero and three others. One bit more an offset.
        deviations: of the "std" range; CoRa (arXiv 2408.00923) uses about 3 to 5.

    Scales are rounded to fp16 at fitting, as they are stored.
    """

    bits: int = 4
    symmetric: bool = False
    group: int = 0
    range: str = "minmax"
    deviations: float = 4.0
    half: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.bits, bool) or not isinstance(self.bits, int) or not 1 <= self.bits <= 8:
            raise ConfigError(f"bits={self.bits!r}: Uniform takes a whole number from 1 to 8, e.g. Uniform(bits=4)")
        if self.range not in ("minmax", "std", *_SEARCHED):
            raise ConfigError(f"range={self.range!r}: Uniform takes 'minmax', 'std', 'mse' or 'output'")
        if not isinstance(self.group, int) or self.group < -1:
            raise ConfigError(f"group={self.group!r}: a number of columns, 0 (a scale per row) or -1 (per tensor)")
        if not isinstance(self.half, bool) or (self.half and (self.symmetric or self.bits == 8)):
            raise ConfigError(
                f"half={self.half!r}: true or false; offsets are stored unsymmetric and in at most 8 bits"
            )
        if not self.deviations > 0:
            raise ConfigError(f"deviations={self.deviations!r}: a positive number, e.g. 4.0")

    @property
    def offset_bits(self) -> int:
        """Bits of one stored offset."""
        return 0 if self.symmetric else self.bits + self.half

    @property
    def offset_step(self) -> float:
        """What one stored unit of an offset stands for, in levels."""
        return 0.5 if self.half else 1.0

    def with_bits(self, bits: int) -> Uniform:
        """The same with codes of another width; offsets are whole at 8 bits."""
        return replace(self, bits=bits, half=self.half and bits != 8)

    def stored(self, rows: int, columns: int) -> dict[str, TensorSpec]:
        counts = group_shape(self.group, rows, columns)
        count = counts[0] * counts[1]
        scale = {"scale": TensorSpec(count, 16, True)}
        return scale if self.symmetric else {**scale, "offset": TensorSpec(count, self.offset_bits, False)}

    def fit(self, weight: Tensor, gram: Tensor | None = None) -> ScalarCodebook:
        """The codebook for ``weight`` ``(R, C)``; ``gram`` is looked at by the range "output" alone."""
        check_weight(weight)
        weight = weight.detach().float()
        mass = self._mass(weight, gram)
        rows, columns = weight.shape
        if self.group == -1:
            scale, offset = self._fit_rows(weight.reshape(1, -1), None if mass is None else mass.reshape(1, -1))
            return self._codebook(scale, offset, rows, columns)
        size = columns if self.group == 0 else min(self.group, columns)
        masses = [None] * -(-columns // size) if mass is None else mass.split(size, dim=1)
        parts = [self._fit_rows(*part) for part in zip(weight.split(size, dim=1), masses, strict=True)]
        scale, offset = torch.cat([part[0] for part in parts], 1), torch.cat([part[1] for part in parts], 1)
        return self._codebook(scale, offset, rows, columns)

    def codebook(self, tensors: Mapping[str, Tensor], rows: int, columns: int) -> ScalarCodebook:
        scale = tensors["scale"]
        offset = torch.zeros_like(scale) if self.symmetric else tensors["offset"].float() * self.offset_step
        return self._codebook(scale, offset, rows, columns)

    def _codebook(self, scale: Tensor, offset: Tensor, rows: int, columns: int) -> ScalarCodebook:
        size = columns if self.group <= 0 else min(self.group, columns)
        shape = group_shape(self.group, rows, columns)
        levels = sent(self._levels(), scale.device)
        return ScalarCodebook(
            levels, scale.reshape(shape), offset.reshape(shape), size, self.offset_bits, self.offset_step
        )

    def _levels(self) -> Tensor:
        if not self.symmetric:
            return torch.arange(2.0**self.bits, dtype=torch.float32)
        if self.bits == 1:
            return torch.tensor([-1.0, 1.0], dtype=torch.float32)
        return torch.arange(-(2.0 ** (self.bits - 1)), 2.0 ** (self.bits - 1), dtype=torch.float32)

    def _mass(self, weight: Tensor, gram: Tensor | None) -> Tensor | None:
        """How much each weight's error counts, ``(R, C)`` or None where all count alike."""
        if self.range != "output" or gram is None:
            return None
        energy = gram.diagonal(dim1=1, dim2=2).float()
        share = energy / energy.mean(1, keepdim=True).clamp(min=1e-30)
        # an input that was never seen may come yet
        return share.clamp(min=_UNSEEN).repeat_interleave(len(weight) // len(gram), 0)

    def _fit_rows(self, rows: Tensor, mass: Tensor | None) -> tuple[Tensor, Tensor]:
        """Scale and offset, each ``(rows, 1)``, one for each row of ``rows``."""
        low, high = rows.amin(1, keepdim=True).clamp(max=0), rows.amax(1, keepdim=True).clamp(min=0)
        if self.range == "std":
            spread = self.deviations * rows.std(1, keepdim=True, correction=0)
            mean = rows.mean(1, keepdim=True)
            low = torch.maximum(low, (mean - spread).clamp(max=0))
            high = torch.minimum(high, (mean + spread).clamp(min=0))
        if self.range not in _SEARCHED:
            return self._from_range(low, high)
        step = max(1, _CHUNK // rows.shape[1])
        masses = [None] * -(-len(rows) // step) if mass is None else mass.split(step)
        parts = zip(rows.split(step), masses, zip(low.split(step), high.split(step), strict=True), strict=True)
        found = [self._least_error(*part) for part in parts]
        return torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found])

    def _from_range(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        if self.symmetric:
            levels = sent(self._levels(), low.device)
            scale = torch.maximum(low / levels[0], high / levels[-1])
            return as_stored(scale), torch.zeros_like(scale)
        top = 2**self.bits - 1
        scale = as_stored((high - low) / top)
        return scale, self._on_grid(-low / scale).clamp(0, top)

    def _least_error(self, rows: Tensor, mass: Tensor | None, whole: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The scale and offset of least squared error, over shrunken ranges and the offsets near each."""
        low, high = whole
        best_scale, best_offset = self._from_range(low, high)
        least = self._error(rows, mass, (best_scale, best_offset))
        top = 2**self.bits - 1
        narrowest, tries = (0.2, 61) if self.bits < 4 else (0.4, 31)
        for shrink in torch.linspace(1.0, narrowest, tries, dtype=torch.float32).tolist():
            scale, centre = self._from_range(low * shrink, high * shrink)
            for move in self._moves():
                offset = torch.full_like(centre, move) if self.bits < 3 else (centre + move).clamp(0, top)
                error = self._error(rows, mass, (scale, offset))
                better = error < least
                least = torch.where(better, error, least)
                best_scale = torch.where(better, scale, best_scale)
                best_offset = torch.where(better, offset, best_offset)
        return best_scale, best_offset

    def _on_grid(self, offset: Tensor) -> Tensor:
        return (offset / self.offset_step).round() * self.offset_step

    def _moves(self) -> list[float]:
        """Offsets to try: all of them below 3 bits, else steps from the one of the range."""
        if self.symmetric:
            return [0.0]
        per_level = round(1 / self.offset_step)
        units = range(per_level * (2**self.bits - 1) + 1) if self.bits < 3 else range(-per_level, per_level + 1)
        return [unit * self.offset_step for unit in units]

    def _error(self, rows: Tensor, mass: Tensor | None, fitted: tuple[Tensor, Tensor]) -> Tensor:
        scale, offset = fitted
        levels = self._levels()
        if self.symmetric and self.bits == 1:
            rounded = torch.where(rows < 0, -1.0, torch.ones_like(rows))
        else:
            rounded = (rows / scale + offset).round().clamp(float(levels[0]), float(levels[-1]))
        error = (scale * (rounded - offset) - rows).square()
        return (error if mass is None else error * mass).sum(1, keepdim=True)

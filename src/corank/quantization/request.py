"""What a quantization was asked to reach, and by which means."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from corank.codecs import Codec
from corank.errors import BudgetError, ConfigError
from corank.plan import Plan
from corank.presets import AUTO, keeps_to_rate
from corank.quantization.template import PlanTemplate
from corank.refine import BlockReconstruction, PostTraining, Refinement
from corank.search import Search
from corank.sizes import parse_size

__all__ = [
    "MOST_EXTRA_BITS",
    "Asked",
    "FileSize",
    "Given",
    "Origin",
    "QuantizeRequest",
    "RateForSize",
    "Target",
    "Width",
    "usual_rate",
]

RATED = ("fast", "best")  # presets whose files of a size are of the rate that fits
MOST_EXTRA_BITS = 32  # a weight, of all adapters


@dataclass(frozen=True)
class Width:
    """Codes of ``bits`` bits (None: the codec's own) and adapters of ``budget`` extra bits (None: the preset's)."""

    bits: int | None = None
    budget: float | None = None


@dataclass(frozen=True)
class FileSize:
    """A file of at most ``size`` bytes: codes of ``bits`` bits (None: the most that fit), adapters of what is left."""

    size: int
    bits: int | None = None


@dataclass(frozen=True)
class RateForSize:
    """A file of at most ``size`` bytes by the rate of its codes, adapters of ``budget`` extra bits."""

    size: int
    budget: float = 0.0


@dataclass(frozen=True)
class Given:
    """A plan to carry out; nothing is searched."""

    plan: Plan


Target = Width | FileSize | RateForSize | Given


@dataclass(frozen=True)
class Asked:
    """The arguments of a call that decide its target, None where nothing was given; see :func:`corank.quantize`."""

    bits: int | None = None
    rate: float | str | None = None
    budget: float | None = None
    size: int | str | None = None
    plan: Plan | None = None
    codec: str | Codec | None = None
    activations: int | None = None

    def target(self) -> Target:
        """What to reach; raises what :meth:`check` raises."""
        self.check()
        if self.plan is not None:
            return Given(self.plan)
        if self.rate == AUTO:
            if self.size is None:
                raise ConfigError(
                    "rate='auto' finds the rate for a size; give one: quantize(..., size='70KB', rate='auto')"
                )
            return RateForSize(parse_size(self.size), self.budget or 0.0)
        return Width(self.bits, self.budget) if self.size is None else FileSize(parse_size(self.size), self.bits)

    def check(self) -> None:
        """Raises ConfigError or BudgetError for what excludes each other, or no model can be asked for."""
        bits, budget = self.bits, self.budget
        if self.rate is not None:
            others = {
                "codec": None if keeps_to_rate(self.codec) else self.codec,
                "bits": bits,
                "size": None if self.rate == AUTO else self.size,
            }
            _one_of("rate", {**others, "plan": self.plan}, "the rate says how codes are made")
        if bits is not None and (isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 8):
            raise ConfigError(f"bits={bits!r}: a whole number from 1 to 8, e.g. quantize(model, data, bits=4)")
        if budget is not None and self.size is not None and self.rate != AUTO:
            raise ConfigError("budget and size were both given; choose one")
        if budget is not None and not 0 <= budget <= MOST_EXTRA_BITS:
            raise BudgetError(
                f"budget={budget!r}: extra bits per weight, from 0 (no adapters) to {MOST_EXTRA_BITS}, e.g. budget=0.25"
            )
        if self.activations is not None and self.plan is not None:
            raise ConfigError("plan and activations were both given; a plan says its layers' inputs itself")
        if self.activations is not None and (type(self.activations) is not int or not 2 <= self.activations <= 8):
            trained = "; inputs of 1 bit are trained: corank train" if self.activations == 1 else ""
            raise ConfigError(
                f"activations={self.activations!r}: 2 to 8 bits, e.g. quantize(model, data, bits=4, "
                f"activations=8){trained}"
            )


def usual_rate(
    rate: float | str | None, size: int | str | None, preset: object, refinement: object, others: Iterable[object]
) -> float | str | None:
    """The rate, or "auto" where a file's size is all that was asked for: codes of a rate keep more in as many bytes.

    Args:
        rate, size, preset, refinement: as for :func:`corank.quantize`.
        others: what says that codes are of fixed width, where it was given: bits, a codec, a search for adapters, ...
    """
    moves = isinstance(refinement, BlockReconstruction) or (isinstance(refinement, Refinement) and refinement.code_rate)
    alone = size is not None and all(one is None for one in others) and not moves
    return AUTO if rate is None and alone and preset in RATED else rate


def _one_of(name: str, others: dict[str, object], why: str) -> None:
    given = [other for other, value in others.items() if value is not None]
    if given:
        raise ConfigError(f"{name} and {', '.join(given)} were given; choose one: {why}")


@dataclass(frozen=True)
class Origin:
    """Names for the record: what the model was made from, the preset and the search."""

    reference: str | None = None
    preset: str | None = None
    search: str | None = None


@dataclass(frozen=True)
class QuantizeRequest:
    """All that decides a quantization of a prepared model.

    Attributes:
        template: makes the plan without ranks.
        target: what to reach.
        search: finds ranks or codecs.
        post_training: what follows the coding; without iterations for nothing.
        origin: for the record.
    """

    template: PlanTemplate
    target: Target
    search: Search
    post_training: PostTraining
    origin: Origin = Origin()

    def __post_init__(self) -> None:
        if not isinstance(self.target, RateForSize):
            return
        # The file is measured before the refinement, so that must leave what is measured alone.
        if isinstance(self.post_training, BlockReconstruction):
            raise ConfigError("rate='auto' measures codes before refinement, and BlockReconstruction moves them")
        if isinstance(self.post_training, Refinement) and self.post_training.code_rate:
            raise ConfigError(
                "rate='auto' measures codes before refinement, which must leave them: Refinement(code_rate=0)"
            )

    @property
    def may_adapt(self) -> bool:
        """Whether what was asked for may pay for an adapter; plans may say so themselves."""
        target, usual = self.target, self.template.recipe.budget
        if isinstance(target, Given):
            return target.plan.has_adapters
        if isinstance(target, FileSize):
            return True
        return (usual if target.budget is None else target.budget) > 0

    def at_rate(self, rate: float) -> QuantizeRequest:
        """The same with codes of that rate."""
        return replace(self, template=self.template.at_rate(rate))

"""Recipes: how each layer is coded and how ranks are searched."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from corank.codecs import CODECS, Codec, RatedLevels, RateUniform, Trellis, Uniform
from corank.config import choose
from corank.errors import ConfigError
from corank.plan import LayerPlan
from corank.refine import PostTraining, Refinement
from corank.rounding import AdaRound, Dependent, Gptq, Nearest
from corank.search import CoRa, Greedy, Joint, Rates, Search, UniformRanks

__all__ = [
    "AUTO",
    "PRESETS",
    "SEARCH_NAMES",
    "Preset",
    "chosen_codec",
    "chosen_preset",
    "chosen_search",
    "keeps_to_rate",
]


AUTO = "auto"  # a rate that is found for the size of the file
_REFITS = 4
_PATHS = Dependent(sweeps=3)


@dataclass(frozen=True)
class Preset:
    """A recipe.

    Attributes:
        layer: what every layer gets; the codec's bits are the default, and the caller's where they say so.
        search: how ranks are found, unless the caller says otherwise.
        edge: what the first and last layer get.
        budget: extra bits per quantized weight for adapters, unless the caller says otherwise.
        refinement: the distillation that follows, if any.
    """

    layer: LayerPlan
    search: Search
    edge: LayerPlan
    budget: float = 0.25
    refinement: PostTraining | None = None

    @property
    def codec(self) -> Codec:
        """Of every layer but the first and last."""
        if self.layer.codec is None:
            raise ConfigError("the preset's layer has no codec; Preset(layer=LayerPlan(Uniform()), ...) has one")
        return self.layer.codec

    @property
    def rate(self) -> float:
        """Bits a weight after entropy coding of every layer but the first and last; 0 where codes have no rate."""
        return self.codec.most if isinstance(self.codec, RatedLevels) else 0.0

    @property
    def widths(self) -> tuple[int, ...]:
        """The bits that its codec can have, ascending."""
        return tuple(bits for bits in range(1, 9) if self._has(bits))

    def _has(self, bits: int) -> bool:
        try:
            self.codec.with_bits(bits)
        except ConfigError:
            return False
        return True

    def layer_plan(self, bits: int, adapter_bits: int | None) -> LayerPlan:
        """The plan of a layer of ``bits`` bits.

        Raises:
            ConfigError: for a width that the codec does not have.
        """
        width = self.layer.adapter_bits if adapter_bits is None else adapter_bits
        codec = self.codec if bits == self.codec.bits else self.codec.with_bits(bits)
        return replace(self.layer, codec=codec, adapter_bits=width)

    def with_codec(self, choice: str | Codec) -> Preset:
        """The same with another codec, at every layer but the first and last; see :func:`chosen_codec`.

        Scales of another kind of codec than the preset's are fitted to the inputs, where its rounder minds them, too.
        """
        codec = chosen_codec(choice, self.codec)
        # A step that keeps to a rate stays as it is.
        other = not isinstance(codec, (type(self.codec), RatedLevels))
        refits = _REFITS if self.layer.rounder.needs and other else self.layer.refits
        # Paths of a trellis have a rounder of their own, where the preset's minds the inputs.
        rounder = _PATHS if isinstance(codec, Trellis) and self.layer.rounder.needs else self.layer.rounder
        return replace(self, layer=replace(self.layer, codec=codec, refits=refits, rounder=rounder))

    def at_rate(self, rate: float) -> Preset:
        """The same with codes of ``rate`` bits after entropy coding, and no adapters unless they are asked for.

        The first and the last layer get four bits more, at most 6 in all; rates of the others are found by `Rates`.
        """
        edge = replace(self.edge, codec=RateUniform.of(round(min(6.0, rate + 4.0), 3)))
        own = self.codec if isinstance(self.codec, RatedLevels) else RateUniform()
        return replace(self.with_codec(own.at_rate(float(rate))), edge=edge, budget=0.0, search=Rates())

    def with_input_range(self, range: str) -> Preset:
        """The same with inputs clipped in another way, at every layer."""
        layer, edge = (replace(plan, input_range=range) for plan in (self.layer, self.edge))
        return replace(self, layer=layer, edge=edge)


_PAPER = LayerPlan(codec=Uniform(range="std", deviations=4.0), rounder=Nearest(), fit="svd")
_FAST = LayerPlan(
    codec=Uniform(range="mse", half=True),
    rounder=Gptq(sweeps=3),
    fit="loss",
    rounds=4,
    bias_correction=True,
    sequential=True,
)

_BEST = replace(_FAST, rounder=AdaRound(500, learning_rate=0.05, sweeps=3), rounds=2)
_EDGE = replace(_FAST, codec=Uniform(8, range="mse"), fit="svd", rounds=1)

PRESETS: dict[str, Preset] = {
    "nearest": Preset(
        replace(_PAPER, codec=Uniform(range="mse")), UniformRanks(), LayerPlan(Uniform(8, range="mse")), 0.0
    ),
    "paper": Preset(_PAPER, CoRa.paper(), LayerPlan(Uniform(8))),
    "fast": Preset(_FAST, CoRa(), _EDGE),
    "best": Preset(_BEST, UniformRanks(), _EDGE, 0.0, Refinement()),
}
"""``nearest``: rounding alone. ``paper``: CoRa as published (nearest, plain SVD, Butterworth search from 0.9).
``fast``: GPTQ layer after layer, loss-weighted adapters alternated with the rounding, Butterworth search from the
closed form. ``best``: AdaRound layer after layer, or GPTQ for the rows on which that loses less, then at most 250
steps of distillation over scales, biases and adapters."""


def chosen_preset(
    preset: str | Preset, codec: str | Codec | None, input_range: str, rate: float | str | None = None
) -> Preset:
    """The preset, or the one of that name, with another codec, range of inputs or rate where they are given.

    ``codec``, ``input_range`` and ``rate`` are as for :func:`corank.quantize`; "auto" is 2 until the rate is found.
    """
    recipe = preset if isinstance(preset, Preset) else choose(preset, PRESETS, "preset")
    if codec is not None:
        recipe = recipe.with_codec(codec)
    if rate is not None:
        recipe = recipe.at_rate(_checked_rate(rate))
    return recipe.with_input_range(input_range)


def _checked_rate(rate: float | str) -> float:
    """Raises ConfigError for what is no rate."""
    if rate == AUTO:
        return 2.0
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0.1 <= rate <= 6:
        raise ConfigError(
            f"rate={rate!r}: bits a weight after coding, 0.1 to 6, or 'auto' for what fits a size, "
            "e.g. quantize(model, data, rate=2.0) or quantize(model, data, size='70KB', rate='auto')"
        )
    return float(rate)


def chosen_codec(choice: str | Codec, own: Codec) -> Codec:
    """The codec given, or the one of that name in :data:`~corank.codecs.CODECS`; "NAME:BITS" also says its width, and
    "NAME/COLUMNS" or "NAME/COLUMNS:BITS" how many columns share a scale.

    Where ``own`` is of that kind, it is taken with its settings; else all but the width are at their defaults.
    """
    if isinstance(choice, Codec):
        return choice
    if not isinstance(choice, str):
        raise ConfigError(f"codec={choice!r}: a name ({', '.join(sorted(CODECS))}) or a corank.codecs.Codec")
    name, colon, bits = choice.partition(":")
    name, slash, columns = name.partition("/")
    kind = choose(name, CODECS, "codec")
    codec = own if type(own) is kind else kind()
    if slash:
        codec = _grouped(codec, choice, columns)
    if not colon:
        return codec
    if not (bits.isascii() and bits.isdigit()):
        raise ConfigError(f"codec {choice!r}: NAME or NAME:BITS, e.g. 'dense-shift' or 'dense-shift:3'")
    return codec.with_bits(int(bits[:6]))


def _grouped(codec: Codec, choice: str, columns: str) -> Codec:
    """The codec with a scale for so many columns."""
    if not (columns.isascii() and columns.isdigit()) or "group" not in vars(codec):
        raise ConfigError(
            f"codec {choice!r}: NAME/COLUMNS, e.g. 'uniform/64', of a codec whose scales may be of groups of columns"
        )
    found: Any = codec
    return replace(found, group=int(columns[:6]))


def keeps_to_rate(choice: str | Codec | None) -> bool:
    """Whether the codec of that name, or the one given, is one whose codes have a rate."""
    codec = chosen_codec(choice, Uniform()) if isinstance(choice, str) else choice
    return isinstance(codec, RatedLevels)


SEARCH_NAMES = ("cora", "cora-from-0.9", "greedy", "joint", "rates", "uniform")


def chosen_search(preset: Preset, name: str | Search | None) -> Search:
    """The search of that name (one of :data:`SEARCH_NAMES`), the one given, or the preset's own."""
    if name is None:
        return preset.search
    if isinstance(name, Search):
        return name
    if not isinstance(name, str):
        raise ConfigError(f"search={name!r}: a name ({', '.join(SEARCH_NAMES)}) or a corank.search.Search")
    own = preset.search if isinstance(preset.search, CoRa) else CoRa()
    table: dict[str, Search] = {
        "cora": own,
        "cora-from-0.9": replace(own, start=0.9),
        "greedy": Greedy(),
        "joint": Joint(),
        "rates": Rates(),
        "uniform": UniformRanks(),
    }
    return choose(name, table, "search")

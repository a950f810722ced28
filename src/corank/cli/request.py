"""What `corank quantize` was asked to do, and the library's call that does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from torch import nn

import corank
import corank.cli.quantize_options as options
from corank.cli.sources import ModelOptions, Work
from corank.data import BatchSet, ImageSet, TokenSet
from corank.errors import ConfigError
from corank.layers import check_rotation
from corank.models import ResolvedModel
from corank.models.streamed import streamed_source
from corank.presets import AUTO, chosen_codec, keeps_to_rate
from corank.progress import Progress
from corank.pruning.narrowing import Narrowing
from corank.quantization.request import usual_rate
from corank.storage.entropy_coding import check_coder
from corank.verbs.smallest import Trial

__all__ = ["Request", "exceptions_of"]

Samples = ImageSet | TokenSet | BatchSet


@dataclass(frozen=True)
class Request:
    """What was asked for, None where nothing was."""

    bits: options.Bits = None
    codec: options.CodecName = None
    rate: options.Rate = None
    budget: options.Budget = None
    size: options.Size = None
    prune: options.Prune = None
    max_drop: options.MaxDrop = None
    stream: options.Stream = False
    preset: options.Preset = None
    search: options.Search = None
    iterations: options.Iterations = None
    plan: options.Plan = None
    layer: options.Layer = None
    all_layers: options.AllLayers = False
    rotate: options.Rotate = None
    adapter_bits: options.AdapterBits = None
    activations: options.Activations = None
    activation_range: options.ActivationRange = None
    samples: options.Samples = None
    checkpoint: options.Checkpoint = None
    coder: options.Coder = "auto"

    @property
    def layers(self) -> dict[str, int | str]:
        """Exceptions by pattern."""
        return exceptions_of(self.layer or ())

    def checked(self, scored: bool) -> Self:
        """Itself; raises ConfigError for options that exclude each other, and a coder that cannot be."""
        check_coder(self.coder)
        check_rotation(self.rotate)
        common = {
            "--bits": self.bits, "--rate": self.rate, "--budget": self.budget, "--size": self.size,
            "--layer": self.layer or None, "--all-layers": self.all_layers or None,
            "--adapter-bits": self.adapter_bits, "--prune": self.prune,
        }  # fmt: skip
        if self.plan is not None:
            clash = {
                **common, "--codec": self.codec, "--max-drop": self.max_drop, "--preset": self.preset,
                "--search": self.search, "--activations": self.activations,
                "--activation-range": self.activation_range,
            }  # fmt: skip
            _refuse("--plan", "the plan says everything", clash)
        if self.max_drop is not None:
            given = {"--bits": self.bits, "--budget": self.budget, "--size": self.size}
            _refuse("--max-drop", "bits and budget are found", given)
            if not scored:
                raise ConfigError("--max-drop needs samples to measure the drop on; add --eval DATA")
        if self.stream:
            given = {
                "--budget": self.budget, "--size": self.size, "--max-drop": self.max_drop, "--search": self.search,
                "--iterations": self.iterations, "--plan": self.plan, "--all-layers": self.all_layers or None,
                "--adapter-bits": self.adapter_bits, "--activations": self.activations, "--prune": self.prune,
                "--eval": scored or None, "--rotate": self.rotate,
            }  # fmt: skip
            _refuse("--stream", "the network is never there as a whole; --bits or --rate say how small", given)
        names = [self.codec, *(name for name in self.layers.values() if isinstance(name, str))]
        for name in names:
            if name is not None and name != "float":
                chosen_codec(name, corank.Uniform())
        if self.codec is not None and self.bits is not None:
            chosen_codec(self.codec, corank.Uniform()).with_bits(self.bits)
        if self.activation_range is not None and self.activations is None and self.plan is None:
            raise ConfigError("--activation-range clips inputs, which are float; add --activations 8")
        self._check_size()
        return self

    def _check_size(self) -> None:
        if self.prune is not None:
            Narrowing.read(self.prune)
            if self.size is None:
                raise ConfigError(
                    "--prune weighs channels against bits for a size; add --size 40KB, or prune first: corank prune"
                )
        rate = self._usual_rate
        if rate is not None:
            other = None if keeps_to_rate(self.codec) else self.codec
            _refuse("--rate", "it says how codes are made", {"--bits": self.bits, "--codec": other})
        if rate == AUTO and self.size is None and self.max_drop is None:
            raise ConfigError(
                "--rate auto finds the rate for a size or a drop; add --size 1.2MB, or --max-drop 0.5 --eval DATA"
            )
        if rate == AUTO and self.size is not None and self.coder != "auto":
            said = "--size" if self.rate is None else "--rate auto"
            more = "" if self.rate is not None else ", or ask for codes of fixed width, such as --search joint"
            raise ConfigError(
                f"{said} measures the file that the coder auto makes; leave --coder {self.coder} out{more}"
            )
        if rate is not None and rate != AUTO:
            given = {"--size": self.size, "--max-drop": self.max_drop}
            _refuse("--rate", "it says how large the file is; auto finds it for a size or a drop", given)
        if self.size is not None and rate != AUTO:
            _refuse("--size", "the size sets the budget", {"--budget": self.budget})

    @property
    def _usual_rate(self) -> float | str | None:
        """The rate that was asked for, if only by a size."""
        codec = None if keeps_to_rate(self.codec) else self.codec
        fixed = (self.bits, self.budget, self.plan, codec, self.search, self.adapter_bits, self.activations)
        return usual_rate(_rate(self.rate), self.size, self.preset or "fast", None, fixed)

    def source(self, model: str, network: ModelOptions, seed: int) -> ResolvedModel:
        """The model, or of one that is read layer by layer what there is to know of it."""
        if not self.stream:
            return network.resolve(model, seed)
        given = {"--weights": network.weights, "--pretrained": network.pretrained or None}
        _refuse("--stream", "the folder's own weights are read", given)
        return streamed_source(model)

    def _streamed(self, source: ResolvedModel, data: Samples, work: Work, progress: Progress) -> nn.Module:
        """Does it of a language model's folder, decoder layer by decoder layer."""
        return corank.quantize_streamed(
            source.reference,
            data,
            bits=self.bits,
            rate=_rate(self.rate),
            codec=self.codec,
            preset=self.preset or "fast",
            layers=self.layers,
            samples=self.samples,
            seed=work.seed,
            device=work.place,
            checkpoint=self.checkpoint,
            progress=progress,
        )

    def __call__(
        self, source: ResolvedModel, samples: Sequence[Samples], work: Work, progress: Progress
    ) -> tuple[nn.Module, tuple[Trial, ...]]:
        """Does it with samples to calibrate on and, behind them, to score on; also returns the files tried."""
        images, *scored = samples
        if self.stream:
            return self._streamed(source, images, work, progress), ()
        model = source.model.to(work.place)
        preset = self.preset or "fast"
        settings: dict[str, Any] = {
            "layers": self.layers, "codec": self.codec, "preset": preset, "search": self.search,
            "refinement": None if self.iterations is None else corank.Refinement(self.iterations),
            "adapter_bits": self.adapter_bits, "activations": self.activations,
            "activation_range": self.activation_range or "mse", "all_layers": self.all_layers, "samples": self.samples,
            "seed": work.seed, "device": work.place, "reference": source.reference, "checkpoint": self.checkpoint,
            "progress": progress, "rotate": self.rotate,
        }  # fmt: skip
        if self.max_drop is not None and scored:
            found = corank.quantize_smallest(model, images, self.max_drop, scored[0], rate=self.rate, **settings)
            return found.model, found.tried
        # Rounding alone has no adapters to spend a budget on, unless one is asked for.
        plain = preset == "nearest" and self.size is None
        quantized = corank.quantize(
            model,
            images,
            bits=self.bits,
            rate=self._usual_rate,
            budget=0.0 if plain and self.budget is None else self.budget,
            size=self.size,
            plan=None if self.plan is None else corank.Plan.load(self.plan),
            prune=self.prune,
            **settings,
        )
        return quantized, ()


def _rate(text: str | None) -> float | str | None:
    """The number, or "auto"."""
    if text is None or text == AUTO:
        return text
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--rate {text!r}: bits a weight, such as 1.9, or auto for what fits --size") from None


def _refuse(option: str, why: str, others: Mapping[str, object]) -> None:
    given = [name for name, value in others.items() if value is not None]
    if given:
        raise ConfigError(f"{option} and {', '.join(given)} were given; choose one: with {option}, {why}")


def exceptions_of(given: Sequence[str]) -> dict[str, int | str]:
    """`PATTERN=BITS`, `PATTERN=float` or `PATTERN=CODEC`, as the library takes them."""
    found: dict[str, int | str] = {}
    for text in given:
        pattern, equals, choice = text.partition("=")
        if not pattern or not equals or not choice:
            raise ConfigError(
                f"--layer {text}: give PATTERN=BITS or PATTERN=float, or PATTERN=CODEC, e.g. 'layer4.*=8' or "
                "'layer4.*=dense-shift:3'"
            )
        found[pattern] = int(choice[:6]) if choice.isascii() and choice.isdigit() else choice
    return found

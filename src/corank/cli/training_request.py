"""What `corank train` was asked to do, and the library's call that does it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

import corank
import corank.cli.quantize_options as shared
import corank.cli.train_options as options
from corank.cli.request import exceptions_of
from corank.cli.sources import Work
from corank.data import BatchSet, ImageSet, TokenSet
from corank.errors import ConfigError, ModelError
from corank.models import ResolvedModel, resolve
from corank.progress import Progress
from corank.storage.entropy_coding import check_coder
from corank.training.callbacks import Callback
from corank.training.recipe import LOSSES
from corank.training.recipes import chosen_recipe
from corank.training.state import TrainingState
from corank.verbs.training_size import asked_recipe

__all__ = ["TrainingRequest", "teacher_of"]

_USUAL, _RATED = "stats-2bit", "rate"


@dataclass(frozen=True)
class _Course(Callback):
    """Keeps the history of a training, also of one that ends in a float network, which carries no record.

    Attributes:
        steps: one entry for each; empty until the training is done.
    """

    steps: list[dict[str, float]] = field(default_factory=list)

    def finished(self, state: TrainingState) -> None:
        self.steps.extend(state.history)


@dataclass(frozen=True)
class TrainingRequest:
    """What was asked for, None where nothing was."""

    recipe: options.RecipeName = None
    iterations: options.Iterations = None
    batch_size: options.BatchSize = None
    loss: options.Loss = None
    teacher: options.Teacher = None
    teacher_weights: options.TeacherWeights = None
    rate: options.Rate = None
    size: options.Size = None
    layer: shared.Layer = None
    all_layers: shared.AllLayers = False
    parts: options.Parts = 0
    workers: options.Workers = None
    recompute: options.Recompute = False
    samples: options.Samples = None
    checkpoint: shared.Checkpoint = None
    coder: shared.Coder = "auto"

    @property
    def label(self) -> str:
        """A short name of the recipe, for tables and pictures."""
        if self.rate is not None:
            return f"{self._method} {self.rate:g}"
        return f"{self._method} {self.size}" if self.size is not None else self._method

    @property
    def _method(self) -> str:
        """The recipe's name, or its file's without what leads there."""
        return Path(self.recipe or (_RATED if self._is_rated else _USUAL)).stem

    @property
    def _is_rated(self) -> bool:
        return self.rate is not None or self.size is not None

    def check(self) -> corank.Recipe:
        """The recipe to carry out.

        Raises:
            ConfigError: for options that exclude each other or cannot be, before anything is read.
        """
        check_coder(self.coder)
        exceptions_of(self.layer or ())
        if self.rate is not None and self.size is not None:
            raise ConfigError("--rate and --size were given; choose one: each says how large the file is")
        if self.size is not None and self.coder != "auto":
            raise ConfigError(f"--size is that of the file that the coder auto makes; leave --coder {self.coder} out")
        if self.loss is not None and self.loss not in LOSSES:
            raise ConfigError(f"--loss {self.loss}: one of {', '.join(LOSSES)}; only distil needs no labels")
        if self.teacher is None and self.teacher_weights is not None:
            raise ConfigError("--teacher-weights are those of --teacher, which is missing: --teacher timm:NAME")
        if self.teacher is not None and self.loss == "labels":
            raise ConfigError("--loss labels learns nothing from --teacher; leave one of them out, or --loss both")
        if self.recipe == _RATED and not self._is_rated:
            raise ConfigError("--recipe rate needs what to meet; add --rate 0.5, or --size 20KB")
        return self.chosen()

    def chosen(self) -> corank.Recipe:
        """The recipe to carry out; training to a size sets its rate.

        Raises:
            ConfigError: for an unknown name, a file that is no recipe, or numbers that cannot be. ArtifactError: for
                the file of a network that is not sound.
        """
        named = None if self.recipe in (None, _RATED) else _read(self.recipe)
        found = asked_recipe(named, self.rate, self.size)[0]
        if self.teacher is not None and found.loss == "labels":
            found = found.replaced(loss="distil")
        asked = {"loss": self.loss, "iterations": self.iterations, "batch_size": self.batch_size}
        return found.replaced(**{name: value for name, value in asked.items() if value is not None})

    def __call__(
        self, source: ResolvedModel, data: ImageSet | TokenSet | BatchSet, work: Work, progress: Progress
    ) -> tuple[nn.Module, list[dict[str, float]]]:
        """Does it; also gives the course of the training, one entry a step."""
        course, teacher = _Course(), teacher_of(self.teacher, self.teacher_weights, work)
        trained = corank.train(
            source.model.to(work.place), data, self.chosen(), rate=self.rate, size=self.size,
            layers=exceptions_of(self.layer or ()), all_layers=self.all_layers, teacher=teacher,
            samples=self.samples, parts=self.parts, workers=self.workers, recompute=self.recompute,
            callbacks=(course,), seed=work.seed, device=work.place, reference=source.reference,
            checkpoint=self.checkpoint, progress=progress,
        )  # fmt: skip
        return trained, course.steps


def teacher_of(teacher: str | None, weights: str | Path | None, work: Work) -> nn.Module | None:
    """The teacher, trained, where it is to be trained; None for none.

    Raises:
        ModelError: for one whose weights are random. ConfigError: for weights of none.
    """
    if teacher is None:
        if weights is not None:
            raise ConfigError("--teacher-weights are those of --teacher, which is missing: --teacher timm:NAME")
        return None
    found = resolve(teacher, pretrained=weights is None, weights=weights, seed=work.seed)
    if found.random:
        raise ModelError(f"the teacher {teacher} has random weights; give its own by --teacher-weights FILE")
    return found.model.to(work.place)


def _read(recipe: str) -> corank.Recipe:
    """A recipe by name, from its own file, or from the file of a network that it trained."""
    if recipe.lower().endswith(".safetensors"):
        return corank.recipe_of(recipe)
    if recipe.lower().endswith(".json") or Path(recipe).is_file():
        return corank.Recipe.load(recipe)
    return chosen_recipe(recipe)

"""The errors a user of corank may catch.

    CorankError
    ├── ConfigError    (ValueError)  an argument, a codec, a preset or a plan that cannot be
    ├── ModelError     (ValueError)  the model, its weights or a layer name
    ├── DataError      (ValueError)  the calibration or evaluation data
    ├── BudgetError    (ValueError)  a budget or file size that cannot be met
    ├── ArtifactError  (ValueError)  a file that is not a sound corank artifact
    ├── TrainingError  (RuntimeError) a training that cannot go on
    └── OutputError    (OSError)     a path that cannot be written

Each says what was given, what is allowed and the call that would work. What is worth knowing and stops nothing is a
CorankWarning (a UserWarning).
"""

from __future__ import annotations

__all__ = [
    "ArtifactError",
    "BudgetError",
    "ConfigError",
    "CorankError",
    "CorankWarning",
    "DataError",
    "ModelError",
    "OutputError",
    "TrainingError",
]


class CorankError(Exception):
    """Base of every error that corank raises on purpose."""


class ConfigError(CorankError, ValueError):
    """An argument, codec, rounder, search, preset or plan that is not possible."""


class ModelError(CorankError, ValueError):
    """A model, a weights file or a layer name that does not fit."""


class DataError(CorankError, ValueError):
    """Calibration or evaluation data that cannot be used."""


class BudgetError(CorankError, ValueError):
    """A budget or a file size that cannot be met."""


class ArtifactError(CorankError, ValueError):
    """A file that is not a sound corank artifact: truncated, altered or of a future version."""


class TrainingError(CorankError, RuntimeError):
    """A training that cannot go on: its loss is not finite, or what it converts to computes something else."""


class OutputError(CorankError, OSError):
    """A path that cannot be written."""


class CorankWarning(UserWarning):
    """What the caller should know although the work goes on."""

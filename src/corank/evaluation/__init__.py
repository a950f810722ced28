"""What a model scores and what it weighs."""

from corank.evaluation.accuracy import Evaluation, evaluate
from corank.evaluation.kept import Recorder, Replay, kept_samples
from corank.evaluation.memory import peak_memory_bytes
from corank.evaluation.placed import placed

__all__ = ["Evaluation", "Recorder", "Replay", "evaluate", "kept_samples", "peak_memory_bytes", "placed"]

"""What a model scores and what it weighs."""

from corank.evaluation.accuracy import Evaluation, evaluate
from corank.evaluation.kept import Recorder, Replay, kept_samples, scored_tensors
from corank.evaluation.placed import placed
from corank.evaluation.predict import probabilities
from corank.memory import peak_memory_bytes

__all__ = [
    "Evaluation",
    "Recorder",
    "Replay",
    "evaluate",
    "kept_samples",
    "peak_memory_bytes",
    "placed",
    "probabilities",
    "scored_tensors",
]

"""What a model scores and what it weighs."""

from corank.evaluation.accuracy import Evaluation, evaluate
from corank.evaluation.kept import Recorder, Replay, kept_samples, scored_tensors
from corank.evaluation.placed import placed
from corank.evaluation.predict import probabilities
from corank.evaluation.speed import Speed, held_bytes, speed_of
from corank.memory import peak_memory_bytes

__all__ = [
    "Evaluation",
    "Recorder",
    "Replay",
    "Speed",
    "evaluate",
    "held_bytes",
    "kept_samples",
    "peak_memory_bytes",
    "placed",
    "probabilities",
    "scored_tensors",
    "speed_of",
]

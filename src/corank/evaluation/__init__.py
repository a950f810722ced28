"""What a model scores and what it weighs."""

from corank.evaluation.accuracy import Evaluation, evaluate
from corank.evaluation.memory import peak_memory_bytes

__all__ = ["Evaluation", "evaluate", "peak_memory_bytes"]

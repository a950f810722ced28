"""What is added to the loss."""

from corank.registry import Registry
from corank.training.penalties.base import Penalty
from corank.training.penalties.condition_number import ConditionNumber
from corank.training.penalties.gradient_l1 import GradientL1
from corank.training.penalties.importance import Importance
from corank.training.penalties.perspective import Perspective
from corank.training.penalties.rate import Rate
from corank.training.penalties.shift_zero import ShiftZero
from corank.training.penalties.transformed_l1 import TransformedL1

_OWN: dict[str, type[Penalty]] = {
    "condition-number": ConditionNumber,
    "gradient-l1": GradientL1,
    "importance": Importance,
    "perspective": Perspective,
    "rate": Rate,
    "shift-zero": ShiftZero,
    "transformed-l1": TransformedL1,
}
PENALTIES: Registry[Penalty] = Registry("penalty", Penalty, "corank.penalties", _OWN)
"""Penalties by the name they have in recipes."""

__all__ = [
    "PENALTIES",
    "ConditionNumber",
    "GradientL1",
    "Importance",
    "Penalty",
    "Perspective",
    "Rate",
    "ShiftZero",
    "TransformedL1",
]

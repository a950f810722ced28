"""Settings nobody wants to try by hand: spaces, tuners and trials."""

from corank.tuning.space import Choice, Configuration, Space
from corank.tuning.trial import Goal, Measurement, Trial

__all__ = ["Choice", "Configuration", "Goal", "Measurement", "Space", "Trial"]

"""What to try next, a policy a file."""

from corank.tuning.tuners.base import Known, Task, Tuner
from corank.tuning.tuners.boosted import BoostedTrees
from corank.tuning.tuners.genetic import Genetic
from corank.tuning.tuners.grid import Grid
from corank.tuning.tuners.random_draws import RandomDraws
from corank.tuning.tuners.recorded import Recorded
from corank.tuning.tuners.tpe import Tpe

TUNERS: dict[str, type[Tuner]] = {
    "boosted": BoostedTrees,
    "genetic": Genetic,
    "grid": Grid,
    "random": RandomDraws,
    "recorded": Recorded,
    "tpe": Tpe,
}

__all__ = ["TUNERS", "BoostedTrees", "Genetic", "Grid", "Known", "RandomDraws", "Recorded", "Task", "Tpe", "Tuner"]

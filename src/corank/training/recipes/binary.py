"""Binary networks: ReActNet (arXiv 2003.03488) and Bi-Real Net (arXiv 1808.00278)."""

from __future__ import annotations

from corank.codecs import Binary
from corank.errors import ConfigError
from corank.training.inputs import LearnedStepInputs, SignInputs
from corank.training.recipe import Optimizer, Recipe, Schedule
from corank.training.weights import StraightThrough

__all__ = ["binary"]


def binary(bits: int, inputs: int | None) -> Recipe:
    """Weights ``mean |w| * sign(w)`` of each row; inputs their sign, less a learned shift of each channel; real-valued
    shortcuts round single layers; RPReLU for ReLU; from the float weights, against the float network's outputs.

    The parts are the papers' ("verified": equations of both). As a whole it is a reconstruction: one stage where
    ReActNet trains inputs alone first, the step of the inputs is learned, the network keeps its own shortcuts, and of
    the float network's outputs nothing but the temperature of 1 is the paper's.

    Args:
        bits: of weights, 1.
        inputs: 1; 2 to 8 have learned steps, None leaves them in float, and either leaves the structure as it is.

    Raises:
        ConfigError: for other bits.
    """
    if bits != 1:
        raise ConfigError(f"binary-w{bits}: binary weights have 1 bit, e.g. binary-w1a1")
    signs = inputs == 1
    return Recipe(
        weights=StraightThrough(Binary()),
        inputs=None if inputs is None else SignInputs() if signs else LearnedStepInputs(inputs),
        loss="distil",
        temperature=1.0,
        start="float",
        optimizer=Optimizer("adam", rate=2e-3, step_rate=1.0),
        schedule=Schedule("linear", warm=0.0),
        structure=("rprelu", "shortcut") if signs else (),
    )

"""Binary networks: ReActNet (arXiv 2003.03488) and Bi-Real Net (arXiv 1808.00278)."""

from __future__ import annotations

from corank.codecs import Binary
from corank.errors import ConfigError
from corank.training.callbacks import Relax
from corank.training.inputs import LearnedStepInputs, SignInputs
from corank.training.recipe import Optimizer, Recipe, Schedule
from corank.training.weights import Relaxed, StraightThrough

__all__ = ["binary"]


def binary(bits: int, inputs: int | None) -> Recipe:
    """Weights ``mean |w| * sign(w)`` of each row; inputs their sign, less a learned shift of each channel; real-valued
    shortcuts round single layers; RPReLU for ReLU; from the float weights, against the float network's outputs.

    The parts are the papers' ("verified": equations of both). As a whole it is a reconstruction: where ReActNet trains
    inputs alone before weights, weights of ``binary-w1a1`` lean on their signs ever more, as BinaryRelax's do; the step
    of the inputs is learned, and the network keeps its own shortcuts. Temperature, rate and schedule are measured.

    Args:
        bits: of weights, 1.
        inputs: 1; 2 to 8 have learned steps, None leaves them in float, and either leaves the structure as it is.

    Raises:
        ConfigError: for other bits.
    """
    if bits != 1:
        raise ConfigError(f"binary-w{bits}: binary weights have 1 bit, e.g. binary-w1a1")
    if inputs == 1:
        return Recipe(
            weights=Relaxed(StraightThrough(Binary())),
            inputs=SignInputs(),
            callbacks=(Relax(),),
            start="float",
            optimizer=Optimizer(rate=8e-3, step_rate=1.0),
            structure=("rprelu", "shortcut"),
        )
    return Recipe(
        weights=StraightThrough(Binary()),
        inputs=None if inputs is None else LearnedStepInputs(inputs),
        temperature=1.0,
        start="float",
        optimizer=Optimizer("adam", rate=2e-3, step_rate=1.0),
        schedule=Schedule("linear", warm=0.0),
    )

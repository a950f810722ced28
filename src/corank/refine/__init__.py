"""A short distillation of what ships anyway, and codes learned block by block."""

from corank.refine.blocks import BlockReconstruction, reconstruct
from corank.refine.loop import refine
from corank.refine.norms import reestimate_norms
from corank.refine.refinement import Refinement
from corank.refine.tune import Tuning, remaining, tune

__all__ = [
    "BlockReconstruction",
    "Refinement",
    "Tuning",
    "reconstruct",
    "reestimate_norms",
    "refine",
    "remaining",
    "tune",
]

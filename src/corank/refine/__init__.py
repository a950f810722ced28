"""A short distillation of what ships anyway, and codes learned block by block."""

from corank.calibration import reestimate_norms
from corank.refine.blocks import BlockReconstruction, reconstruct
from corank.refine.loop import refine
from corank.refine.post_training import PostTraining
from corank.refine.refinement import Refinement

__all__ = [
    "BlockReconstruction",
    "PostTraining",
    "Refinement",
    "reconstruct",
    "reestimate_norms",
    "refine",
]

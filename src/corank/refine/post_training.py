"""What may follow the coding: a distillation of what ships anyway, or codes learned block by block."""

from __future__ import annotations

from corank.refine.blocks import BlockReconstruction
from corank.refine.refinement import Refinement

__all__ = ["PostTraining"]

PostTraining = Refinement | BlockReconstruction

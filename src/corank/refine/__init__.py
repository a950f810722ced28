"""A short distillation of what ships anyway."""

from corank.refine.loop import refine
from corank.refine.refinement import Refinement

__all__ = ["Refinement", "refine"]

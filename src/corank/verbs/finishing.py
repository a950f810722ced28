"""From coded layers to the model that a verb returns."""

from __future__ import annotations

import time
from dataclasses import replace

from torch import nn

from corank.calibration import Context
from corank.notes import collected_notes
from corank.quantization.encode import CodedModel
from corank.quantization.float_parts import warn_of_float
from corank.refine import PostTraining, Refinement, reconstruct, refine
from corank.storage.model_record import ATTRIBUTE

__all__ = ["finish"]


def finish(coded: CodedModel, teacher: nn.Module, how: PostTraining, context: Context, started: float) -> nn.Module:
    """The coded model after what follows the coding, carrying its record; where the context works.

    Args:
        coded: changed in place.
        teacher: the float network, norms folded alike; not looked at where nothing follows.
        how: what follows; steps that a search has taken count among its own.
        context: of the run.
        started: when the work began, by ``time.perf_counter``.
    """
    found = coded.allocation
    with collected_notes() as notes:
        if isinstance(how, Refinement):
            left = replace(how, iterations=max(0, how.iterations - found.iterations))
            steps = refine(coded.model, teacher, left, context)
        else:  # of which blocks, not steps, are many; it keeps no checkpoint of its own
            steps = reconstruct(coded.model, teacher, how, context)
    later = [{**step, "iteration": step["iteration"] + found.iterations} for step in steps]
    last = int(later[-1]["iteration"]) if later else found.iterations
    record = replace(coded.record, iterations=last, history=(*found.history, *later))
    told = tuple(dict.fromkeys((*record.notes, *notes.texts)))
    record = replace(record, seconds=time.perf_counter() - started, notes=told)
    coded.model.__dict__[ATTRIBUTE] = record
    warn_of_float(coded.model, record)
    return coded.model

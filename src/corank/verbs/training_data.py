"""What a training reads: temporary."""
from __future__ import annotations
from typing import Any
import torch
from torch import Tensor
from corank.calibration import Context
from corank.data import ImageSet
from corank.refine.augment import flip_and_shift
from corank.calibration import run
from corank.training.loop import Feed
from corank.training.objective import Objective
from corank.training.recipe import Recipe

__all__=["feed_of"]

def feed_of(data: Any, recipe: Recipe, objective: Objective, context: Context, parts: int) -> Feed:
    labels=None
    if isinstance(data,ImageSet):
        x=data.tensor(); labels=torch.from_numpy(data.labels) if data.labels is not None else None
    elif isinstance(data,Tensor): x=data
    elif isinstance(data,tuple): x,labels=data
    else: x=torch.cat(list(context.samples.batches))
    n=len(x); size=min(recipe.batch_size,n); per=n//size
    cache={}
    def batches(step):
        e=step//per
        if e not in cache:
            cache.clear(); cache[e]=torch.randperm(n,generator=torch.Generator().manual_seed(context.seed*1000003+e))
        idx=cache[e][(step%per)*size:(step%per+1)*size]
        b=x[idx]
        if recipe.augment=="flip-shift": b=flip_and_shift(b,torch.Generator().manual_seed((context.seed<<20)+step))
        return b,(None if labels is None else labels[idx])
    teacher=context.model
    return Feed(batches, (lambda step,b: run(teacher,b,context.device)) if objective.distils else None, objective, parts)

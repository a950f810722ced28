"""Lets torchvision be imported beside a CPU build of torch: import this before it.

Some tools import torchvision for models that are not used here. Its wheel lacks two operators' schemas on such a torch.
"""

from __future__ import annotations

import torch

__all__ = ["LIBRARY"]

LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    LIBRARY.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

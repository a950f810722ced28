"""Networks that batches cannot simply walk through side by side."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Branching(nn.Module):
    """Takes its second layer only where the batch's mean is positive; uses its first one twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(self.first(inputs)).relu()
        if float(inputs.mean()) > 0:
            hidden = self.second(hidden)
        return self.last(hidden)


class Noisy(Branching):
    """No two passes are alike."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs + torch.randn_like(inputs))


class Keeping(nn.Module):
    """Divides by a scale in its first layer's place and multiplies by it again after its second."""

    def __init__(self, on_itself: bool = True, shown: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.a, self.b, self.c = (nn.Linear(8, 8) for _ in range(3))
        self.head = nn.Linear(8, 4)
        self.on_itself, self.shown = on_itself, shown
        self.scale, self.last = torch.ones(()), {"features": [torch.ones(())]}

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.a(inputs).relu()
        scale = hidden.abs().amax() + 1
        if self.on_itself:
            self.scale = scale
        if self.shown:
            self.last["features"][0] = hidden
        hidden = self.b(hidden / scale).relu()
        hidden = self.c(hidden * (self.scale if self.on_itself else scale)).relu()
        return self.head(hidden)


def targets_of(model: nn.Module) -> dict[str, nn.Module]:
    return dict(model.named_children())


def keeping_batches() -> list[Tensor]:
    return [torch.randn(4, 8) * size for size in (1, 10, 3, 30)]

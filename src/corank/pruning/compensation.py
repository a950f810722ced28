"""What removed channels gave is given back by those that stay: each layer that reads them is fitted to its old outputs.

The second step of channel pruning (arXiv 1707.06168), by moments of the inputs as GPTQ has them. With ``H = E[x x^T]``
of a layer's inputs, ``P`` its columns that go and ``K`` those that stay, the least squares are
``W_K + W_P H_PK (H_KK + d I)^-1``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from corank.calibration.collect import collect
from corank.calibration.samples import Samples
from corank.calibration.streamed import passes_over
from corank.layers.width import is_depthwise
from corank.matrix import Geometry
from corank.pruning.coupling import Coupling, Side, side_size
from corank.pruning.removal import Removed, removed_channels
from corank.statistics import Gram, require

__all__ = ["compensate"]

_DAMPING = 0.01  # of the mean of the diagonal, as GPTQ has it
_WIDEST = 8192  # columns: a wider layer's moments would take more memory than its network


@torch.no_grad()
def compensate(
    model: nn.Module, couplings: Sequence[Coupling], removed: Removed, samples: Samples, seed: int = 0
) -> tuple[str, ...]:
    """Changes, in place, the weights of all layers that read what goes: of what stays they then give what they gave.
    :func:`~corank.pruning.removal.remove` takes out the rest.

    Layers that share their weight with others, that have over 8,192 columns, or that no sample reaches stay as they
    are. A bias takes what the means differ by.

    Args:
        model: in evaluation mode, all channels in place.
        couplings: all that may go.
        removed: the units that go.
        samples: that the inputs are watched with.
        seed: draws positions.

    Returns:
        The names of the layers that changed.
    """
    sides = {
        name: (side, gone) for (name, end), (side, gone) in removed_channels(couplings, removed).items() if end == "in"
    }  # fmt: skip
    layers, found = _fitting(model, sides), dict[str, tuple[Tensor, Tensor | None]]()
    for names in passes_over(layers):
        for name, seen in collect(model, {name: layers[name] for name in names}, samples, seed).items():
            gram = require(seen, Gram, "pruning")
            if gram.count:
                found[name] = _fitted(layers[name], *sides[name], gram)
    for name, (weight, bias) in found.items():  # all were watched as they were
        layer = model.get_submodule(name)
        layer.get_parameter("weight").copy_(weight)
        if bias is not None:
            layer.get_parameter("bias").add_(bias)
    return tuple(found)


def _fitting(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    """The layers of those names that can be fitted."""
    holders = Counter(one for _, one in model.named_parameters(remove_duplicate=False))
    layers = {name: model.get_submodule(name) for name in names}
    return {
        name: layer
        for name, layer in layers.items()
        if isinstance(layer, (nn.modules.conv._ConvNd, nn.Linear))
        and not is_depthwise(layer)
        and holders[layer.get_parameter("weight")] == 1
        and Geometry.of(layer).matrix_shape[2] <= _WIDEST
    }


def _fitted(layer: nn.Module, side: Side, gone: Tensor, gram: Gram) -> tuple[Tensor, Tensor | None]:
    """The layer's new weight, and what its bias changes by."""
    geometry = Geometry.of(layer)
    weight = geometry.to_matrix(layer.get_parameter("weight")).cpu().double()
    groups, _, columns = weight.shape
    channels = torch.zeros(side_size(layer, side), dtype=torch.bool, device="cpu").index_fill_(0, gone, True)
    out = channels.view(groups, -1).repeat_interleave(columns * groups // len(channels), 1)  # (G, C)
    bias = layer._parameters.get("bias")
    moments = (gram.matrix if bias is None else gram.covariance).cpu().double()
    mean = gram.mean.cpu().double()
    shifts = []
    for own, inputs, goes, means in zip(weight, moments, out, mean, strict=True):
        before = own @ means
        stays = inputs[~goes][:, ~goes]
        stays.diagonal().add_(_DAMPING * inputs.diagonal().mean().clamp(min=1e-30))
        given = torch.linalg.solve(stays, inputs[~goes][:, goes] @ own[:, goes].t())
        own[:, ~goes] += given.t()
        own[:, goes] = 0
        shifts.append(before - own @ means)
    held = layer.get_parameter("weight")
    new = geometry.from_matrix(weight.to(held))
    return new, None if bias is None else torch.cat(shifts).to(bias)

"""The layer that tells classes apart: found, given rows for new classes, and its rows aligned."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from corank.calibration import seed_of
from corank.coded_weight import CodedWeight
from corank.errors import ConfigError, ModelError
from corank.layers import CodedLayer, module_named, replace_module
from corank.training.norms import scaled_rows, takes_row_scales

__all__ = ["align_classes", "head_name", "widened"]

_CLOSE = 2.0**-10  # to 1, of a factor that scales in fp16 cannot hold


def head_name(model: nn.Module, head: str | None = None) -> str:
    """The name of the linear layer whose rows are the classes: ``head``, or the last that the model has.

    Raises:
        ModelError: where there is none, or that layer is another.
    """
    found = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if head is None and not found:
        raise ModelError("the model has no Linear layer whose rows could be classes")
    if head is not None and head not in found:
        raise ModelError(f"head={head!r} is no Linear layer of the model, whose are {', '.join(map(repr, found[-5:]))}")
    return found[-1] if head is None else head


def widened(model: nn.Module, head: str, classes: int, seed: int) -> nn.Module:
    """A copy of a float model that has ``classes`` classes more, behind those that it has.

    The new rows are drawn from ``seed`` as torch starts a layer, and made as long as the known ones are in the mean, so
    that what is aligned later is what training did; their biases are zero.

    Args:
        model: in float.
        head: name of its last layer.
        classes: how many more.
        seed: of the new rows.
    """
    found = copy.deepcopy(model)
    old = cast(nn.Linear, module_named(found, head))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of(seed, "classes", old.out_features))
        fresh = nn.Linear(
            old.in_features, old.out_features + classes, old.bias is not None, dtype=torch.float32, device="cpu"
        )
    wide = fresh.to(old.weight)
    with torch.no_grad():
        length = old.weight.float().norm(dim=1).mean().to(wide.weight)
        wide.weight.mul_(length / wide.weight.float().norm(dim=1, keepdim=True).to(wide.weight))
        wide.weight[: old.out_features] = old.weight
        if old.bias is not None:
            wide.bias.zero_()
            wide.bias[: old.out_features] = old.bias
    wide.train(old.training)
    replace_module(found, old, wide)
    return found


@torch.no_grad()
def align_classes(model: nn.Module, known: int, head: str | None = None) -> nn.Module:
    """A copy of a classifier whose rows for new classes are as long, in the mean, as those for the known ones.

    Weight aligning (arXiv 1911.07053): a network that learned new classes from many samples, and known ones from few,
    has longer rows for the new ones, and prefers them. ``gamma = mean |w_known| / mean |w_new|``, and the new rows are
    multiplied by it. Ours: so are their biases, which changes no choice among them. Of a coded layer the scales are
    multiplied, which are rounded to fp16; its codes stay.

    Args:
        model: float, or of :func:`corank.train`, :func:`corank.quantize` or :func:`corank.load`; not changed.
        known: how many of its classes, the first ones, were known before; 0 or all of them changes nothing.
        head: name of the linear layer whose rows are the classes; None for the last.

    Raises:
        ModelError: for a model without such a layer. ConfigError: for more known classes than there are, or codes that
            have no scale for each row.
    """
    found = copy.deepcopy(model)
    name = head_name(found, head)
    layer = cast(nn.Linear, module_named(found, name))
    if type(known) is not int or not 0 <= known <= layer.out_features:
        raise ConfigError(f"known={known!r}: 0 to {layer.out_features}, the classes of the layer {name!r}")
    lengths = layer.weight.detach().double().norm(dim=1)
    if known in (0, layer.out_features) or not bool(lengths[known:].any()):
        return found
    gamma = float(lengths[:known].mean() / lengths[known:].mean())
    factor = torch.ones_like(lengths)
    factor[known:] = gamma
    if isinstance(layer, CodedLayer):
        if abs(gamma - 1) > _CLOSE:
            _scale_codes(layer, factor.float(), name)
        return found
    layer.weight.mul_(factor[:, None].to(layer.weight))
    if layer.bias is not None:
        layer.bias.mul_(factor.to(layer.bias))
    return found


def _scale_codes(layer: CodedLayer, factor: Tensor, name: str) -> None:
    """Multiplies the rows of a coded layer by ``factor`` ``(R,)``, in place."""
    code = layer.code()
    if code.adapter is not None or not takes_row_scales(code.codec):
        what = "an adapter" if code.adapter is not None else f"{code.codec}, which has no scale for each row"
        raise ConfigError(
            f"the layer {name!r} has {what}; align the float model before it is coded, or leave the layer in float: "
            f"layers={{{name!r}: 'float'}}"
        )
    book = scaled_rows(code.weight.codebook, factor)
    layer.fill(replace(code, weight=CodedWeight(code.weight.codes, book)), _scaled_bias(layer, factor))


def _scaled_bias(layer: CodedLayer, factor: Tensor) -> Tensor | None:
    return None if layer.bias is None else layer.bias.detach() * factor.to(layer.bias)

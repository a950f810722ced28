"""A float network put right for ``torch.onnx``, and what its translation gets wrong."""

from __future__ import annotations

from typing import Any

from onnx import GraphProto, NodeProto
from torch import nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["traceable", "zero_masked_rows"]


class _Within(nn.Module):
    """Stands where a parallel wrapper stood, so that every name stays: calls the module that was wrapped."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **named: Any) -> Any:
        return self.module(*args, **named)


def traceable(network: nn.Module) -> nn.Module:
    """The same network without parallel wrappers and without gradients; it is changed in place.

    ``functional_call`` refuses ``DataParallel``. And where a weight wants a gradient, ``torch.export`` notes the
    attention's output in the memory order of one kernel while its later decomposition runs another one, whose output
    cannot be viewed so (T5, whose position bias is a parameter).
    """
    # Listed first: the children are changed on the way.
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):
            if isinstance(child, (nn.DataParallel, DistributedDataParallel)):
                parent._modules[name] = _Within(child.module)
    if isinstance(network, (nn.DataParallel, DistributedDataParallel)):
        network = _Within(network.module).train(network.training)
    return network.requires_grad_(False)


def zero_masked_rows(graph: GraphProto) -> None:
    """Lets attention give zeros where a query may look at nothing, as PyTorch does; ``graph`` is changed.

    The translation of ``scaled_dot_product_attention`` adds the most negative float where a mask is false, and means to
    catch rows that are masked whole (padding on the left under a causal mask) as NaN. Finite numbers give no NaN: such
    rows become the mean of all values instead. The mask itself says which entries are zero, in all other rows too:

        Where(IsNaN(Softmax(x + Where(mask, 0, least))), 0, Softmax(...)) -> Where(mask, Softmax(...), 0)
    """
    makers = {output: node for node in graph.node for output in node.output}
    for node in [node for node in graph.node if node.op_type == "IsNaN"]:
        mask = _mask(node, makers)
        readers = [reader for reader in graph.node if node.output[0] in reader.input]
        # Anything but the pattern is the network's own question for NaN, and stays.
        if mask is None or any(reader.op_type != "Where" for reader in readers):
            continue
        for reader in readers:
            _, zero, weights = reader.input
            reader.input[:] = [mask, weights, zero]
        # Without readers it would be computed for nothing.
        graph.node.remove(node)


def _mask(is_nan: NodeProto, makers: dict[str, NodeProto]) -> str | None:
    """The name of the Boolean mask in the attention that a node looks for NaN in; None where there is none."""
    softmax = makers.get(is_nan.input[0])
    added = makers.get(softmax.input[0]) if softmax is not None and softmax.op_type == "Softmax" else None
    bias = makers.get(added.input[1]) if added is not None and added.op_type == "Add" else None
    return bias.input[0] if bias is not None and bias.op_type == "Where" else None

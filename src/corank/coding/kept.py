"""Coded layers in a checkpoint."""

from __future__ import annotations

from collections.abc import Callable

from corank.calibration import Context
from corank.codecs import CODECS
from corank.coding.layer import LayerResult
from corank.config import from_json, to_json
from corank.layers import LayerFormat
from corank.notes import collected_notes, note
from corank.plan import LayerPlan

__all__ = ["kept_or_coded"]

_UNSEEN = (
    "no sample reaches it, so it is rounded without data, each weight to the nearest value, and its inputs stay float; "
    "samples of every kind that the network will meet would tell more"
)


def kept_or_coded(
    context: Context, number: int, name: str, plan: LayerPlan, code: Callable[[str, LayerPlan], LayerResult]
) -> LayerResult:
    """The layer as an earlier run coded it, or coded now by ``code(name, plan)`` and kept.

    Args:
        context: of the run.
        number: of the layer among those coded.
        name: of the layer.
        plan: of the layer.
        code: codes it.
    """
    step = f"layer-{number:04d}"
    found = context.checkpoint.load(step)
    if found is not None:
        for text in found[1]["notes"]:
            note(text)
        tensors, about = {key: tensor.to(context.device) for key, tensor in found[0].items()}, found[1]
        codec = from_json(about["codec"], CODECS, "codec")
        shape = context.prepared.geometry(name).matrix_shape
        shifts = tensors["slot.input_shift"].numel() if "slot.input_shift" in tensors else 0
        axes = len(context.prepared.geometry(name).kernel)
        form = LayerFormat(shape, codec, int(about["rank"]), plan.adapter_bits, plan.inputs, shifts, axes)
        state = form.state({key: tensors[f"slot.{key}"].reshape(-1) for key in form.tensors()})
        return LayerResult(state, tensors.get("bias"), float(about["relative_output_error"]), tensors["energies"])
    try:
        with collected_notes(f"layer {name!r}: ") as said:
            result = code(name, plan)
            if result.unseen and name not in context.prepared.blind:
                note(_UNSEEN)
    except Exception as error:
        error.add_note(f"while coding layer {name!r}")
        raise
    if not context.checkpoint.keeps:
        return result
    tensors = {f"slot.{key}": tensor for key, tensor in result.code.tensors().items()}
    tensors["energies"] = result.energies
    if result.bias is not None:
        tensors["bias"] = result.bias
    adapter = result.code.adapter
    about = {
        "rank": adapter.rank if adapter else 0,
        "codec": to_json(result.code.codec, CODECS),
        "relative_output_error": result.relative_output_error,
        "notes": list(said.texts),
    }
    context.checkpoint.save(step, tensors, about)
    return result

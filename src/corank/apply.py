"""Carries a plan out, one layer at a time: codec, rounder, residual, adapter."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from corank.adapters import CodedLowRank, code_factors, decompose, full_rank
from corank.calibration import Lockstep, Samples, position_limit, run
from corank.codecs import Codec
from corank.coded_weight import CodedWeight
from corank.errors import ConfigError, ModelError
from corank.layers import LayerCode, Prepared, coded_class, replace_module
from corank.matrix import Geometry
from corank.plan import LayerPlan, Plan
from corank.statistics import Drift, Gram, LayerStatistics, need

__all__ = ["CodedResult", "apply_plan", "code_layer", "layer_view"]

_RIDGE = 0.02  # of the pull towards the float weight, relative to the mean energy of an input


@dataclass(frozen=True)
class CodedResult:
    """One layer, coded.

    Attributes:
        code: codes, codebook and adapter.
        bias: the new bias ``(G * R,)`` float32, or None for a layer without one.
        relative_output_error: ``mean |y - y_q|^2 / mean |y|^2`` on the calibration inputs.
        energies: error along each adapter direction, before the adapter, descending.
    """

    code: LayerCode
    bias: Tensor | None
    relative_output_error: float
    energies: Tensor


def layer_view(plan: LayerPlan, has_bias: bool, statistics: LayerStatistics) -> LayerStatistics:
    """The statistics as the plan wants them seen: centred where the bias will take up the mean error."""
    if not (plan.bias_correction and has_bias):
        return statistics
    return {**statistics, Gram: need(statistics, Gram, "bias correction").centred()}


def code_layer(weight: Tensor, bias: Tensor | None, plan: LayerPlan, statistics: LayerStatistics) -> CodedResult:
    """Codes one layer.

    Args:
        weight: ``(G, R, C)`` float32.
        bias: ``(G * R,)`` float32 or None.
        plan: what to do; its codec is not None.
        statistics: of the layer, holding at least a :class:`~corank.statistics.Gram`.

    Returns:
        The round of least output error, if the plan asks for several.
    """
    drift = statistics.get(Drift)
    shape = (weight.shape[0], weight.shape[1], weight.shape[2])
    wanted = weight
    if isinstance(drift, Drift):
        wanted = drift.corrected(weight, plan.bias_correction and bias is not None, _RIDGE)
        view = layer_view(plan, bias is not None, {**statistics, Gram: drift.gram})
    else:
        view = layer_view(plan, bias is not None, statistics)
    gram = need(view, Gram, "code_layer")
    rank = min(plan.rank, full_rank(shape))
    best: tuple[float, CodedWeight, CodedLowRank | None, Tensor] | None = None
    adapter: CodedLowRank | None = None
    for _ in range(plan.rounds if rank else 1):
        target = wanted if adapter is None else wanted - adapter.product().reshape(shape)
        coded = _code_weight(target.flatten(0, 1), plan, view)
        directions = decompose(wanted - coded.decode().reshape(shape), plan.fit, view)
        adapter = code_factors(directions.truncate(rank), plan.adapter_bits) if rank else None
        whole = LayerCode(_codec(plan), coded, adapter, plan.adapter_bits).compose().reshape(shape)
        error = float(_energy(wanted - whole, gram.matrix))
        if best is None or error < best[0]:
            best = (error, coded, adapter, directions.energies)
    assert best is not None
    _, coded, adapter, energies = best
    code = LayerCode(_codec(plan), coded, adapter, plan.adapter_bits)
    return _finish(code, weight, bias, plan, statistics, energies)


def apply_plan(
    prepared: Prepared,
    plan: Plan,
    statistics: Mapping[str, LayerStatistics],
    progress: Callable[[str, int, int], None] | None = None,
    samples: Samples | None = None,
    seed: int = 0,
) -> dict[str, CodedResult]:
    """Codes every planned layer of the prepared copy and puts the coded layers in place.

    Args:
        prepared: its model is changed.
        plan: layer name to what to do; layers it does not name stay float.
        statistics: by layer name.
        progress: called with (what, done, total).
        samples: calibration samples, for layers whose plan is sequential.
        seed: draws the positions of sequential calibration.

    Raises:
        ModelError: for a layer that the model does not have. ConfigError: for a sequential plan without samples.
    """
    coded = plan.coded()
    unknown = sorted(set(coded) - set(prepared.targets))
    if unknown:
        raise ModelError(f"the plan names {unknown[0]!r}, which is not a layer that can be coded")
    if any(layer.sequential for layer in coded.values()):
        if samples is None:
            raise ConfigError("the plan is sequential: apply_plan(..., samples=...) needs the calibration samples")
        return _apply_in_sequence(prepared, plan, statistics, samples, seed, progress)
    results: dict[str, CodedResult] = {}
    for number, (name, layer_plan) in enumerate(coded.items()):
        layer = prepared.targets[name]
        weight, bias = matrices(layer)
        try:
            result = code_layer(weight, bias, layer_plan, statistics[name])
        except Exception as error:
            error.add_note(f"while coding layer {name!r}")
            raise
        results[name] = result
        replace_module(prepared.model, layer, coded_module(layer, result))
        if progress is not None:
            progress("coding", number + 1, len(coded))
    return results


def matrices(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight ``(G, R, C)`` and bias ``(G * R,)`` of a float layer, detached, float32."""
    weight = Geometry.of(layer).to_matrix(layer._parameters["weight"].detach().float())  # pyright: ignore
    bias = layer._parameters.get("bias")
    return weight, None if bias is None else bias.detach().float()


def coded_module(layer: nn.Module, result: CodedResult) -> nn.Module:
    """The coded counterpart of ``layer`` holding ``result``."""
    adapter = result.code.adapter
    rank = adapter.rank if adapter else 0
    module = coded_class(layer, seen_alike=True)(
        layer, result.code.codec, rank, result.code.adapter_bits, result.bias is not None
    )
    module.fill(result.code, result.bias)
    return module


def _code_weight(target: Tensor, plan: LayerPlan, view: LayerStatistics) -> CodedWeight:
    codebook = _codec(plan).fit(target)
    return CodedWeight(plan.rounder(target, codebook, view), codebook)


def _codec(plan: LayerPlan) -> Codec:
    if plan.codec is None:
        raise ValueError("a layer without a codec stays float and is not coded")
    return plan.codec


def _energy(matrix: Tensor, second_moment: Tensor) -> Tensor:
    """``sum_g tr(M Sigma M^T)``."""
    return ((matrix @ second_moment) * matrix).sum()


def _finish(
    code: LayerCode,
    weight: Tensor,
    bias: Tensor | None,
    plan: LayerPlan,
    statistics: LayerStatistics,
    energies: Tensor,
) -> CodedResult:
    """Corrects the bias and measures the error on the float network's inputs."""
    gram, drift = need(statistics, Gram, "code_layer"), statistics.get(Drift)
    composed = code.compose().reshape(weight.shape)
    new_bias = bias
    if bias is not None:
        if plan.bias_correction:
            seen, expected = (drift.gram.mean, drift.float_mean) if isinstance(drift, Drift) else (gram.mean, gram.mean)
            new_bias = bias + (weight @ expected[:, :, None] - composed @ seen[:, :, None]).flatten()
        assert new_bias is not None
        new_bias = new_bias.to(torch.float16).float()  # as it is stored
    lost = weight - composed
    mean_error = (lost @ gram.mean[:, :, None]).flatten()
    shift = torch.zeros_like(mean_error) if bias is None or new_bias is None else bias - new_bias
    error = _energy(lost, gram.matrix) + (2 * mean_error * shift + shift.square()).sum()
    mean_output = (weight @ gram.mean[:, :, None]).flatten()
    offset = torch.zeros_like(mean_output) if bias is None else bias
    output = _energy(weight, gram.matrix) + (2 * mean_output * offset + offset.square()).sum()
    relative = float(error.clamp(min=0) / output.clamp(min=1e-30))
    return CodedResult(code, new_bias, relative, energies)


def _apply_in_sequence(
    prepared: Prepared,
    plan: Plan,
    statistics: Mapping[str, LayerStatistics],
    samples: Samples,
    seed: int,
    progress: Callable[[str, int, int], None] | None,
) -> dict[str, CodedResult]:
    """Each layer is coded against what the layers before it, already coded, feed it."""
    coded, results = plan.coded(), {}
    model, targets = prepared.model, {name: prepared.targets[name] for name in coded}
    floating = copy.deepcopy(model)
    twins = dict(floating.named_modules(remove_duplicate=False))
    samples = samples.take(_affordable(floating, [twins[name] for name in targets], samples))
    batches = samples.batches
    with (
        Lockstep(floating, {name: twins[name] for name in targets}, batches) as ideal,
        Lockstep(model, targets, batches) as real,
    ):
        for number, (name, layer_plan) in enumerate(coded.items()):
            layer = targets[name]
            weight, bias = matrices(twins[name])
            view = dict(statistics[name])
            if layer_plan.sequential:
                view[Drift] = _drift(layer, name, ideal, real, samples, seed)
            try:
                result = code_layer(weight, bias, layer_plan, view)
            except Exception as error:
                error.add_note(f"while coding layer {name!r}")
                raise
            results[name] = result
            composed = Geometry.of(layer).from_matrix(result.code.compose())
            with torch.no_grad():  # the passes that wait before this layer go on with its coded weight
                layer._parameters["weight"].copy_(composed)  # pyright: ignore[reportOptionalMemberAccess]
                if result.bias is not None:
                    layer._parameters["bias"].copy_(result.bias)  # pyright: ignore[reportOptionalMemberAccess]
            if progress is not None:
                progress("coding", number + 1, len(coded))
    for name, result in results.items():
        replace_module(model, targets[name], coded_module(targets[name], result))
    return results


def _affordable(model: nn.Module, layers: list[nn.Module], samples: Samples) -> int:
    """How many samples may wait before the widest layer at once, in both networks, in about 2 GB."""
    widest = 1

    def note(_module: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        nonlocal widest
        inputs = args[0] if args else named["input"]
        widest = max(widest, inputs[0].numel())

    handles = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    try:
        with torch.no_grad():
            run(model, samples.first(1), next(model.parameters()).device)
    finally:
        for handle in handles:
            handle.remove()
    live = 6 * 4 * widest  # bytes of a sample: about three tensors in each network
    return max(1, (2 << 30) // live)


def _drift(layer: nn.Module, name: str, ideal: Lockstep, real: Lockstep, samples: Samples, seed: int) -> Drift:
    geometry = Geometry.of(layer)
    groups, _, columns = geometry.matrix_shape
    drift = Drift(groups, columns, layer._parameters["weight"].device)  # pyright: ignore
    for number in range(len(samples.batches)):
        for stream in (ideal, real):  # the next batch runs on while this one is summed up
            for ahead in (number, number + 1):
                if ahead < len(samples.batches):
                    stream.begin(ahead, name)
        expected, given = ideal.inputs(number, name), real.inputs(number, name)
        if expected is None or given is None:
            continue
        limit = position_limit(geometry, len(samples), expected.shape[0])
        pair = [
            geometry.patches(inputs, limit, torch.Generator().manual_seed(seed + number))
            for inputs in (expected, given)
        ]
        drift.update_pair(pair[0], pair[1], geometry.output_positions(given))
    return drift

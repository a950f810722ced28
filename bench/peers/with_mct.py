"""Sony's Model Compression Toolkit: gradient-based rounding of the whole network on symmetric grids."""

from __future__ import annotations

import time
from collections.abc import Iterator

import operators  # noqa: F401
from prepared import EDGE_BITS, Task, batches, bits_per_weight, file_bytes, layer_bits, layers, report, task
from torch import Tensor, nn

import model_compression_toolkit as mct  # isort: skip
from mct_quantizers import QuantizationMethod  # isort: skip
from model_compression_toolkit.core.common.network_editors import NodeNameFilter  # isort: skip
from model_compression_toolkit.target_platform_capabilities.constants import BIAS_ATTR, KERNEL_ATTR  # isort: skip
from model_compression_toolkit.target_platform_capabilities.schema import mct_current_schema as schema  # isort: skip

EPOCHS = 20
BATCH = 32
GRID = QuantizationMethod.SYMMETRIC


def attribute(bits: int, enabled: bool) -> schema.AttributeQuantizationConfig:
    """How one tensor of a layer is coded, one scale for each channel."""
    return schema.AttributeQuantizationConfig(
        weights_quantization_method=GRID,
        weights_n_bits=bits,
        weights_per_channel_threshold=enabled,
        enable_weights_quantization=enabled,
        lut_values_bitwidth=None,
    )


def operator(bits: int | None) -> schema.OpQuantizationConfig:
    """How one kind of layer is coded: weights of ``bits`` bits or, for None, nothing. Never the activations."""
    off = attribute(8, False)
    kernel = {} if bits is None else {KERNEL_ATTR: attribute(bits, True), BIAS_ATTR: off}
    return schema.OpQuantizationConfig(
        default_weight_attr_config=off,
        attr_weights_configs_mapping=kernel,
        activation_quantization_method=QuantizationMethod.POWER_OF_TWO,
        activation_n_bits=8,
        supported_input_activation_n_bits=8,
        enable_activation_quantization=False,
        quantization_preserving=False,
        fixed_scale=None,
        fixed_zero_point=None,
        simd_size=None,
        signedness=schema.Signedness.AUTO,
    )


def platform(bits: int) -> schema.TargetPlatformCapabilities:
    """Convolutions of ``bits`` or 8 bits, linear layers of 8, all else float."""
    wide, narrow = operator(EDGE_BITS), operator(bits)
    convolution = schema.QuantizationConfigOptions(quantization_configurations=(wide, narrow), base_config=narrow)
    linear = schema.QuantizationConfigOptions(quantization_configurations=(wide,))
    return schema.TargetPlatformCapabilities(
        default_qco=schema.QuantizationConfigOptions(quantization_configurations=(operator(None),)),
        tpc_minor_version=1,
        tpc_patch_version=0,
        tpc_platform_type="corank-bench",
        operator_set=(
            schema.OperatorsSet(name=schema.OperatorSetNames.CONV, qc_options=convolution),
            schema.OperatorsSet(name=schema.OperatorSetNames.FULLY_CONNECTED, qc_options=linear),
        ),
        add_metadata=False,
        name="weights-only",
    )


def quantized(run: Task) -> nn.Module:
    """The network after the toolkit's gradient-based rounding."""

    def images() -> Iterator[list[Tensor]]:
        yield from ([part] for part in batches(run.calibration, BATCH))

    widths = mct.core.BitWidthConfig()
    # The toolkit calls layer1.0.conv1 layer1_0_conv1; linear layers have 8 bits anyway.
    names = [name for name, layer in layers(run.model).items() if isinstance(layer, nn.Conv2d)]
    edges = {name for name in layer_bits(run.model, 0) if layer_bits(run.model, 0)[name] == EDGE_BITS}
    for name in names:
        if name in edges:
            widths.set_manual_weights_bit_width(NodeNameFilter(name.replace(".", "_")), EDGE_BITS, "weight")
    model, _ = mct.gptq.pytorch_gradient_post_training_quantization(
        run.model,
        images,
        core_config=mct.core.CoreConfig(bit_width_config=widths),
        # Layers weigh the same: the toolkit's Hessian scores take some ten times as long as the rounding itself.
        gptq_config=mct.gptq.get_pytorch_gptq_config(
            n_epochs=EPOCHS,
            use_hessian_based_weights=False,
            use_hessian_sample_attention=False,
            gradual_activation_quantization=False,
        ),
        target_platform_capabilities=platform(run.bits),
    )
    return model


def main() -> None:
    run = task("mct")
    stored = bits_per_weight(run.model, run.bits, symmetric=True)
    started = time.process_time()
    model = quantized(run)
    seconds = time.process_time() - started
    size = file_bytes(run.scratch / "model.pt", model.state_dict())
    report(run, model, seconds, stored=stored, size=size, note=f"symmetric, {EPOCHS} epochs; weights saved as float32")


if __name__ == "__main__":
    main()

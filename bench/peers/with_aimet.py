"""AIMET: AdaRound, layer after layer, by its default 15,000 iterations ("adaround") or by 1000 ("adaround-1000")."""

from __future__ import annotations

import json
import time
from pathlib import Path

import operators  # noqa: F401
import torch
from prepared import EDGE_BITS, Task, batches, bits_per_weight, file_bytes, layers, report, task
from torch import Tensor, nn

from aimet_torch.adaround.adaround_weight import Adaround, AdaroundParameters  # isort: skip
from aimet_torch.common.defs import QuantScheme  # isort: skip
from aimet_torch.quantsim import QuantizationSimModel  # isort: skip

ITERATIONS = {"adaround": None, "adaround-1000": 1000, "nearest": 0}
SETTINGS = {
    "defaults": {
        "ops": {},
        "params": {"is_quantized": "True", "is_symmetric": "True"},
        "per_channel_quantization": "True",
    },
    "params": {"bias": {"is_quantized": "False"}},
    "op_type": {},
    "supergroups": [],
    "model_input": {},
    "model_output": {},
}


def edges(model: nn.Module) -> list[nn.Module]:
    """The first and the last layer."""
    names = list(layers(model))
    return [model.get_submodule(names[0]), model.get_submodule(names[-1])]


def simulation(model: nn.Module, run: Task, settings: Path) -> QuantizationSimModel:
    """AIMET's model of weights rounded to nearest, symmetric, with its enhanced range; activations float."""
    simulated = QuantizationSimModel(
        model,
        dummy_input=run.calibration[:1],
        quant_scheme=QuantScheme.post_training_tf_enhanced,
        default_param_bw=run.bits,
        config_file=str(settings),
    )
    for layer in edges(simulated.model):
        layer.param_quantizers["weight"].bitwidth = EDGE_BITS
    return simulated


def rounded(run: Task, settings: Path) -> nn.Module:
    """The network with weights rounded by AdaRound."""
    images = list(batches(run.calibration, 32))

    def forward(model: nn.Module, inputs: Tensor) -> Tensor:
        return model(inputs)

    parameters = AdaroundParameters(
        data_loader=images,
        num_batches=len(images),
        default_num_iterations=ITERATIONS[run.method],
        forward_fn=forward,
    )
    model = Adaround.apply_adaround(
        run.model,
        run.calibration[:1],
        parameters,
        path=str(run.scratch),
        filename_prefix="adaround",
        default_param_bw=run.bits,
        param_bw_override_list=[(layer, EDGE_BITS) for layer in edges(run.model)],
        default_quant_scheme=QuantScheme.post_training_tf_enhanced,
        default_config_file=str(settings),
    )
    # What comes back is rounded softly; only the encodings saved beside it make it a quantized network.
    simulated = simulation(model, run, settings)
    simulated.set_and_freeze_param_encodings(str(run.scratch / "adaround.encodings"))
    return simulated.model


def main() -> None:
    run = task("aimet")
    settings = run.scratch / "settings.json"
    settings.write_text(json.dumps(SETTINGS))
    stored = bits_per_weight(run.model, run.bits, symmetric=True)
    started = time.process_time()
    if run.method == "nearest":
        simulated = simulation(run.model, run, settings)
        simulated.compute_encodings(lambda model: model(run.calibration[:2]))
        model = simulated.model
    else:
        model = rounded(run, settings)
    seconds = time.process_time() - started
    with torch.no_grad():
        kept = {name: part for name, part in model.state_dict().items() if not name.endswith("alpha")}
    size = file_bytes(run.scratch / "model.pt", kept)
    report(run, model, seconds, stored=stored, size=size, note="symmetric, enhanced range; weights saved as float32")


if __name__ == "__main__":
    main()

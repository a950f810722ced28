"""``import corank.hf``: transformers loads and saves what corank quantized, by its own ``from_pretrained``.

A folder of :func:`corank.save_pretrained` names the method "corank" in its ``config.json``; this module tells
transformers' registry who reads that. Nothing of the folder is executed.
"""

from __future__ import annotations

import itertools
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from corank.errors import ConfigError, ModelError
from corank.storage.artifact import load, serialized
from corank.storage.artifact_file import TENSOR
from corank.storage.model_record import ATTRIBUTE

try:
    from transformers.quantizers.auto import register_quantization_config, register_quantizer
    from transformers.quantizers.base import HfQuantizer
    from transformers.utils.quantization_config import QuantizationConfigMixin
except ImportError as error:
    raise ConfigError(
        "corank.hf needs transformers with a registry of quantizers: pip install --upgrade 'corank[hf]'"
    ) from error

__all__ = ["CorankConfig", "CorankQuantizer"]

METHOD = "corank"


@register_quantization_config(METHOD)
class CorankConfig(QuantizationConfigMixin):
    """``quantization_config`` of a ``config.json``: plain facts for a reader. All that counts is in the artifact."""

    def __init__(self, bits: int | None = None, **facts: Any) -> None:
        self.quant_method = METHOD  # pyright: ignore[reportAttributeAccessIssue]
        self.bits = bits
        self.__dict__.update({name: value for name, value in facts.items() if name not in self.__dict__})


@register_quantizer(METHOD)
class CorankQuantizer(HfQuantizer):
    """Puts coded layers in place of a network's own, and gives their codes back when it is saved.

    While transformers loads, modules that hold matrices stand aside, so that it neither makes room for their float
    weights nor draws any; the artifact then fills them.
    """

    requires_calibration = True

    def __init__(self, quantization_config: Any, **more: Any) -> None:
        super().__init__(quantization_config, **more)
        self._aside: list[tuple[nn.Module, str, nn.Module]] = []
        self._tied: dict[str, str] = {}
        self._file = ""

    def validate_environment(self, *args: Any, **given: Any) -> None:
        """Raises ConfigError where the network would be spread over several devices."""
        places = given.get("device_map")
        if isinstance(places, dict) and len({str(place) for place in places.values()}) > 1:
            raise ConfigError(
                "a corank model goes on one device: give device_map='cuda:0', or none and model.to(device) afterwards"
            )

    def update_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The dtype asked for; float32 where transformers took the bytes of the artifact for one."""
        return dtype if dtype.is_floating_point else torch.float32

    def update_device_map(self, device_map: Any) -> Any:
        """One device, whatever way of spreading was asked for."""
        if device_map in ("auto", "balanced", "balanced_low_0", "sequential"):
            return {"": torch.get_default_device() if not torch.cuda.is_available() else torch.device("cuda", 0)}
        return device_map

    def _process_model_before_weight_loading(self, model: Any, **given: Any) -> Any:
        files = given.get("checkpoint_files") or []
        if len(files) != 1:
            raise ModelError(f"a corank model is one file, and this folder names {len(files)}; corank.save wrote it")
        self._file = files[0]
        model._keys_to_ignore_on_load_unexpected = {*(model._keys_to_ignore_on_load_unexpected or ()), f"^{TENSOR}$"}
        model._keys_to_ignore_on_load_missing = {*(model._keys_to_ignore_on_load_missing or ()), "."}
        self._tied, model.all_tied_weights_keys = model.all_tied_weights_keys, {}
        for parent in list(model.modules()):
            for name, child in list(parent._modules.items()):
                if child is not None and _holds_matrices(child):
                    self._aside.append((parent, name, child))
                    parent._modules[name] = nn.Identity()
        return model

    def _process_model_after_weight_loading(self, model: Any, **given: Any) -> Any:
        where = next(itertools.chain(model.parameters(), model.buffers()), torch.empty(0, dtype=torch.float32)).device
        for parent, name, child in self._aside:
            parent._modules[name] = child
        self._aside, model.all_tied_weights_keys = [], self._tied
        model.tie_weights()
        load(self._file, lambda: model, where, model.config.dtype)
        model.is_quantized = False  # transformers casts no such model, and coded layers can be cast
        return model.eval()

    def get_state_dict_and_metadata(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, model: Any
    ) -> tuple[dict[str, Tensor] | None, dict[str, str]]:
        """What ``save_pretrained`` writes: the artifact's bytes; of a network with adapters of peft, those."""
        if getattr(model, "_hf_peft_config_loaded", False):
            return None, {}
        if ATTRIBUTE not in model.__dict__:
            raise ModelError(
                f"this {type(model).__name__} is no longer what corank loaded; save its adapters, or load it again"
            )
        return {TENSOR: safetensors.torch.load(serialized(model))[TENSOR]}, {}

    def _dequantize(self, model: Any, dtype: torch.dtype | None = None) -> Any:
        from corank.export.to_torch import to_float

        return to_float(model).to(dtype)

    def is_serializable(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        """It is: codes go back into a file as they came."""
        return True

    @property
    def is_trainable(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Adapters on top are; codes stay."""
        return True

    @property
    def is_compileable(self) -> bool:
        """Composed weights are constants of a compiled graph."""
        return True


def _holds_matrices(module: nn.Module) -> bool:
    """A module without children or buffers whose weight is a matrix, or more."""
    return (
        not module._modules
        and not module._buffers
        and any(held is not None and held.dim() > 1 for held in module._parameters.values())
    )

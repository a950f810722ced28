"""Models of the transformers library: a local folder, or a name on its hub. No code of theirs is ever run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from corank.data.preprocessing import Preprocessing
from corank.data.tokens import Tokenization
from corank.errors import ConfigError, ModelError
from corank.models.loader import LoadedModel, Request
from corank.models.weights import hash_files
from corank.models.weights_file import check_whole, weight_files

__all__ = ["causal_config", "load_hf", "tokenization_of"]

LONGEST_SEQUENCE = 2048
RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


def load_hf(request: Request) -> LoadedModel:
    """Build an image classifier or a causal language model of transformers, in float32.

    A folder is its weights: its safetensors files are loaded, offline, unless the caller brings others.
    A name on the hub is fetched: its configuration always, its weights where `pretrained` says so.

    Args:
        request: the name is a folder with a config.json, or a name on the hub.

    Raises:
        ModelError: no such model, one of another kind, or weights that do not fit.
        ConfigError: transformers is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise ConfigError("hf: models need transformers: pip install 'corank[hf]'") from error
    folder = Path(request.name).expanduser()
    is_local = folder.is_dir()
    if not is_local and (request.name.startswith((".", "/", "~")) or request.name.count("/") > 1):
        raise ModelError(f"there is no folder {request.name}")
    name = str(folder) if is_local else request.name
    config = _config(name, is_local)
    kind = _kind(config.architectures, request.name)
    auto = transformers.AutoModelForCausalLM if kind == "ForCausalLM" else transformers.AutoModelForImageClassification
    preprocessing, tokenization, stated = Preprocessing(), None, True
    if kind == "ForImageClassification":
        settings = _image_settings(name, is_local)
        preprocessing, stated = _preprocessing(settings), bool(settings)
    else:
        tokenization = tokenization_of(config.to_dict(), name)
    if request.own_weights or not (is_local or request.pretrained):
        model = auto.from_config(config, trust_remote_code=False).float()
        return LoadedModel(model, preprocessing, tokenization=tokenization, states_preprocessing=stated)
    files = sorted(folder.glob("*.safetensors")) if is_local else []
    if is_local and not files:
        raise ModelError(f"{folder} has no .safetensors file; convert its weights, or pass --weights FILE")
    for file in weight_files(folder) if files else []:  # transformers' own words about these say nothing of the cause
        check_whole(file)
    digest = hash_files(files) if files else None
    trained = _trained(auto, name, is_local)
    return LoadedModel(trained, preprocessing, name, digest, tokenization, states_preprocessing=stated)


def causal_config(folder: Path) -> Any:
    """The configuration of the causal language model in a folder.

    Raises:
        ModelError: for one that cannot be read, or is of another kind of model.
        ConfigError: transformers is not installed.
    """
    config = _config(str(folder), True)
    if _kind(config.architectures, str(folder)) != "ForCausalLM":
        raise ModelError(f"{folder} is {config.architectures}; a causal language model can be read layer by layer")
    return config


def _config(name: str, is_local: bool) -> Any:
    try:
        from transformers import AutoConfig
    except ImportError as error:
        raise ConfigError("models of transformers need it: pip install 'corank[hf]'") from error
    try:
        return AutoConfig.from_pretrained(name, local_files_only=is_local, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"hf:{name} cannot be read: {error}") from error


def _kind(architectures: list[str] | None, name: str) -> str:
    for kind in ("ForCausalLM", "ForImageClassification"):
        if architectures and architectures[0].endswith((kind, "LMHeadModel") if kind == "ForCausalLM" else kind):
            return kind
    raise ModelError(
        f"hf:{name} is {architectures or 'of no stated architecture'}; image classifiers "
        "(...ForImageClassification) and language models (...ForCausalLM) can be loaded"
    )


def _trained(auto: Any, name: str, is_local: bool) -> torch.nn.Module:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # bars are for the command line to draw
    try:
        model, found = auto.from_pretrained(
            name,
            local_files_only=is_local,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # damaged files end in many types, some of the safetensors extension
        raise ModelError(f"the weights of hf:{name} cannot be loaded: {error}") from error
    finally:
        if shown:
            logging.enable_progress_bar()
    for kind in ("missing_keys", "mismatched_keys"):
        if found[kind]:
            # transformers would leave these at random values
            names = ", ".join(sorted(map(str, found[kind]))[:4])
            raise ModelError(f"the weights of hf:{name} do not fit: {kind.replace('_', ' ')}: {names}")
    return model


def _image_settings(name: str, is_local: bool) -> Mapping[str, Any]:
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        return ImageProcessingMixin.get_image_processor_dict(name, local_files_only=is_local)[0]
    except (OSError, ValueError):
        return {}


def _preprocessing(settings: Mapping[str, Any]) -> Preprocessing:
    """Read a preprocessor_config.json; what it leaves out is 224 pixels and the usual 0.5."""
    try:
        resized = _side(settings.get("size", 224))
        size = _side(settings.get("crop_size", resized)) if settings.get("do_center_crop") else resized
        if settings.get("crop_pct"):  # ConvNeXt: `size` is what the network sees
            resized = round(size / settings["crop_pct"])
        normalise = settings.get("do_normalize", True)
        return Preprocessing(
            image_size=size,
            mean=tuple(settings.get("image_mean", (0.5, 0.5, 0.5))) if normalise else None,
            std=tuple(settings.get("image_std", (0.5, 0.5, 0.5))) if normalise else None,
            crop=min(1.0, size / resized),
            interpolation=RESAMPLING.get(settings.get("resample", 2), "bilinear"),
        )
    except (TypeError, KeyError, ValueError, ZeroDivisionError) as error:
        raise ModelError(f"the preprocessor_config.json is not understood: {error}") from error


def tokenization_of(config: Mapping[str, Any], name: str) -> Tokenization:
    """Sequences as long as the model's positions reach, at most 2048 tokens."""
    positions, vocabulary = config.get("max_position_embeddings"), config.get("vocab_size")
    length = min(LONGEST_SEQUENCE, positions) if isinstance(positions, int) and positions > 1 else LONGEST_SEQUENCE
    return Tokenization(length, name, vocabulary if isinstance(vocabulary, int) else None)


def _side(size: int | Mapping[str, int]) -> int:
    if isinstance(size, int):
        return size
    return size["shortest_edge"] if "shortest_edge" in size else size["height"]

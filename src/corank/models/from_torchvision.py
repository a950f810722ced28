"""Models of torchvision, by name."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Any

from corank.data.preprocessing import Preprocessing
from corank.errors import ConfigError, ModelError
from corank.models.loader import LoadedModel, Request, unknown_name

if TYPE_CHECKING:
    from torchvision.transforms._presets import ImageClassification

__all__ = ["IMAGENET", "load_torchvision"]

IMAGENET = Preprocessing(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), crop=0.875)
# these two announce a change of their default start; saying it keeps today's and the warning away
STATES_ITS_START = ("googlenet", "inception_v3")


def load_torchvision(request: Request) -> LoadedModel:
    """Build a torchvision model, with its default published weights where `pretrained` says so.

    Args:
        request: the name is one of `torchvision.models.list_models()`.

    Raises:
        ModelError: no such model, or its weights cannot be fetched.
        ConfigError: torchvision is not installed, or does not fit the installed torch.
    """
    try:
        import torchvision.models as zoo
        from torchvision.transforms._presets import ImageClassification
    except ImportError as error:
        raise ConfigError("torchvision: models need torchvision: pip install 'corank[vision]'") from error
    except RuntimeError as error:
        raise ConfigError(f"torchvision and torch are of different builds, install them together: {error}") from error
    known = [name for name in zoo.list_models() if not name.startswith("quantized_")]
    if request.name not in known:
        raise unknown_name("torchvision", request.name, known)
    published = zoo.get_model_weights(request.name)["DEFAULT"]
    options: dict[str, Any] = {"weights": published if request.pretrained else None}
    if "weights_backbone" in signature(zoo.get_model_builder(request.name)).parameters and not request.pretrained:
        options["weights_backbone"] = None  # or it would be downloaded
    if request.name in STATES_ITS_START and not request.pretrained:
        options["init_weights"] = True
    try:
        model = zoo.get_model(request.name, **options)
    except OSError as error:
        raise ModelError(f"the weights of torchvision:{request.name} cannot be fetched: {error}") from error
    transforms = published.transforms()
    preprocessing = _preprocessing(transforms) if isinstance(transforms, ImageClassification) else IMAGENET
    return LoadedModel(model, preprocessing, str(published) if request.pretrained else None)


def _preprocessing(transforms: ImageClassification) -> Preprocessing:
    size, resized = transforms.crop_size[0], transforms.resize_size[0]
    return Preprocessing(
        image_size=size,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        crop=min(1.0, size / resized),
        interpolation=transforms.interpolation.value,
    )

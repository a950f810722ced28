from __future__ import annotations

import pytest

from corank.data import Preprocessing
from corank.errors import ModelError
from corank.models import resolve

pytest.importorskip("timm")


def test_random_mobilenet() -> None:
    found = resolve("timm:mobilenetv3_small_050.lamb_in1k")
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert found.random
    assert found.preprocessing == Preprocessing(224, mean, std, crop=0.875, interpolation="bicubic")


def test_the_resized_side_is_timms() -> None:
    import timm
    from timm.data.config import resolve_data_config
    from timm.data.transforms_factory import create_transform
    from torchvision.transforms import Compose, Resize

    for name in ("efficientnet_b0", "tf_efficientnet_b1", "regnetz_b16"):
        transform = create_transform(**resolve_data_config({}, model=timm.create_model(name)))
        assert isinstance(transform, Compose)
        sizes = [step.size for step in transform.transforms if isinstance(step, Resize)]
        found = resolve(f"timm:{name}").preprocessing
        assert found.image_size is not None
        assert sizes == [round(found.image_size / found.crop)]


@pytest.mark.parametrize("name", ["mobilnetv3_small_050", "hf-hub:someone/something", "local-dir:/tmp"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(ModelError, match=f"timm has no model '{name}'"):
        resolve(f"timm:{name}")

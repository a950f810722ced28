from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from corank.data import Preprocessing
from corank.errors import ConfigError, DataError


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"image_size": 0}, "image_size"),
        ({"image_size": 10**6}, "image_size"),
        ({"crop": 0.0}, "crop"),
        ({"crop": 1.1}, "crop"),
        ({"channels": 4}, "channels"),
        ({"interpolation": "cubic"}, "bicubic"),
        ({"mean": (0.5,)}, "mean"),
        ({"std": (1.0, 0.0, 1.0)}, "std"),
        ({"mean": (0.0, float("nan"), 0.0)}, "finite"),
    ],
)
def test_impossible_values_are_refused(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Preprocessing(**fields)


def test_without_size_pixels_are_kept() -> None:
    image = noise(5, 7)
    assert np.array_equal(Preprocessing()(image), image)
    assert np.array_equal(Preprocessing()(Image.fromarray(image)), image)


def test_centre_crop_of_the_right_size_takes_the_middle() -> None:
    image = noise(256, 300)
    out = Preprocessing(image_size=224, crop=0.875)(image)
    assert np.array_equal(out, image[16:240, 38:262])


def test_resize_is_pillows_on_the_shorter_side() -> None:
    image = noise(40, 60)
    expected = np.asarray(Image.fromarray(image).resize((30, 20), Image.Resampling.BICUBIC))[2:18, 7:23]
    out = Preprocessing(image_size=16, crop=0.8, interpolation="bicubic")(image)
    assert np.array_equal(out, expected)


def test_channels_are_converted_both_ways() -> None:
    grey = noise(4, 4, 1)
    assert np.array_equal(Preprocessing()(grey), np.repeat(grey, 3, axis=2))
    assert np.array_equal(Preprocessing(channels=1)(np.repeat(grey, 3, axis=2)), grey)


def test_palette_is_resized_as_colours() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 200, 200, 200])
    image.putdata([0, 1])
    out = Preprocessing(image_size=3)(image.resize((8, 4), Image.Resampling.NEAREST))
    assert 0 < out[1, 1, 0] < 200


def test_sixteen_bit_greys_are_scaled_not_clipped() -> None:
    image = Image.fromarray(np.array([[0, 25600, 65535]], dtype=np.uint16))
    assert Preprocessing(channels=1)(image)[0, :, 0].tolist() == [0, 100, 255]


def test_normalise_is_the_written_formula() -> None:
    pixels = torch.from_numpy(noise(3, 4)[None])
    out = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0)).normalise(pixels)
    assert out.shape == (1, 3, 3, 4) and out.dtype == torch.float32 and out.is_contiguous()
    assert out[0, 1, 2, 3].item() == pytest.approx((pixels[0, 2, 3, 1].item() / 255 - 0.2) / 0.25, abs=1e-6)


def test_agrees_with_torchvision() -> None:
    pytest.importorskip("torchvision", exc_type=ImportError)
    from torchvision.transforms._presets import ImageClassification

    image = Image.fromarray(noise(50, 81))
    theirs = ImageClassification(crop_size=32, resize_size=37)(image)
    ours = Preprocessing(32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), crop=32 / 37)
    assert torch.allclose(ours.normalise(torch.from_numpy(ours(image)[None]))[0], theirs, atol=1e-5)


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 2), np.uint8)])
def test_other_arrays_are_refused(image: np.ndarray) -> None:
    with pytest.raises(DataError, match="uint8"):
        Preprocessing()(image)


def test_a_thread_thin_image_does_not_explode() -> None:
    with pytest.raises(DataError, match="narrow"):
        Preprocessing(image_size=224)(np.zeros((1, 5000, 3), np.uint8))


def test_normalise_refuses_other_batches() -> None:
    with pytest.raises(DataError, match=r"\(N, H, W, 3\)"):
        Preprocessing().normalise(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))

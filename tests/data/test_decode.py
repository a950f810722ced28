from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from corank.data import Preprocessing
from corank.data.decode import decode, decode_batch, stack
from corank.errors import DataError


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


PIXELS = np.random.RandomState(0).randint(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_kinds_come_back(kind: str) -> None:
    assert np.array_equal(decode(encoded(PIXELS, kind), "a", Preprocessing()), PIXELS)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "WEBP"])
def test_truncated_files_name_the_file(kind: str) -> None:
    data = encoded(PIXELS, kind)
    with pytest.raises(DataError, match=r"cat/7\.png"):
        decode(data[: len(data) // 2], "cat/7.png", Preprocessing())


@pytest.mark.parametrize("data", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, b"%PDF-1.4"])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(DataError, match=r"x\.png cannot be read"):
        decode(data, "x.png", Preprocessing())


@pytest.mark.parametrize("limit", [599, 100])  # Pillow itself warns above its limit, and fails above twice that
def test_decompression_bombs_are_an_error(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(DataError, match=r"bomb\.png"):
        decode(encoded(PIXELS), "bomb.png", Preprocessing())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
    assert decode(encoded(PIXELS), "bomb.png", Preprocessing()).shape == (20, 30, 3)


def test_a_batch_keeps_its_order_over_threads() -> None:
    files = [encoded(np.full((2, 2, 3), value, np.uint8)) for value in range(37)]
    indices = np.arange(36, -1, -1)
    batch = decode_batch(files.__getitem__, [str(i) for i in range(37)], indices, Preprocessing())
    assert (batch[:, 0, 0, 0] * 255).round().int().tolist() == indices.tolist()


def test_mixed_sizes_name_two_files_and_the_option() -> None:
    images = [np.zeros((4, 6, 3), np.uint8), np.zeros((5, 6, 3), np.uint8)]
    with pytest.raises(DataError, match="a is 6 x 4 pixels, b is 6 x 5; pass --image-size"):
        stack(images, ["a", "b"])

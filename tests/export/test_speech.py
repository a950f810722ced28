"""A shift network for speech in onnxruntime: from the waveform on, by factors that are exact powers of two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import corank
from corank.data import Sampling
from corank.export import export_onnx
from corank.models import SpeechResNet

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.mark.parametrize("recipe", ["shift-speech-3bit", "shift-speech-s3-3bit"])
def test_it_agrees_and_its_factors_are_powers_of_two(recipe: str, tmp_path: Path) -> None:
    sound, labels = 0.1 * torch.randn(16, 800), torch.arange(16) % 3
    sound[::2, 500:] = 0
    model = SpeechResNet(3, Sampling(4000, 0.2), mels=8, width=4)
    small = corank.train(model, (sound, labels), recipe, iterations=3, batch_size=8)
    path = tmp_path / "small.onnx"
    result = export_onnx(small, path, sound[:2])
    assert result.relative_difference is not None and result.relative_difference < 1e-4
    session = ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = small(sound).numpy()
    assert np.allclose(session.run(None, {"input": sound.numpy()})[0], expected, atol=1e-4)
    scales = [
        onnx.numpy_helper.to_array(one)
        for one in onnx.load(path).graph.initializer
        if one.name.startswith("blocks") and one.name.endswith("scale")
    ]
    assert len(scales) == 9  # six convolutions of 3x3 and three of 1x1
    assert all(np.array_equal(np.frexp(scale)[0], np.full(scale.shape, 0.5)) for scale in scales)

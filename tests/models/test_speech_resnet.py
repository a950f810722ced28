from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from corank.data import Sampling
from corank.errors import ConfigError, ModelError
from corank.models import SpeechResNet, resolve


def with_statistics(model: SpeechResNet) -> SpeechResNet:
    """Norms that move zero, so that padding would leak where it is not masked."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias)
            assert module.running_mean is not None
            nn.init.normal_(module.running_mean)
    return model.eval()


@pytest.mark.parametrize("samples", [1200, 2000, 3333, 5000])
def test_zeros_behind_a_recording_change_nothing(samples: int) -> None:
    model, sound = with_statistics(SpeechResNet(5, Sampling(8000, 1.0))), 0.1 * torch.randn(2, samples)
    alone = model(sound)
    for more in (1, 80, 777, 4000):
        assert torch.allclose(model(nn.functional.pad(sound, (0, more))), alone, atol=1e-4)


def test_recordings_of_a_batch_do_not_see_each_other() -> None:
    model = with_statistics(SpeechResNet(5, Sampling(8000, 1.0)))
    sound = 0.1 * torch.randn(2, 4000)
    sound[1, 1500:] = 0
    assert torch.allclose(model(sound)[1], model(sound[1:, :1500])[0], atol=1e-4)


def test_it_is_thin() -> None:
    model = SpeechResNet(10)
    assert 70_000 < sum(one.numel() for one in model.parameters()) < 80_000
    assert not any(name.startswith("front") for name in model.state_dict())
    with pytest.raises(ConfigError, match="classes"):
        SpeechResNet(1)
    with pytest.raises(ConfigError, match="25 ms"):
        SpeechResNet(2, Sampling(16000, 0.01))


def test_a_reference_says_classes_and_sampling() -> None:
    source = resolve("speech-resnet:10,rate=8000,seconds=0.5,width=8,mels=32")
    assert isinstance(source.model, SpeechResNet) and source.random and not source.model.training
    assert source.sampling == Sampling(8000, 0.5) and source.model.head.out_features == 10
    assert resolve("speech-resnet:4").sampling == Sampling(16000, 1.0)


@pytest.mark.parametrize("name", ["", "ten", "10,depth=3", "10,8000", "10,rate=fast", "1", "10,rate=10", "10,mels=1"])
def test_a_reference_that_cannot_be_shows_one_that_can(name: str) -> None:
    with pytest.raises(ModelError, match=r"give speech-resnet:10"):
        resolve(f"speech-resnet:{name}")


def test_a_model_of_ones_own_says_how_it_hears(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from corank.data import Sampling\nfrom corank.models import SpeechResNet\nimport torch\n"
        "def net():\n    return SpeechResNet(3, Sampling(8000, 0.5))\n"
        "def plain():\n    return torch.nn.Linear(8, 2), Sampling(1000, 0.008)\n"
    )
    assert resolve(f"{tmp_path}/own.py:net").sampling == Sampling(8000, 0.5)
    assert resolve(f"{tmp_path}/own.py:plain").sampling == Sampling(1000, 0.008)

from __future__ import annotations

from pathlib import Path

from fuzzing.sounds import tone, wav

from corank.cli.utterance import utterance_of
from corank.data import ImageSet, Sampling, load_samples
from corank.models import SpeechResNet
from corank.models.digits import digits_net


def test_it_says_what_was_heard(tmp_path: Path) -> None:
    for name in ("no_a.wav", "yes_a.wav"):
        (tmp_path / name).write_bytes(wav(tone(500, 0.1, 4000), 4000))
    hears = Sampling(4000, 0.5)
    samples, network = load_samples(str(tmp_path), sampling=hears, label="{label}_{who}"), SpeechResNet(2, hears).eval()
    assert isinstance(samples, ImageSet)
    found = utterance_of(network, samples.select([1]))["utterance"]
    assert found["sample"] == "yes_a.wav" and found["label"] == "yes"
    assert len(found["log_mels"]) == 40 and len(found["log_mels"][0]) == 8  # of 0.1 s, not of what is padded
    assert found["seconds"] == 0.095 and max(found["high"]) == 0.5 and len(found["low"]) == len(found["high"])
    assert abs(sum(one["probability"] for one in found["classes"]) - 1) < 1e-5
    assert {one["name"] for one in found["classes"]} == {"no", "yes"}


def test_images_have_none(tmp_path: Path) -> None:
    pixels = load_samples("digits:test")
    assert utterance_of(digits_net(), pixels) == {} == utterance_of(SpeechResNet(2), pixels)

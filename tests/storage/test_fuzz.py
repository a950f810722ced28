"""A few hundred mutated files; ``bench/fuzz.py`` reads a hundred thousand."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from fuzzing import files as checked
from fuzzing.artifacts import LATER, SAMPLES, sample_inputs, sample_model
from fuzzing.files import check_files
from fuzzing.mutations import HEADER_BOMBS, bomb, header_bomb, mutate
from fuzzing.parts import parts_of
from torch import nn

from corank.errors import ArtifactError
from corank.storage import artifact
from corank.storage.artifact import load, read, serialized

GOLDEN = Path(__file__).parent.parent / "golden"
CODERS = {
    "sparse": ("deflate", "huffman", "ham", "sham", "rans", "adaptive", "carried"),
    "convolution": ("fixed", "carried"),
}


@pytest.fixture(scope="module", params=sorted(SAMPLES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(name: str) -> nn.Module:
    torch.set_num_threads(1)
    return sample_model(SAMPLES[name])


def test_every_mutated_file_is_refused_or_a_sound_model(name: str, model: nn.Module) -> None:
    sample, found = SAMPLES[name], Counter[str]()
    for coder in CODERS.get(name, ("fixed",)):
        found += check_files(serialized(model, coder), sample.network(), sample_inputs(sample), 40)
    for path in sorted(GOLDEN.glob(f"v[12]/{name}.*")):
        if "ans" not in path.name:
            found += check_files(path.read_bytes(), sample.network(), sample_inputs(sample), 20)
    assert found["loaded"] > 0
    assert len(found) > 8  # reasons of refusal


@pytest.mark.parametrize("name", sorted(LATER))
@pytest.mark.parametrize("coder", ["auto", "fixed"])
def test_every_mutated_file_of_a_later_kind(name: str, coder: str) -> None:
    torch.set_num_threads(1)
    sample = LATER[name]
    data = serialized(sample_model(sample), coder)
    assert len(data) < len(serialized(sample_model(sample), "fixed")) or coder == "fixed"
    found = check_files(data, sample.network(), sample_inputs(sample), 60)
    assert found["loaded"] > 0 and len(found) > 8


def test_the_same_state_mutates_alike_and_most_forgeries_are_signed(
    name: str, model: nn.Module, tmp_path: Path
) -> None:
    data = serialized(model)
    twice = [[mutate(data, random.Random(number)) for number in range(60)] for _ in range(2)]
    assert twice[0] == twice[1]
    for source in (data, (GOLDEN / "v1" / f"{name}.safetensors").read_bytes()):
        (tmp_path / "sound").write_bytes(source)
        (tmp_path / "joined").write_bytes(parts_of(source).join())
        assert read(tmp_path / "joined")[1].header == read(tmp_path / "sound")[1].header


def test_a_reader_that_lets_an_error_through_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = SAMPLES["volume"]
    model = sample_model(sample)

    def careless(path: Path, network: nn.Module) -> nn.Module:
        raise KeyError("codes")

    monkeypatch.setattr(checked, "load", careless)
    with pytest.raises(AssertionError, match=r"mutation 0 \(.*\): KeyError: 'codes'"):
        check_files(serialized(model), sample.network(), sample_inputs(sample), 3)


def test_a_model_that_changes_when_it_is_saved_again_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = SAMPLES["volume"]
    model, sound = sample_model(sample), checked.load

    def forgetful(path: Path, network: nn.Module) -> nn.Module:
        loaded = sound(path, network)
        if path.name.endswith(".again"):
            loaded[5].bias.data += 1  # pyright: ignore
        return loaded

    monkeypatch.setattr(checked, "load", forgetful)
    with pytest.raises(AssertionError, match="saved and loaded again it gives something else"):
        check_files(serialized(model), sample.network(), sample_inputs(sample), 40)


def test_a_bomb_is_measured_against_the_model_before_it_is_unpacked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sample = SAMPLES["volume"]
    path = tmp_path / "bomb"
    path.write_bytes(bomb(serialized(sample_model(sample)), 512, 1024, 8))
    assert path.stat().st_size < 8000
    assert sum(layer.weights for layer in read(path)[0].layers.values()) == 512 * 1024

    def unpacked(*_: object) -> None:
        raise AssertionError("unpacked")

    monkeypatch.setattr(artifact, "decode_contents", unpacked)
    with pytest.raises(ArtifactError, match=r"layer '0' is \(1, 4, 8\) there and \(1, 512, 1024\) in the file"):
        load(path, sample.network())


def test_without_a_model_a_large_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(bomb(serialized(sample_model(SAMPLES["volume"])), 8192, 1024, 8))
    assert path.stat().st_size < 64000
    with pytest.raises(ArtifactError, match="more than 64 times"):
        read(path)


@pytest.mark.parametrize("kind", HEADER_BOMBS)
def test_a_header_that_inflates_to_much_is_refused(kind: str, tmp_path: Path) -> None:
    path, sound = tmp_path / "bomb", serialized(sample_model(SAMPLES["volume"]))
    path.write_bytes(header_bomb(sound, kind, 1 << 23))
    assert path.stat().st_size < 1 << 16
    with pytest.raises(ArtifactError):
        read(path)

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzzing.sounds import tone, wav

from corank.data import ImageSet, Sampling, load_samples, matching, name_parts
from corank.errors import CorankWarning, DataError

HEARS = Sampling(8000, 0.25)
PATTERN = "{label}_{group}_{index}"


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """Eight recordings of two words by two speakers."""
    folder = tmp_path / "words"
    folder.mkdir()
    for place in range(8):
        label, group, index = ("yes", "no")[place % 2], ("ann", "bob")[place // 2 % 2], place // 4
        (folder / f"{label}_{group}_{index}.wav").write_bytes(wav(tone(200 + 100 * place, 0.2)))
    return folder


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"inside/{file.name}")
    return path


def read(reference: object, label: str | None = None) -> ImageSet:
    found = load_samples(str(reference), sampling=HEARS, label=label)
    assert isinstance(found, ImageSet)
    return found


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_and_a_zip_by_names(words: Path, packed: bool) -> None:
    found = read(zipped(words) if packed else words, PATTERN)
    assert found.class_names == ("no", "yes") and found.labels is not None
    assert found.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    sounds, labels = next(found.batches(100))
    assert sounds.shape == (8, 2000) and sounds.dtype == torch.float32 and labels is not None
    assert torch.equal(sounds[4, :1600], torch.tensor(np.rint(tone(200, 0.2) * 32768) / 32768, dtype=torch.float32))
    assert not sounds[:, 1600:].any()


def test_conditions_split_without_moving_classes(words: Path) -> None:
    whole = read(words, PATTERN)
    rest, left_out = read(f"{words}[group!=ann]", PATTERN), matching(whole, "group=ann")
    assert name_parts(rest)["group"] == ["bob"] * 4 and name_parts(left_out)["group"] == ["ann"] * 4
    assert rest.class_names == left_out.class_names == whole.class_names
    only = read(f"{words}[label=yes&index<1]", PATTERN)
    assert only.labels is not None and only.labels.tolist() == [1, 1]
    assert len(read(f"{words}[0::4]", PATTERN)) == 2


def test_classes_are_folders_without_a_pattern(tmp_path: Path) -> None:
    for name in ("b/1.wav", "a/1.wav"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(wav(tone(300)))
    found = read(tmp_path)
    assert found.class_names == ("a", "b") and name_parts(found) == {"label": ["a", "b"]}
    assert read(tmp_path / "a" / "1.wav").labels is None


def test_each_kind_of_remark_is_made_once(words: Path) -> None:
    for place in range(2):
        (words / f"zz_ann_{place}.wav").write_bytes(wav(tone(300, 0.5, 16000, gain=4), 16000))
    found = read(words, PATTERN)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in found.batches(3):
            pass
    said = [str(one.message) for one in caught]
    assert len(said) == 3 and all(one.startswith("recording zz_ann_0.wav") for one in said)


def test_other_files_among_them_are_left_out_and_named(words: Path) -> None:
    (words / "notes.txt").write_text("who spoke when")
    (words / ".hidden").write_text("x")
    with pytest.warns(CorankWarning, match=r"notes\.txt is no recording.*left out"):
        assert len(read(words, PATTERN)) == 8


def test_what_cannot_be_read_is_named(words: Path, tmp_path: Path) -> None:
    (words / "no_bob_9.wav").write_text("who spoke when")
    with pytest.raises(DataError, match=r"recording no_bob_9\.wav: it is text"):
        list(read(words, PATTERN).batches(100))
    (words / "more.wav").write_bytes(wav(tone(300)))
    with pytest.raises(DataError, match=r"more\.wav"):
        read(words, PATTERN)
    with pytest.raises(DataError, match="no recordings at"):
        read(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no recording"):
        read(tmp_path / "empty")
    with pytest.raises(DataError, match="no labels"):
        load_samples(str(words), sampling=HEARS, labelled=True)

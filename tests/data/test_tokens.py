"""Token files, text and their slices; what is refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from corank.data import Tokenization, TokenSet, load_sequences
from corank.errors import ConfigError, DataError

IDS = np.arange(24, dtype=np.int16).reshape(4, 6)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.npz"
    np.savez(path, calibration=IDS, test=IDS[:2] + 1, other=np.ones((2, 3), np.float32))
    return path


def test_arrays_by_name(archive: Path) -> None:
    assert torch.equal(load_sequences(str(archive)).ids, torch.from_numpy(IDS).long())
    assert torch.equal(load_sequences(f"{archive}:test").ids, torch.from_numpy(IDS[:2] + 1).long())
    assert torch.equal(load_sequences(str(archive), key="test").ids, load_sequences(f"{archive}:test").ids)
    assert torch.equal(load_sequences(f"{archive}:test[1:]").ids, torch.from_numpy(IDS[1:2] + 1).long())
    assert torch.equal(load_sequences(f"{archive}[::2]").ids, torch.from_numpy(IDS[::2]).long())


def test_only_array_needs_no_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", strange=IDS)
    assert len(load_sequences(str(tmp_path / "one.npz"))) == 4
    np.savez(tmp_path / "two.npz", strange=IDS, stranger=IDS)
    with pytest.raises(DataError, match="strange, stranger: name one"):
        load_sequences(str(tmp_path / "two.npz"))


@pytest.mark.parametrize("length, expected", [(6, 6), (100, 6), (4, 4), (3, 3), (2, 2)])
def test_sequences_are_cut_and_never_joined(tmp_path: Path, length: int, expected: int) -> None:
    np.save(tmp_path / "ids.npy", IDS)
    ids = load_sequences(str(tmp_path / "ids.npy"), Tokenization(length)).ids
    wanted = [row[at : at + expected] for row in IDS for at in range(0, 6 - expected + 1, expected)]
    assert torch.equal(ids, torch.from_numpy(np.stack(wanted)).long())


def test_flat_ids_are_cut(tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.arange(25, dtype=np.uint16))
    ids = load_sequences(str(tmp_path / "ids.npy"), Tokenization(8)).ids
    assert torch.equal(ids, torch.arange(24).reshape(3, 8))


def test_a_function_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import torch\ndef ids():\n    return torch.arange(12).reshape(3, 4)\n")
    tokens = load_sequences(f"{tmp_path / 'mine.py'}:ids[1:]")
    assert torch.equal(tokens.ids, torch.arange(4, 12).reshape(2, 4))


def test_text_by_the_tokenizer_of_a_folder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"[UNK]": 0, "a": 1, "b": 2, "c": 3}
    plain = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="[UNK]").save_pretrained(tmp_path / "net")
    (tmp_path / "text.txt").write_text("a b c a a b d c b")
    reading = Tokenization(4, str(tmp_path / "net"), 4)
    tokens = load_sequences(str(tmp_path / "text.txt"), reading)
    assert tokens.ids.tolist() == [[1, 2, 3, 1], [1, 2, 0, 3]]
    with pytest.raises(ConfigError, match="no tokenizer"):
        load_sequences(str(tmp_path / "text.txt"))
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        load_sequences(str(tmp_path / "binary.txt"), reading)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="tokenizer in"):
        load_sequences(str(tmp_path / "text.txt"), Tokenization(4, str(tmp_path / "empty")))


def test_samples_and_batches() -> None:
    tokens = TokenSet(torch.from_numpy(IDS).long())
    drawn = tokens.sample(3, 7)
    assert torch.equal(drawn.ids, tokens.ids[torch.from_numpy(np.random.RandomState(7).permutation(4)[:3])])
    assert [len(ids) for ids, labels in tokens.batches(3) if labels is None] == [3, 1]
    assert torch.equal(torch.cat(list(tokens)), tokens.ids) and len(list(tokens)) == len(tokens) == 4


@pytest.mark.parametrize(
    "values, said",
    [
        (np.ones((2, 3), np.float32), "whole numbers"),
        (np.ones((2, 3, 4), np.int64), "whole numbers"),
        (np.zeros((0, 4), np.int64), "whole numbers"),
        (-IDS, "from -23 to 0"),
        (IDS + 90, "ids from 90 to 113; this model's are from 0 to 99"),
        (np.zeros((4, 1), np.int64), "1 token"),
    ],
)
def test_what_is_no_token(tmp_path: Path, values: np.ndarray, said: str) -> None:
    np.save(tmp_path / "ids.npy", values)
    with pytest.raises(DataError, match=said):
        load_sequences(str(tmp_path / "ids.npy"), Tokenization(16, None, 100))


def test_hostile_files(tmp_path: Path, archive: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "objects.npz", tokens=np.array([{}], dtype=object))
    (tmp_path / "cut.npz").write_bytes(archive.read_bytes()[:200])
    (tmp_path / "not.npy").write_bytes(b"not numbers")
    with zipfile.ZipFile(tmp_path / "long.npz", "w") as file, zipfile.ZipFile(archive) as sound:
        file.writestr("tokens.npy", sound.read("calibration.npy")[:-4])
    for name in ("objects.npy", "objects.npz", "cut.npz", "not.npy", "long.npz", "missing.npz"):
        with pytest.raises(DataError):
            load_sequences(str(tmp_path / name))
    for reference in (f"{archive}:none", f"{archive}:other", f"{archive}[9:]", f"{archive}[a:b]"):
        with pytest.raises(DataError):
            load_sequences(reference)


def test_refusals() -> None:
    for length in (1, 0, True, 3.0):
        with pytest.raises(ConfigError, match="from 2"):
            Tokenization(length)  # pyright: ignore[reportArgumentType]
    for ids in (torch.zeros(3, dtype=torch.int64), torch.zeros(3, 4), torch.zeros(0, 4, dtype=torch.int64)):
        with pytest.raises(DataError, match="int64"):
            TokenSet(ids)
    with pytest.raises(DataError, match="at least 1"):
        TokenSet(torch.zeros(2, 2, dtype=torch.int64)).sample(0, 0)

"""Shards: what is packed is what is read, and what does not fit is said by name."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from corank.data import ImageSet, Preprocessing, load, pack
from corank.data.arrays import PixelSource, TensorSource
from corank.data.shard_index import INDEX, Shard, ShardIndex
from corank.data.shards import ShardSource, load_shards, shards_in_turn
from corank.errors import ConfigError, CorankError, DataError, OutputError

COUNT = 11


def encoded(place: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.RandomState(place).randint(0, 256, (6, 7, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(stream, "PNG" if place % 3 else "JPEG")
    return stream.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two classes, with a text file among the images."""
    for place in range(COUNT):
        path = tmp_path / "photos" / "ab"[place % 2] / f"{place:02d}.{'png' if place % 3 else 'jpeg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(place))
    (tmp_path / "photos" / "a" / "README.txt").write_text("not an image")
    return tmp_path / "photos"


@pytest.fixture
def shards(photos: Path) -> Path:
    """Its shards, several of them."""
    pack(load(str(photos)), photos.parent / "shards", shard_bytes=6000)
    return photos.parent / "shards"


def source_of(images: ImageSet) -> ShardSource:
    assert isinstance(images.source, ShardSource)
    return images.source


def same(one: ImageSet, other: ImageSet) -> bool:
    assert one.labels is not None and other.labels is not None
    return torch.equal(one.tensor(), other.tensor()) and one.labels.tolist() == other.labels.tolist()


def test_every_byte_is_the_sources(photos: Path, shards: Path) -> None:
    images, found = load(str(photos)), load(str(shards), labelled=True)
    assert found.class_names == ("a", "b") and same(images, found)
    source = source_of(found)
    assert len(source.index.shards) > 2
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.*") if path.suffix != ".txt")
    assert source.files(np.arange(COUNT)) == [(photos / name).read_bytes() for name in names]
    assert same(load(f"{photos}[7:0:-2]"), load(f"{shards}[7:0:-2]"))


def test_a_zip_and_shards_pack_to_the_same_files(photos: Path, shards: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for path in sorted(photos.rglob("*.*")):
            archive.write(path, path.relative_to(photos).as_posix())
    expected = {path.name: path.read_bytes() for path in shards.iterdir() if path.name != INDEX}
    for place in (tmp_path / "p.zip", shards):
        pack(load(str(place)), tmp_path / "again", shard_bytes=6000)
        assert {path.name: path.read_bytes() for path in (tmp_path / "again").glob("*.tar")} == expected
        for path in (tmp_path / "again").iterdir():
            path.unlink()


def test_other_tools_read_them(photos: Path, shards: Path) -> None:
    read: dict[str, bytes] = {}
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                stream = archive.extractfile(member)
                assert stream is not None
                read[member.name] = stream.read()
    assert sorted({name.partition(".")[0] for name in read}) == [f"{place:09d}" for place in range(COUNT)]
    labels = load(str(photos)).labels
    assert labels is not None
    assert [int(read[f"{place:09d}.cls"]) for place in range(COUNT)] == labels.tolist()


def test_the_package_webdataset_reads_them(shards: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    paths = [str(path) for path in sorted(shards.glob("*.tar"))]
    labels = [sample["cls"] for sample in webdataset.WebDataset(paths, shardshuffle=False).decode("pil")]
    assert labels == (load(str(shards)).labels or []).tolist()  # pyright: ignore


def test_decoded_pixels_are_those_of_the_preprocessing(photos: Path, tmp_path: Path) -> None:
    how = Preprocessing(4, (0.1, 0.2, 0.3), (0.5, 0.5, 0.5), crop=0.8, interpolation="bicubic")
    images = load(str(photos), how)
    made = pack(images, tmp_path / "d", decoded=True)
    assert (made.samples, made.shards) == (COUNT, 1)
    assert made.size_bytes == sum(path.stat().st_size for path in (tmp_path / "d").iterdir())
    assert same(load(str(tmp_path / "d"), how), images)
    assert load(str(tmp_path / "d")).tensor().shape == (COUNT, 3, 4, 4)
    with pytest.raises(DataError, match=r"pixels at size 4 \(crop 0.8, bicubic\), and size 5 .* --image-size 5"):
        load(str(tmp_path / "d"), Preprocessing(5))
    whole = pack(load(str(photos)), tmp_path / "w", decoded=True)
    assert same(load(str(whole.folder), how), images)


def test_grey_arrays_stay_grey(tmp_path: Path) -> None:
    pixels = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    np.savez(tmp_path / "g.npz", x=pixels, y=np.array([2, 0, 1]))
    pack(load(str(tmp_path / "g.npz")), tmp_path / "g")
    found = load(str(tmp_path / "g"))
    assert (found.tensor() * 255).round().byte().numpy().tolist() == pixels[:, None].tolist()
    assert load(str(tmp_path / "g"), Preprocessing(channels=3)).tensor().shape == (3, 3, 4, 5)


def test_a_seed_draws_the_order(photos: Path, tmp_path: Path) -> None:
    images = load(str(photos))
    for name, seed in (("s", 5), ("t", 5), ("u", 6)):
        pack(images, tmp_path / name, shuffle=seed)
    assert same(load(str(tmp_path / "s")), images.sample(COUNT, 5))
    one, other, third = ((tmp_path / name / "shard-00000.tar").read_bytes() for name in "stu")
    assert one == other != third


def test_a_shard_of_another_tool_needs_no_index(photos: Path, shards: Path) -> None:
    (shards / INDEX).unlink()
    found = load(str(shards))
    assert found.class_names is None and same(found, load(str(photos)))
    first = load(str(shards / "shard-00000.tar"))
    assert len(first) == source_of(found).index.shards[0].samples


def test_folders_in_a_tar_are_classes(photos: Path, tmp_path: Path) -> None:
    (photos / "a" / "README.txt").unlink()
    deep = "d" * 120  # a name that needs a header of its own
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "p.tar", "w", format=form) as archive:
            archive.add(photos, f"{deep}/photos")
        found = load(str(tmp_path / "p.tar"))
        assert found.class_names == ("a", "b") and len(found) == COUNT
        assert found.labels is not None and sorted(found.labels.tolist()) == [0] * 6 + [1] * 5


def tar(path: Path, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("1.png", "1.cls", "notes.txt"), r"sample of notes.txt has 0 images"),
        (("1.png", "1.jpg"), r"sample of 1.png has 2 images"),
        (("1.png", "1.png"), r"two members of the name 1.png"),
        (("1.png", "2.png", "1.jpg"), r"two samples of the name 1"),
        (("1.png", "1.cls", "2.png"), r"2.png has no .cls"),
        (("1.png", "1.npy", "1.cls"), r"has 2 images"),
    ],
)
def test_samples_that_are_none_are_named(names: tuple[str, ...], words: str, tmp_path: Path) -> None:
    content = {"cls": b"3", "txt": b"hello"}
    path = tar(tmp_path / "s.tar", *((name, content.get(name.partition(".")[2], encoded(1))) for name in names))
    with pytest.raises(DataError, match=words) as raised:
        load(str(path))
    assert "s.tar" in str(raised.value)


@pytest.mark.parametrize("label", [b"", b"cat", b"-1", b"9" * 40, b"1.5"])
def test_labels_are_whole_numbers(label: bytes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1\.cls is no class"):
        load(str(tar(tmp_path / "s.tar", ("1.png", encoded(1)), ("1.cls", label))))


def test_links_and_absurd_sizes_are_refused(tmp_path: Path) -> None:
    link = tarfile.TarInfo("1.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    huge = tarfile.TarInfo("1.png")
    huge.size = 10**12
    for info, words in ((link, "is a link"), (huge, "says it holds 1000000 MB")):
        (tmp_path / "s.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
        with pytest.raises(DataError, match=words):
            load(str(tmp_path / "s.tar"))


@pytest.mark.parametrize("has_index", [True, False])
@pytest.mark.parametrize("cut", [1, 600, 1024, 1536, 3000])
def test_a_shard_cut_short_is_named(cut: int, has_index: bool, shards: Path) -> None:
    path = shards / "shard-00001.tar"
    path.write_bytes(path.read_bytes()[:-cut])
    if not has_index:
        (shards / INDEX).unlink()
    if not has_index and cut == 1:  # within the mark of the end, of which one block is enough
        assert load(str(shards)).tensor().shape[0] == COUNT
        return
    with pytest.raises(DataError, match=r"shard-00001\.tar is cut short"):
        load(str(shards)).tensor()


def test_a_flipped_bit_is_named(shards: Path) -> None:
    images = load(str(shards))
    index = source_of(images).index
    for place in (0, COUNT - 1):
        shard = shards / index.shards[int(index.shard_of(np.asarray(place)))].name
        before = shard.read_bytes()
        damaged = bytearray(before)
        damaged[int(index.offsets[place]) + 30] ^= 4
        shard.write_bytes(damaged)
        with pytest.raises(DataError, match=rf"{shard.name} is damaged, or its index is another set's"):
            load(str(shards)).tensor()
        shard.write_bytes(before)
    os.truncate(shards / "shard-00000.tar", 1024)  # while it is in use
    with pytest.raises(DataError, match=r"shard-00000\.tar is cut short"):
        images.tensor()
        images.tensor()


def test_a_missing_shard_and_one_of_another_length(shards: Path) -> None:
    with (shards / "shard-00000.tar").open("ab") as file:
        file.write(bytes(512))
    with pytest.raises(DataError, match=r"shard-00000\.tar has \d+ bytes, and its index says"):
        load(str(shards)).tensor()
    (shards / "shard-00000.tar").unlink()
    with pytest.raises(DataError, match=r"shard-00000\.tar cannot be read: No such file"):
        load(str(shards)).tensor()


INDEXED = ShardIndex(
    (Shard("a.tar", 4096, 1), Shard("b.tar", 4096, 1)),
    *(np.array(pair, dtype=np.int64) for pair in ((512, 512), (100, 100))),
)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"shards": (Shard("a.tar", 4096, 1), Shard("a.tar", 4096, 1))}, "two shards have the name a.tar"),
        ({"shards": (Shard("../a.tar", 4096, 1), Shard("b.tar", 4096, 1))}, "no name of a shard"),
        ({"shards": (Shard("a.tar", 4096, 3),)}, "its shards hold others"),
        ({"sizes": np.array([100, 4000])}, "places image 0 of b.tar outside"),
        ({"sizes": np.array([2**62, 1])}, "outside of its shard"),
        ({"offsets": np.array([2**63 - 1, 512])}, "outside of its shard"),
        ({"sizes": np.array([100])}, "different lengths"),
        ({"labels": np.array([0, 2]), "class_names": ("x", "y")}, "2 classes and a label beyond"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(changed: dict, words: str) -> None:
    with pytest.raises(DataError, match=words):
        replace(INDEXED, **changed)


def test_an_index_from_strangers_ends_in_our_error(shards: Path) -> None:
    place = shards / INDEX
    data = place.read_bytes()
    draw, refused = np.random.RandomState(0), 0
    for _ in range(200):
        damaged = bytearray(data)
        for spot in draw.randint(0, len(data), 3):
            damaged[spot] = draw.randint(256)
        place.write_bytes(damaged[: draw.randint(1, len(data) + 1)] if draw.rand() < 0.3 else damaged)
        try:
            load(str(shards)).tensor()
        except CorankError:
            refused += 1
    assert refused > 100


def test_other_kinds_of_index_are_refused(shards: Path) -> None:
    stream = io.BytesIO()
    for about in ({"kind": "x", "version": 1}, {"kind": "corank shards", "version": 9}, [], 3):
        np.savez(stream, about=np.frombuffer(json.dumps(about).encode(), dtype=np.uint8))
        (shards / INDEX).write_bytes(stream.getvalue())
        with pytest.raises(DataError, match="not a sound index of shards"):
            load(str(shards))


def test_what_cannot_be_packed_is_said_and_leaves_nothing(photos: Path, tmp_path: Path) -> None:
    images = load(str(photos))
    with pytest.raises(OutputError, match="is there already"):
        pack(images, photos)
    with pytest.raises(DataError, match="TensorSource, which has no pixels"):
        pack(ImageSet(TensorSource(torch.zeros(2, 3, 4, 4)), Preprocessing()), tmp_path / "t")
    for wrong in ({"shard_bytes": 100}, {"shuffle": -1}):
        with pytest.raises(ConfigError):
            pack(images, tmp_path / "t", **wrong)
    (photos / "b" / "05.png").write_text("a text file among the images")
    with pytest.raises(DataError, match=r"b/05\.png cannot be read.*repair or remove"):
        pack(images, tmp_path / "t")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_copies_and_forked_readers_read_alike(shards: Path) -> None:
    images = load(str(shards))
    expected = images.tensor()
    copied = pickle.loads(pickle.dumps(source_of(images).store))
    assert torch.equal(ImageSet(ShardSource(copied, source_of(images).index), Preprocessing()).tensor(), expected)


def test_shards_are_read_in_turn_where_they_are_many(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = load(str(shards))
    assert shards_in_turn(images) is None
    assert shards_in_turn(ImageSet(PixelSource(np.zeros((2, 3, 3, 3), np.uint8)), Preprocessing())) is None
    monkeypatch.setattr("corank.data.shards.IN_TURN_BYTES", 1000)
    index = source_of(images).index
    found = shards_in_turn(images.select([COUNT - 1, 0]))
    assert found is not None and found.tolist() == [len(index.shards) - 1, 0]


def test_names_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        load_shards(tmp_path / "none")
    (tmp_path / "photo.tar").write_bytes(bytes(1024))
    with pytest.raises(DataError, match="has no shard with an image"):
        load(str(tmp_path / "photo.tar"))

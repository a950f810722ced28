"""Shards by URL: fsspec's own memory is what is far away."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corank.data import ImageSet, Preprocessing, load, pack
from corank.data.arrays import PixelSource
from corank.data.remote import RemoteShards
from corank.data.shards import ShardSource, shards_in_turn
from corank.errors import ConfigError, DataError

fsspec = pytest.importorskip("fsspec")
PIXELS = np.random.RandomState(0).randint(0, 256, (60, 8, 8, 3)).astype(np.uint8)
IMAGES = ImageSet(PixelSource(PIXELS), Preprocessing(), np.arange(60, dtype=np.int64) % 4)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    pack(IMAGES, tmp_path / "shards", shard_bytes=20_000)
    files = fsspec.filesystem("memory")
    files.put(str(tmp_path / "shards"), "/far/shards", recursive=True)
    yield "memory://far/shards/"
    files.rm("/far", recursive=True)


def test_the_same_images_come_by_url(url: str) -> None:
    found = load(f"{url}", labelled=True)
    assert torch.equal(found.tensor(), IMAGES.tensor()) and found.labels is not None
    assert found.labels.tolist() == [place % 4 for place in range(60)]
    assert torch.equal(load(f"{url}[3::7]").tensor(), IMAGES.tensor()[3::7])
    turns = shards_in_turn(found)
    assert turns is not None and turns[0] == 0 and turns[-1] > 1


def test_few_images_of_a_shard_are_read_alone_and_many_fetch_it(url: str) -> None:
    images = load(url)
    assert isinstance(images.source, ShardSource) and isinstance(images.source.store, RemoteShards)
    store = images.source.store
    images.source.store._whole.clear()
    images.select([0]).tensor()
    assert not list(store._folder.iterdir())
    images.tensor()
    assert len(list(store._folder.iterdir())) == len(images.source.index.shards)


def test_what_was_fetched_is_bounded(url: str) -> None:
    whole = load(url)
    assert isinstance(whole.source, ShardSource)
    store = RemoteShards(url, kept_bytes=45_000)
    images = ImageSet(ShardSource(store, whole.source.index), Preprocessing())
    for _ in range(2):
        assert torch.equal(images.tensor(), IMAGES.tensor())
        assert torch.equal(torch.cat([part for part, _ in images.batches(7)]), IMAGES.tensor())
        assert sum(path.stat().st_size for path in store._folder.iterdir()) <= 45_000


@pytest.mark.parametrize("whole", [True, False])
def test_damaged_shards_are_named(url: str, whole: bool) -> None:
    files = fsspec.filesystem("memory")
    data = files.cat_file("/far/shards/shard-00001.tar")
    files.pipe_file("/far/shards/shard-00001.tar", data[:2000])
    images = load(url)
    with pytest.raises(DataError, match=r"shard-00001\.tar is cut short"):
        (images if whole else images.select([17])).tensor()
    files.rm_file("/far/shards/shard-00001.tar")
    with pytest.raises(DataError, match=r"shard-00001\.tar cannot be"):
        (load(url) if whole else load(url).select([17])).tensor()


def test_a_network_that_fails_for_a_moment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images, calls = load(url), []
    assert isinstance(images.source, ShardSource) and isinstance(images.source.store, RemoteShards)
    files = images.source.store._files
    read = type(files).cat_ranges

    def fails(self: Any, *given: Any, **more: Any) -> Any:
        calls.append(given)
        if len(calls) < 3:
            raise ConnectionError("reset by peer")
        return read(self, *given, **more)

    monkeypatch.setattr("corank.data.remote.FIRST_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(type(files), "cat_ranges", fails)
    (found,) = [part for part, _ in images.select([0]).batches(1)]
    assert torch.equal(found, IMAGES.tensor()[:1]) and len(calls) == 3
    monkeypatch.setattr(type(files), "cat_ranges", lambda *given, **more: 1 / 0)
    with pytest.raises(DataError, match=r"shard-00000\.tar cannot be read: division by zero"):
        images.select([1]).tensor()


def test_places_that_are_none(url: str) -> None:
    with pytest.raises(DataError, match=r"shards\.npz cannot be read"):
        load("memory://far/nothing")
    with pytest.raises(DataError, match="no data at nosuch://"):
        load("nosuch://far/shards")


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ConfigError, match=r"corank\[remote\]"):
        load("https://example.org/shards")


def test_fsspec_is_loaded_only_where_it_is_used() -> None:
    code = "import sys; before = 'fsspec' in sys.modules; import corank.data.remote; print('fsspec' in sys.modules)"
    code = f"import torch; {code.replace('print(', 'print(before, ')}"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert found[0] == found[1]

"""Interleaved rANS: what it takes, lanes, and damage."""

from __future__ import annotations

import numpy as np
import pytest

from corank.errors import ArtifactError
from corank.storage.coders import ans_lanes
from corank.storage.coders.ans_lanes import AnsReader, AnsWriter


def batches() -> list[tuple[np.ndarray, np.ndarray]]:
    draw = np.random.default_rng(0)
    chances = [draw.integers(1, 65536, size) for size in (1, 700, 64, 65, 3000)]
    chances += [np.full(5000, 65535), np.full(900, 1), np.full(2000, 32768)]
    return [(part, draw.random(len(part)) * 65536 < part) for part in chances]


def written(lanes: int) -> tuple[bytes, AnsWriter]:
    writer = AnsWriter()
    for chances, answers in batches():
        assert writer.answers(chances, answers) is answers
    return writer.written(lanes), writer


@pytest.mark.parametrize("lanes", [1, 2, 64, 1024])
def test_decisions_come_back_in_order_and_take_their_bits(lanes: int) -> None:
    data, writer = written(lanes)
    reader = AnsReader(data, lanes)
    for chances, answers in batches():
        assert np.array_equal(reader.answers(chances, None), answers)
    reader.check_end()
    # A state that begins at 2^24 takes 3 bytes in vain and fills its last 2 by half; one lane begins at nothing.
    assert writer.size_bytes - 1 <= len(data) <= 1.001 * writer.size_bytes + (5 * lanes if lanes > 1 else 2)


def test_bytes_by_hand() -> None:
    writer = AnsWriter()
    writer.answers(np.array([49152, 49152]), np.array([True, False]))
    # Last first. No, of width 16384 from 49152 on: 1 becomes 49153. Yes, of width 49152 from 0 on: 65536 + 1.
    assert writer.written(1) == (65537).to_bytes(3, "little")
    assert AnsWriter().written(1) == b"\1"


def test_lanes_grow_with_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = written(1)[1]
    assert writer.lanes_power == 0
    monkeypatch.setattr(ans_lanes, "_ONE_LANE_BYTES", 100)
    assert writer.lanes_power == 6
    writer.size_bytes = 1e6
    assert writer.lanes_power == 9
    writer.size_bytes = 1e12
    assert writer.lanes_power == ans_lanes.MOST_LANES_POWER


@pytest.mark.parametrize("lanes", [1, 64])
def test_what_is_cut_off_or_goes_on_is_refused(lanes: int) -> None:
    data = written(lanes)[0]
    for damaged in (data[:-2], data[:-1], data + b"\1\0", data + b"\1", b""):
        with pytest.raises(ArtifactError):
            _read_all(damaged, lanes)


def test_states_that_no_writer_leaves_are_refused() -> None:
    with pytest.raises(ArtifactError, match="least state"):
        AnsReader(bytes(5 * 64), 64)


def test_one_lane_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ans_lanes, "_ONE_LANE_COUNT", 100)
    with pytest.raises(ArtifactError, match="more than 100 decisions"):
        AnsReader(b"", 1).answers(np.full(101, 5), None)


def _read_all(data: bytes, lanes: int) -> None:
    reader = AnsReader(data, lanes)
    for chances, _ in batches():
        reader.answers(chances, None)
    reader.check_end()

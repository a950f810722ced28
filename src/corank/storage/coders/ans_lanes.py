"""Asymmetric numeral systems over decisions whose chances are given: one state, or many that go in step."""

from __future__ import annotations

import numpy as np

from corank.errors import ArtifactError
from corank.storage.coders.mixed_chances import WHOLE

__all__ = ["MOST_LANES_POWER", "AnsReader", "AnsWriter"]

MOST_LANES_POWER = 12
"""There are at most two to the power of this many lanes."""

_LEAST = 1 << 24  # of a state while words are left; a state is below 2^40
_STATE_BYTES = 5
_NOTHING = 1  # the state that one lane begins with; many begin with the least, as each has to have its words in turn
_ONE_LANE_BYTES, _ONE_LANE_COUNT = 1 << 16, 1 << 22  # the most that is read decision by decision, which is slow
_LANE_BYTES = 1200  # of the code for each lane: beside the word that it begins with in vain, a third of a percent


class AnsWriter:
    """Notes decisions and their chances; writes them from the last to the first, as a stack has to.

    rANS of Duda ("Asymmetric numeral systems", arXiv 1311.2540) with chances of 16 bits, states of 24 to 40 bits and
    words of 16. With several lanes (Giesen, "Interleaved entropy coders", arXiv 1402.3392) the decisions of a batch
    go to the lanes in turn, and all lanes share one row of words.
    """

    def __init__(self) -> None:
        self._batches: list[tuple[np.ndarray, np.ndarray]] = []
        self.size_bytes = 0.0
        """What the decisions so far take, by their chances."""

    def answers(self, chances: np.ndarray, truth: np.ndarray | None) -> np.ndarray:
        """Notes the batch ``truth`` ``(n,)`` bool of chances ``(n,)`` and gives it back."""
        assert truth is not None
        taken = np.where(truth, chances, WHOLE - chances)
        self.size_bytes += (16 * len(taken) - float(np.log2(taken).sum())) / 8
        self._batches.append((chances.astype(np.uint16), truth))
        return truth

    @property
    def lanes_power(self) -> int:
        """Which power of two lanes should be: one lane where that is fast enough, else as many as cost little."""
        count = sum(len(truth) for _, truth in self._batches)
        if self.size_bytes <= _ONE_LANE_BYTES and count <= _ONE_LANE_COUNT:
            return 0
        return min(MOST_LANES_POWER, max(6, int(self.size_bytes / _LANE_BYTES).bit_length() - 1))

    def written(self, lanes: int) -> bytes:
        """States, then words."""
        return self._by_one() if lanes == 1 else self._by_many(lanes)

    def _by_one(self) -> bytes:
        state, words = _NOTHING, list[int]()
        for chances, truth in reversed(self._batches):
            for chance, answer in zip(chances[::-1].tolist(), truth[::-1].tolist(), strict=True):
                width, start = (chance, 0) if answer else (WHOLE - chance, chance)
                if state >= width << 24:
                    words.append(state & 0xFFFF)
                    state >>= 16
                state = (state // width << 16) + state % width + start
        # Beside words a state has 4 or 5 bytes, and words are even: the length tells which.
        size = (state.bit_length() + 7) // 8
        return state.to_bytes(size, "little") + np.array(words[::-1], "<u2").tobytes()

    def _by_many(self, lanes: int) -> bytes:
        states, words = np.full(lanes, _LEAST, np.int64), list[np.ndarray]()
        for chances, truth in reversed(self._batches):
            for begin in range((len(truth) - 1) // lanes * lanes, -1, -lanes):
                chance, answer = chances[begin : begin + lanes].astype(np.int64), truth[begin : begin + lanes]
                width, start = np.where(answer, chance, WHOLE - chance), np.where(answer, 0, chance)
                state = states[: len(width)]
                full = state >= width << 24
                words.append((state[full] & 0xFFFF).astype("<u2"))
                state = np.where(full, state >> 16, state)
                quotient = state // width
                states[: len(width)] = (quotient << 16) + state - quotient * width + start
        planes = states.astype("<i8").view(np.uint8).reshape(lanes, 8)[:, :_STATE_BYTES]
        return planes.tobytes() + b"".join(part.tobytes() for part in reversed(words))


class AnsReader:
    """Reads what :class:`AnsWriter` wrote, in the order that it was noted."""

    def __init__(self, data: bytes, lanes: int) -> None:
        size = min(len(data), 4 + len(data) % 2) if lanes == 1 else _STATE_BYTES * lanes
        if len(data) < size or (len(data) - size) % 2:
            raise ArtifactError(f"{len(data)} bytes of {lanes} interleaved codes")
        self._words = np.frombuffer(data, "<u2", offset=size)
        self._state, self._at = int.from_bytes(data[:size], "little"), 0
        if lanes == 1:
            self._listed = self._words.tolist()
        else:
            planes = np.zeros((lanes, 8), np.uint8)
            planes[:, :_STATE_BYTES] = np.frombuffer(data, np.uint8, size).reshape(lanes, _STATE_BYTES)
            self._states = planes.view("<i8").reshape(-1).astype(np.int64)
            if int(self._states.min()) < _LEAST:
                raise ArtifactError("an interleaved code begins below its least state")
        self._lanes, self._left = lanes, _ONE_LANE_COUNT

    def answers(self, chances: np.ndarray, truth: np.ndarray | None) -> np.ndarray:
        """The next batch of decisions ``(n,)`` bool; ``truth`` is not known yet, and not looked at.

        Raises:
            ArtifactError: where there are not enough words.
        """
        if self._lanes == 1:
            return self._by_one(chances)
        parts = range(0, len(chances), self._lanes)
        return np.concatenate([self._by_many(chances[begin : begin + self._lanes]) for begin in parts])

    def check_end(self) -> None:
        """Raises ArtifactError unless all words are read and the states are those that the writer began with."""
        ended = self._state == _NOTHING if self._lanes == 1 else bool((self._states == _LEAST).all())
        if not ended or self._at != len(self._words):
            raise ArtifactError("an interleaved code does not end where it should")

    def _by_one(self, chances: np.ndarray) -> np.ndarray:
        self._left -= len(chances)
        if self._left < 0:
            raise ArtifactError(f"a code of one lane holds more than {_ONE_LANE_COUNT} decisions")
        state, words, at, end = self._state, self._listed, self._at, len(self._listed)
        found: list[bool] = []
        note = found.append
        for chance in chances.tolist():
            low = state & 0xFFFF
            answer = low < chance
            state = chance * (state >> 16) + low if answer else (WHOLE - chance) * (state >> 16) + low - chance
            note(answer)
            # One lane begins with nothing, so what was written first is read without words.
            if state < _LEAST and at < end:
                state = state << 16 | words[at]
                at += 1
        self._state, self._at = state, at
        return np.array(found, bool)

    def _by_many(self, chances: np.ndarray) -> np.ndarray:
        state = self._states[: len(chances)]
        low, high = state & 0xFFFF, state >> 16
        answers = low < chances
        state = np.where(answers, chances * high + low, (WHOLE - chances) * high + low - chances)
        short = np.flatnonzero(state < _LEAST)
        words = self._words[self._at : self._at + len(short)]
        if len(words) < len(short):
            raise ArtifactError("an interleaved code is cut off")
        state[short] = state[short] << 16 | words
        self._at += len(short)
        self._states[: len(chances)] = state
        return answers

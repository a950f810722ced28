"""Code words one after another: written at once, and read in many places at once."""

from __future__ import annotations

import numpy as np

from corank.errors import ArtifactError
from corank.storage.coders.prefix_code import PrefixCode

__all__ = ["lane_bits", "read_lanes", "write_words"]

_PART = 1 << 20  # symbols written together
_STEPS = 16  # looks of every lane before those that are done leave


def write_words(symbols: np.ndarray, code: PrefixCode, word_bytes: int = 1) -> bytes:
    """The words of ``symbols`` ``(N,)``, first bit first, padded with zeros to a multiple of ``word_bytes``."""
    if code.is_constant or not len(symbols):
        return b""
    lengths = code.lengths.astype(np.int64)
    total = int(np.bincount(symbols, minlength=len(lengths)) @ lengths)
    # One cell more than there are bits for: every word is added to two, the second of them perhaps with nothing.
    stream = np.zeros(total // 32 + 2, np.uint64)
    at = 0
    for start in range(0, len(symbols), _PART):
        part = symbols[start : start + _PART]
        sizes = lengths[part]
        ends = at + np.cumsum(sizes)
        begins = ends - sizes
        at = int(ends[-1])
        # A word of at most 20 bits that begins in 32 bits of the stream ends within the next 32.
        placed = code.words[part].astype(np.uint64) << (64 - (begins & 31) - sizes).astype(np.uint64)
        cells = begins >> 5
        # Words share no bit: adding is or-ing, nothing carries, and all words of a cell are summed at once.
        first = np.flatnonzero(np.diff(cells, prepend=-1))
        sums = np.add.reduceat(placed, first)
        stream[cells[first]] += sums >> np.uint64(32)
        stream[cells[first] + 1] += sums & np.uint64(0xFFFFFFFF)
    data = stream.astype(">u4").tobytes()
    size = -(-total // (8 * word_bytes)) * word_bytes
    return data[:size]


def lane_bits(symbols: np.ndarray, code: PrefixCode, counts: np.ndarray) -> np.ndarray:
    """Bits ``(lanes,)`` int64 that the words of each lane take, ``counts`` ``(lanes,)`` symbols each in order."""
    if code.is_constant:
        return np.zeros(len(counts), np.int64)
    # Differences of sums from the front: lanes without symbols come out as zero by themselves.
    ends = np.concatenate([[0], np.cumsum(code.lengths[symbols], dtype=np.int64)])
    stops = np.cumsum(counts)
    return ends[stops] - ends[stops - counts]


def read_lanes(data: bytes, code: PrefixCode, sizes: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Symbols ``(lanes, largest count)`` of lanes that follow one another in ``data``; behind a lane's count, noise.

    All lanes are read in step, several symbols of each with one look into the code's table.

    Args:
        data: the words.
        sizes: ``(lanes,)`` int64, bits of each lane.
        counts: ``(lanes,)`` int64, symbols of each lane.

    Raises:
        ArtifactError: where a lane's words do not end where its size says, or the data is short.
    """
    if code.is_constant:
        if sizes.any():
            raise ArtifactError("coded symbols take bits where only one symbol occurs")
        return np.full((len(counts), int(counts.max(initial=0))), code.order[0], np.int64)
    ends = np.cumsum(sizes)
    if len(sizes) and (sizes.min() < 0 or ends[-1] > 8 * len(data)):
        raise ArtifactError("coded symbols are cut off")
    # A word takes a bit at least: otherwise a short file could claim many symbols.
    if bool((sizes < counts).any()):
        raise ArtifactError("a run of coded symbols has fewer bits than symbols")
    return _read(_cells(data), code, ends - sizes, ends, counts)


def _read(cells: np.ndarray, code: PrefixCode, at: np.ndarray, ends: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The symbols of lanes that begin at bits ``at``; each lane's place in ``out`` and in the bits moves by itself."""
    most = int(counts.max(initial=0))
    symbols, found, used = code.table
    together, last = len(symbols), len(cells) - 1
    shift = np.uint32(32 - code.window)
    # A look always writes ``together`` symbols: the margin keeps a lane's last look out of the next lane.
    out = np.zeros((len(counts), most + together), symbols.dtype)
    flat, place = out.reshape(-1), np.arange(len(counts)) * out.shape[1]
    stop, at = place + counts, at.copy()
    while len(busy := np.flatnonzero(stop - place >= together)):
        # Choosing the busy lanes costs as much as a look, so it is done once for many; lanes that end in between stand.
        spot, here, until = place[busy], at[busy], stop[busy] - together
        for _ in range(_STEPS):
            # 32 bits from a byte on, less at most 7 of that byte, leave 25; no window sees more than 20. Lanes of a
            # broken file may run past the end of the data, and are found out by where they stop.
            window = (cells[np.minimum(here >> 3, last)] << (here & 7).astype(np.uint32)) >> shift
            goes_on = spot <= until
            for number in range(together):  # what is too much is written over by what comes next
                flat[spot + number] = symbols[number][window]
            spot += np.where(goes_on, found[window], 0)
            here += np.where(goes_on, used[window], 0)
        place[busy], at[busy] = spot, here
    lengths = code.lengths.astype(np.int64)
    for _ in range(together - 1):  # the last few symbols of each lane one by one, so that its end is known
        goes_on = place < stop
        window = (cells[np.minimum(at >> 3, last)] << (at & 7).astype(np.uint32)) >> shift
        flat[place] = symbols[0][window]
        at += np.where(goes_on, lengths[symbols[0][window]], 0)
        place += goes_on
    # The one check of the contents: a complete code reads any bits, but rarely ends where the size says.
    if not np.array_equal(at, ends):
        raise ArtifactError("a run of coded symbols does not end where it should")
    return out[:, :most]


def _cells(data: bytes) -> np.ndarray:
    """The 32 bits from each byte on, as uint32."""
    # Four zero bytes, so that the last byte of data (or none at all) has 32 bits too.
    raw = np.frombuffer(data + bytes(4), np.uint8).astype(np.uint32)
    return raw[:-3] << 24 | raw[1:-2] << 16 | raw[2:-1] << 8 | raw[3:]

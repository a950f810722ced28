"""Sequences of token ids, for language models: from arrays, and from text by the model's own tokenizer."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from corank.data.images import sliced
from corank.data.npz import array_names, read_array
from corank.errors import ConfigError, DataError

__all__ = ["TokenSet", "Tokenization", "cut_tokens", "load_tokens"]

KEYS = ("tokens", "input_ids", "calibration", "train", "test", "arr_0")
LARGEST_TEXT_BYTES = 256_000_000


@dataclass(frozen=True)
class Tokenization:
    """How text and token files become a language model's input.

    Args:
        length: tokens of a sequence, at most; longer ones are cut into pieces.
        tokenizer: a folder with the model's tokenizer, or a name on the hub; None: only token files can be read.
        vocabulary: ids are below this; None where it is not known.

    Raises:
        ConfigError: a length below 2: a sequence needs a token to predict and one before it.
    """

    length: int = 512
    tokenizer: str | None = None
    vocabulary: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.length, bool) or not isinstance(self.length, int) or self.length < 2:
            raise ConfigError(f"a sequence of {self.length!r} tokens: give a whole number from 2, e.g. 512")


@dataclass(frozen=True, eq=False)
class TokenSet:
    """Sequences of token ids in a fixed order; `len` counts them, and iterating gives each as (1, T).

    Args:
        ids: int64 (N, T).

    Raises:
        DataError: another shape or dtype, or no sequence.
    """

    ids: Tensor

    def __post_init__(self) -> None:
        if self.ids.dtype != torch.int64 or self.ids.dim() != 2 or self.ids.shape[0] < 1 or self.ids.shape[1] < 2:
            raise DataError(
                f"token ids are int64 (N, T) with at least one sequence of 2, not {self.ids.dtype} "
                f"{tuple(self.ids.shape)}"
            )

    def __len__(self) -> int:
        """How many sequences there are."""
        return len(self.ids)

    def __iter__(self) -> Iterator[Tensor]:
        yield from self.ids.split(1)

    def sample(self, count: int, seed: int) -> TokenSet:
        """Draw sequences without replacement: `numpy.random.RandomState(seed).permutation(len)[:count]`.

        Raises:
            DataError: a count below 1 or a seed that is not possible.
        """
        if count < 1 or not 0 <= seed < 2**32:
            raise DataError(f"{count} sequences by seed {seed}: draw at least 1, by a seed from 0 to 2**32 - 1")
        return TokenSet(self.ids[torch.from_numpy(np.random.RandomState(seed).permutation(len(self))[:count])])

    def slice(self, text: str) -> TokenSet:
        """The sequences of a Python slice given as text, such as "0::2", ":1000" or "[-100:]".

        Raises:
            DataError: not a slice, a step of 0, or a slice that holds no sequence.
        """
        return TokenSet(self.ids[torch.from_numpy(sliced(text, len(self), "sequences"))])

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, None]]:
        """Batches (ids int64 (n, T), no labels), in order."""
        for part in self.ids.split(batch_size):
            yield part, None


def load_tokens(place: str, reading: Tokenization, key: str | None = None) -> TokenSet:
    """Sequences of tokens from a reference without a slice.

    Args:
        place: `tokens.npz`, `tokens.npz:KEY` or `tokens.npy` with whole numbers (N, T), or (N,) to be cut; or a UTF-8
            text file, tokenized whole and cut into contiguous sequences.
        reading: length of a sequence, tokenizer, vocabulary.
        key: name of the array in an .npz file; by default the first there is of tokens, input_ids, calibration,
            train, test, arr_0.

    Raises:
        DataError: nothing there, a file that is not sound, ids outside of the vocabulary, fewer than one sequence.
        ConfigError: text without a tokenizer, or transformers is not installed.
    """
    file, _, named = place.partition(":") if ".npz:" in place.lower() else (place, "", "")
    path = Path(file).expanduser()
    if not path.is_file():
        raise DataError(f"no tokens at {place!r}: give an .npz or .npy of token ids, a text file or file.py:function")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return cut_tokens(_from_npz(path, key or named or None), place, reading)
    if suffix == ".npy":
        return cut_tokens(_from_npy(path), place, reading)
    return cut_tokens(_from_text(path, reading), place, reading)


def cut_tokens(ids: NDArray[np.generic], name: str, reading: Tokenization) -> TokenSet:
    """Sequences of at most the length asked for; what is left over is dropped."""
    if ids.dtype.kind not in "iu" or ids.ndim not in (1, 2) or ids.size == 0:
        raise DataError(f"{name} holds {ids.dtype} {ids.shape}; token ids are whole numbers (N, T), or (N,)")
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or (reading.vocabulary is not None and high >= reading.vocabulary):
        limit = "" if reading.vocabulary is None else f" to {reading.vocabulary - 1}"
        raise DataError(f"{name} has token ids from {low} to {high}; this model's are from 0{limit}")
    rows = ids.reshape(1, -1) if ids.ndim == 1 else ids
    length = min(rows.shape[1], reading.length)
    pieces = rows.shape[1] // length
    whole = np.ascontiguousarray(rows[:, : pieces * length].astype(np.int64)).reshape(-1, length)
    if length < 2:
        raise DataError(f"{name} holds sequences of {length} token; at least 2 are needed, one to predict")
    return TokenSet(torch.from_numpy(whole))


def _from_npz(path: Path, key: str | None) -> NDArray[np.generic]:
    try:
        with zipfile.ZipFile(path) as archive:
            known = array_names(archive)
            chosen = key or next((name for name in KEYS if name in known), known[0] if len(known) == 1 else None)
            if chosen is None:
                raise DataError(f"{path} has the arrays {', '.join(known) or 'none'}: name one, {path}:KEY")
            return read_array(archive, chosen, known, path)
    except DataError:
        raise
    except Exception as error:  # damaged archives and headers end in any of a dozen types
        raise DataError(f"{path} is not a sound .npz file: {error}") from error


def _from_npy(path: Path) -> NDArray[np.generic]:
    try:
        return npy.open_memmap(path, mode="r")
    except Exception as error:  # a damaged header ends in any of a dozen types
        raise DataError(f"{path} is not a sound .npy file: {error}") from error


def _from_text(path: Path, reading: Tokenization) -> NDArray[np.generic]:
    if path.stat().st_size > LARGEST_TEXT_BYTES:
        raise DataError(f"{path} is larger than {LARGEST_TEXT_BYTES / 1e6:.0f} MB; give a part of it")
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}") from error
    if reading.tokenizer is None:
        raise ConfigError(f"{path} is text, and this model brings no tokenizer; give token ids as .npz or .npy")
    ids = _tokenizer(reading.tokenizer)(text, verbose=False)["input_ids"]
    return np.asarray(ids, dtype=np.int64)


def _tokenizer(name: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ConfigError("tokenizers need transformers: pip install 'corank[hf]'") from error
    is_local = Path(name).is_dir()
    try:
        return transformers.AutoTokenizer.from_pretrained(name, local_files_only=is_local, trust_remote_code=False)
    except Exception as error:  # damaged files end in many types, some of the tokenizers extension
        raise DataError(
            f"there is no usable tokenizer in {name}: {str(error).splitlines()[0]}; give token ids as .npz or .npy"
        ) from error

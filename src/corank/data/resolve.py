"""From a reference, as typed on a command line, to a set of images, of token sequences or of batches."""

from __future__ import annotations

import re
from pathlib import Path

from corank.data.archive import load_archive
from corank.data.batches import BatchSet
from corank.data.decode import EXTENSIONS
from corank.data.digits import load_digits
from corank.data.folder import load_file, load_folder
from corank.data.images import ImageSet
from corank.data.naming import is_condition
from corank.data.npz import load_npz
from corank.data.preprocessing import Preprocessing
from corank.data.python_file import load_function
from corank.data.python_function import REFERENCE
from corank.data.recordings import load_recordings, matching
from corank.data.remote import is_url
from corank.data.sampling import Sampling
from corank.data.shards import are_shards, load_shards
from corank.data.tokens import Tokenization, TokenSet, load_tokens
from corank.errors import DataError

__all__ = ["load", "load_samples", "load_sequences"]

SLICED = re.compile(r"(?P<place>.+?)(?P<slice>\[[^\[\]]*\])")
FORMS = (
    "a folder, an image, a .zip, .npz or .tar file, shards or their URL, digits, digits:train, digits:test or "
    "file.py:function"
)


def load(
    reference: str,
    preprocessing: Preprocessing | None = None,
    *,
    image_key: str | None = None,
    label_key: str | None = None,
    labelled: bool = False,
) -> ImageSet:
    """Images from a reference; nothing is decoded yet.

    Args:
        reference: a folder of class folders or of images, a .zip of either, an .npz file, `digits`
            (`digits:train`, `digits:test`) or `file.py:function`; shards: a folder or a URL that `corank pack` wrote,
            or a .tar of another tool, see :func:`corank.data.shards.load_shards`; each with an optional slice, such as
            `photos.zip[0::2]` or `photos[:1000]`. Files are sorted by their path inside the folder or .zip;
            a class's index is the position of its folder in sorted order.
        preprocessing: how each image becomes a network's input; None keeps size and pixels.
        image_key: name of the images in an .npz file.
        label_key: name of the labels in an .npz file.
        labelled: labels are needed; a set without them is an error.

    Raises:
        DataError: nothing there, nothing in it, or no labels where they are needed.
        ConfigError: scikit-learn is missing for `digits`.
    """
    images = load_samples(reference, preprocessing, image_key=image_key, label_key=label_key, labelled=labelled)
    if not isinstance(images, ImageSet):
        raise DataError(f"{reference!r} gives a {type(images).__name__}, no images; read it with load_samples")
    return images


def load_samples(
    reference: str,
    preprocessing: Preprocessing | None = None,
    reading: Tokenization | None = None,
    *,
    image_key: str | None = None,
    label_key: str | None = None,
    labelled: bool = False,
    sampling: Sampling | None = None,
    label: str | None = None,
) -> ImageSet | TokenSet | BatchSet:
    """Samples of any kind: images as :func:`load`, tokens as :func:`load_sequences`, recordings, or what a function
    returns.

    Args:
        reference: as for :func:`load`, or, where `reading` is given, as for :func:`load_sequences`; what a function may
            return, :func:`~corank.data.python_file.load_function` says.
        preprocessing: how each image becomes a network's input.
        reading: how tokens are read; given for a language model.
        image_key: name of the images, or tokens, in an .npz file.
        label_key: name of the labels in an .npz file.
        labelled: labels are needed; images without them are an error.
        sampling: how recordings are heard; given for a network of sounds, whose batches are float32 (N, T). The
            reference is a folder or .zip of recordings, or one, and may end in a condition on what their names say
            instead of a slice: `words.zip[group!=theo&index>=5]`.
        label: the pattern of recordings' names, see :func:`~corank.data.recordings.load_recordings`.

    Raises:
        DataError: nothing there, nothing in it, or no labels where they are needed.
        ConfigError: a package that is missing, text without a tokenizer.
    """
    place, part = _split(reference.strip())
    function = REFERENCE.fullmatch(place)
    if function is not None:
        _refuse_keys(place, image_key, label_key)
        found = load_function(Path(function["path"]).expanduser(), function["function"], preprocessing, reading)
    elif sampling is not None:
        _refuse_keys(place, image_key, label_key)
        found = load_recordings(place, sampling, label)
    elif reading is not None:
        found = load_tokens(place, reading, image_key)
    else:
        found = _load_images(place, preprocessing, image_key, label_key, labelled)
    if labelled and isinstance(found, ImageSet) and found.labels is None:
        raise DataError(
            f"{place!r} has no labels, which are needed here; give a folder or .zip with one folder per "
            "class, or an .npz file with labels; for recordings, label='{label}_{group}_{index}' reads their names"
        )
    if part is not None and isinstance(found, ImageSet) and is_condition(part):
        return matching(found, part)
    return found if part is None else found.slice(part)


def _refuse_keys(place: str, *keys: str | None) -> None:
    if any(key is not None for key in keys):
        raise DataError(f"key names are for .npz files, and {place!r} is not one; leave them out")


def _load_images(
    place: str, preprocessing: Preprocessing | None, image_key: str | None, label_key: str | None, labelled: bool
) -> ImageSet:
    is_npz = place.lower().endswith(".npz")
    if is_npz:
        path = Path(place).expanduser()
        return load_npz(path, preprocessing, image_key=image_key, label_key=label_key, labelled=labelled)
    _refuse_keys(place, image_key, label_key)
    return _load_other(place, preprocessing)


def load_sequences(reference: str, reading: Tokenization | None = None, *, key: str | None = None) -> TokenSet:
    """Sequences of token ids from a reference, for a language model.

    Args:
        reference: `tokens.npz`, `tokens.npz:KEY`, `tokens.npy`, a text file or `file.py:function`, each with an
            optional slice of sequences, such as `tokens.npz:test[:32]`; see :func:`corank.data.tokens.load_tokens`.
        reading: length of a sequence, tokenizer, vocabulary; None: 512 tokens at most, and no text.
        key: name of the array in an .npz file.

    Raises:
        DataError: nothing there, a file that is not sound, ids outside of the vocabulary.
        ConfigError: text without a tokenizer.
    """
    tokens = load_samples(reference, None, reading or Tokenization(), image_key=key)
    if not isinstance(tokens, TokenSet):
        raise DataError(f"{reference!r} gives a {type(tokens).__name__}, no token ids; read it with load_samples")
    return tokens


def _split(reference: str) -> tuple[str, str | None]:
    match = SLICED.fullmatch(reference)
    if match is None or Path(reference).exists():
        return reference, None
    return match["place"], match["slice"]


def _load_other(place: str, preprocessing: Preprocessing | None) -> ImageSet:
    if place == "digits" or place.startswith("digits:"):  # a folder of that name is ./digits
        return load_digits(place.partition(":")[2] or "all", preprocessing)
    if is_url(place):
        return load_shards(place, preprocessing)
    path = Path(place).expanduser()
    if place and path.exists() and are_shards(path):
        return load_shards(path, preprocessing)
    if place and path.is_dir():
        return load_folder(path, preprocessing)
    if path.suffix.lower() == ".zip":
        return load_archive(path, preprocessing)
    if path.suffix.lower() in EXTENSIONS and path.is_file():
        return load_file(path, preprocessing)
    raise DataError(f"no data at {place!r}: it is not there, or of an unknown kind; give {FORMS}")

"""Images, recordings, token sequences and batches for calibration and evaluation, from files and functions."""

from corank.data.batches import BatchSet
from corank.data.images import ImageSet, Source
from corank.data.preprocessing import Preprocessing
from corank.data.recordings import matching, name_parts
from corank.data.records import pack
from corank.data.resolve import load, load_samples, load_sequences
from corank.data.sampling import Sampling
from corank.data.tokens import Tokenization, TokenSet

__all__ = [
    "BatchSet",
    "ImageSet",
    "Preprocessing",
    "Sampling",
    "Source",
    "TokenSet",
    "Tokenization",
    "load",
    "load_samples",
    "load_sequences",
    "matching",
    "name_parts",
    "pack",
]

"""Images and token sequences for calibration and evaluation, from folders, archives, arrays, text and Python files."""

from corank.data.images import ImageSet, Source
from corank.data.preprocessing import Preprocessing
from corank.data.resolve import load, load_sequences
from corank.data.tokens import Tokenization, TokenSet

__all__ = ["ImageSet", "Preprocessing", "Source", "TokenSet", "Tokenization", "load", "load_sequences"]

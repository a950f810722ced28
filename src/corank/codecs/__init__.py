"""Which values exist: a codec describes them, a codebook is a codec fitted to one weight."""

from corank.codecs.base import Codebook, Codec, Slot
from corank.codecs.scalar import ScalarCodebook
from corank.codecs.uniform import Uniform

CODECS: dict[str, type[Codec]] = {"uniform": Uniform}

__all__ = ["CODECS", "Codebook", "Codec", "ScalarCodebook", "Slot", "Uniform"]

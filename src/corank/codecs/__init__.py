"""Which values exist: a codec describes them, a codebook is a codec fitted to one weight."""

from corank.codecs.additive_power_of_two import AdditivePowerOfTwo
from corank.codecs.base import Codebook, Codec, Slot
from corank.codecs.bcgd import Bcgd
from corank.codecs.binary import Binary
from corank.codecs.dense_shift import DenseShift
from corank.codecs.power_of_two import PowerOfTwo
from corank.codecs.s3_shift import S3Shift
from corank.codecs.scalar import ScalarCodebook
from corank.codecs.statsq import StatsQ
from corank.codecs.ternary import Ternary
from corank.codecs.uniform import Uniform

CODECS: dict[str, type[Codec]] = {
    "additive-power-of-two": AdditivePowerOfTwo,
    "bcgd": Bcgd,
    "binary": Binary,
    "dense-shift": DenseShift,
    "power-of-two": PowerOfTwo,
    "s3-shift": S3Shift,
    "statsq": StatsQ,
    "ternary": Ternary,
    "uniform": Uniform,
}
"""Codecs by the name they have in plans and files."""

__all__ = [
    "CODECS",
    "AdditivePowerOfTwo",
    "Bcgd",
    "Binary",
    "Codebook",
    "Codec",
    "DenseShift",
    "PowerOfTwo",
    "S3Shift",
    "ScalarCodebook",
    "Slot",
    "StatsQ",
    "Ternary",
    "Uniform",
]

"""Which values exist: a codec describes them, a codebook is a codec fitted to one weight."""

from corank.codecs.additive_power_of_two import AdditivePowerOfTwo
from corank.codecs.base import Codebook, Codec, TensorSpec
from corank.codecs.bcgd import Bcgd
from corank.codecs.binary import Binary
from corank.codecs.dense_shift import DenseShift
from corank.codecs.entropy_constrained import EntropyConstrained
from corank.codecs.icquant import ICQuant, OutlierCodebook
from corank.codecs.kmeans import KMeans
from corank.codecs.levels import Levels
from corank.codecs.power_of_two import PowerOfTwo
from corank.codecs.quantiles import Quantiles
from corank.codecs.rate_uniform import RateUniform
from corank.codecs.row_levels import RowLevels
from corank.codecs.s3_shift import S3Shift
from corank.codecs.scalar import ScalarCodebook
from corank.codecs.statsq import StatsQ
from corank.codecs.ternary import Ternary
from corank.codecs.uniform import Uniform
from corank.codecs.uniform_grid import UniformGrid

CODECS: dict[str, type[Codec]] = {
    "additive-power-of-two": AdditivePowerOfTwo,
    "bcgd": Bcgd,
    "binary": Binary,
    "dense-shift": DenseShift,
    "entropy-constrained": EntropyConstrained,
    "icquant": ICQuant,
    "kmeans": KMeans,
    "levels": Levels,
    "power-of-two": PowerOfTwo,
    "quantiles": Quantiles,
    "rate-uniform": RateUniform,
    "s3-shift": S3Shift,
    "statsq": StatsQ,
    "ternary": Ternary,
    "uniform": Uniform,
    "uniform-grid": UniformGrid,
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
    "EntropyConstrained",
    "ICQuant",
    "KMeans",
    "Levels",
    "OutlierCodebook",
    "PowerOfTwo",
    "Quantiles",
    "RateUniform",
    "RowLevels",
    "S3Shift",
    "ScalarCodebook",
    "StatsQ",
    "TensorSpec",
    "Ternary",
    "Uniform",
    "UniformGrid",
]

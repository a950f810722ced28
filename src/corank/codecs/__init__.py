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
from corank.codecs.rated import RatedLevels
from corank.codecs.row_levels import RowLevels
from corank.codecs.s3_shift import S3Shift
from corank.codecs.scalar import ScalarCodebook
from corank.codecs.statsq import StatsQ
from corank.codecs.ternary import Ternary
from corank.codecs.trellis import Trellis, TrellisCodebook
from corank.codecs.uniform import Uniform
from corank.codecs.uniform_grid import UniformGrid
from corank.registry import Registry

_OWN: dict[str, type[Codec]] = {
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
    "trellis": Trellis,
    "uniform": Uniform,
    "uniform-grid": UniformGrid,
}
CODECS: Registry[Codec] = Registry("codec", Codec, "corank.codecs", _OWN)
"""Codecs by the name they have in plans and files; see :func:`register_codec`."""


def register_codec(name: str, codec: type[Codec]) -> None:
    """Makes a codec of one's own known by name, so that plans and files can hold it.

    A file is read only where its codec is registered under that name, too. A package does that for its users by an
    entry point in the group ``corank.codecs``: ``my-codec = "my_package.codecs:MyCodec"``.

    Args:
        name: lower case with hyphens, such as "quarter-steps".
        codec: a frozen dataclass whose fields are numbers and texts with defaults;
            :func:`corank.testing.check_codec` checks that it does what is asked of it.

    Raises:
        ConfigError: for a name of another form or that is taken, or a class that is no such codec.
    """
    CODECS.register(name, codec)


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
    "RatedLevels",
    "RowLevels",
    "S3Shift",
    "ScalarCodebook",
    "StatsQ",
    "TensorSpec",
    "Ternary",
    "Trellis",
    "TrellisCodebook",
    "Uniform",
    "UniformGrid",
    "register_codec",
]

"""What is left: low-rank adapters of the quantization residual."""

from corank.adapters.factor_codes import CodedLowRank, bits_per_rank, code_factors
from corank.adapters.low_rank import FITS, LowRank, decompose, full_rank, lost_energy

__all__ = ["FITS", "CodedLowRank", "LowRank", "bits_per_rank", "code_factors", "decompose", "full_rank", "lost_energy"]

"""Model and budget to ranks, and to codecs where that is asked for."""

from corank.search.allocation import Allocation
from corank.search.base import Search
from corank.search.cora import CoRa, butterworth
from corank.search.greedy import Greedy
from corank.search.joint import Joint
from corank.search.problem import (
    AdaptableLayer,
    AllocationProblem,
    CodecCandidates,
    RateDistortionCurve,
    spent_bits,
)
from corank.search.rates import Rates
from corank.search.uniform_ranks import UniformRanks

SEARCHES: dict[str, type[Search]] = {
    "cora": CoRa,
    "greedy": Greedy,
    "joint": Joint,
    "rates": Rates,
    "uniform": UniformRanks,
}

__all__ = [
    "SEARCHES",
    "AdaptableLayer",
    "Allocation",
    "AllocationProblem",
    "CoRa",
    "CodecCandidates",
    "Greedy",
    "Joint",
    "RateDistortionCurve",
    "Rates",
    "Search",
    "UniformRanks",
    "butterworth",
    "spent_bits",
]

"""Model and budget to ranks."""

from corank.search.base import Found, Problem, Search, SearchLayer, spent_bits
from corank.search.cora import CoRa, butterworth
from corank.search.greedy import Greedy
from corank.search.uniform_ranks import UniformRanks

SEARCHES: dict[str, type[Search]] = {"cora": CoRa, "greedy": Greedy, "uniform": UniformRanks}

__all__ = [
    "SEARCHES",
    "CoRa",
    "Found",
    "Greedy",
    "Problem",
    "Search",
    "SearchLayer",
    "UniformRanks",
    "butterworth",
    "spent_bits",
]

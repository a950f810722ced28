"""What is said of every method is what its own page of code says."""

from __future__ import annotations

import pytest

from corank.training.methods import Method, methods
from corank.training.recipes import RECIPES


def test_every_method_is_listed_with_a_paper_and_its_standing() -> None:
    found = methods()
    assert [method.name for method in found] == [*sorted(RECIPES), "rate"]
    for method in found:
        assert method.paper and not method.paper.endswith("."), method.name
        assert method.status in (("ours",) if method.name in ("rate", "refine") else ("verified", "reconstruction")), (
            method.name
        )
        assert bool(method.bits) is (method.name not in ("compander", "gradient-l1", "rate"))


@pytest.mark.parametrize(
    "expected",
    [
        Method("stats", tuple(range(1, 9)), "either",
               "StatsQ of OFQ (Liu, Liu, Cheng, ICML 2023, arXiv 2302.02210)", "verified"),
        Method("s3", (3,), "either", "S3 (sign, sparse, shift; arXiv 2107.03453)", "verified"),
        Method("pact", tuple(range(1, 9)), "low bits", "PACT, the learned clip (arXiv 1805.06085)", "reconstruction"),
    ],
    ids=lambda method: method.name,
)  # fmt: skip
def test_what_is_said_of_some(expected: Method) -> None:
    assert expected in methods()

"""Conformance suites: what every codec, coder, rounder and search must do, for those who add one.

    from corank.testing import check_codec
    check_codec(MyCodec(bits=3))

Each raises ``AssertionError`` saying what does not hold. The plugin ``corank.testing.pytest_plugin`` is not
imported here, so that pytest is not needed.
"""

from corank.testing.codecs import check_codec
from corank.testing.coders import check_coder
from corank.testing.problems import small_problem
from corank.testing.rounders import check_rounder
from corank.testing.searches import check_search

__all__ = ["check_codec", "check_coder", "check_rounder", "check_search", "small_problem"]

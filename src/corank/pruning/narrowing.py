"""Which narrower networks are tried where a file's size can be met by fewer channels as well as by fewer bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from corank.errors import ConfigError
from corank.pruning.request import METHODS, Share

__all__ = ["Narrowing"]

_ALLOWED = 'prune="auto", shares such as prune="0.2p,0.4p", or a corank.Narrowing'


@dataclass(frozen=True)
class Narrowing:
    """The candidates of ``quantize(..., size=, prune=)`` beside the whole network, and how they are made and measured.

    Attributes:
        shares: of parameters ("0.3p") or multiply-adds ("0.3") that go, as :func:`corank.prune` reads them. What makes
            a file small is parameters.
        method: that weighs the channels, one of :data:`~corank.pruning.request.METHODS`.
        iterations: steps of 128 samples in which each narrowed network is distilled from the float one, before it is
            quantized; 0 for none, and its norms are estimated anew then.
        held_back: samples, at most, that nothing trains or calibrates on, and that candidates are measured on.
    """

    shares: tuple[str, ...] = ("0.3p", "0.5p", "0.65p")
    method: str = "first-order"
    iterations: int = 100
    held_back: int = 512

    def __post_init__(self) -> None:
        if not isinstance(self.shares, tuple) or not self.shares:
            raise ConfigError(f'Narrowing(shares={self.shares!r:.60}): one share or more, e.g. ("0.2p", "0.4p")')
        for share in self.shares:
            Share.read(share)
        if self.method not in METHODS:
            raise ConfigError(f"Narrowing(method={self.method!r:.60}): one of {', '.join(METHODS)}")
        if type(self.iterations) is not int or self.iterations < 0:
            raise ConfigError(f"Narrowing(iterations={self.iterations!r}): a whole number of steps, e.g. 100")
        if type(self.held_back) is not int or self.held_back < 1:
            raise ConfigError(f"Narrowing(held_back={self.held_back!r}): how many samples, e.g. 512")

    @classmethod
    def read(cls, given: Any) -> Narrowing:
        """As people write it: "auto", or shares with commas between them.

        Raises:
            ConfigError: for anything else.
        """
        if isinstance(given, Narrowing):
            return given
        if not isinstance(given, str):
            raise ConfigError(f"prune={given!r:.60}: {_ALLOWED}")
        if given == "auto":
            return cls()
        try:
            return cls(tuple(str(Share.read(one)) for one in given.split(",")))
        except ConfigError as error:
            raise ConfigError(f"prune={given!r:.60}: {_ALLOWED}; {error}") from None

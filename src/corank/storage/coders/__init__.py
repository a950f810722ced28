"""How codes become bytes: coders by name."""

from corank.storage.coders.adaptive import Adaptive
from corank.storage.coders.ans import Ans
from corank.storage.coders.base import SymbolCoder, entropy
from corank.storage.coders.carried import Carried
from corank.storage.coders.deflate import Deflate
from corank.storage.coders.fixed import Fixed
from corank.storage.coders.ham import Ham
from corank.storage.coders.huffman import Huffman
from corank.storage.coders.range_ans import Rans
from corank.storage.coders.sham import Sham

CODERS: dict[str, type[SymbolCoder]] = {
    "fixed": Fixed,
    "deflate": Deflate,
    "huffman": Huffman,
    "ham": Ham,
    "sham": Sham,
    "ans": Ans,
    "rans": Rans,
    "adaptive": Adaptive,
    "carried": Carried,
}

__all__ = [
    "CODERS",
    "Adaptive",
    "Ans",
    "Carried",
    "Deflate",
    "Fixed",
    "Ham",
    "Huffman",
    "Rans",
    "Sham",
    "SymbolCoder",
    "entropy",
]

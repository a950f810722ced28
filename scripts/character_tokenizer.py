"""A tokenizer of transformers for a model that reads single characters: each is a token, in the order of a list.

    python scripts/character_tokenizer.py CHARACTERS.json FOLDER [--end CHARACTER]

The list is ``{"chars": "..."}``. It is written as byte-level BPE without merges, which transformers, llama.cpp and vLLM
all read; so every character must be one byte of UTF-8. ``--end`` names one that ends a text: engines want such a token,
and take one of their own where there is none. Use a rare one.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


def tokenizer_of(characters: str, end: str | None = None) -> PreTrainedTokenizerFast:
    """The tokenizer.

    Args:
        characters: of one byte each, in the order of their numbers.
        end: the one that ends a text.
    """
    if not characters.isascii() or len(set(characters)) != len(characters):
        raise SystemExit("characters must be ASCII, each once")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    letters = [as_bytes.pre_tokenize_str(character)[0][0] for character in characters]
    backend = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    last = None if end is None else letters[characters.index(end)]
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=last, clean_up_tokenization_spaces=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("characters", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--end", default=None)
    given = parser.parse_args()
    tokenizer_of(json.loads(given.characters.read_text())["chars"], given.end).save_pretrained(given.folder)
    print(f"wrote {given.folder / 'tokenizer.json'}")

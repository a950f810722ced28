"""A tokenizer of transformers as the fields of a GGUF file."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corank.errors import ConfigError

__all__ = ["TokenizerFields", "tokenizer_fields"]

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # token types of GGUF
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
_REST = "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
_SPLITS = {  # how text is cut before bytes are merged, by llama.cpp's name for it
    _CONTRACTIONS + "\\p{N}{1,3}" + _REST: "llama-bpe",
    _CONTRACTIONS + "\\p{N}" + _REST: "qwen2",
}
_WORD_BOUNDARY = "▁"


@dataclass(frozen=True)
class TokenizerFields:
    """What ``tokenizer.ggml.*`` says.

    Attributes:
        model: "gpt2" for merges of bytes, "llama" for SentencePiece's of characters.
        pre: how text is cut first; None for "llama".
        tokens, types: one for each row of the embedding.
        scores: of "llama", the order in which tokens are merged.
        merges: of "gpt2", "left right".
        ids: of special tokens, by name: bos, eos, unk, pad.
        flags: add_bos, add_eos and add_space_prefix.
        chat_template: None for none.
    """

    model: str
    pre: str | None
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    scores: tuple[float, ...]
    merges: tuple[str, ...]
    ids: Mapping[str, int]
    flags: Mapping[str, bool]
    chat_template: str | None


def tokenizer_fields(tokenizer: Any, rows: int) -> TokenizerFields:
    """The fields of a fast tokenizer.

    Args:
        tokenizer: of transformers, with a ``backend_tokenizer``.
        rows: of the model's embedding; numbers that no token has become unused tokens.

    Raises:
        ConfigError: a slow tokenizer, one of another kind than byte-level BPE and SentencePiece's BPE, one that cuts
            text in a way without a name in llama.cpp, or one with more tokens than rows.
    """
    try:
        told = json.loads(tokenizer.backend_tokenizer.to_str())
    except AttributeError as error:
        raise ConfigError(
            f"GGUF takes a fast tokenizer of transformers, not a {type(tokenizer).__name__}; give "
            "AutoTokenizer.from_pretrained(name), or tokenizer=False for a file that takes token ids alone"
        ) from error
    model, added = told["model"], told.get("added_tokens") or []
    if model["type"] != "BPE":
        raise ConfigError(_other_kind(model["type"]))
    vocabulary = {**model["vocab"], **{one["content"]: one["id"] for one in added}}
    most = max(vocabulary.values())
    if most >= rows:
        raise ConfigError(
            f"the tokenizer does not fit: it has a token {most}, and the model's embedding {rows} rows; "
            "give the one that the model was trained with"
        )
    of_bytes = any(part["type"] == "ByteLevel" for part in _parts(told.get("pre_tokenizer"), "pretokenizers"))
    of_characters = bool(model.get("byte_fallback")) or _WORD_BOUNDARY in "".join(itertools.islice(vocabulary, 4096))
    if not of_bytes and not of_characters:
        raise ConfigError(_other_kind("BPE of neither bytes nor SentencePiece's pieces"))
    merges = [tuple(one.split(" ", 1)) if isinstance(one, str) else tuple(one) for one in model["merges"]]
    return TokenizerFields(
        model="gpt2" if of_bytes else "llama",
        pre=_split(told.get("pre_tokenizer")) if of_bytes else None,
        tokens=_tokens(vocabulary, rows),
        types=_types(vocabulary, rows, added, tokenizer.unk_token_id if not of_bytes else None),
        scores=() if of_bytes else _scores(vocabulary, rows, merges),
        merges=_merges(vocabulary, merges) if of_bytes else (),
        ids={name: value for name in ("bos", "eos", "unk", "pad") if (value := _id(tokenizer, name)) is not None},
        flags=_flags(tokenizer, of_bytes),
        chat_template=tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else None,
    )


def _other_kind(kind: str) -> str:
    return (
        f"the tokenizer is of the kind {kind}; byte-level BPE and SentencePiece's BPE can be written to GGUF; "
        "tokenizer=False writes a file that takes token ids alone"
    )


def _parts(told: Mapping[str, Any] | None, name: str) -> Iterable[Mapping[str, Any]]:
    """A step, or the steps of a sequence of them."""
    return () if told is None else told[name] if told["type"] == "Sequence" else (told,)


def _split(told: Mapping[str, Any] | None) -> str:
    """llama.cpp's name of the way in which text is cut before bytes are merged."""
    steps = list(_parts(told, "pretokenizers"))
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    pattern = steps[0].get("pattern", {}).get("Regex", "") if kinds == ["Split", "ByteLevel"] else ""
    if pattern not in _SPLITS:
        raise ConfigError(
            f"the tokenizer cuts text by {' and '.join(kinds)} in a way that has no name here; those of GPT-2, "
            "Llama 3 and Qwen 2 do, and tokenizer=False writes a file that takes token ids alone"
        )
    return _SPLITS[pattern]


def _tokens(vocabulary: Mapping[str, int], rows: int) -> tuple[str, ...]:
    texts = {number: text for text, number in vocabulary.items()}
    return tuple(texts.get(number, f"[unused {number}]") for number in range(rows))


def _types(
    vocabulary: Mapping[str, int], rows: int, added: Sequence[Mapping[str, Any]], unknown: int | None
) -> tuple[int, ...]:
    types = [UNUSED] * rows
    for text, number in vocabulary.items():
        types[number] = BYTE if len(text) == 6 and text.startswith("<0x") and text.endswith(">") else NORMAL
    for one in added:
        types[one["id"]] = CONTROL if one["special"] else USER_DEFINED
    if unknown is not None:
        types[unknown] = UNKNOWN
    return tuple(types)


def _scores(vocabulary: Mapping[str, int], rows: int, merges: Sequence[tuple[str, ...]]) -> tuple[float, ...]:
    """What is merged first scores most; pieces that no merge gives are never asked for theirs."""
    scores = [0.0] * rows
    for rank, pair in reversed(list(enumerate(merges))):  # of several merges that give a piece the first counts
        number = vocabulary.get("".join(pair))
        if number is not None:
            scores[number] = -float(rank)
    return tuple(scores)


def _merges(vocabulary: Mapping[str, int], merges: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    if merges:
        return tuple(" ".join(pair) for pair in merges)
    # llama.cpp reads no list without entries. A merge into what is no token is undone there, byte by byte.
    single = [text for text in vocabulary if len(text) == 1]
    pairs = ((one, other) for one in single for other in single if one + other not in vocabulary)
    return tuple(" ".join(pair) for pair in itertools.islice(pairs, 1))


def _id(tokenizer: Any, name: str) -> int | None:
    return {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "unk": tokenizer.unk_token_id,
        "pad": tokenizer.pad_token_id,
    }[name]


def _flags(tokenizer: Any, of_bytes: bool) -> dict[str, bool]:
    """What the tokenizer does, as it does it."""
    ids = tokenizer("a")["input_ids"]
    flags = {
        "add_bos": bool(ids) and tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id,
        "add_eos": bool(ids) and tokenizer.eos_token_id is not None and ids[-1] == tokenizer.eos_token_id,
    }
    pieces = tokenizer.tokenize("a")
    return flags if of_bytes else {**flags, "add_space_prefix": bool(pieces) and pieces[0][0] == _WORD_BOUNDARY}

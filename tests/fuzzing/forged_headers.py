"""Headers of artifacts that lie: values of every wrong kind and size, in every place."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

from corank.codecs import CODECS
from corank.rounding import ROUNDERS

__all__ = ["forge_header", "forge_text", "hostile"]

_NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 2, 3, 7, 8, 9, 16, 255, 256, 1 << 15, (1 << 31) - 1, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, 1 << 64,
    -(1 << 63), 10**30, 10**400, 0.0, -0.0, 0.5, 1.0, 3.0, 1e-320, 1e308, math.inf, -math.inf, math.nan, True, False,
)  # fmt: skip
_TEXTS = (
    "", ".", "..", "/", "../../../etc/passwd", "/dev/zero", "C:\\windows", "~", "file.py:factory", "__class__",
    "__init__", "__dict__", "forward", "weight", "0.weight", "_modules", "0.", ".0", "0..1", "\0", "\n", "\x1b[31mred",
    "\ud800", "\u202e", "e\u0301", "\uff55niform", "uniform\0", "Uniform", "float16", "float64", "int64", "bool",
    "object", "codes", "scales", "nan", "1", "0", "2", "null", "{}", "${HOME}", "%s%s%n", "{0.__class__}", "x" * 70000,
)  # fmt: skip


def hostile(draw: random.Random) -> Any:
    """A JSON value of any kind."""
    kind = draw.randrange(8)
    if kind < 4:
        return draw.choice(_NUMBERS)
    if kind < 6:
        return draw.choice(_TEXTS)
    if kind == 6:
        return draw.choice((None, [], {}, [[]], [None], {"": 0}, {"kind": "uniform"}, {"kind": []}, {"kind": {}}))
    return _nested(draw.choice((3, 30, 900, 5000)), draw.random() < 0.5)


def _nested(depth: int, lists: bool) -> Any:
    value: Any = 0
    # json.dumps refuses what is nested deeper than the interpreter's stack.
    for _ in range(min(depth, 300)):
        value = [value] if lists else {"a": value}
    return value


def forge_header(
    header: dict[str, Any], draw: random.Random, another: Callable[[], dict[str, Any]], short: bool = False
) -> tuple[str, dict[str, Any]]:
    """The name of a change and the changed header; ``another`` gives that of another file, in the same form.

    ``short``: the header is in the form that stands in a file of format 3.
    """
    forgeries = _SHORT_FORGERIES if short else _FORGERIES
    name = draw.choice(tuple(forgeries))
    if name == "of another":
        key = draw.choice(tuple(header))
        return name, {**header, key: another().get(key)}
    header = copy.deepcopy(header)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        # What was forged already may leave nothing to choose from.
        with contextlib.suppress(LookupError, TypeError, AttributeError, ValueError, OverflowError):
            forgeries[name](header, draw)
    return name, header


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key or index) of everything below ``value``."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


def _place(header: dict[str, Any], draw: random.Random) -> tuple[Any, Any]:
    return draw.choice(list(_places(header)))


def _any_value(header: dict[str, Any], draw: random.Random) -> None:
    holder, key = _place(header, draw)
    holder[key] = hostile(draw)


def _near_value(header: dict[str, Any], draw: random.Random) -> None:
    """A number beside the right one, or the same in another type."""
    numbers = [(holder, key) for holder, key in _places(header) if isinstance(holder[key], (int, float))]
    holder, key = draw.choice(numbers)
    value = holder[key]
    holder[key] = draw.choice((value + 1, value - 1, -value, 2 * value, float(value), str(value), bool(value), [value]))


def _without(header: dict[str, Any], draw: random.Random) -> None:
    holder, key = _place(header, draw)
    del holder[key]
    if not header:
        header["format"] = 1


def _more(header: dict[str, Any], draw: random.Random) -> None:
    holder, key = _place(header, draw)
    if isinstance(holder, list):
        holder.insert(key, draw.choice((copy.deepcopy(holder[key]), hostile(draw))))
    else:
        holder[draw.choice(_TEXTS)] = draw.choice((copy.deepcopy(holder[key]), hostile(draw)))


def _exchange(header: dict[str, Any], draw: random.Random) -> None:
    """Two values change places."""
    places = list(_places(header))
    (one, first), (other, second) = draw.choice(places), draw.choice(places)
    kept = copy.deepcopy(one[first])
    one[first] = copy.deepcopy(other[second])
    other[second] = kept


def _shape(header: dict[str, Any], draw: random.Random) -> None:
    """``[G, R, C]`` of one layer, with or without the same number of weights."""
    entry = draw.choice(list(header["layers"].values()))
    groups, rows, columns = (number if isinstance(number, int) else 1 for number in entry[:3])
    entry[:3] = draw.choice(
        (
            [groups, columns, rows], [1, groups * rows, columns], [groups * rows, 1, columns], [1, 1, rows * columns],
            [groups, rows, 1 << 30], [(1 << 31) - 1] * 3, [1 << 40, rows, columns], [0, rows, columns],
            [groups, -rows, -columns], [True, rows, columns], [float(groups), rows, columns],
            [str(groups), rows, columns],
        )
    )  # fmt: skip


def _codec(header: dict[str, Any], draw: random.Random) -> None:
    """Another codec for one layer, its fields drawn from sound and unsound values."""
    layer = draw.choice(list(header["plan"]["layers"].values()))
    layer["codec"] = {"kind": draw.choice(sorted(CODECS)), "bits": draw.choice((*range(10), True, 3.0, "3", None))}
    fields = {
        "group": (-2, -1, 0, 1, 2, 3, 5, 1 << 40, True, 2.0), "half": (True, False, 1), "symmetric": (True, False, 0),
        "power_of_two_scale": (True, False, 1), "range": ("mse", "none", 3),
        "deviations": (0, -1, math.nan, math.inf, True),
        "threshold": ("optimal", "twn", "x"), "nearest": ("value", "log", "x"), "no_such_field": (1,),
    }  # fmt: skip
    for name in draw.sample(sorted(fields), draw.choice((0, 0, 1, 1, 2))):
        layer["codec"][name] = draw.choice(fields[name])


def _layer_plan(header: dict[str, Any], draw: random.Random) -> None:
    """One field of one layer's plan, or of all."""
    plan = header["plan"]
    holder = draw.choice((plan["default"], *plan["layers"].values()))
    fields: dict[str, tuple[Any, ...]] = {
        "rank": (0, 1, 2, 5, 1 << 40, -1, True, 1.0, None), "adapter_bits": (1, 2, 4, 8, 9, True, "8"),
        "inputs": (None, 1, 2, 4, 8, 9, True, 8.0), "fit": ("svd", "output", "loss", "x", None),
        "rounds": (0, 1, 100, 101, math.inf), "sparsity": (0, 0.5, 1, -1, math.nan, True),
        "input_range": ("kl", "x", []),
        "bias_correction": (True, 1, None), "sequential": (True, 1, None), "codec": (None, 3, []),
        "rounder": (None, {"kind": draw.choice(sorted(ROUNDERS))}, {"kind": "gptq", "damping": hostile(draw)}),
    }  # fmt: skip
    name = draw.choice(sorted(fields))
    holder[name] = draw.choice(fields[name])


def _names(header: dict[str, Any], draw: random.Random) -> None:
    """One layer, norm or tensor goes by another name, everywhere or in one place."""
    kind = draw.choice(("layer", "one place", "folded", "tensor", "two names"))
    old, new = draw.choice(sorted(header["layers"])), draw.choice((*_TEXTS, *header["layers"], "1", "3", "5"))
    if kind in ("layer", "one place"):
        header["layers"] = {new if name == old else name: value for name, value in header["layers"].items()}
        if kind == "layer":
            layers = header["plan"]["layers"]
            header["plan"]["layers"] = {new if name == old else name: value for name, value in layers.items()}
    elif kind == "folded":
        header["folded"] = draw.choice(([*header["folded"], new], header["folded"] * 2, [new], new, {new: 0}, [[new]]))
    elif kind == "tensor":
        entries = draw.choice(list(header["tensors"].values()))
        entries[draw.randrange(len(entries))][0] = new
    else:
        header["layers"][new] = header["layers"][old]
        header["plan"]["layers"][new] = header["plan"]["layers"].get(old, {})


def _tensors(header: dict[str, Any], draw: random.Random) -> None:
    """The list of the other tensors: shapes, dtypes, order."""
    kinds = header["tensors"]
    kind = draw.choice(sorted(kinds))
    entry = draw.choice(kinds[kind])
    what = draw.randrange(5)
    if what == 0:
        kinds[draw.choice(("float32", "int64", "codes", "scales", "bool", "float99"))] = kinds.pop(kind)
    elif what == 1:
        entry[1] = draw.choice(([*entry[1], 1], [-1], [1 << 62, 1 << 62], [0], [], [True] * len(entry[1]), None, "3"))
    elif what == 2:
        draw.shuffle(kinds[kind])
    elif what == 3:
        kinds[kind].append(copy.deepcopy(entry))
    else:
        kinds[kind].remove(entry)


def _facts(header: dict[str, Any], draw: random.Random) -> None:
    """What is only told, and the versions."""
    names = (
        "format",
        "model",
        "preset",
        "search",
        "bits",
        "budget",
        "activations",
        "seed",
        "iterations",
        "recipe",
        "dtype",
        "skipped",
    )
    header[draw.choice(names)] = hostile(draw)


def _ways(header: dict[str, Any], draw: random.Random) -> None:
    """How one name is told from another, or how many."""
    lists = [header["layers"], header["folded"], *header["tensors"].values(), header["plan"].setdefault("names", [])]
    ways = draw.choice(lists)
    new = draw.choice((*_WAYS, *_TEXTS))
    what = draw.randrange(3)
    if what == 0 and ways:
        ways[draw.randrange(len(ways))] = draw.choice((new, [new], [new, 8], [new, 2, -4], [new, 1 << 62, 4]))
    elif what == 1:
        ways.insert(draw.randrange(len(ways) + 1), new)
    else:
        ways.reverse()
    if not header["plan"]["names"]:
        del header["plan"]["names"]


_WAYS = ("", ".", "..", "...", ">", ">>", ">" * 300, "." * 300, "/", "//", "/.", ">/x", ".>x", "bias", ">bias", "./x")


def _numbers(header: dict[str, Any], draw: random.Random) -> None:
    """Which numbers of a plan stand in a column, the layers' shapes, and which runs are coded."""
    what = draw.randrange(3)
    if what == 0:
        layer = draw.choice(header["plan"]["layers"])
        value = draw.choice(("#", "##", "#" * 5, {"#": "#"}, ["#"] * 50))
        layer[draw.choice(("sparsity", "rate", "rank", "codec", "fit", "rounder"))] = value
    elif what == 1:
        sizes = header["shapes"]
        sizes[draw.randrange(len(sizes))] = draw.choice((*_NUMBERS, 1, 2, 3))
    else:
        header.setdefault("coders", ["deflate"])
        index = header.setdefault("coded", [0] * (2 * len(header["layers"])))
        index[draw.randrange(len(index))] = draw.choice((0, 1, 2, 1 << 40, -1, True, None, [1, 5]))


def _coded(header: dict[str, Any], draw: random.Random) -> None:
    """The index of coded runs, of a file of format 2 or as if it were one."""
    header["format"] = draw.choice((2, 2, 2, 1, 2.0, "2", True))
    header.setdefault("coders", ["deflate"])
    header.setdefault("coded", [0] * (2 * len(header["layers"])))
    what, index = draw.randrange(5), header["coded"]
    if what == 0 and isinstance(header["coders"], list):
        header["coders"] = draw.choice(
            (["sham"], ["rans"], ["ans", "deflate"], [], ["fixed"], ["no"], [[]], header["coders"] * 2)
        )
    elif what == 1:
        header["coded"] = [draw.choice((0, [0, 1], [0, 30], [1, 3], [-1, 5], [0, -5], [0, True])) for _ in index]
    elif what == 2 and index:
        index[draw.randrange(len(index))] = draw.choice(([0, draw.randrange(200)], [0, 1 << 62], hostile(draw)))
    elif what == 3:
        entry = draw.choice(list(header["layers"].values()))
        entry[draw.randrange(3)] = draw.choice((1 << 20, 1 << 26, (1 << 31) - 1))
    else:
        header["coded"] = index[: draw.randrange(len(index) + 1)]


_FORGERIES: dict[str, Callable[[dict[str, Any], random.Random], None]] = {
    "any value": _any_value, "near value": _near_value, "without": _without, "more": _more, "exchange": _exchange,
    "shape": _shape, "codec": _codec, "layer plan": _layer_plan, "names": _names, "tensors": _tensors, "facts": _facts,
    "coded": _coded, "of another": _any_value,
}  # fmt: skip
_SHORT_FORGERIES = {
    **{name: _FORGERIES[name] for name in ("any value", "near value", "without", "more", "exchange", "facts")},
    "ways": _ways, "numbers": _numbers, "of another": _any_value,
}  # fmt: skip


def forge_text(text: str, draw: random.Random) -> tuple[str, str]:
    """The name of a change and the changed text of a header."""
    kind = draw.choice(("number", "duplicate", "tail", "deep", "cut", "letter", "spaces", "long"))
    place = draw.randrange(len(text))
    if kind == "number":
        old = draw.choice(("0", "1", "2", "null", "false"))
        new = draw.choice(
            ("NaN", "Infinity", "-Infinity", "1e999", "-0", "01", "0x10", "1" * 5000, "1e-999", "1_0", "+1")
        )
        at = text.find(f":{old}", place)
        text = text if at < 0 else text[: at + 1] + new + text[at + 1 + len(old) :]
    elif kind == "duplicate":
        key = draw.choice(sorted(json.loads(text)))
        text = text[:-1] + f",{json.dumps(key)}:{json.dumps(draw.choice(_TEXTS))}}}"
    elif kind == "tail":
        text += draw.choice((" ", "{}", "\0", ",", "]", "//", "\ufeff"))
    elif kind == "deep":
        text = draw.choice(("[" * 100000, '{"format":1,"x":' + "[" * 50000 + "]" * 50000 + "}"))
    elif kind == "cut":
        text = text[:place]
    elif kind == "letter":
        text = text[:place] + draw.choice('0123456789{}[]",:-e.\\u\0\u00e9') + text[place + 1 :]
    elif kind == "spaces":
        text = text.replace(",", draw.choice((" , ", "\n,", "\t,")))
    else:
        text = draw.choice((" " * 200000 + text, text.replace("{", '{"_":"' + "x" * 20000 + '",', 1)))
    return kind, text

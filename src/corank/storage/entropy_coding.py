"""From fixed-width codes to smaller bytes and back: which coder each run of codes of an artifact gets.

In memory an artifact's codes are of fixed width, always; only a file holds coded ones, and its header says which.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from corank.codecs import Codec, Uniform
from corank.config import choose
from corank.errors import ArtifactError
from corank.kernels.adaptive import has_kernel
from corank.kernels.carried import LearnedCodes
from corank.storage.bits import pack, packed_bytes, unpack
from corank.storage.coded_numbers import with_coded_numbers, with_plain_numbers
from corank.storage.coders import CODERS, Adaptive, Carried, Rans, Sham, SymbolCoder
from corank.storage.coders.sham import index_bits
from corank.storage.contents import ArtifactContents
from corank.storage.model_record import ModelRecord
from corank.storage.placement import PlacedTensor, placed_tensors

__all__ = ["CodeStream", "check_coder", "decode_contents", "encode_contents", "relative_codes"]

# What "auto" tries: those that need no further package, the fastest to read first.
AUTO = ("deflate", "sham", "rans", "adaptive", "carried")
_BY_PYTHON = 1 << 16  # codes that "auto" has coded one by one where no kernel does it
_LONG, _SLOW = 1 << 22, 0.97  # codes of a run whose reading takes half a second, and what it must come to then
_SLOW_CODERS = ("rans", "adaptive", "carried")
_NAMED_BYTES = 3  # about what a coded run, or one more coder, adds to the header
_MOST_EXPANDED = 1024  # times that a run may be longer than its coded bytes; bounds what a file can make a reader hold
_MOST_EXPANDED_IN_ALL, _SMALL_BYTES = 64, 1 << 20  # the same of all runs together, where they are not small


@dataclass(frozen=True)
class CodeStream:
    """One run of codes in a file.

    Attributes:
        layer, slot: whose codes they are.
        shape: ``(R, C)`` they are coded as.
        bits: of one code.
        coder: name of its coder; "fixed" where it stands as it is.
        size_bytes: that it takes in the file.
    """

    layer: str
    slot: str
    shape: tuple[int, int]
    bits: int
    coder: str
    size_bytes: int

    @property
    def fixed_bytes(self) -> int:
        """Bytes that it takes at fixed width."""
        return packed_bytes(self.shape[0] * self.shape[1], self.bits)


def check_coder(coder: str) -> None:
    """Raises ConfigError unless ``coder`` is "auto", or a coder whose library is there."""
    if coder != "auto":
        choose(coder, {**CODERS, "auto": None}, "coder")
        # A coder looks for its library when it is used: better here, before all work, than at writing.
        CODERS[coder]().encode(torch.zeros(1, 1, dtype=torch.uint8), 2)


def encode_contents(
    run: ModelRecord, contents: ArtifactContents, coder: str = "auto"
) -> tuple[ArtifactContents, tuple[CodeStream, ...]]:
    """What a file will hold, and by which coders.

    Args:
        run, contents: codes of fixed width.
        coder: "auto", or a name of :data:`~corank.storage.coders.CODERS`; a run that it does not make smaller stays
            fixed. "fixed" leaves all as it is.

    Returns:
        ``contents`` itself where coding makes the file no smaller.

    Raises:
        ConfigError: for an unknown coder, or one whose library is missing.
    """
    check_coder(coder)
    names, fixed = AUTO if coder == "auto" else (coder,), tuple(_fixed_runs(run))
    if coder == "fixed":
        return contents, fixed
    parts, runs, learned = list[Tensor](), list[CodeStream](), LearnedCodes()
    for group in _by_layer(fixed, contents.blobs["codes"]):
        zeros, found = _zero_codes(run, group), dict[str, tuple[str, Tensor]]()
        for part, packed in _codes_last(group):
            own = zeros if part.slot == "codes" else None
            name, data, learned = _smallest(part, packed, own, names, learned)
            found[part.slot] = (name, data)
        for part, _ in group:
            name, data = found[part.slot]
            runs.append(replace(part, coder=name, size_bytes=data.numel()))
            parts.append(data)
    used = sorted({part.coder for part in runs} - {"fixed"})
    index = {
        "coders": used,
        "coded": [0 if part.coder == "fixed" else [used.index(part.coder), part.size_bytes] for part in runs],
    }
    coded = ArtifactContents({**contents.header, **index}, {**contents.blobs, "codes": torch.cat(parts)})
    # What our own reader would refuse is not written.
    smallest, of_codes = contents, fixed
    if not _is_bomb(runs) and coded.size_bytes < contents.size_bytes:
        smallest, of_codes = coded, tuple(runs)
    smaller = with_coded_numbers(run, smallest) if "carried" in names else smallest
    return (smaller if smaller.size_bytes < smallest.size_bytes else smallest), of_codes


def decode_contents(run: ModelRecord, contents: ArtifactContents) -> tuple[ArtifactContents, tuple[CodeStream, ...]]:
    """The inverse of :func:`encode_contents`, for a file from anywhere.

    Raises:
        ArtifactError: for an index or a run that is not sound. ConfigError: where a coder's library is missing.
    """
    contents = with_plain_numbers(run, contents)
    if not {"coders", "coded"} & set(contents.header):
        return contents, tuple(_fixed_runs(run))
    blob = contents.blobs.get("codes")
    if blob is None or blob.dtype != torch.uint8 or blob.dim() != 1:
        raise ArtifactError("the blob 'codes' is not a list of bytes")
    runs = _indexed_runs(run, contents.header, blob.numel())
    parts, learned = list[Tensor](), LearnedCodes()
    for group in _by_layer(runs, blob):
        decoded: dict[str, tuple[CodeStream, Tensor]] = {}
        for part, data in _codes_last(group):
            zeros = _zero_codes(run, list(decoded.values())) if part.slot == "codes" else None
            decoded[part.slot] = (replace(part, coder="fixed"), _decoded(part, data, zeros, learned))
        # Back in the order of the blob, whatever order they were decoded in.
        parts += [decoded[part.slot][1] for part, _ in group]
    header = {name: value for name, value in contents.header.items() if name not in ("coders", "coded")}
    return ArtifactContents(header, {**contents.blobs, "codes": torch.cat(parts)}), runs


def relative_codes(run: ModelRecord, contents: ArtifactContents) -> Iterator[tuple[str, Tensor, int]]:
    """Name, codes ``(G R, C)`` uint8 as coders see them, and their bits, of each layer.

    Codes are less that of zero of their row and group, modulo ``2 ** bits``, where the codec stores offsets.

    Args:
        run, contents: codes of fixed width.
    """
    for group in _by_layer(tuple(_fixed_runs(run)), contents.blobs["codes"]):
        zeros = _zero_codes(run, group)
        for part, packed in group:
            if part.slot == "codes":
                yield part.layer, _relative(_unpacked(part, packed), zeros, -1, part.bits), part.bits


def _fixed_runs(run: ModelRecord) -> Iterator[CodeStream]:
    """Every run of codes, in the order of the blob."""
    for tensor in placed_tensors(run):
        if not tensor.spec.scale:
            shape = _shape(run, tensor)
            yield CodeStream(tensor.layer, tensor.slot, shape, tensor.spec.bits, "fixed", tensor.end - tensor.begin)


def _shape(run: ModelRecord, tensor: PlacedTensor) -> tuple[int, int]:
    """``(R, C)`` that a run is coded as."""
    layer, slot, count = run.layers[tensor.layer], tensor.slot, tensor.spec.count
    (groups, rows, _), rank = layer.shape, layer.rank(run.plan.layers[tensor.layer])
    lines = {"codes": groups * rows, "left_codes": groups * rank, "right_codes": groups * rank}.get(slot, 1)
    return lines, count // lines


def _indexed_runs(run: ModelRecord, header: Mapping[str, Any], total: int) -> tuple[CodeStream, ...]:
    """The runs as the header's index says, checked against the blob's size."""
    names, index, fixed = header.get("coders"), header.get("coded"), list(_fixed_runs(run))
    if not isinstance(names, list) or not isinstance(index, list) or len(index) != len(fixed):
        raise ArtifactError(f"the index of coded runs does not have the {len(fixed)} entries that the plan needs")
    for name in names:
        if not isinstance(name, str) or name not in CODERS:
            raise ArtifactError(f"codes by {name!r}, which is no coder of this version of corank; upgrade corank")
    pairs = zip(fixed, index, strict=True)
    runs = tuple(part if type(entry) is int and entry == 0 else _indexed(part, entry, names) for part, entry in pairs)
    if sum(part.size_bytes for part in runs) != total:
        raise ArtifactError(f"the blob 'codes' has {total} bytes, not those that the index of coded runs tells")
    if _is_bomb(runs):
        raise ArtifactError(f"{total} bytes of codes say that they are more than {_MOST_EXPANDED_IN_ALL} times as many")
    return runs


def _is_bomb(runs: Sequence[CodeStream]) -> bool:
    """Whether all runs together take far more memory than the file: what is small by any measure may."""
    fixed = sum(part.fixed_bytes for part in runs)
    return fixed > max(_SMALL_BYTES, _MOST_EXPANDED_IN_ALL * sum(part.size_bytes for part in runs))


def _indexed(part: CodeStream, entry: Any, names: Sequence[str]) -> CodeStream:
    # type, not isinstance: JSON's true would pass for 1.
    sound = isinstance(entry, list) and len(entry) == 2 and all(type(number) is int for number in entry)
    # A writer codes only what becomes smaller.
    if not sound or not 0 <= entry[0] < len(names) or not 0 < entry[1] < part.fixed_bytes:
        raise ArtifactError(f"the index of coded runs has {str(entry)[:40]} for {part.slot} of layer {part.layer!r}")
    if entry[1] * _MOST_EXPANDED < part.fixed_bytes:
        raise ArtifactError(f"{part.slot} of layer {part.layer!r} is coded more than {_MOST_EXPANDED}-fold")
    return replace(part, coder=names[entry[0]], size_bytes=entry[1])


def _by_layer(runs: Sequence[CodeStream], blob: Tensor) -> Iterator[list[tuple[CodeStream, Tensor]]]:
    """The runs of each layer with their bytes."""
    at, group = 0, []
    for part in runs:
        if group and group[-1][0].layer != part.layer:
            yield group
            group = []
        group.append((part, blob[at : at + part.size_bytes]))
        at += part.size_bytes
    if group:
        yield group


def _codes_last(group: Sequence[tuple[CodeStream, Tensor]]) -> list[tuple[CodeStream, Tensor]]:
    """A layer's runs in the order of decoding: codes rest on offsets."""
    return sorted(group, key=lambda item: item[0].slot == "codes")


def _smallest(
    part: CodeStream, packed: Tensor, zeros: Tensor | None, names: Sequence[str], learned: LearnedCodes
) -> tuple[str, Tensor, LearnedCodes]:
    """The coder of least size, the bytes, and what is learned then."""
    best, least, after = "fixed", packed, learned
    if not packed.numel():
        return best, least, after
    symbols = _relative(_unpacked(part, packed), zeros, -1, part.bits)
    for name in _worth_trying(names, symbols, 1 << part.bits):
        # Where others are tried as well, what reads slowly has to be worth it.
        slow = len(names) > 1 and name in _SLOW_CODERS and symbols.numel() > _LONG
        most = _SLOW * least.numel() if slow else least.numel() - _NAMED_BYTES * (best == "fixed")
        coder, trial = CODERS[name](), learned.copy()
        if _is_hopeless(coder, symbols, 1 << part.bits, most if slow else least.numel()):
            continue
        if isinstance(coder, Carried):
            data = coder.encode_after(trial, symbols, 1 << part.bits)
        else:
            data = coder.encode(symbols, 1 << part.bits)
        # A reader refuses runs that are longer still, whoever wrote them.
        if 0 < len(data) < most and len(data) * _MOST_EXPANDED >= part.fixed_bytes:
            best, least, after = name, torch.frombuffer(bytearray(data), dtype=torch.uint8), trial
    return best, least, after


def _worth_trying(names: Sequence[str], symbols: Tensor, levels: int) -> Sequence[str]:
    """The coders without those that take long and do not win."""
    if len(names) == 1:
        return names
    path, fast = Adaptive.knows_path(symbols, levels), has_kernel()
    # Others know no grids; those that do are alike, and which is smaller is not known before.
    left_out = {"rans"} if path or fast else set[str]()
    left_out |= set() if path else {"adaptive"}
    left_out |= set() if fast or symbols.numel() <= _BY_PYTHON else {"carried"} if path else {"adaptive", "carried"}
    return [name for name in names if name not in left_out]


def _is_hopeless(coder: SymbolCoder, symbols: Tensor, levels: int, most: float) -> bool:
    """Whether a coder that takes time certainly, or by a sample, does not write so few bytes."""
    if isinstance(coder, Sham):
        # sHAM leaves the most frequent symbol out; the places of the others alone are a part of its bytes.
        others = symbols.numel() - int(symbols.reshape(-1).bincount().max())
        return index_bits((symbols.shape[0], symbols.shape[1]), others) > 8 * most
    return isinstance(coder, Rans) and coder.expected_bytes(symbols.numpy(), levels) > most


def _decoded(part: CodeStream, data: Tensor, zeros: Tensor | None, learned: LearnedCodes) -> Tensor:
    if part.coder == "fixed":
        return data
    coder, given = CODERS[part.coder](), data.numpy().tobytes()
    try:
        if isinstance(coder, Carried):
            symbols = coder.decode_after(learned, given, part.shape, 1 << part.bits)
        else:
            symbols = coder.decode(given, part.shape, 1 << part.bits)
    except ArtifactError as error:
        raise ArtifactError(f"{part.slot} of layer {part.layer!r}: {error}") from error
    return pack(_relative(symbols, zeros, 1, part.bits), part.bits)


def _relative(codes: Tensor, zeros: Tensor | None, sign: int, bits: int) -> Tensor:
    """Codes ``(R, C)`` uint8 less (-1) or plus (1) the code of zero of their row and group, modulo ``2 ** bits``."""
    if zeros is None:
        return codes
    mask = (1 << bits) - 1
    return (codes + zeros if sign > 0 else codes - zeros) & mask  # uint8 wraps around, and 2 ** bits divides 256


def _zero_codes(run: ModelRecord, group: Sequence[tuple[CodeStream, Tensor]]) -> Tensor | None:
    """The code of zero (rounded down) for each weight of a layer, ``(R, C)`` or ``(1, 1)`` uint8.

    Rows that are alike but for their offset then have like symbols. None where a codec stores no offsets.
    """
    runs = {part.slot: (part, packed) for part, packed in group}
    name = group[0][0].layer if group else ""
    codec: Codec | None = run.plan.layers[name].codec if group else None
    if not isinstance(codec, Uniform) or "offset" not in runs:
        return None
    # Offsets are stored in halves of a level then; codes are whole.
    offsets = _unpacked(*runs["offset"]).reshape(-1) >> int(codec.half)
    groups, rows, columns = run.layers[name].shape
    if offsets.numel() == 1:
        return offsets.reshape(1, 1)
    spread = offsets.reshape(groups * rows, -1)
    if spread.shape[1] > 1:
        # The last group may be cut short.
        return spread.repeat_interleave(codec.group, dim=1)[:, :columns]
    return spread.expand(groups * rows, columns)


def _unpacked(part: CodeStream, packed: Tensor) -> Tensor:
    rows, columns = part.shape
    return unpack(packed, part.bits, rows * columns).reshape(rows, columns)

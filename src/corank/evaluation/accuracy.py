"""Top-1 accuracy or the next token's cross-entropy, and how closely one model follows another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from corank.attacks import Attack
from corank.calibration import run, token_ids
from corank.calibration.labels import labels_of
from corank.calibration.samples import LABELS, cut, inputs_of
from corank.config import check_progress
from corank.data import ImageSet, TokenSet
from corank.devices import device_of
from corank.errors import DataError, ModelError
from corank.evaluation.placed import placed
from corank.evaluation.robustness import attacks_on, hits_under
from corank.losses import kl_divergence, logits_of, sequence_logits
from corank.padding import output_mask
from corank.precision import exact_float32
from corank.progress import Progress
from corank.watching import evaluating

__all__ = ["Evaluation", "evaluate"]

_TOKENS = 2048  # of a batch: their logits are as wide as the vocabulary
_NOTHING = -100  # torch's mark of a position that predicts nothing


@dataclass(frozen=True)
class Evaluation:
    """What a model scores. Of a language model, every predicted token counts as one.

    Attributes:
        samples: how many were seen; sequences, of a language model.
        top1: percent of samples whose label is the largest logit; None without labels.
        agreement: percent of samples on which the model and the reference choose the same class; None without one.
        kl: ``KL(reference || model)`` in nats, mean over samples; None without a reference.
        nats: cross-entropy of the next token in nats, mean over tokens; None unless the samples are token sequences.
        tokens: how many were predicted; None unless the samples are token sequences.
        attacked: by attack, such as "fgsm:2/255", the percent of samples whose label is the largest logit after the
            attack changed them; None unless attacks were asked for.
    """

    samples: int
    top1: float | None
    agreement: float | None = None
    kl: float | None = None
    nats: float | None = None
    tokens: int | None = None
    attacked: Mapping[str, float] | None = None

    @property
    def perplexity(self) -> float | None:
        """``exp(nats)``."""
        return None if self.nats is None else math.exp(self.nats)


@exact_float32()
def evaluate(
    model: nn.Module,
    data: ImageSet | TokenSet | Iterable[Any],
    reference: nn.Module | None = None,
    *,
    attacks: Sequence[str | Attack] = (),
    batch_size: int = 100,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Scores a classifier, or a language model by the next token.

    A float32 model computes in exact float32 on every device, so that a score does not depend on where it was taken
    (:func:`corank.exact_float32`).

    Args:
        model: gives logits ``(N, classes)``, alone or under "logits"; or, for token ids ``(N, T)``, logits
            ``(N, T, vocabulary)``, whose position t predicts token t + 1. Left in the mode it was in.
        data: an :class:`~corank.data.ImageSet` or :class:`~corank.data.TokenSet`, token ids ``(N, T)``, a mapping of
            tensors by the names of the model's arguments, or an iterable of ``(inputs, labels)`` batches, of inputs
            alone, or of mappings, in which labels are called "labels", "label" or "target". Labels ``(N, T)`` say what
            position t predicts, -100 nothing; in a mapping they may also repeat the tokens, as transformers' do. Where
            a batch has an "attention_mask", what it masks counts nowhere: neither what masked positions predict nor
            masked tokens that are predicted, at whichever side they stand and with labels, too.
        reference: usually the float model; adds agreement and KL.
        attacks: also score images that were changed so that the model errs: "fgsm:2/255" (one gradient step, of pixels
            from 0 to 1), "pgd:2/255,10" (ten steps from a random start), or :class:`~corank.attacks.Attack`. Needs
            labels, and an image set that says how pixels are normalised; of tensors the attack says it, see
            :meth:`~corank.attacks.Attack.seen_by`. What rounds inputs passes the gradient straight through.
        batch_size: for an image set; token sequences go in batches of at most 2048 tokens.
        device: where to run; None: where the model is. Of a model or reference that is elsewhere a copy runs.
        progress: called with (what, done, total) where the total is known.

    Raises:
        DataError: when there is nothing to score: no samples, or neither labels nor a reference.
        ModelError: when the output is not logits. ConfigError: for an attack that cannot be read, or pixels of which
            nothing is known.
    """
    check_progress(progress)
    where = torch.device(device) if device is not None else device_of(model)
    model, reference = placed(model, where), None if reference is None else placed(reference, where)
    asked = attacks_on(data, attacks)
    counts = _Counts(attacked=dict.fromkeys(asked, 0))
    total = len(data) if isinstance(data, (ImageSet, TokenSet)) else 0
    with evaluating(*(one for one in (model, reference) if one is not None)):
        for inputs, labels in _batches(data, batch_size):
            with torch.no_grad():
                rows = _rows(run(model, inputs, where), inputs, labels)
                counts.add(rows)
                if reference is not None:
                    counts.compare(rows, _rows(run(reference, inputs, where), inputs, labels))
            for name, attack in asked.items():
                counts.attacked[name] += hits_under(attack, model, (inputs, labels), counts.samples - rows.samples)
            if progress is not None and total:
                progress("evaluating", counts.samples, total)
    _check_counts(counts.rows, counts.labelled, reference is not None)
    return counts.evaluation(reference is not None)


@dataclass(frozen=True)
class _Rows:
    """A batch's outputs to be scored: logits ``(M, classes)`` and labels ``(M,)`` of as many samples or tokens."""

    logits: Tensor
    labels: Tensor | None
    samples: int
    of_tokens: bool = False


@dataclass
class _Counts:
    """What has been seen so far."""

    samples: int = 0
    rows: int = 0
    labelled: int = 0
    hits: int = 0
    same: int = 0
    divergence: float = 0.0
    entropy: float = 0.0
    of_tokens: bool = False
    attacked: dict[str, int] = field(default_factory=dict)

    def add(self, rows: _Rows) -> None:
        self.samples += rows.samples
        self.rows += len(rows.logits)
        self.of_tokens = rows.of_tokens
        if rows.labels is not None:
            self.labelled += len(rows.labels)
            self.hits += int((rows.logits.argmax(1) == rows.labels).sum())
            if rows.of_tokens:
                self.entropy += float(F.cross_entropy(rows.logits.float(), rows.labels, reduction="sum"))

    def compare(self, rows: _Rows, expected: _Rows) -> None:
        if len(rows.logits) == 0:
            return
        self.same += int((rows.logits.argmax(1) == expected.logits.argmax(1)).sum())
        self.divergence += float(kl_divergence(rows.logits, expected.logits)) * len(rows.logits)

    def evaluation(self, compared: bool) -> Evaluation:
        return Evaluation(
            self.samples,
            100.0 * self.hits / self.labelled if self.labelled else None,
            100.0 * self.same / self.rows if compared else None,
            self.divergence / self.rows if compared else None,
            self.entropy / self.rows if self.of_tokens else None,
            self.rows if self.of_tokens else None,
            {name: 100.0 * hits / self.labelled for name, hits in self.attacked.items() if self.labelled} or None,
        )


def _check_counts(seen: int, labelled: int, compared: bool) -> None:
    if seen == 0:
        raise DataError("the evaluation data is empty")
    if labelled == 0 and not compared:
        raise DataError("the data has no labels; give labelled data, or evaluate(..., reference=float_model)")
    if labelled not in (0, seen):
        raise DataError(f"only {labelled} of {seen} samples have labels; label all or none")


def _batches(data: ImageSet | TokenSet | Iterable[Any], batch_size: int) -> Iterable[tuple[Any, Tensor | None]]:
    if isinstance(data, Tensor) and data.dim() == 2 and not data.is_floating_point():
        data = TokenSet(data.detach().cpu().long())
    if isinstance(data, TokenSet):
        yield from data.batches(max(1, min(batch_size, _TOKENS // data.ids.shape[1])))
        return
    if isinstance(data, ImageSet):
        yield from data.batches(batch_size)
        return
    if isinstance(data, Tensor):
        yield from ((part, None) for part in data.split(batch_size))
        return
    if isinstance(data, Mapping):
        inputs_of(data)  # says what is wrong with it
        data = cut({name: value for name, value in data.items() if isinstance(value, Tensor)}, batch_size)
    for batch in data:
        if isinstance(batch, (tuple, list)) and len(batch) == 2:
            yield batch[0], batch[1]
        elif isinstance(batch, Mapping):
            inputs = {name: value for name, value in batch.items() if name not in LABELS}
            yield inputs, labels_of(batch, inputs)
        else:
            yield batch, None


def _rows(output: Any, inputs: Any, labels: Tensor | None) -> _Rows:
    if any(isinstance(leaf, Tensor) and leaf.is_meta for leaf in tree_leaves(output)):
        raise ModelError(
            "the model is on the meta device, which keeps shapes and no values; load its weights first, or let "
            "corank.load(path, model) fill it from a quantized file"
        )
    ids, sequences = token_ids(inputs), sequence_logits(output)
    if ids is not None and sequences is not None and sequences.shape[:2] == ids.shape:
        return _token_rows(sequences, ids, inputs, labels)
    logits = logits_of(output)
    if logits is None:
        raise ModelError(
            "the score needs logits: (N, classes), or (N, T, vocabulary) of token ids (N, T), as a tensor or under "
            "'logits'; this model gives something else"
        )
    if labels is not None:
        _check_labels(labels, logits)
        labels = labels.to(logits.device)
    return _Rows(logits, labels, len(logits))


def _check_labels(labels: Any, logits: Tensor) -> None:
    count, classes = logits.shape
    if not isinstance(labels, Tensor) or labels.shape != (count,) or labels.is_floating_point():
        given = f"{tuple(labels.shape)} of {labels.dtype}" if isinstance(labels, Tensor) else type(labels).__name__
        raise DataError(
            f"labels are a tensor ({count},) of whole numbers, one for each sample of the batch, not {given}"
        )
    if count and int(labels.max()) >= classes:
        raise DataError(f"the label {int(labels.max())} is none of the model's {classes} classes, 0 to {classes - 1}")


def _token_rows(logits: Tensor, ids: Tensor, inputs: Any, labels: Tensor | None) -> _Rows:
    """The positions that predict a token, and those tokens: what padding predicts counts no more than padding that is
    predicted."""
    following = torch.full_like(ids, _NOTHING)
    following[:, :-1] = ids[:, 1:]
    labels = following if labels is None else labels.to(ids.device)
    mask = output_mask(inputs)
    if mask is not None:
        mask = mask.to(ids.device)
        padding_next = torch.zeros_like(mask)
        padding_next[:, :-1] = ~mask[:, 1:]
        # A label of one's own may be what ends a sequence, which is in no input; then it is not the padding.
        labels = labels.masked_fill(~mask | (padding_next & (labels == following)), _NOTHING)
    labels = labels.to(logits.device)
    kept = labels != _NOTHING
    return _Rows(logits[kept], labels[kept], len(ids), of_tokens=True)

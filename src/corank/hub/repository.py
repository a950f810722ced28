"""Repositories on the Hugging Face Hub, and folders of the same form."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from corank.autograd import recording
from corank.errors import ArtifactError, OutputError
from corank.export.to_torch import to_float
from corank.files import read_at_most, staged
from corank.hub.card import WEIGHTS, Card, facts, hub_client, model_card
from corank.hub.replaceable import check_replaceable, holds_codes
from corank.inspect import inspect
from corank.models.network_folder import CONFIG, WEIGHTS_OF_TRANSFORMERS, auto_class, network_files
from corank.storage.artifact import load, serialized
from corank.storage.contents import float_bytes

__all__ = ["from_pretrained", "push_to_hub", "save_pretrained"]

README = "README.md"
_PLAIN = Card()
_MOST = 1 << 24  # bytes of a configuration


def save_pretrained(
    model: nn.Module, folder: str | Path, *, card: Card = _PLAIN, repo_id: str | None = None, tokenizer: Any = None
) -> tuple[Path, ...]:
    """Writes a quantized model as the files of a repository; a README.md that is there already stays.

    A network of transformers takes its whole ``config.json``, its generation settings and its tokenizer along; after
    ``import corank.hf``, transformers' own ``from_pretrained`` loads the folder.

    Args:
        model: of :func:`corank.quantize` or :func:`corank.load`.
        folder: made if need be.
        card: for the README.md.
        repo_id: the repository's name, for the card; None takes the folder's.
        tokenizer: of a network of transformers: one, its folder or its name; None takes the one in the folder that the
            network came from, if there is one; False writes none.

    Returns:
        The files written.

    Raises:
        ModelError: for a model that corank did not quantize.
        ConfigError: for a record of another model, a tokenizer that cannot be read, or where huggingface_hub is not
            installed.
        OutputError: when the folder cannot be written, or holds the float network of the same name.
    """
    target, auto = Path(folder), auto_class(model)
    weights = WEIGHTS if auto is None else WEIGHTS_OF_TRANSFORMERS
    # Coded once: with a network of many weights that takes longer than all the rest.
    told = inspect(model, coder="fixed")
    about = {**told, "float_bytes": float_bytes(to_float(model)), "auto_class": auto, "weights": weights}
    check_replaceable(target / weights)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write into {target}: {error.strerror or error}") from error
    data = serialized(model)
    about["stored_bytes"] = len(data)
    texts = {CONFIG: json.dumps(facts(about), indent=2) + "\n"}
    if auto is not None:
        texts = network_files(model, tokenizer, {"quantization_config": {"quant_method": "corank", **facts(about)}})
    if not (target / README).exists():
        texts[README] = model_card(about, card, repo_id or target.resolve().name)
    names = (weights, *texts)
    with staged(*(target / name for name in names)) as scratch:
        scratch[0].write_bytes(data)
        for path, text in zip(scratch[1:], texts.values(), strict=True):
            path.write_text(text, encoding="utf-8")
    return tuple(target / name for name in names)


def push_to_hub(
    model: nn.Module,
    repo_id: str,
    *,
    card: Card = _PLAIN,
    commit_message: str = "Upload a model quantized with corank",
    private: bool | None = None,
    token: str | bool | None = None,
    branch: str | None = None,
    create_pr: bool | None = None,
    tokenizer: Any = None,
) -> str:
    """Uploads what :func:`save_pretrained` writes, in one commit; the repository is made if need be.

    Args:
        model: of :func:`corank.quantize` or :func:`corank.load`.
        repo_id: "user/name".
        card: for the README.md.
        commit_message: of the commit.
        private: whether a new repository is private; None as the hub decides.
        token: None takes the one of ``hf auth login``.
        branch: to commit to; None for "main".
        create_pr: open a pull request instead.
        tokenizer: as :func:`save_pretrained`.

    Returns:
        The address of the commit.

    Raises:
        ModelError, ConfigError: as :func:`save_pretrained`. OutputError: when the hub refuses or is not reached.
    """
    client = hub_client()
    with tempfile.TemporaryDirectory(prefix="corank-") as folder:
        save_pretrained(model, folder, card=card, repo_id=repo_id, tokenizer=tokenizer)
        try:
            api = client.HfApi(token=token, library_name="corank", library_version=version("corank"))
            name = api.create_repo(repo_id=repo_id, private=private, exist_ok=True).repo_id
            commit = api.upload_folder(
                repo_id=name,
                repo_type="model",
                folder_path=folder,
                commit_message=commit_message,
                revision=branch,
                create_pr=create_pr,
            )
        except Exception as error:  # the hub's client raises errors of many kinds
            raise OutputError(f"cannot push to {repo_id!r}: {_first(error)}") from error
    return str(commit)


@recording()
def from_pretrained(
    name: str | Path,
    model: nn.Module | Callable[[], nn.Module],
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    packed: bool | str = False,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> nn.Module:
    """The quantized model of a repository on the hub, or of a folder; see :func:`corank.load`.

    Args:
        name: a folder, or "user/name" on the hub.
        model: the float network's code, as a module (it is copied; its weights do not matter) or a function without
            arguments that makes one.
        device: where the result goes.
        dtype: precision of the result; None: that of the model that was saved.
        packed: whether codes stay packed in memory, as in :func:`corank.load`.
        revision, token, cache_dir, force_download, local_files_only: as in ``huggingface_hub.hf_hub_download``.

    Raises:
        ArtifactError: for a repository that is not reached or holds no corank model, an unsound file, or one that
            does not fit the model.
        ConfigError: when ``model`` is neither, or where huggingface_hub is needed and not installed.
    """
    folder = Path(name)
    if folder.is_dir():
        held = [path for path in (folder / WEIGHTS_OF_TRANSFORMERS, folder / WEIGHTS) if path.is_file()]
        if not held or (held[0].name != WEIGHTS and not holds_codes(held[0])):
            raise ArtifactError(f"{folder} holds no {WEIGHTS}; write one with corank.save_pretrained(model, folder)")
        return load(held[0], model, device, dtype, packed)
    client = hub_client()

    def fetch(file: str) -> str:
        return client.hf_hub_download(
            repo_id=str(name),
            filename=file,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            library_name="corank",
            library_version=version("corank"),
        )

    try:
        path = fetch(_weights(fetch(CONFIG)))  # the hub counts downloads by the configuration
    except Exception as error:  # the hub's client raises errors of many kinds
        raise ArtifactError(
            f"{name} is neither a folder nor a corank repository that could be fetched: {_first(error)}"
        ) from error
    return load(path, model, device, dtype, packed)


def _weights(config: str) -> str:
    """The name of the file of weights that a ``config.json`` tells, of the two that there are."""
    told = json.loads(read_at_most(config, _MOST))
    facts_in = told.get("quantization_config") if isinstance(told, dict) else None
    named = facts_in.get("weights") if isinstance(facts_in, dict) else None
    return WEIGHTS_OF_TRANSFORMERS if named == WEIGHTS_OF_TRANSFORMERS else WEIGHTS


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

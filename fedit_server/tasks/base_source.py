"""Where a task's base model is looked at: a folder, a local copy of a hub model, or the hub's own metadata."""

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedit_protocol.base_files import CARD_BYTES, WEIGHTS_ENDING, base_manifest, licence_in, pinned
from fedit_protocol.errors import ConfigError, ModelError
from fedit_protocol.ids import Digest
from fedit_protocol.task import BaseModelSpec
from fedit_server.tasks.base_model import BaseModel, describe, hash_file, read_folder


def read_base(spec: BaseModelSpec, local: Path | None) -> BaseModel:
    """Return the base model of a task: blocking, so call it in a thread.

    `local` is a folder that the operator vouches for (`--base DIR`). Else `spec.model` is a folder, or a hub id that is
    read from the Hugging Face cache or, without downloading the weights, from the hub. Raises ModelError: M001 if
    nothing is found, M002 if the files are not those that the task pins.
    """
    found = _find(spec, local)
    if spec.digest and found.digest != spec.digest:
        raise ModelError(
            f"the base model has the digest {found.digest}, but the task pins {spec.digest}",
            code="M002",
            where=spec.model,
            fix="take the revision that the task was made for, or leave base.digest empty",
        )
    return found


def local_licence(spec: BaseModelSpec) -> str:
    """Return the licence that the card of a base on this machine names, or "" where none does; asks no hub."""
    found = _folder(spec.model) or (_cached(spec) if spec.model.count("/") == 1 else None)
    card = found / "README.md" if found else None
    if card is None or not card.is_file():
        return ""
    with card.open("rb") as file:
        return licence_in(file.read(CARD_BYTES))


def _find(spec: BaseModelSpec, local: Path | None) -> BaseModel:
    if local is not None:
        if not local.is_dir():
            raise ConfigError(
                f"--base {local} is not a folder",
                code="C012",
                where="command line",
                fix="name the folder that holds config.json and the safetensors, or leave --base out",
            )
        return read_folder(local)
    if folder := _folder(spec.model):
        return read_folder(folder)
    if spec.model.startswith(("/", "./", "../", "~")) or spec.model.count("/") != 1:
        raise ModelError(f"there is no folder {spec.model}, and it is no hub id (org/name)", where="base.model")
    cached = _cached(spec)
    return read_folder(cached) if cached else _from_hub(spec)


def _folder(model: str) -> Path | None:
    """Return the folder that a base is named by, or None: whoever writes a task may write anything there."""
    with suppress(OSError, RuntimeError, ValueError):  # too long, nobody's home, a NUL
        folder = Path(model).expanduser()
        return folder if folder.is_dir() else None
    return None


def _cached(spec: BaseModelSpec) -> Path | None:
    """Return the snapshot folder in the Hugging Face cache if it holds a whole model."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(spec.model, revision=spec.revision or None, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    complete = (folder / "config.json").exists() and any(folder.glob(f"*{WEIGHTS_ENDING}"))
    index = folder / "model.safetensors.index.json"
    if complete and index.exists():
        wanted = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        complete = all((folder / name).exists() for name in wanted)
    return folder if complete else None


def _from_hub(spec: BaseModelSpec) -> BaseModel:
    """Ask the hub for digests and shapes; only the small files travel."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        raise _absent(spec, "and HF_HUB_OFFLINE forbids asking the hub")
    api, revision = HfApi(), spec.revision or None
    try:
        info = api.model_info(spec.model, revision=revision, files_metadata=True)
        files: dict[str, Any] = {entry.rfilename: entry for entry in info.siblings or []}
        digests = {name: _hub_digest(spec, api, files[name], info.sha) for name in pinned(files)}
        config = json.loads(Path(api.hf_hub_download(spec.model, "config.json", revision=info.sha)).read_text("utf-8"))
        metadata = api.get_safetensors_metadata(spec.model, revision=info.sha)
    except Exception as error:  # the hub lets its HTTP library's errors through, which derive from Exception alone
        raise _absent(spec, f"and the hub does not give it: {type(error).__name__}") from error
    shapes = {
        name: tuple(tensor.shape) for file in metadata.files_metadata.values() for name, tensor in file.tensors.items()
    }
    try:
        found = describe(base_manifest(digests), config, shapes, spec.model)
        return replace(found, size=sum(files[name].size or 0 for name in digests))
    except ValueError as error:
        raise ModelError(f"{spec.model} is no base model: {error}", code="M003", where="base.model") from error


def _hub_digest(spec: BaseModelSpec, api: Any, entry: Any, commit: str | None) -> Digest:
    """Large files carry their SHA-256 on the hub; small ones are fetched and hashed."""
    if entry.lfs is not None:
        return Digest(f"sha256:{entry.lfs.sha256}")
    return hash_file(Path(api.hf_hub_download(spec.model, entry.rfilename, revision=commit)))


def _absent(spec: BaseModelSpec, reason: str) -> ModelError:
    return ModelError(
        f"the base model {spec.model} is not on this machine, {reason}",
        where="base.model",
        fix="fedit-server up --base FOLDER_WITH_THE_MODEL …",
    )

"""A base that no task names yet: its shapes from a folder or from the hub, and the task that `fit` imagines on it."""

import json
from pathlib import Path
from typing import Any, Final

from fedit_client.base.check import tensors_in
from fedit_client.base.model import is_hub_id
from fedit_client.records.contacts import hub_host, is_offline
from fedit_protocol.base_files import WEIGHTS_ENDING, pinned
from fedit_protocol.base_shapes import read_shapes
from fedit_protocol.errors import ModelError
from fedit_protocol.task import Task, TaskDocument

_HUB_S: Final = 20
_NO_DIGEST: Final = "sha256:" + "0" * 64


def imagined(model: str, joined: TaskDocument | None) -> TaskDocument:
    """Return the document of the joined task on another base, or of a task with every setting at its default.

    Reads headers of weights only, of a hub model through the hub; call it off the event loop. Raises ModelError M001
    if nothing is known of the base here, M003 if it is none, M009 if no linear layer of it takes the task's adapter;
    ConfigError C023 or C041 if one is too narrow for the task's method.
    """
    config, shapes, size = _of_folder(Path(model).expanduser()) or _of_hub(model)
    values: dict[str, Any] = joined.task.model_dump() if joined else {"id": "fit", "title": "Fit", "base": {}}
    task = Task.model_validate({**values, "base": {**values["base"], "model": model, "digest": _NO_DIGEST}})
    try:
        return TaskDocument.of(task, read_shapes(config, shapes), size)
    except ValueError as error:
        raise ModelError(f"the adapter does not fit this base: {error}", code="M009", where=model,
                         fix="name a base with the layers q_proj and v_proj") from error  # fmt: skip


_Found = tuple[dict[str, Any], dict[str, tuple[int, ...]], int]


def _of_folder(folder: Path) -> _Found | None:
    if not folder.is_dir():
        return None
    names = pinned(path.name for path in folder.iterdir() if path.is_file())
    shapes = {
        name: entry.shape
        for file in names
        if file.endswith(WEIGHTS_ENDING)
        for name, entry in tensors_in(folder / file).items()
    }
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError("this folder holds no base model: config.json cannot be read", code="M001", where=str(folder),
                         fix="give a folder with config.json and *.safetensors") from error  # fmt: skip
    return config, shapes, sum((folder / name).stat().st_size for name in names)


def _of_hub(model: str) -> _Found:
    if not is_hub_id(model):
        raise _nowhere(f"there is no folder {model}, and it is no hub id (org/name)", model, "fedit-client fit FOLDER")
    if is_offline():
        raise _nowhere(f"the base model {model} is no folder here, and HF_HUB_OFFLINE forbids asking the hub", model,
                       "unset HF_HUB_OFFLINE, or fedit-client fit FOLDER")  # fmt: skip
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise _nowhere(f"the base model {model} is no folder here, and the hub cannot be asked without huggingface-hub",
                       model, 'pip install "fedit[train]"') from error  # fmt: skip
    try:
        return _asked(hub.HfApi(), model)
    except Exception as error:  # the hub lets its HTTP library's errors through, which derive from Exception alone
        raise _refused(hub.errors, error, model) from error


def _asked(api: Any, model: str) -> _Found:
    info = api.model_info(model, files_metadata=True, timeout=_HUB_S)
    sizes = {item.rfilename: item.size or 0 for item in info.siblings or ()}
    metadata = api.get_safetensors_metadata(model, revision=info.sha)
    config = json.loads(Path(api.hf_hub_download(model, "config.json", revision=info.sha)).read_text("utf-8"))
    shapes = {
        name: tuple(tensor.shape) for file in metadata.files_metadata.values() for name, tensor in file.tensors.items()
    }
    return config, shapes, sum(sizes[name] for name in pinned(sizes))


def _refused(kinds: Any, error: Exception, model: str) -> ModelError:
    """The error for what came of asking the hub; `kinds` are the errors of its library."""
    if isinstance(error, kinds.GatedRepoError):
        return _nowhere(f"{model} needs its licence accepted on the hub first, at {hub_host()}/{model}, by you", model,
                        "hf auth login; then run it again")  # fmt: skip
    if isinstance(error, (kinds.RepositoryNotFoundError, kinds.HFValidationError)):
        fix = "fedit-client fit ORG/NAME, as the hub spells it; for a private one first: hf auth login"
        return _nowhere(f"the hub has no model {model}, or does not show it to you", model, fix)
    lacks = isinstance(error, kinds.EntryNotFoundError) and not isinstance(error, kinds.LocalEntryNotFoundError)
    if lacks or isinstance(error, (kinds.NotASafetensorsRepoError, kinds.SafetensorsParsingError)):
        return ModelError(f"what the hub has as {model} is no base model with config.json and *.safetensors",
                          code="M003", where=model, fix="name another one: fedit-client fit ORG/NAME")  # fmt: skip
    return _nowhere(f"the base model {model} is no folder here, and the hub cannot be asked: {type(error).__name__}",
                    model, "check the network, or fedit-client fit FOLDER")  # fmt: skip


def _nowhere(message: str, model: str, fix: str) -> ModelError:
    return ModelError(message, code="M001", where=model, fix=fix)

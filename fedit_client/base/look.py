"""A base that no task names yet: its shapes from a folder or from the hub, and the task that `fit` imagines on it."""

import json
from pathlib import Path
from typing import Any, Final

from fedit_client.base.check import tensors_in
from fedit_protocol.base_files import WEIGHTS_ENDING, pinned
from fedit_protocol.base_shapes import read_shapes
from fedit_protocol.errors import ModelError
from fedit_protocol.task import Task, TaskDocument

_HUB_S: Final = 20
_NO_DIGEST: Final = "sha256:" + "0" * 64


def imagined(model: str, joined: TaskDocument | None) -> TaskDocument:
    """Return the document of the joined task on another base, or of a task with every setting at its default.

    Reads headers of weights only, of a hub model through the hub; call it off the event loop. Raises ModelError M001,
    M003, and M009 if no linear layer of the base takes the task's adapter; ConfigError C023 or C041 if one is too
    narrow for the task's method.
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
    try:
        import huggingface_hub
    except ImportError as error:
        raise _nowhere(model, 'pip install "fedit[train]", which asks the hub') from error
    try:
        api = huggingface_hub.HfApi()
        info = api.model_info(model, files_metadata=True, timeout=_HUB_S)
        sizes = {item.rfilename: item.size or 0 for item in info.siblings or ()}
        metadata = api.get_safetensors_metadata(model, revision=info.sha)
        config = json.loads(Path(api.hf_hub_download(model, "config.json", revision=info.sha)).read_text("utf-8"))
    except Exception as error:  # the hub lets its HTTP library's errors through, which derive from Exception alone
        raise _nowhere(model, "give a folder, check the spelling of org/name, or unset HF_HUB_OFFLINE") from error
    shapes = {
        name: tuple(tensor.shape) for file in metadata.files_metadata.values() for name, tensor in file.tensors.items()
    }
    return config, shapes, sum(sizes[name] for name in pinned(sizes))


def _nowhere(model: str, fix: str) -> ModelError:
    return ModelError(f"nothing is known of the base model {model}", code="M001", where=model, fix=fix)

"""Adapters as bytes: the safetensors form in which every version travels."""

from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedit_protocol.adapter import AdapterLayout, Vector
from fedit_protocol.built_adapter import built_adapter
from fedit_protocol.errors import StorageError
from fedit_protocol.task import TaskDocument


def to_safetensors(layout: AdapterLayout, vector: Vector) -> bytes:
    """Return the bytes of `adapter_model.safetensors`; the same vector always gives the same bytes."""
    return save(layout.unflatten(vector), metadata={"format": "pt"})


def loadable(document: TaskDocument, content: bytes) -> bytes:
    """Return the file that PEFT loads, of a version as it travels; CPU-bound where it is built: call it in a thread."""
    if document.lora is None:
        return content
    return to_safetensors(document.built, built_adapter(document, from_safetensors(document.layout, content)))


def from_safetensors(layout: AdapterLayout, content: bytes) -> Vector:
    """Return the flat vector of a stored adapter; raises StorageError S006 if it does not fit the layout."""
    try:
        return layout.flatten(load(content))
    except (SafetensorError, ValueError) as error:
        raise StorageError(
            f"a stored adapter does not fit its task: {error}",
            code="S006",
            fix="restore the whole data folder from one backup",
        ) from error

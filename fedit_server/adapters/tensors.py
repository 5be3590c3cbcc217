"""Adapters as bytes: the safetensors form in which every version travels."""

from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedit_protocol.adapter import AdapterLayout, Vector
from fedit_protocol.errors import StorageError


def to_safetensors(layout: AdapterLayout, vector: Vector) -> bytes:
    """Return the bytes of `adapter_model.safetensors`; the same vector always gives the same bytes."""
    return save(layout.unflatten(vector), metadata={"format": "pt"})


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

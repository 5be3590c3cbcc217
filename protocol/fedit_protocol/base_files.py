"""Which files of a base model a task pins, and the one digest over them: server and client compute it alike."""

from collections.abc import Iterable, Mapping
from typing import Final

from fedit_protocol.encoding import hash_parts
from fedit_protocol.ids import Digest

_LABEL: Final = "fedit/v1/base"
WEIGHTS_ENDING: Final = ".safetensors"
_PINNED_NAMES: Final = frozenset({"chat_template.jinja", "config.json", "tokenizer.json", "tokenizer_config.json"})


def pinned(names: Iterable[str]) -> list[str]:
    """Return the names that are pinned, sorted: weights, config, tokenizer and chat template, as far as they exist.

    Nothing else may decide what is trained: pickled weights and code beside them are never loaded.
    """
    return sorted(name for name in names if name in _PINNED_NAMES or name.endswith(WEIGHTS_ENDING))


def base_digest(file_digests: Mapping[str, Digest]) -> Digest:
    """Return the digest of a base model from the SHA-256 digest of each pinned file, by file name.

    Raises ValueError if weights or config.json are missing, or if a file is named that is not pinned.
    """
    names = pinned(file_digests)
    if len(names) != len(file_digests):
        raise ValueError("a file is named that is not part of a base model")
    if "config.json" not in names or not any(name.endswith(WEIGHTS_ENDING) for name in names):
        raise ValueError("a base model has a config.json and safetensors weights")
    parts = [part for name in names for part in (name, file_digests[name])]
    return Digest("sha256:" + hash_parts(_LABEL, *parts).hex())

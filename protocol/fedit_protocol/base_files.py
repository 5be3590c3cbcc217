"""Which files of a base model a task pins, the one digest over them, and what none of them may hold."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from fedit_protocol.encoding import PART_LENGTH_BYTES, digest_of, joined_parts
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.ids import Digest

_LABEL: Final = "fedit/v1/base"
MANIFEST_HEAD: Final = joined_parts(_LABEL)
"""How every manifest begins, and no adapter: those begin with the length of a safetensors header."""

MOST_MANIFEST_BYTES: Final = 1024 * 1024
"""Of the largest manifest that is read: some eight thousand files."""

WEIGHTS_ENDING: Final = ".safetensors"
WEIGHTS_INDEX: Final = "model.safetensors.index.json"
PINNED_NAMES: Final = frozenset(
    {
        "added_tokens.json",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "merges.txt",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
        WEIGHTS_INDEX,
    }
)
PICKLE_ENDINGS: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack")
"""Weights in forms that can run code when they are read, or that are not read here."""

CARD_BYTES: Final = 4096
"""How much of a model card is read: its table of facts stands first."""

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_LICENCE_LINE: Final = re.compile(r"^license:\s*([A-Za-z0-9][A-Za-z0-9._+-]{0,39})\s*$", re.MULTILINE)
_CODE_KEYS: Final = frozenset({"auto_map", "custom_pipelines", "trust_remote_code", "quantization_config"})
_KERNEL_ENDING: Final = "_implementation"


def pinned(names: Iterable[str]) -> list[str]:
    """Return the names that are pinned, sorted: weights, index, config, tokenizer, template, as far as they exist.

    Nothing else of a folder is ever shown to what loads it: no pickled weights, code, further templates or adapters.
    """
    return sorted(name for name in names if name in PINNED_NAMES or (name.endswith(WEIGHTS_ENDING) and "/" not in name))


def base_manifest(file_digests: Mapping[str, Digest]) -> bytes:
    """Return the manifest of a base model: its pinned files with the SHA-256 digest of each, as bytes.

    The digest of these bytes is the one that a task pins (SPEC, section 2), so whoever has the task can fetch its
    manifest by digest, from anybody. Raises ValueError if weights or config.json are missing, or if a file is named
    that is not pinned.
    """
    names = pinned(file_digests)
    if len(names) != len(file_digests):
        raise ValueError("a file is named that is not part of a base model")
    if "config.json" not in names or not any(name.endswith(WEIGHTS_ENDING) for name in names):
        raise ValueError("a base model has a config.json and safetensors weights")
    parts = [part for name in names for part in (name, file_digests[name])]
    return joined_parts(_LABEL, *parts)


def base_digest(file_digests: Mapping[str, Digest]) -> Digest:
    """Return the digest of a base model, that of its manifest; raises ValueError as `base_manifest`."""
    return digest_of(base_manifest(file_digests))


def read_manifest(content: bytes) -> dict[str, Digest]:
    """Return the digest of each file that a manifest names; raises ProtocolError `malformed` for other bytes."""
    try:
        label, *parts = [part.decode() for part in _parts(content[:MOST_MANIFEST_BYTES])]
        found = {name: Digest(digest) for name, digest in zip(parts[::2], parts[1::2], strict=True)}
        if label != _LABEL or not all(map(_DIGEST.fullmatch, found.values())) or base_manifest(found) != content:
            raise ValueError("not canonical")
    except ValueError as error:
        raise ProtocolError(ProblemType.MALFORMED, "these bytes are no manifest of a base model") from error
    return found


def _parts(content: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(content):
        first = start + PART_LENGTH_BYTES
        start = first + int.from_bytes(content[start:first], "big")
        yield content[first:start]


def code_in(config: object) -> str | None:
    """Return the key of a JSON file that asks for code beside the libraries' own, or None; tables inside count too."""
    return next(_code_keys(config), None)


def _code_keys(value: object) -> Iterator[str]:
    waiting: list[Any] = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        elif isinstance(item, dict):
            # An implementation with a slash is a repository of compiled kernels.
            yield from (
                key
                for key, inner in item.items()
                if (key in _CODE_KEYS and inner) or (key.endswith(_KERNEL_ENDING) and "/" in str(inner))
            )
            waiting += item.values()


def licence_in(card: bytes) -> str:
    """Return the licence that the beginning of a base's own card (README.md) names, or "" if it names none."""
    text = card[:CARD_BYTES].decode("utf-8", "replace")
    found = _LICENCE_LINE.search(text) if text.startswith("---") else None
    return found.group(1) if found else ""

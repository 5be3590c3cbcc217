"""The protocol's name and version, and the rule that says whether two sides can talk."""

from typing import Final

PROTOCOL_NAME: Final = "FedIT-SA/2"
"""Enters every signature and every round context; changes with any change of bytes that old peers would misread."""

PROTOCOL_VERSION: Final = (2, 2)
"""Major, minor. A new optional field is a new minor; anything else is a new major."""

CLASSES_VERSION: Final = (2, 1)
"""The first with base classes."""

FIRST_VERSION: Final = (2, 0)
"""What check-ins and offers of a task say that needs nothing newer, so that older peers go on."""

SUITE: Final = "X25519-Ed25519-AES256CTR-CHACHA20POLY1305-SHA256"
"""The one cipher suite of this version; a later suite (SPEC, section 3) gets a name of its own."""


def spoken(first: tuple[int, int] = FIRST_VERSION, last: tuple[int, int] = PROTOCOL_VERSION) -> str:
    """Return which versions of a peer are understood, in words for people."""
    return f"{PROTOCOL_NAME} from {first[0]}.{first[1]} to {last[0]}.{last[1]}"


def can_talk(theirs: tuple[int, int], ours: tuple[int, int] = PROTOCOL_VERSION) -> bool:
    """Say whether a peer of version `theirs` is understood: the same major and no newer minor."""
    return theirs[0] == ours[0] and theirs[1] <= ours[1]

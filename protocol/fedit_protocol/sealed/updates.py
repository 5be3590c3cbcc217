"""One device's update, sealed to the key of one round (SPEC, section 15).

The plaintext is d float32 coordinates, little-endian, in layout order, then the weight and each metric of the offer as
8 bytes, little-endian: one length for every device of a task. HPKE binds it to the round and to the device by `info`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from fedit_protocol.adapter import Vector
from fedit_protocol.errors import ProblemType, ProtocolError, SecurityError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.messages import SealedSpec
from fedit_protocol.metrics import ClientReport, encode_report

_HPKE: Final = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
_INFO: Final = b"FedIT/1|update|"
_SEAL_BYTES: Final = 48
"""What the seal adds: the encapsulated key (32) and the tag (16)."""
_FLOAT: Final = np.dtype("<f4")
_NUMBER: Final = np.dtype("<u8")
_WEIGHT: Final = "weight"
_ROUNDING: Final = 1e-6
"""How far beyond the clip a clipped update may be: each coordinate was rounded to float32 (2^-24)."""


@dataclass(frozen=True)
class OpenedUpdate:
    """What one device sealed, checked against the offer."""

    update: Vector = field(repr=False)
    """(d,) float32."""
    weight: int
    figures: dict[str, int] = field(repr=False)
    """Metric name → integer, as in the tail of a masked payload."""


def sealed_length(spec: SealedSpec) -> int:
    """Return the size of a sealed update in bytes; it depends on the task only."""
    return spec.size * _FLOAT.itemsize + (1 + len(spec.metrics)) * _NUMBER.itemsize + _SEAL_BYTES


def seal_update(
    update: Vector, weight: int, report: ClientReport, spec: SealedSpec, ctx0: bytes, device: IdentityKey
) -> bytes:
    """Clip an update, float32 (d,), to its L2 bound and seal it with its weight and figures (RFC 9180, base mode).

    Raises ProtocolError (encoding-refused) on a wrong length, a non-finite value or a weight out of range (C10).
    """
    clipped, figures = clip_update(update, weight, report, spec)
    plain = clipped.tobytes() + _tail({_WEIGHT: weight, **figures}, spec)
    return _HPKE.encrypt(plain, X25519PublicKey.from_public_bytes(spec.key), info=_info(ctx0, device))


def clip_update(update: Vector, weight: int, report: ClientReport, spec: SealedSpec) -> tuple[Vector, dict[str, int]]:
    """Return what a seal covers: the clipped update, float32 (d,), and each metric as an integer.

    Raises ProtocolError (encoding-refused) on a wrong length, a non-finite value or a weight out of range (C10).
    """
    if update.shape != (spec.size,):
        raise _refused(f"the update has shape {update.shape}, not ({spec.size},)")
    if not 1 <= weight <= spec.max_weight:
        raise _refused(f"the weight {weight} lies outside 1..{spec.max_weight}")
    norm = _norm(update)
    if not np.isfinite(norm):
        raise _refused("the update holds NaN or infinite values")
    scale = min(1.0, spec.clip_norm / norm) if norm else 1.0
    clipped = update if scale == 1.0 else update.astype(np.float64) * scale
    return clipped.astype(_FLOAT), encode_report(replace(report, clipped_fraction=float(scale < 1)), weight)


def open_update(
    sealed: bytes, secret: X25519PrivateKey, spec: SealedSpec, ctx0: bytes, device: IdentityKey
) -> OpenedUpdate:
    """Open what a device sealed, and check what the server now can see (S8).

    Raises SecurityError (bad-signature) if it was sealed to another key, for another round or by another device;
    ProtocolError (encoding-refused) for a length, value, norm, weight or figure that no honest device sends.
    """
    if len(sealed) != sealed_length(spec):
        raise _refused(f"a sealed update has {sealed_length(spec)} bytes, not {len(sealed)}")
    try:
        plain = _HPKE.decrypt(sealed, secret, info=_info(ctx0, device))
    except (InvalidTag, ValueError) as error:
        raise SecurityError(ProblemType.BAD_SIGNATURE, "a sealed update does not open") from error
    update = np.frombuffer(plain, _FLOAT, spec.size)
    norm = _norm(update)
    if not np.isfinite(norm):
        raise _refused("the update holds NaN or infinite values")
    if norm > spec.clip_norm * (1 + _ROUNDING):
        raise _refused("the update is longer than the clip allows")
    figures = dict(_figures(plain, spec))
    weight = figures.pop(_WEIGHT)
    if not 1 <= weight <= spec.max_weight:
        raise _refused(f"the weight {weight} lies outside 1..{spec.max_weight}")
    for metric in spec.metrics:
        if figures[metric.name] > metric.maximum:
            raise _refused(f"{metric.name} lies outside its declared range")
    return OpenedUpdate(update, weight, figures)


def _info(ctx0: bytes, device: IdentityKey) -> bytes:
    """The single-shot API has no associated data of its own, so round and device enter the key schedule."""
    return _INFO + ctx0 + device


def _norm(update: Vector) -> float:
    return float(np.linalg.norm(update.astype(np.float64)))


def _names(spec: SealedSpec) -> list[str]:
    return [_WEIGHT, *(metric.name for metric in spec.metrics)]


def _tail(values: dict[str, int], spec: SealedSpec) -> bytes:
    return np.array([values[name] for name in _names(spec)], dtype=_NUMBER).tobytes()


def _figures(plain: bytes, spec: SealedSpec) -> Iterator[tuple[str, int]]:
    numbers = np.frombuffer(plain, _NUMBER, offset=spec.size * _FLOAT.itemsize)
    return ((name, int(number)) for name, number in zip(_names(spec), numbers, strict=True))


def _refused(message: str) -> ProtocolError:
    return ProtocolError(ProblemType.ENCODING_REFUSED, message, code="T020")

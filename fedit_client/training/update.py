"""Trained − global, flattened: the last step before masking. torch ends here."""

import numpy as np

from fedit_protocol.adapter import AdapterLayout, Tensors, Vector
from fedit_protocol.errors import DeviceError


def update_of(trained: Tensors, before: Tensors, layout: AdapterLayout) -> Vector:
    """Return float32 (d,), trained − global, each coordinate one float32 subtraction.

    Raises DeviceError H010 unless every coordinate is finite: one NaN would spoil the sum of a whole cohort.
    """
    return finite(layout.flatten(trained) - layout.flatten(before))


def finite(update: Vector) -> Vector:
    """Return the update; raises DeviceError H010 unless every coordinate of it is finite."""
    if not np.isfinite(update).all():
        raise DeviceError(
            "training diverged: the update holds values that are not finite",
            code="H010",
            fix="ask the operator for a lower training.learning_rate",
        )
    return update

"""Where an array of images has its channels: first, (n, C, H, W), or last, (n, H, W, C)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainkit.data.errors import data_error

Layout = Literal["first", "last"]
FEW_CHANNELS = 4
"""Grey with or without alpha, RGB with or without alpha."""


def detect_layout(shape: tuple[int, int, int]) -> tuple[Layout, bool]:
    """Return (layout, certain) of images of this shape: a side of 1 to 4 is the channels, else equal sides are the image.

    Where neither tells, the layout is `first` and not certain.
    """
    one, two, three = shape
    if (one <= FEW_CHANNELS) != (three <= FEW_CHANNELS):
        return ("first" if one <= FEW_CHANNELS else "last"), True
    if one != three and two in (one, three):
        return ("last" if one == two else "first"), True
    return "first", False


def channels_first(
    images: NDArray[Any], layout: Layout | None
) -> tuple[NDArray[Any], Layout | None, dict[str, Any] | None]:
    """Return (images (n, C, H, W), their layout in the file, details for the report).

    Without `layout` it is detected. Arrays of other dimensions stay as they are and have no layout and no details.
    Raises DataError for a layout of arrays that have no channel axis.
    """
    if images.ndim != 4:
        if layout is not None:
            message = f"X has shape {images.shape}, which has no axis of channels"
            raise data_error("bad_shape", message, "channels", "Leave `channels` out, or give X of (n, H, W, C).")
        return images, None, None
    detected, certain = detect_layout(images.shape[1:])
    found = layout or detected
    details = {"shape": list(images.shape[1:]), "channels": found, "given": layout is not None, "certain": certain}
    return (np.ascontiguousarray(np.moveaxis(images, -1, 1)) if found == "last" else images), found, details

"""The range of the values of images: what augmentation takes for black and white, one for each channel."""

from __future__ import annotations

from collections.abc import Sequence

ValueRange = tuple[float, float]
"""(low, high)"""
UNIT: ValueRange = (0.0, 1.0)
SIGNED: ValueRange = (-1.0, 1.0)
STANDARD_RANGES: tuple[ValueRange, ...] = (UNIT, SIGNED, (0.0, 255.0))
LEAST_SHARE_OF_STANDARD = 0.5
"""Share of a standard range that the values must span to be taken for it: 0..16 is not 0..255."""
LEAST_SHARE_OF_COMMON = 0.1
"""Share of the common range that each channel must span: metres beside degrees have no common range."""


def value_ranges(observed: Sequence[ValueRange]) -> tuple[ValueRange, ...]:
    """Return the range of each channel from the least and largest value of each.

    Channels of one scale have one common range: a standard one ([0, 1], [-1, 1] or [0, 255]) if it holds all values and
    they span at least half of it, else their least and largest value. Channels of different scales are taken one by one.
    A channel with a single value has no scale: it gets the common range if that holds its value.
    """
    varying = [(low, high) for low, high in observed if low < high]
    if not varying:
        return tuple(observed)
    low, high = min(low for low, _ in varying), max(high for _, high in varying)
    if any(bounds[1] - bounds[0] < LEAST_SHARE_OF_COMMON * (high - low) for bounds in varying):
        return tuple(_standard(bounds) for bounds in observed)
    common = _standard((low, high))
    return tuple(common if common[0] <= bounds[0] and bounds[1] <= common[1] else bounds for bounds in observed)


def _standard(observed: ValueRange) -> ValueRange:
    low, high = observed
    for least, most in STANDARD_RANGES:
        if least <= low and high <= most and high - low >= LEAST_SHARE_OF_STANDARD * (most - least):
            return least, most
    return observed


def why_not_colour(channels: int, ranges: Sequence[ValueRange] | None) -> str | None:
    """Return why images are not red, green and blue light, so that they have no hue and saturation; None if they are."""
    if channels != 3:
        return f"these images have {channels} channel{'s' if channels > 1 else ''}, not red, green and blue"
    if ranges is None:
        return None
    if len(set(ranges)) > 1:
        listed = ", ".join(f"{low:g}..{high:g}" for low, high in ranges)
        return f"the three channels have different ranges ({listed}), so they are not red, green and blue"
    low, high = ranges[0]
    if low < 0 and (low, high) != SIGNED:
        return f"the values run from {low:g} to {high:g}, as after standardisation, so they are no amounts of light"
    return None

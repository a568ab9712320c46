"""Decoding of one image file to uint8 pixels, grey or RGB."""

from __future__ import annotations

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from trainkit.data import png
from trainkit.data.reasons import damage_reason

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MOST_PIXELS = 64 * 2**20
MOST_SCANS = 200
"""Scans of a JPEG file; encoders write about ten. Each one costs a pass over all pixels, and takes no more than 20 bytes."""
MOST_FILE_BYTES = 512 * 2**20
"""Largest image file in bytes."""
GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F"})
ORIENTED = frozenset({"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"})
"""Metadata that may hold the orientation of an image."""


def channels(mode: str) -> int:
    """Return 1 for Pillow's grey modes, else 3."""
    return 1 if mode in GREY_MODES or mode.startswith("I;16") else 3


def is_deep(mode: str) -> bool:
    """Return whether pixels of this mode have more than 8 bits."""
    return mode in ("I", "F") or mode.startswith("I;16")


def decode(data: bytes) -> tuple[NDArray[np.uint8], str]:
    """Return (pixels (H, W, 1 or 3), the file's own mode). Raises ValueError with the reason.

    The caller silences Pillow's warnings, once for many images: doing so for each one takes a tenth of the time.
    """
    if (pixels := png.decode_simple_png(data, MOST_PIXELS)) is not None:
        return pixels, "L" if pixels.shape[2] == 1 else "RGB"
    try:
        _check_pixels(*_webp_size(data))
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_pixels(*image.size)
            if image.format == "JPEG":
                _check_scans(data)
            mode = image.mode
            return to_pixels(image), mode
    except MemoryError:
        raise ValueError("not readable as an image: decoding needs more memory than is free") from None
    except Exception as error:
        # Pillow raises many types of errors for damaged files: struct.error, TypeError, ZeroDivisionError ...
        raise ValueError(f"not readable as an image: {reason(error)}") from None


def header(data: bytes) -> tuple[int, int, int]:
    """Return (H, W, channels) from the header, without decoding. Raises ValueError."""
    try:
        _check_pixels(*_webp_size(data))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return image.height, image.width, channels(image.mode)
    except Exception as error:
        raise ValueError(f"not readable as an image: {type(error).__name__}") from None


def _check_pixels(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise ValueError(f"the image has {width} x {height} pixels, more than the limit of {MOST_PIXELS}")


def _check_scans(data: bytes) -> None:
    scans = data.count(b"\xff\xda")
    if scans > MOST_SCANS:
        raise ValueError(f"the image has {scans:,} scans, more than the limit of {MOST_SCANS}")


def _webp_size(data: bytes) -> tuple[int, int]:
    """Return (width, height) of a WebP file by its header, (0, 0) of others.

    Pillow makes room for all pixels of a WebP when it opens the file, before their number can be asked.
    Source: RFC 9649, sections 2.5 to 2.7.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return 0, 0
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF


def reason(error: Exception) -> str:
    """Return why an image cannot be read: too many pixels, no image at all, or how it is damaged."""
    if isinstance(error, ValueError) and str(error).startswith("the image has "):
        return str(error)  # the limit above
    if isinstance(error, Image.DecompressionBombError):
        return "it has far too many pixels"
    if isinstance(error, UnidentifiedImageError):
        return f"it is none of {', '.join(FORMATS)}, or its beginning is damaged"
    return damage_reason(error)


def to_pixels(image: Image.Image) -> NDArray[np.uint8]:
    """Return (H, W, 1) for grey modes, else (H, W, 3): rotated by EXIF, transparency on white, 16 bits reduced to 8.

    The range of floating-point pixels is 0..1, 0..255 or 0..65535, by their maximum.
    """
    image.load()  # some formats store the orientation after the pixels
    if getattr(image, "format", None) in ("TIFF", None) or not ORIENTED.isdisjoint(image.info):
        image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "F"):
        values = np.nan_to_num(np.asarray(image, np.float64))
        most = values.max(initial=0)
        top = 65535.0 if image.mode != "F" or most > 255 else 255.0 if most > 1 else 1.0
        return np.clip(np.rint(values * (255.0 / top)), 0, 255).astype(np.uint8)[..., None]
    grey = image.mode in ("1", "L", "LA", "La")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        colour = np.asarray(Image.alpha_composite(white, rgba).convert("RGB"), np.uint8)
        return colour[..., :1] if grey else colour
    if grey:
        return np.asarray(image if image.mode == "L" else image.convert("L"), np.uint8)[..., None]
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"), np.uint8)


def resize_to(image: NDArray[np.uint8], size: tuple[int, int], depth: int) -> NDArray[np.uint8]:
    """(H, W, wanted) of the given size: grey is repeated, other sizes are resized without keeping their proportions."""
    if image.shape[2] != depth:
        image = np.repeat(image[..., :1], depth, axis=2)
    if image.shape[:2] == size:
        return image
    picture = Image.fromarray(image[..., 0] if depth == 1 else image)
    resized = np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BILINEAR), np.uint8)
    return resized.reshape(*size, depth)

"""The fast PNG decoder returns the same pixels as Pillow, or none."""

from __future__ import annotations

import io
import random
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from trainkit.data import png
from trainkit.data.decoding import MOST_PIXELS, decode

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # which `decode` leaves to its caller

SIDE = 13


def encoded(mode: str, **options: object) -> bytes:
    rng = np.random.default_rng(3)
    shape = (SIDE, SIDE + 4, *((len(mode),) if len(mode) > 1 else ()))
    image = Image.fromarray(rng.integers(0, 256, shape, np.uint8).cumsum(0).astype(np.uint8), mode)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def by_pillow(data: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, str] | str:
    with monkeypatch.context() as patch:
        patch.setattr(png, "decode_simple_png", lambda *_: None)
        return outcome(data)


def outcome(data: bytes) -> tuple[np.ndarray, str] | str:
    try:
        return decode(data)
    except ValueError as error:
        return str(error)


def chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_simple_png_equals_pillow(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for options in ({}, {"compress_level": 0}, {"optimize": True}, {"dpi": (72, 72)}, {"icc_profile": b"x" * 200}):
        data = encoded(mode, **options)
        pixels = png.decode_simple_png(data, MOST_PIXELS)
        expected = by_pillow(data, monkeypatch)
        assert pixels is not None
        assert not isinstance(expected, str)
        assert np.array_equal(pixels, expected[0])
        assert decode(data)[1] == expected[1] == mode


def test_other_png_are_left_to_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", "anything")
    decode_simple_png = encoded("L")
    exif = Image.Exif()
    exif[0x0112] = 6
    special = [
        encoded("RGBA"),
        encoded("LA"),
        encoded("L", transparency=7),
        encoded("RGB", transparency=(1, 2, 3)),
        encoded("L", bits=4),
        encoded("L", pnginfo=text),
        encoded("L", exif=exif),
        decode_simple_png[:33] + chunk(b"acTL", bytes(8)) + decode_simple_png[33:],
        decode_simple_png[:-12],
        decode_simple_png[:-30],
        b"",
        decode_simple_png[:20],
    ]
    for data in special:
        assert png.decode_simple_png(data, MOST_PIXELS) is None
        assert_same(outcome(data), by_pillow(data, monkeypatch))
    assert png.decode_simple_png(decode_simple_png, SIDE) is None, "more pixels than allowed"


def test_damaged_png_is_reported_as_by_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes changed, cut and put in anywhere; with the checksums mended in every second case, so that zlib meets it."""
    draw = random.Random(0)
    whole = encoded("RGB"), encoded("L", compress_level=0)
    for case in range(600):
        data = bytearray(draw.choice(whole))
        for _ in range(draw.randint(1, 3)):
            at = draw.randrange(8, len(data))
            kind = draw.random()
            if kind < 0.6:
                data[at] = draw.randrange(256)
            elif kind < 0.8:
                del data[at : at + draw.randint(1, 20)]
            else:
                data[at:at] = draw.randbytes(draw.randint(1, 9))
        damaged_archive = mended(bytes(data)) if case % 2 else bytes(data)
        assert_same(outcome(damaged_archive), by_pillow(damaged_archive, monkeypatch))


def mended(data: bytes) -> bytes:
    """With the right checksum behind every chunk that is still there."""
    content, at = data[:8], 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4])
        if end + 4 > len(data):
            break
        content += data[at:end] + zlib.crc32(data[at + 4 : end]).to_bytes(4)
        at = end + 4
    return content + data[at:]


def assert_same(ours: tuple[np.ndarray, str] | str, reference: tuple[np.ndarray, str] | str) -> None:
    if isinstance(ours, str) or isinstance(reference, str):
        assert ours == reference
    else:
        assert np.array_equal(ours[0], reference[0])
        assert ours[1] == reference[1]

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.fit_data import images, sequences, spec
from trainkit.data import Dataset
from trainkit.fit.encoding.encode import (
    ArrayEncoder,
    ImageEncoder,
    SequenceEncoder,
    as_float,
    encoder_from_state,
    fit_encoder,
)
from trainkit.spec import JobSpec

RNG = np.random.default_rng(0)
EVERY = np.arange(4)


def fitted(document, data):
    return fit_encoder(JobSpec.model_validate(document), data, np.arange(data.facts.samples))


def test_images_become_channels_first_and_stay_bytes():
    data = images(channels=3)
    encoder = fitted(spec({"kind": "cnn"}), data)
    x = encoder.encode(data.inputs, np.array([3, 1])).x
    assert x.dtype == torch.uint8
    assert torch.equal(x[0], torch.from_numpy(np.array(data.inputs.pixels[3])).permute(2, 0, 1))
    assert as_float(x).max() <= 1.0
    assert torch.equal(as_float(x) * 255, x.float())


@pytest.mark.parametrize("channels", [1, 3])
def test_every_way_to_send_an_image_is_the_same_image(channels):
    encoder = ImageEncoder((channels, 6, 5))
    pixels = RNG.integers(0, 256, (6, 5, channels), dtype=np.uint8)
    expected = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    plain = pixels[..., 0] if channels == 1 else pixels
    picture = Image.fromarray(plain)
    ways = {
        "HWC": pixels,
        "NHWC": pixels[None],
        "CHW": pixels.transpose(2, 0, 1),
        "NCHW": pixels.transpose(2, 0, 1)[None],
        "floats": pixels / 255.0,
        "lists": pixels.tolist(),
        "list of arrays": [pixels],
        "PIL": picture,
        "list of PIL": [picture],
        "flat": pixels.transpose(2, 0, 1).reshape(1, -1),
    }
    if channels == 1:
        ways |= {"HW": plain, "NHW": plain[None], "list of HW": [plain.tolist()], "colour PIL": picture.convert("RGB")}
    for name, x in ways.items():
        assert torch.equal(encoder.parse(x).x, expected), name


def test_images_of_another_size_are_resized_like_pil():
    encoder = ImageEncoder((3, 8, 6))
    picture = Image.fromarray(RNG.integers(0, 256, (20, 11, 3), dtype=np.uint8))
    expected = torch.from_numpy(np.array(picture.resize((6, 8), Image.Resampling.BILINEAR))).permute(2, 0, 1)
    assert torch.equal(encoder.parse([picture, np.asarray(picture)]).x, torch.stack([expected, expected]))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.full((1, 6, 5, 3), 2.0), r"floats lie in \[0, 1\]"),
        (np.full((1, 6, 5, 3), 300), r"0\.\.255"),
        (np.zeros((1, 6, 5, 2)), "images have 3 channels"),
        ([["a"]], "numbers"),
    ],
)
def test_pixels_that_cannot_be_read(x, message):
    with pytest.raises(ValueError, match=message):
        ImageEncoder((3, 6, 5)).parse(np.asarray(x))


def test_arrays():
    encoder = ArrayEncoder((3,))
    assert encoder.parse([1, 2, 3]).x.tolist() == [[1.0, 2.0, 3.0]]
    assert encoder.parse([[1, 2, 3], [4, 5, 6.5]]).x.dtype == torch.float32
    assert ArrayEncoder((1, 2, 2)).parse(np.ones((5, 2, 2))).x.shape == (5, 1, 2, 2)
    assert ArrayEncoder((1,)).parse([7, 8]).x.tolist() == [[7.0], [8.0]]
    with pytest.raises(ValueError, match="each sample has 3 numbers"):
        encoder.parse([[1, 2], [3, 4]])
    with pytest.raises(ValueError, match="numbers"):
        encoder.parse([["a", "b", "c"]])


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("shape", [(3, 6, 5), (3, 3, 3), (1, 6, 5)])
def test_arrays_of_images_are_read_in_the_layout_of_their_file(shape, dtype):
    stored = RNG.integers(0, 256, (8, *shape)).astype(dtype)
    last = stored.transpose(0, 2, 3, 1)
    for layout, given in (("first", stored), ("last", last)):
        data = Dataset.from_arrays(given, np.arange(8) % 2, channels=layout)
        encoder = encoder_from_state(fitted(spec({"kind": "cnn"}), data).state())
        expected = encoder.encode(data.inputs, np.arange(8)).x
        assert torch.equal(expected, torch.from_numpy(stored.copy()))
        one = given[2].tolist() if dtype == "float32" else given[2]
        for name, x, rows in (
            ("many", given, range(8)),
            ("one", one, [2]),
            ("a list", [given[2], given[5]] if dtype == "uint8" else [given[2].tolist(), given[5].tolist()], [2, 5]),
            ("flat", given.reshape(8, -1), range(8)),
            ("one flat", given[2].ravel(), [2]),
        ):
            assert torch.equal(encoder.parse(x).x, expected[list(rows)]), (layout, name)
        if shape != (3, 3, 3):
            other = last if layout == "first" else stored
            assert torch.equal(encoder.parse(other).x, expected), "the shape shows the other layout"


@pytest.mark.parametrize("shape", [(6, 15), (2, 45), (6, 5, 3, 1), (5, 6, 3), (3, 5, 6), (89,)])
def test_samples_of_another_shape_are_refused(shape):
    encoder = ArrayEncoder((3, 6, 5), "last")
    with pytest.raises(ValueError, match=r"each sample has 90 numbers \(shape \[6, 5, 3\]\), got"):
        encoder.parse(np.ones((2, *shape)))


def test_an_image_file_is_no_array_of_numbers():
    picture = Image.fromarray(np.full((6, 5), 200, np.uint8))
    for x in (picture, [picture]):
        with pytest.raises(ValueError, match="trained on arrays of numbers, not on image files: send numbers"):
            ArrayEncoder((1, 6, 5)).parse(x)


def test_a_flat_model_reads_samples_of_any_shape():
    assert torch.equal(ArrayEncoder((6,)).parse(np.arange(12.0).reshape(2, 2, 3)).x, torch.arange(12.0).reshape(2, 6))


def test_encoders_of_earlier_versions_read_channels_first():
    for kind, dtype in (("arrays", np.float32), ("images", np.uint8)):
        encoder = encoder_from_state({"kind": kind, "shape": [3, 3, 3]})
        assert encoder.parse(np.arange(27, dtype=dtype).reshape(1, 3, 3, 3)).x.flatten().tolist() == list(range(27))


def test_uint8_arrays_of_images_are_pixels_and_other_arrays_are_values():
    y = np.arange(8) % 2
    pixels = Dataset.from_arrays(RNG.integers(0, 256, (8, 1, 6, 6), dtype=np.uint8), y)
    assert isinstance(fitted(spec({"kind": "cnn"}), pixels), ImageEncoder)
    assert fitted(spec({"kind": "cnn"}), pixels).encode(pixels.inputs, EVERY).x.shape == (4, 1, 6, 6)
    values = Dataset.from_arrays(RNG.normal(size=(8, 6, 6)), y)
    x = fitted(spec({"kind": "cnn"}), values).encode(values.inputs, EVERY).x
    assert (x.dtype, x.shape) == (torch.float32, (4, 1, 6, 6))


def test_sequences_are_padded_and_their_lengths_kept():
    data = sequences()
    encoder = fitted(spec({"kind": "lstm"}), data)
    encoded = encoder.encode(data.inputs, EVERY)
    assert encoded.side_input is not None
    offsets = data.inputs.offsets
    for i in EVERY:
        sequence = data.inputs.values[offsets[i] : offsets[i + 1]]
        assert encoded.side_input[i] == len(sequence)
        assert np.array_equal(encoded.x[i, : len(sequence)].numpy(), sequence)
        assert not encoded.x[i, len(sequence) :].any()


def test_ways_to_send_sequences():
    encoder = SequenceEncoder(2, None)
    a, b = RNG.normal(size=(3, 2)).astype(np.float32), RNG.normal(size=(5, 2)).astype(np.float32)
    both = encoder.parse([a, b.tolist()])
    assert both.side_input.tolist() == [3, 5]
    assert encoder.parse(a).x.shape == (1, 3, 2)
    assert encoder.parse(np.stack([a, a])).side_input is None
    single = SequenceEncoder(1, None)
    assert single.parse([1.0, 2.0, 3.0]).x.shape == (1, 3, 1)
    assert single.parse([[1.0, 2.0], [3.0]]).side_input.tolist() == [2, 1]
    for bad in (np.zeros((3, 4)), np.zeros((0, 2)), 3.0):
        with pytest.raises(ValueError, match=r"shape|no values"):
            encoder.parse(bad)
    with pytest.raises(ValueError, match="4 steps"):
        SequenceEncoder(2, 4).parse(a)


def test_state_round_trip():
    for encoder in (ImageEncoder((1, 2, 3)), ArrayEncoder((4,)), SequenceEncoder(2, None)):
        again = encoder_from_state(encoder.state())
        assert type(again) is type(encoder)
        assert again.state() == encoder.state()


def test_pictures_are_read_as_at_intake():
    clear = Image.fromarray(np.zeros((6, 5, 4), np.uint8), "RGBA")
    assert ImageEncoder((3, 6, 5)).parse(clear).x.min() == 255, "transparency lies on white"
    assert ImageEncoder((1, 6, 5)).parse(clear).x.min() == 255
    grey = Image.fromarray(RNG.integers(0, 256, (6, 5), dtype=np.uint8))
    three = ImageEncoder((3, 6, 5)).parse(grey).x
    assert torch.equal(three[0, 0], torch.from_numpy(np.array(grey)))
    assert torch.equal(three[0, 0], three[0, 2])
    turned = Image.fromarray(RNG.integers(0, 256, (5, 6), dtype=np.uint8))
    turned.getexif()[0x0112] = 6
    assert torch.equal(ImageEncoder((1, 6, 5)).parse(turned).x[0, 0], torch.from_numpy(np.rot90(turned, -1).copy()))


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 1e39, -1e300])
def test_numbers_that_no_float32_holds_are_refused(number):
    for encoder, x in (
        (ArrayEncoder((2,)), [[1.0, 2.0], [3.0, number]]),
        (SequenceEncoder(2, None), [[[1.0, number]]]),
    ):
        with pytest.raises(ValueError, match=r"the number at position \[.*1\] is .*; numbers are finite"):
            encoder.parse(x)

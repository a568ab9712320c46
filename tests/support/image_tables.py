"""Images with the columns of a table whose answer neither image nor columns tell alone."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
from PIL import Image

from trainkit.data import Column, Dataset, ImageInputs, TableInputs
from trainkit.data.dataset import categories_of, make_dataset

MODEL: dict[str, Any] = {
    "kind": "multimodal",
    "image": {"kind": "cnn", "channels": [4]},
    "columns": {"kind": "mlp", "hidden": [8]},
    "dense": [8],
}


def _samples(n: int, seed: int) -> tuple[Any, Any, Any, Any]:
    """(pixels (n, 6, 6), side 0 or 1, age with noise, answer = bright XOR side), each of the four cases as often."""
    random = np.random.default_rng(seed)
    bright, side = np.arange(n) % 2, np.arange(n) // 2 % 2
    pixels = random.integers(0, 80, (n, 6, 6)) + 150 * bright[:, None, None]
    return pixels.astype(np.uint8), side, random.normal(50, 10, n).round(1), bright ^ side


def image_table(n: int = 96, seed: int = 0, *, numbers: bool = False) -> Dataset:
    """Class `yes` is (bright XOR right); the age says nothing. `numbers`: predict 100 x answer instead."""
    pixels, side, age, answer = _samples(n, seed)
    columns = {"side": categories_of([["left", "right"][one] for one in side]), "age": Column(age)}
    inputs = ImageInputs(pixels[..., None], TableInputs(columns))
    targets, classes = (100.0 * answer, None) if numbers else (answer.astype(np.int64), ["no", "yes"])
    return make_dataset("image_table", inputs, targets, classes, None, target="label")


def png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def zipped(files: dict[str, bytes | str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for name, data in files.items():
            bundle.writestr(name, data)
    return buffer.getvalue()


def archive(n: int = 96, seed: int = 0, *, first: int | None = None, labels: bool = True) -> bytes:
    """The (first) samples as a zip of PNG files and a table in the German dialect: semicolons and decimal commas."""
    pixels, side, age, answer = _samples(n, seed)
    rows = ["file;side;age;label" if labels else "file;side;age"]
    count = n if first is None else first
    for i in range(count):
        row = f"{i:03d}.png;{['left', 'right'][side[i]]};{str(age[i]).replace('.', ',')}"
        rows.append(f"{row};{['no', 'yes'][answer[i]]}" if labels else row)
    files: dict[str, bytes | str] = {f"images/{i:03d}.png": png(pixels[i]) for i in range(count)}
    return zipped({**files, "images.csv": "\n".join(rows) + "\n"})

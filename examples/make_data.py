"""Write the examples' real data: scikit-learn's handwritten digits as PNG class folders, and a table as CSV.

    python examples/make_data.py FOLDER

FOLDER/digits.zip holds one folder a class; FOLDER/held-out-7.png is a digit that the zip does not contain.
"""

import argparse
import csv
import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_digits

HELD_OUT_CLASS = 7


def png(pixels: np.ndarray) -> bytes:
    """PNG bytes of an 8 x 8 digit whose values run from 0 to 16."""
    buffer = io.BytesIO()
    Image.fromarray(np.rint(pixels * (255 / 16)).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_digits(folder: Path) -> None:
    """digits.zip (1796 images in 10 folders) and the one digit kept out of it."""
    digits = load_digits()
    held_out = int(np.flatnonzero(digits.target == HELD_OUT_CLASS)[-1])
    (folder / f"held-out-{HELD_OUT_CLASS}.png").write_bytes(png(digits.images[held_out]))
    with zipfile.ZipFile(folder / "digits.zip", "w", zipfile.ZIP_STORED) as archive:
        for index, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            if index != held_out:
                archive.writestr(zipfile.ZipInfo(f"digits/{label}/{index:04d}.png"), png(image))


def write_cancer(folder: Path) -> None:
    """cancer.csv: 569 rows, 30 measurements, the last column `diagnosis`; and one row to predict."""
    data = load_breast_cancer()
    names = [name.replace(" ", "_") for name in data.feature_names]
    with (folder / "cancer.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*names, "diagnosis"])
        for row, label in zip(data.data[1:], data.target[1:], strict=True):
            writer.writerow([*row, data.target_names[label]])
    with (folder / "one-sample.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerow(data.data[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("demo-output"))
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    write_digits(folder)
    write_cancer(folder)


if __name__ == "__main__":
    main()

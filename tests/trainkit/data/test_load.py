"""From an upload to a prepared dataset: detection of the kind, report, and atomic folders."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_iris

from trainkit.data import DataError, Dataset, ImageInputs, load_dataset, prepare
from trainkit.data.load import detect_kind


def png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as bundle:
        for name, data in files.items():
            bundle.writestr(name, data)
    return path


PICTURE = png(np.zeros((2, 2), np.uint8))
CSV = b"a,b\n1,x\n2,y\n"


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"a/1.png": PICTURE, "b/1.png": PICTURE, "README.txt": b""}, "images"),
        ({"a/1.png": PICTURE, "b/1.png": PICTURE, "notes.csv": CSV}, "images"),
        ({"images/1.png": PICTURE, "labels.csv": CSV}, "image_table"),
        ({"x/train-images-idx3-ubyte.gz": b"", "x/train-labels-idx1-ubyte.gz": b""}, "idx"),
        ({"X.npy": b"", "y.npy": b""}, "arrays"),
        ({"values.npy": b"", "offsets.npy": b""}, "sequences"),
        ({"X.npy": b"", "lengths.npy": b""}, "sequences"),
        ({"table.csv": CSV, "README.txt": b""}, "table"),
    ],
)
def test_detect_kind_of_archives(files: dict[str, bytes], kind: str, tmp_path: Path) -> None:
    assert detect_kind(zipped(tmp_path / "upload", files))[0] == kind


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (CSV, "table"),
        (b'{"a": 1}\n', "table"),
        (b' [ {"a": 1}]', "table"),
        (b"PAR1....", "table"),
        (b"\x93NUMPY...", "arrays"),
    ],
)
def test_detect_kind_of_files(content: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(content)
    assert detect_kind(tmp_path / "upload")[0] == kind


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty"),
        (b"PK\x03\x04 but not really", "damaged_archive"),
        (b"\x1f\x8b but not really", "damaged_archive"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "wrong_file_type"),
        (gzip.compress(gzip.compress(CSV)), "damaged_archive"),
        (gzip.compress(b"1," * (10 << 20)), "bomb"),
    ],
    ids=["nothing", "zip", "gzip", "png", "twice", "bomb"],
)
def test_detect_kind_refuses_unknown_files(content: bytes, code: str, tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_dataset(tmp_path / "upload")
    assert caught.value.problems[0].code == code


@pytest.mark.parametrize("files", [{}, {"a.docx": b"x"}, {"a.csv": CSV, "b.csv": CSV}])
def test_detect_kind_refuses_unknown_archives(files: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(DataError):
        load_dataset(zipped(tmp_path / "upload", files))


def test_a_gzipped_table(tmp_path: Path) -> None:
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(CSV))
    assert load_dataset(tmp_path / "t.csv.gz", target="b").facts.target == "b"


@pytest.mark.parametrize("kind", ["images", "image_table", "table", "arrays", "idx", "sequences", "soup"])
def test_load_dataset_refuses_a_wrong_kind(kind: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"\x00\x01 neither this nor that")
    archive = zipped(tmp_path / "archive", {"a.docx": b"x", "b.docx": b"\x00"})
    for path in (tmp_path / "folder", tmp_path / "file", archive, tmp_path / "absent"):
        with pytest.raises(DataError):
            load_dataset(path, kind=kind)


def test_real_digits_as_class_folders(tmp_path: Path) -> None:
    digits = load_digits()
    images = (digits.images[:200] * 15.9375).astype(np.uint8)
    files = {
        f"{label}/{i:04}.png": png(image)
        for i, (label, image) in enumerate(zip(digits.target[:200], images, strict=True))
    }
    facts, report = prepare(zipped(tmp_path / "d.zip", files), tmp_path / "prepared")
    dataset = Dataset.load(tmp_path / "prepared")
    assert dataset.facts == facts
    assert isinstance(dataset.inputs, ImageInputs)
    np.testing.assert_array_equal(dataset.inputs.pixels[..., 0], images)
    assert dataset.targets is not None
    np.testing.assert_array_equal(dataset.targets, digits.target[:200])
    assert json.loads(json.dumps(report))["classes"] == {
        str(k): int((digits.target[:200] == k).sum()) for k in range(10)
    }
    assert load_dataset(tmp_path / "prepared").facts == facts


def test_real_iris_as_a_table(tmp_path: Path) -> None:
    iris = load_iris()
    rows = [",".join([*map(repr, x.tolist()), str(y)]) for x, y in zip(iris.data, iris.target, strict=True)]
    (tmp_path / "iris.csv").write_text("\n".join([",".join([*iris.feature_names, "target"]), *rows]))
    facts, report = prepare(tmp_path / "iris.csv", tmp_path / "prepared", target="target")
    assert (facts.samples, facts.target) == (150, "target")
    assert Dataset.load(tmp_path / "prepared").with_target("target").facts.classes == {"0": 50, "1": 50, "2": 50}
    assert [finding["code"] for finding in report["findings"]] == ["duplicates"]


def test_sixty_thousand_images_pass_through(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60_000, 28, 28), np.uint8)
    files = {
        "train-images-idx3-ubyte": struct.pack(">IIII", 0x803, *pixels.shape) + pixels.tobytes(),
        "train-labels-idx1-ubyte": struct.pack(">II", 0x801, 60_000) + bytes(i % 10 for i in range(60_000)),
    }
    facts, _ = prepare(zipped(tmp_path / "d.zip", files), tmp_path / "prepared")
    assert (facts.samples, facts.input_shape) == (60_000, (1, 28, 28))


def test_prepare_of_a_refused_upload_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a,b\n1\n2\n")
    with pytest.raises(DataError):
        prepare(tmp_path / "t.csv", tmp_path / "prepared")
    assert [file.name for file in tmp_path.iterdir()] == ["t.csv"]

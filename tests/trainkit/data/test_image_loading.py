"""Loading of many images: all kinds of archives, wrong guesses of the shape, workers that die."""

from __future__ import annotations

import faulthandler
import gzip
import io
import os
import signal
import tarfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from PIL import Image

from trainkit.data import DataError, ImageInputs, image_loading, load_dataset, prepare, process_pool
from trainkit.data.dataset import Dataset
from trainkit.data.pixels import PixelFile

RANDOM = np.random.default_rng(0)


def picture(pixels: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def noise(count: int, size: tuple[int, ...] = (5, 4)) -> dict[str, bytes]:
    return {f"{'ab'[i % 2]}/{i:04d}.png": picture(RANDOM.integers(0, 256, size).astype(np.uint8)) for i in range(count)}


def folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def tar(path: Path, files: dict[str, bytes], mode: str) -> Path:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w" if mode == "zst" else f"w:{mode}") as bundle:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            bundle.addfile(info, io.BytesIO(data))
    raw = buffer.getvalue()
    path.write_bytes(zstandard.ZstdCompressor().compress(raw) if mode == "zst" else raw)
    return path


def pixels_of(dataset: Dataset) -> np.ndarray[Any, Any]:
    assert isinstance(dataset.inputs, ImageInputs)
    return np.asarray(dataset.inputs.pixels)


@pytest.mark.parametrize("mode", ["", "gz", "bz2", "xz", "zst"])
def test_load_images_tar_equals_folder(mode: str, tmp_path: Path) -> None:
    files = dict(sorted(noise(150).items()))
    whole = load_dataset(folder(tmp_path / "d", files))
    packed = load_dataset(tar(tmp_path / "x", files, mode))
    np.testing.assert_array_equal(pixels_of(packed), pixels_of(whole))
    assert packed.targets is not None
    assert whole.targets is not None
    np.testing.assert_array_equal(packed.targets, whole.targets)


def test_a_truncated_zstandard_tar_and_one_that_wants_a_huge_window(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar.zst", noise(50, (40, 40)), "zst")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError) as caught:
        load_dataset(path)
    assert caught.value.problems[0].code == "damaged_archive"


@pytest.mark.parametrize("mode", ["", "gz"])
def test_a_tar_cut_between_two_entries_is_no_smaller_dataset(mode: str, tmp_path: Path) -> None:
    """Nothing else tells: every entry that is left is whole, and a compression's checksum is right where tar was cut."""
    whole = tar(tmp_path / "whole.tar", noise(50), "").read_bytes()
    with tarfile.open(tmp_path / "whole.tar") as bundle:
        cut = bundle.getmembers()[30].offset
    path = tmp_path / "x.tar"
    for end, refused in ((cut, True), (cut + 512, True), (len(whole), False)):
        data = whole[:end]
        path.write_bytes(gzip.compress(data) if mode else data)
        if not refused:
            assert len(pixels_of(load_dataset(path))) == 50
            continue
        with pytest.raises(DataError) as caught:
            load_dataset(path)
        assert caught.value.problems[0].code == "damaged_archive"
        assert "cut off" in str(caught.value)


@pytest.mark.parametrize("archived", [False, True])
def test_load_images_corrects_a_wrong_guess_of_the_shape(archived: bool, tmp_path: Path) -> None:
    # the first images, all that is looked at of a tar, are small and grey; most are larger, the last has colour
    files = {f"a/{i:04d}.png": picture(np.full((2, 2), i, np.uint8)) for i in range(70)}
    files |= {f"b/{i:04d}.png": picture(np.full((4, 6), i, np.uint8)) for i in range(100)}
    files["c/0.png"] = picture(np.full((4, 6, 3), (1, 2, 3), np.uint8))
    path = tar(tmp_path / "x.tar", files, "") if archived else folder(tmp_path / "d", files)
    pixels = pixels_of(load_dataset(path))
    assert pixels.shape == (171, 4, 6, 3)
    assert pixels[69].tolist() == np.full((4, 6, 3), 69).tolist()
    assert pixels[170, 0, 0].tolist() == [1, 2, 3]


def test_prepare_writes_pixels_in_place(tmp_path: Path) -> None:
    files = noise(130)
    files["a/0002.png"] = b"no image"
    facts, report = prepare(folder(tmp_path / "d", files), tmp_path / "prepared")
    assert facts.samples == 129
    assert [item["where"] for item in report["unreadable"]] == ["a/0002.png"]
    dataset = Dataset.load(tmp_path / "prepared")
    names = sorted(name for name in files if name != "a/0002.png")
    expected = [np.asarray(Image.open(io.BytesIO(files[name]))) for name in names]
    np.testing.assert_array_equal(pixels_of(dataset)[..., 0], np.stack(expected))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["d", "prepared"]


def test_prepare_of_a_refused_dataset_leaves_no_files(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        prepare(folder(tmp_path / "d", {"a/1.png": b"no", "b/1.png": b"no"}), tmp_path / "prepared")
    assert [file.name for file in tmp_path.iterdir()] == ["d"]


def test_load_images_memory_is_bounded(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", {f"{'ab'[i % 2]}/{i}.png": one for i, one in enumerate([big_picture()] * 60)}, "")
    tracemalloc.start()
    try:
        facts, _ = prepare(path, tmp_path / "prepared")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert facts.samples == 60
    # 60 images of 768 KiB each are 45 MiB; a batch of files and a block of pixels stay far below
    assert peak < 24 * 2**20


def big_picture() -> bytes:
    return picture(RANDOM.integers(0, 256, (512, 512, 3)).astype(np.uint8) // 128 * 128)


def dying(how: Callable[[], None]) -> Callable[[bytes], Any]:
    original = image_loading.decode

    def decode(data: bytes) -> Any:
        if data.endswith(b"POISON"):
            how()
        return original(data)

    return decode


def crash() -> None:
    faulthandler.disable()  # whose report of a crash that is meant would fill the log
    os.kill(os.getpid(), signal.SIGSEGV)


@pytest.mark.skipif(not process_pool.can_fork(), reason="helpers are forked on Linux only")
@pytest.mark.parametrize("archived", [False, True])
def test_load_images_reports_an_image_that_crashes_the_decoder(
    archived: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_loading, "decode", dying(crash))
    files = noise(100)
    files["b/0077.png"] += b"POISON"
    path = tar(tmp_path / "x.tar", files, "") if archived else folder(tmp_path / "d", files)
    facts, report = prepare(path, tmp_path / "prepared")
    assert facts.samples == 99
    (bad,) = report["unreadable"]
    assert bad["where"] == "b/0077.png"
    assert "SIGSEGV" in bad["reason"]


@pytest.mark.skipif(not process_pool.can_fork(), reason="helpers are forked on Linux only")
def test_load_images_reports_an_image_that_exceeds_the_time_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_loading, "decode", dying(lambda: time.sleep(3600)))
    monkeypatch.setattr(process_pool, "TASK_SECONDS", 5.0)
    files = noise(30)
    files["a/0004.png"] += b"POISON"
    _, report = prepare(folder(tmp_path / "d", files), tmp_path / "prepared")
    assert [item["where"] for item in report["unreadable"]] == ["a/0004.png"]
    assert "took more than" in report["unreadable"][0]["reason"]


def test_pool_leaves_no_workers() -> None:
    with process_pool.ProcessPool(lambda task: (task, os.getpid()), 3) as pool:
        results = pool.map(iter(range(100)))
        pids = {next(results)[1][1] for _ in range(30)}
    assert os.getpid() not in pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_pool_raises_exceptions_of_the_work() -> None:
    def refuse(task: int) -> None:
        raise DataError([image_loading.DataProblem("some_code", "a reason", f"entry {task}")])

    with pytest.raises(DataError, match="entry 1: a reason") as caught:
        list(process_pool.run(refuse, [1]))
    assert caught.value.problems[0].code == "some_code"


def test_pixel_file_moves_kept_rows_to_the_front(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainkit.data.pixels.BLOCK_BYTES", 5)
    store = PixelFile((1, 2), 1)
    rows = np.arange(40, dtype=np.uint8).reshape(20, 1, 2, 1)
    store.write(0, rows)
    kept = [0, 1, 4, 5, 6, 13, 19]
    np.testing.assert_array_equal(store.finish(kept), rows[kept])

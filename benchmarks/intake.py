"""Intake of 60,000 small images against a bare decode loop over the same zip on the same cores, in the same run.

    python -m benchmarks intake

Intake is `trainkit.data.prepare`: kind detected, names checked, every image decoded and brought to one size, the prepared
form and the report written. The loop reads and decodes each entry, on as many processes, and keeps nothing.
"""

from __future__ import annotations

import io
import os
import statistics
import tempfile
import time
import zipfile
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from examples.real_data import fetch
from trainkit.data import ImageInputs, load_dataset, prepare
from trainkit.data.process_pool import cores

CACHE = Path(".cache/data")
ROUNDS = 3
IMAGES = 60_000
LIMIT = 1.3


def make_data(folder: Path, kind: str, count: int = IMAGES) -> Path:
    """Write `count` training images of Fashion-MNIST as PNG or JPEG files in class folders into one zip."""
    dataset = load_dataset(fetch("fashion-mnist", CACHE))
    assert isinstance(dataset.inputs, ImageInputs)
    assert dataset.targets is not None
    target = folder / f"fashion-{kind.lower()}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as bundle:
        for i, (pixels, label) in enumerate(zip(dataset.inputs.pixels[:count], dataset.targets[:count], strict=True)):
            buffer = io.BytesIO()
            Image.fromarray(np.asarray(pixels)[..., 0]).save(buffer, kind)
            bundle.writestr(f"{label}/{i:05d}.{kind.lower()}", buffer.getvalue())
    return target


def decode_all(path: Path, processes: int) -> None:
    """The baseline: only read and decode, spread over the processes."""
    context = get_context("fork")
    workers = [context.Process(target=_decode_some, args=(path, start, processes)) for start in range(processes)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit("the decode loop failed")


def _decode_some(path: Path, start: int, step: int) -> None:
    with zipfile.ZipFile(path) as bundle:
        for info in bundle.infolist()[start::step]:
            with Image.open(io.BytesIO(bundle.read(info))) as image:
                np.asarray(image)


def compare(kind: str) -> None:
    """Measure both in turns, so that other load affects both; print each time and the ratio of the medians."""
    with tempfile.TemporaryDirectory() as folder:
        path = make_data(Path(folder), kind)
        loop, intake = [], []
        for turn in range(ROUNDS):
            begun = time.perf_counter()
            decode_all(path, cores())
            loop.append(time.perf_counter() - begun)
            os.utime(path)  # invalidates the cached directory of the archive
            begun = time.perf_counter()
            facts, _ = prepare(path, Path(folder) / f"prepared-{turn}")
            intake.append(time.perf_counter() - begun)
            print(f"round {turn + 1}: decode loop {loop[-1]:.2f} s, intake {intake[-1]:.2f} s", flush=True)
        ratio = statistics.median(intake) / statistics.median(loop)
        print(f"{facts.samples} {kind} images of {path.stat().st_size} bytes on {cores()} cores")
        print(f"{kind}: intake / decode loop: {ratio:.2f} (limit {LIMIT}) {'ok' if ratio <= LIMIT else 'TOO SLOW'}")


def main() -> None:
    """Compare for PNG and JPEG."""
    for kind in ("PNG", "JPEG"):
        compare(kind)


if __name__ == "__main__":
    main()

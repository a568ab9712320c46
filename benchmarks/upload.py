"""A raw upload of some GiB over HTTP against a plain hash-and-write of the same file: rate, and the API's memory.

    python -m benchmarks upload                      2 GiB
    TRAINKIT_BENCH_GIB=10 python -m benchmarks upload

`curl` streams the file to `PUT /v1/datasets`; the floor reads it in blocks of 4 MiB, hashes them (SHA-256), writes them to
the same disk and syncs. In turn; the API process's resident memory is sampled all the while.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

import psutil

from benchmarks.service import service

ROUNDS = 3
BLOCK = 4 << 20


def write_table(path: Path, size: int) -> None:
    """A text file that is a valid table, so that nothing is special about it but its size."""
    numbers = random.Random(0)
    rows = "".join(f"{numbers.random()},{numbers.random()},{numbers.randrange(2)}\n" for _ in range(100_000)).encode()
    with path.open("wb") as file:
        file.write(b"a,b,label\n")
        while file.tell() < size:
            file.write(rows)


def floor(source: Path, target: Path) -> float:
    """Seconds of reading, hashing, writing and syncing."""
    begun = time.perf_counter()
    digest = hashlib.sha256()
    with source.open("rb") as file, target.open("wb") as copy:
        while block := file.read(BLOCK):
            digest.update(block)
            copy.write(block)
        copy.flush()
        os.fsync(copy.fileno())
    seconds = time.perf_counter() - begun
    target.unlink()
    return seconds


def uploaded(url: str, key: str, source: Path) -> float:
    """Seconds that curl says the upload took, until the answer was there."""
    command = ["curl", "--silent", "--show-error", "--fail", "--request", "PUT", "--upload-file", str(source)]
    command += ["--header", f"Authorization: Bearer {key}", "--output", os.devnull, "--write-out", "%{time_total}"]
    done = subprocess.run(
        [*command, f"{url}/v1/datasets?name=big&kind=weights"], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


class Peak(threading.Thread):
    """Highest resident memory of a process while this runs."""

    def __init__(self, process: psutil.Process) -> None:
        super().__init__(daemon=True)
        self.process, self.done = process, threading.Event()
        self.before = self.highest = process.memory_info().rss

    def run(self) -> None:
        while not self.done.wait(0.02):
            self.highest = max(self.highest, self.process.memory_info().rss)

    def stop(self) -> int:
        """Bytes it grew by."""
        self.done.set()
        self.join()
        return self.highest - self.before


def api_process(port: int) -> psutil.Process:
    """The process that listens there."""
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "uvicorn" in " ".join(line[:4]) and str(port) in line:
            return process
    raise SystemExit("the API's process was not found")


def main() -> None:
    """Print both rates, their ratio, and the growth of memory."""
    gib = float(os.environ.get("TRAINKIT_BENCH_GIB", "2"))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if shutil.disk_usage(folder).free < 4 * gib * 2**30:
            raise SystemExit(f"{4 * gib:.0f} GiB of free disk are needed below {folder}")
        source = folder / "big.csv"
        write_table(source, int(gib * 2**30))
        size = source.stat().st_size
        os.environ.setdefault("TRAINKIT_MAX_UPLOAD_BYTES", str(2 * size))
        plain, ours, growth = [], [], []
        with service(folder) as client:
            key = client.headers["Authorization"].removeprefix("Bearer ")
            process = api_process(client.base_url.port or 0)
            for _ in range(ROUNDS):
                plain.append(floor(source, folder / "copy"))
                peak = Peak(process)
                peak.start()
                ours.append(uploaded(str(client.base_url).rstrip("/"), key, source))
                growth.append(peak.stop())
                time.sleep(1)  # the check of a file that is no safetensors ends at once
        mib = size / 2**20
        ratios = [floor_s / ours_s for floor_s, ours_s in zip(plain, ours, strict=True)]
        print(f"upload of {mib / 1024:.1f} GiB, {ROUNDS} rounds in turn")
        print(f"  hash and write      {mib / median(plain):7.0f} MiB/s")
        print(f"  PUT /v1/datasets    {mib / median(ours):7.0f} MiB/s")
        shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"  rate against floor  {median(ratios):7.2f}   (each round: {shown})")
        print(f"  API memory grew by  {max(growth) / 2**20:7.1f} MiB at most")


if __name__ == "__main__":
    main()

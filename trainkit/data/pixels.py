"""A `.npy` file of images of one size that grows in place and is never held in memory."""

from __future__ import annotations

import errno
import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES = 32 * 2**20


class PixelFile:
    """uint8 (n, H, W, C) on disk, written row by row from any process, in any order.

    Without a `path` it is an unnamed temporary file, which is deleted when it is closed.
    """

    def __init__(self, size: tuple[int, int], channels: int, path: Path | None = None) -> None:
        self.shape = (*size, channels)
        self.row = size[0] * size[1] * channels
        self.path = path
        self._start = len(self._header(0))
        # unbuffered: worker processes write through the inherited descriptor
        self._file = tempfile.TemporaryFile(buffering=0) if path is None else path.open("wb+", buffering=0)  # noqa: SIM115

    def expect(self, count: int) -> None:
        """Raise OSError (ENOSPC) if the disk has no space for `count` rows."""
        disk = os.fstatvfs(self._file.fileno())
        free, needed = disk.f_bavail * disk.f_frsize, count * self.row
        if needed > free:
            height, width, channels = self.shape
            message = f"{count} images of {width} x {height} x {channels} need {needed} bytes, and {free} are free"
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {message}")

    def write(self, position: int, rows: NDArray[np.uint8]) -> None:
        """Rows (k, H, W, C) from `position` on. Raises OSError, for instance when the disk is full."""
        left = np.ascontiguousarray(rows).data.cast("B")
        place = self._start + position * self.row
        while left:
            written = os.pwrite(self._file.fileno(), left, place)
            left, place = left[written:], place + written

    def finish(self, kept: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        """Keep the rows at the increasing positions `kept`, and return them as a read-only memory map."""
        chosen = np.asarray(kept, np.int64)
        moved = np.flatnonzero(chosen != np.arange(len(chosen)))
        if len(moved):
            # rows move to the front, so none is overwritten before it is moved
            for start in range(int(moved[0]), len(chosen), self.rows_a_block):
                some = chosen[start : start + self.rows_a_block]
                self.write(start, self._read(some))
        os.ftruncate(self._file.fileno(), self._start + len(chosen) * self.row)
        os.pwrite(self._file.fileno(), self._header(len(chosen)), 0)
        return self._map(len(chosen))

    def fill_from(self, rows: NDArray[np.uint8], order: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Write `rows[order]` block by block, and return a read-only memory map."""
        for start in range(0, len(order), self.rows_a_block):
            self.write(start, rows[order[start : start + self.rows_a_block]])
        return self.finish(np.arange(len(order)))

    @property
    def rows_a_block(self) -> int:
        """Number of rows in a block."""
        return max(1, BLOCK_BYTES // max(1, self.row))

    def _read(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        rows = np.empty((len(positions), self.row), np.uint8)
        first, last = int(positions[0]), int(positions[-1])
        if last - first + 1 <= 2 * len(positions):
            raw = os.pread(self._file.fileno(), (last - first + 1) * self.row, self._start + first * self.row)
            rows[:] = np.frombuffer(raw, np.uint8).reshape(-1, self.row)[positions - first]
        else:
            for i, position in enumerate(positions.tolist()):
                raw = os.pread(self._file.fileno(), self.row, self._start + position * self.row)
                rows[i] = np.frombuffer(raw, np.uint8)
        return rows

    def _map(self, count: int) -> NDArray[np.uint8]:
        # the map keeps the file open after this object is deleted
        return np.memmap(self._file, np.uint8, "r", self._start, (count, *self.shape))

    def _header(self, count: int) -> bytes:
        """Return the header; NumPy pads it, so its length does not depend on `count`."""
        buffer = io.BytesIO()
        described = {"descr": "|u1", "fortran_order": False, "shape": (count, *self.shape)}
        np.lib.format.write_array_header_1_0(buffer, described)
        return buffer.getvalue()

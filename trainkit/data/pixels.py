"""Images of one size in a file that grows in place: `.npy` from the first byte on, never held in memory."""

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

    Without a `path` the file has no name in the file system and goes when nobody has it open.
    """

    def __init__(self, size: tuple[int, int], channels: int, path: Path | None = None) -> None:
        self.shape = (*size, channels)
        self.row = size[0] * size[1] * channels
        self.path = path
        self._start = len(self._header(0))
        # unbuffered: helpers write at places of their own through the descriptor they inherit
        self._file = tempfile.TemporaryFile(buffering=0) if path is None else path.open("wb+", buffering=0)  # noqa: SIM115

    def expect(self, count: int) -> None:
        """Raises OSError (ENOSPC) when the disk has no room for `count` rows: better now than after an hour's work."""
        disk = os.fstatvfs(self._file.fileno())
        free, needed = disk.f_bavail * disk.f_frsize, count * self.row
        if needed > free:
            height, width, channels = self.shape
            wanted = f"{count} images of {width} x {height} x {channels} need {needed} bytes, and {free} are free"
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {wanted}")

    def write(self, position: int, rows: NDArray[np.uint8]) -> None:
        """Rows (k, H, W, C) from `position` on. Raises OSError, for instance when the disk is full."""
        left = np.ascontiguousarray(rows).data.cast("B")
        place = self._start + position * self.row
        while left:
            written = os.pwrite(self._file.fileno(), left, place)
            left, place = left[written:], place + written

    def finish(self, kept: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        """The rows at the positions `kept`, which rise, as a read-only map of the file; the others are gone."""
        chosen = np.asarray(kept, np.int64)
        moved = np.flatnonzero(chosen != np.arange(len(chosen)))
        if len(moved):
            # to the front, so a row is never written over before it has been moved itself
            for start in range(int(moved[0]), len(chosen), self.rows_a_block):
                some = chosen[start : start + self.rows_a_block]
                self.write(start, self._read(some))
        os.ftruncate(self._file.fileno(), self._start + len(chosen) * self.row)
        os.pwrite(self._file.fileno(), self._header(len(chosen)), 0)
        return self._map(len(chosen))

    def gather(self, rows: NDArray[np.uint8], order: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Fill this file with `rows[order]`, a block at a time; returned as `finish` does."""
        for start in range(0, len(order), self.rows_a_block):
            self.write(start, rows[order[start : start + self.rows_a_block]])
        return self.finish(np.arange(len(order)))

    @property
    def rows_a_block(self) -> int:
        """Rows that are moved at once."""
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
        # the map keeps the file open; this object may go
        return np.memmap(self._file, np.uint8, "r", self._start, (count, *self.shape))

    def _header(self, count: int) -> bytes:
        """NumPy leaves room for the first axis to grow, so the length does not depend on `count`."""
        buffer = io.BytesIO()
        described = {"descr": "|u1", "fortran_order": False, "shape": (count, *self.shape)}
        np.lib.format.write_array_header_1_0(buffer, described)
        return buffer.getvalue()

"""Limits of reading one dataset: columns, cells, unpacked bytes and memory, checked before the bytes are read.

A reader asks before it builds what a file announces. What no header tells is counted while it is read; and a process
that reads what strangers sent has a memory limit of its own besides (`worker.reader_limits`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path

from trainkit.data.errors import data_error

CELL_BYTES = 32
"""Peak memory for each cell of a table or value of an array, measured: the column, its arrays, and the report's copies."""
EXPANDED_FROM = 64 * 2**20
"""A file that becomes no larger than this is never refused for its ratio."""
MOST_NAME = 1000
"""Characters of a column's name: it stands in every report, and in the spec and the model."""
MIB = 2**20


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """What reading one dataset may take. Who runs the service sets it; the defaults are those of the library."""

    memory_bytes: int = 0
    """Memory of the process that reads; 0: the machine's."""
    columns: int = 32_768
    cells: int = 0
    """Rows times columns of a table, values of arrays; 0: what the memory holds (`CELL_BYTES` each)."""
    expansion: int = 200
    """Largest ratio of what a file becomes in memory or on disk to its own size, from 64 MiB on."""
    source_bytes: int | None = None
    """Size of the file that is read; None where the ratio does not count, as for a folder."""

    @property
    def memory(self) -> int:
        """Bytes of memory."""
        return self.memory_bytes or machine_memory()

    @property
    def most_cells(self) -> int:
        """The limit of cells."""
        return self.cells or self.memory // CELL_BYTES


_LIMITS: ContextVar[ReadLimits | None] = ContextVar("read_limits", default=None)


def machine_memory() -> int:
    """Return the bytes of memory of this machine, or of the control group."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            return min(total, int(Path(path).read_text()))
        except (OSError, ValueError):
            continue
    return total


def limits() -> ReadLimits:
    """Return the limits that hold here."""
    return _LIMITS.get() or ReadLimits()


@contextmanager
def limited(read_limits: ReadLimits) -> Iterator[None]:
    """Within the block these limits hold."""
    token = _LIMITS.set(read_limits)
    try:
        yield
    finally:
        _LIMITS.reset(token)


@contextmanager
def limited_to_source(size: int | None) -> Iterator[None]:
    """Within the block ratios count from this size, unless a file outside has set it: a packed file inside one is free."""
    current = limits()
    with limited(current if current.source_bytes is not None else replace(current, source_bytes=size)):
        yield


def check_columns(count: int, where: str) -> None:
    """Raise DataError for too many columns."""
    most = limits().columns
    if count > most:
        hint = "Leave columns out, or upload arrays (NPZ). Who runs the service can raise TRAINKIT_MAX_TABLE_COLUMNS."
        raise data_error("too_many_columns", f"{count:,} columns are more than the limit of {most:,}", where, hint)


def check_names(names: Iterable[str], where: str) -> None:
    """Raise DataError for a column whose name is no name."""
    for name in names:
        if len(name) > MOST_NAME:
            message = f"a column's name has {len(name):,} characters, more than the limit of {MOST_NAME:,}"
            hint = f"Rename the column that begins with {name[:40]!r}; check that the file begins with its names."
            raise data_error("long_name", message, where, hint)


def check_cells(rows: int, columns: int, where: str) -> None:
    """Raise DataError for a table of too many columns or cells, or of far more cells than its file has bytes."""
    check_columns(columns, where)
    check_cell_count(rows * columns, where, f"{rows:,} rows of {columns:,} columns")


def check_cell_count(cells: int, where: str, what: str) -> None:
    """The same where only the number of cells is known; `what` is the table in words."""
    check_expansion(8 * cells, where, what)
    if cells > limits().most_cells:
        hint = (
            "Split the table, or leave rows or columns out. Who runs the service can raise TRAINKIT_MAX_TABLE_CELLS, or "
            "TRAINKIT_READER_MEMORY_BYTES where the first is 0."
        )
        message = f"{what} are {cells:,} cells, more than the limit of {limits().most_cells:,}"
        raise data_error("too_large", message, where, hint)


def check_expansion(needed: int, where: str, what: str, factor: int = 1) -> None:
    """Raise DataError where `needed` bytes come out of far fewer bytes of the file; `factor` raises the limit."""
    current = limits()
    source, ratio = current.source_bytes, current.expansion * factor
    if source is None or needed <= EXPANDED_FROM or needed <= ratio * source:
        return
    message = f"{what} need {_mib(needed):,} MiB, more than {ratio:,} times the {source:,} bytes of the file"
    hint = "Store it with less compression. Who runs the service can raise TRAINKIT_MAX_EXPANSION."
    raise data_error("bomb", message, where, hint)


def check_memory(needed: int, where: str, what: str) -> None:
    """Raise DataError where reading needs more memory than there is."""
    memory = limits().memory
    if needed > memory:
        hint = "Split the dataset, or write it as Parquet. Who runs the service can raise TRAINKIT_READER_MEMORY_BYTES."
        message = f"{what} need about {_mib(needed):,} MiB of memory to be read, and {_mib(memory):,} MiB are the limit"
        raise data_error("too_large", message, where, hint)


def _mib(count: int) -> int:
    return -(-count // MIB)

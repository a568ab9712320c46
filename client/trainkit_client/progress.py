"""Progress for people: a bar in terminals and notebooks, and the curves of a job in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def upload_progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of the bytes that are stored; the function takes those and all bytes."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as bar:
        task = bar.add_task(f"Uploading {name}", total=None)

        def report(stored: int, total: int) -> None:
            bar.update(task, completed=stored, total=total)

        yield report

"""Datasets: upload, find, look at their report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from trainkit_client._async.resource import AsyncResource, find, listed, parsed, plain_rows
from trainkit_client._async.rows import AsyncRows
from trainkit_client._async.runtime import in_thread, sleep
from trainkit_client._async.transport import json_of
from trainkit_client._async.uploads import AsyncUpload, Progress
from trainkit_client.archive import upload_source
from trainkit_client.errors import DatasetInvalid, WaitTimeout
from trainkit_client.progress import upload_progress
from trainkit_client.queries import segment
from trainkit_client.references import id_of
from trainkit_client.types import Alias, DatasetFields, DatasetReport

if TYPE_CHECKING:
    from trainkit_client._async.client import AsyncClient

ImageBytes: TypeAlias = bytes
FIRST_LOOK, LONGEST_LOOK = 0.1, 2.0
"""Seconds between two looks at a dataset that is being checked; they grow."""


class AsyncDataset(DatasetFields, AsyncResource):
    """A dataset as it was last read: one version of a name, which never changes. `wait` and `refresh` update this object."""

    def _path(self, rest: str = "") -> str:
        return f"/v1/datasets/{segment(self.id)}{rest}"

    async def refresh(self) -> Self:
        """Read the dataset again, into this object."""
        return self._replace_fields(await self._client.request("GET", self._path()))

    async def wait(
        self,
        timeout: float | None = None,
        *,
        on_progress: Callable[[AsyncDataset], object] | None = None,
        check: bool = True,
    ) -> Self:
        """Wait until the data have been checked, and return the dataset.

        Args:
            timeout: seconds after which WaitTimeout is raised; the check goes on.
            on_progress: called with the dataset after each look.
            check: raise DatasetInvalid when the data cannot be used.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = FIRST_LOOK
        while True:
            if on_progress is not None:
                on_progress(self)
            if self.is_checked:
                break
            if deadline is not None and time.monotonic() + pause > deadline:
                raise WaitTimeout(f"dataset {self.id} is {self.state} after {timeout:g} s; its check goes on.")
            await sleep(pause)
            pause = min(LONGEST_LOOK, 1.5 * pause)
            response = await self._client.transport.request(
                "GET", self._path(), patience=self._client.reconnect_seconds
            )
            self._replace_fields(json_of(response))
        if check and self.state == "invalid":
            raise DatasetInvalid(self)
        return self

    async def report(self) -> DatasetReport:
        """Return what the check of the data found: statistics, findings, and each file or row that was left out."""
        return parsed(DatasetReport, await self._client.request("GET", self._path("/report")))

    async def preview(self) -> ImageBytes:
        """Return a contact sheet of the samples (PNG)."""
        return (await self._client.transport.request("GET", self._path("/preview.png"))).content

    async def reread(self, **options: Any) -> AsyncDataset:
        """Return the next version: the same bytes, read in another way. None for an option means: detect it."""
        return AsyncDataset.bind(self._client, await self._client.request("POST", self._path(":reread"), json=options))

    async def alias(self, alias: str) -> Alias:
        """Let `name@alias` mean this version from now on."""
        return parsed(Alias, await self._client.request("PUT", self._path(f"/aliases/{segment(alias)}")))

    async def remove_alias(self, alias: str) -> None:
        """Let an alias of the name mean nothing from now on."""
        await self._client.request("DELETE", self._path(f"/aliases/{segment(alias)}"))

    def alias_history(self, **filters: Any) -> AsyncRows[Alias]:
        """Return what the aliases of the name mean and have meant, newest first."""
        return plain_rows(self._client, Alias, self._path("/aliases"), filters)

    async def delete(self, *, force: bool = False) -> None:
        """Delete the dataset. Conflict while jobs use it, unless `force`, which cancels them."""
        await self._client.request("DELETE", self._path(), params={"force": True} if force else None)


class AsyncDatasets:
    """The datasets of a project."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def upload(
        self,
        path: str | Path,
        name: str | None = None,
        *,
        kind: str | None = None,
        target: str | None = None,
        progress: bool | Progress = False,
        **options: Any,
    ) -> AsyncDataset:
        """Upload a file or a folder as a dataset, and return it; `wait` returns it when it has been checked.

        Bytes that the project has stored already are not sent again. An upload that was cut off, also by the end of this
        process, goes on where it was when the same file is uploaded again. A folder is sent as a zip of its files.

        Args:
            name: of the dataset; left out, that of the file. Other bytes under a known name are its next version.
            kind: how the bytes are read (`images`, `table` ...); left out, it is detected.
            target: the column to predict, of a table.
            progress: True shows a bar; a function is called with the bytes that are stored and all bytes.
            options: how a file is read, such as `delimiter=";"`, `columns={"day": {"type": "date"}}`.
        """
        with ExitStack() as stack:
            source = await in_thread(stack.enter_context, upload_source(path))
            chosen = name or source.name
            given = {"name": chosen, "kind": kind, "target": target, "filename": source.filename, **options}
            metadata = {key: _text(value) for key, value in given.items() if value is not None}
            report = stack.enter_context(upload_progress(chosen)) if progress is True else progress or None
            return AsyncDataset.bind(self._client, await AsyncUpload(self._client, source, metadata, report).run())

    async def register(
        self, uri: str, name: str | None = None, *, kind: str | None = None, target: str | None = None, **options: Any
    ) -> AsyncDataset:
        """Register a file that the service fetches itself: `s3://bucket/key`, or `file:///path` of its machine."""
        body = {"uri": uri, "name": name, "kind": kind, "target": target, **options}
        given = {key: value for key, value in body.items() if value is not None}
        return AsyncDataset.bind(self._client, await self._client.request("POST", "/v1/datasets", json=given))

    async def get(self, reference: str) -> AsyncDataset:
        """Return a dataset: by `name` (its newest version), `name:version`, `name@alias`, id, beginning of an id, `@last`."""
        return AsyncDataset.bind(
            self._client, await find(self._client, "/v1/datasets", "ds", id_of(reference), by_name=False)
        )

    def list(self, **filters: Any) -> AsyncRows[AsyncDataset]:
        """Return datasets, newest first. Filters are those of `GET /v1/datasets`, such as `name`, `state`, `kind`."""
        return listed(self._client, AsyncDataset, "/v1/datasets", filters)


def _text(value: Any) -> str:
    """Return a read option as text: mappings and lists as JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value) if isinstance(value, Mapping | list | tuple) else str(value)

"""Rules of models: find, download, ask for predictions."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from anyio import to_thread
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.context import Context
from service.errors import not_found
from service.keys.service import Principal
from service.models.tables import Model
from service.questions.service import ask


def find(session: Session, who: Principal, model_id: str) -> Model:
    """The project's model. Raises a 404 problem."""
    mine = select(Model).where(Model.id == model_id, Model.project_id == who.project_id)
    model = session.scalars(mine).one_or_none()
    if model is None:
        raise not_found("model", model_id)
    return model


async def predict(context: Context, who: Principal, model_id: str, body: bytes, media_type: str) -> dict[str, Any]:
    """`{predictions: [...]}` from a worker. Raises the worker's problem."""

    def where() -> str:
        with context.sessions() as session:
            return find(session, who, model_id).storage_key

    answer = await ask(context, who, "predict", await to_thread.run_sync(where), body, media_type)
    said: dict[str, Any] = json.loads(answer.body)
    return said


def archive(folder: Path) -> Iterator[bytes]:
    """A zip of the model's files as a stream, stored without compression (weights do not shrink)."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as bundle:
        for name in ("model.json", "model.safetensors"):
            with bundle.open(zipfile.ZipInfo(name), "w", force_zip64=True) as entry, (folder / name).open("rb") as file:
                while chunk := file.read(1 << 20):
                    entry.write(chunk)
                    yield sink.taken()
    yield sink.taken()


class _Sink(io.RawIOBase):
    """A write-only file that a zip is streamed through."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        """All that was written since the last call."""
        parts, self._parts = self._parts, []
        return b"".join(parts)

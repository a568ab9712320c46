"""Rules of models: find, download, ask for predictions."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.context import Context
from service.errors import Problem, not_found
from service.keys.service import Principal
from service.models import predictions
from service.models.tables import Model, Prediction

QUEUE = "predict"
FIRST_LOOK, LONGEST_LOOK = 0.02, 0.25


def find(session: Session, who: Principal, model_id: str) -> Model:
    """The project's model. Raises a 404 problem."""
    mine = select(Model).where(Model.id == model_id, Model.project_id == who.project_id)
    model = session.scalars(mine).one_or_none()
    if model is None:
        raise not_found("model", model_id)
    return model


async def predict(context: Context, who: Principal, model_id: str, body: bytes, media_type: str) -> dict[str, Any]:
    """Write the question down, ring, and wait for a worker's answer."""

    def ask() -> str:
        with context.sessions.begin() as session:
            question = predictions.ask(session, find(session, who, model_id), body, media_type)
        context.doorbell.ring(QUEUE)
        return question

    question = await to_thread.run_sync(ask)
    deadline, pause = time.monotonic() + context.settings.predict_seconds, FIRST_LOOK
    while time.monotonic() < deadline:
        await anyio.sleep(pause)
        pause = min(LONGEST_LOOK, pause * 1.3)
        answer = await to_thread.run_sync(_answer, context, question)
        if answer is not None:
            return answer
    detail = (
        f"No worker answered within {context.settings.predict_seconds:.0f} s. Is one running with the queue predict?"
    )
    raise Problem(503, "no_prediction_worker", detail, headers={"Retry-After": "5"})


def _answer(context: Context, question_id: str) -> dict[str, Any] | None:
    with context.sessions() as session:
        question = session.get(Prediction, question_id)
        if question is None:
            raise Problem(503, "prediction_lost", "The model was deleted while it was asked.")
        if question.state == "answered":
            return question.response
        if question.state == "failed":
            error = question.error or {}
            item = {key: str(error.get(key, "")) for key in ("pointer", "code", "message", "hint")}
            status = int(error.get("status", 422))
            raise Problem(status, item["code"] or "prediction_failed", item["message"], errors=[item])
        return None


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

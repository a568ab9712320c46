"""A confined child reads a large request from its file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from service.inference_requests import repository
from service.inference_requests.repository import REQUEST_FILE
from service.projects.tables import Project
from tests.support.worker_context import Place
from worker import inference


def lengths(folder: Path, request: bytes, media_type: str, options: Mapping[str, Any]) -> tuple[bytes, str]:
    return b"%d %s" % (len(request), request[-5:]), media_type


@pytest.mark.parametrize("exists", [True, False])
def test_a_large_request_is_read_from_its_file(place: Place, monkeypatch: pytest.MonkeyPatch, exists: bool) -> None:
    monkeypatch.setitem(inference.ANSWERERS, "predict", lengths)
    part = place.context.storage.new_part()
    if exists:
        part.write_bytes(b"x" * 3_000_000 + b"<end>")
    place.context.storage.local_path("models/m").mkdir(parents=True)
    with place.context.sessions.begin() as session:
        project = session.query(Project).first()
        assert project is not None
        options = {REQUEST_FILE: part.name}
        request_id = repository.add(session, project.id, "predict", "models/m", b"", "text/plain", options)
    assert inference.claim_and_answer(place.context)
    with place.context.sessions() as session:
        progress = repository.progress(session, request_id)
    assert progress is not None
    if exists:
        assert (progress.state, progress.response) == ("answered", b"3000005 <end>")
    else:
        assert (progress.state, progress.error["status"], progress.error["code"]) == ("failed", 503, "answer_lost")

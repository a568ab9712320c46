"""Answer inference requests, which need torch: a forked child does it, so that no input can harm the worker."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from service.inference_requests import repository
from service.inference_requests.repository import REQUEST_FILE, ClaimedInferenceRequest
from service.leases import StaleFence
from service.logging import bound
from service.models import repository as models
from service.models.file_digests import ONNX
from trainkit.data.limits import limited
from worker import exit_errors, reader_limits, slots
from worker.context import WorkerContext
from worker.evaluate import evaluate
from worker.metrics import FENCED
from worker.predict import predict, write_onnx
from worker.previews import augmentation_preview, init_report_of, preview
from worker.processes import ForkedProcess, fork
from worker.reader_limits import ReaderLimits
from worker.request_input import BadInputError

log = logging.getLogger(__name__)
TICK_SECONDS = 0.05
Answerer = Callable[[Path, bytes, str, Mapping[str, Any]], tuple[bytes, str]]
"""(folder in storage, request, its media type, options) -> (answer, its media type). Raises BadInputError."""
ANSWERERS: dict[str, Answerer] = {
    "predict": predict,
    "evaluate": evaluate,
    "dataset_preview": preview,
    "augmentation_preview": augmentation_preview,
    "init_report": init_report_of,
    "onnx": write_onnx,
}


def claim_and_answer(context: WorkerContext) -> bool:
    """Claim the next open request and answer it. Returns False when none may be claimed."""
    begun = time.monotonic()
    seconds = context.settings.predict_seconds
    with context.sessions.begin() as session:
        admits = partial(slots.admits, "predict")
        claimed = repository.claim(session, context.owner, seconds, admits)
    if claimed is None:
        return False
    try:
        with bound(inference_request=claimed.claim.id, worker=context.owner):
            answer(context, claimed, begun + 0.9 * seconds)
    except StaleFence:
        FENCED.inc()
        log.warning("inference_request=%s another worker has the request", claimed.claim.id)
    return True


def answer(context: WorkerContext, claimed: ClaimedInferenceRequest, deadline: float) -> None:
    """Fork a child, wait for its answer, store the answer or the error. Raises StaleFence."""
    folder = context.settings.scratch / claimed.claim.id
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    subject = context.storage.local_path(claimed.subject_key)
    inputs = [subject]
    if key := claimed.options.get("dataset_key"):  # the API's, never a client's
        inputs.append(context.storage.local_path(key))
        claimed.options["dataset_folder"] = str(inputs[-1])
    claimed.options["output_folder"] = str(folder)
    request_file = None
    if name := claimed.options.get(REQUEST_FILE):
        request_file = context.storage.part(name)
        inputs.append(request_file)
    kills_before, limits = exit_errors.kernel_kills(), reader_limits.reader_limits(context)
    context.engine.dispose()
    digests: dict[str, Any] = {}
    child = fork(
        lambda: write_answer(claimed, subject, folder, limits, request_file),
        log=folder / "log.txt",
        threads=1,
        confinement=context.confinement(inputs, folder),
    )
    try:
        answer_document = _wait(child, folder / "answer.json", deadline)
        if child.exit is None:
            answer_document = {
                "error": problem(503, "answer_too_slow", "the answer took too long", "Ask for less at once.")
            }
        elif answer_document is None:
            ended = exit_errors.error_of_exit(child.exit, kills_before, folder / "log.txt")
            log.warning("inference_request=%s %s\n%s", claimed.claim.id, ended["message"], ended["evidence"]["log"])
            answer_document = {"error": problem(500, ended["code"], ended["message"], ended["hint"])}
        elif claimed.kind == "onnx" and "error" not in answer_document:
            # stored by the worker, because the child may write nowhere else
            stored = context.storage.put_file(f"{claimed.subject_key}/{ONNX}", folder / ONNX)
            digests = {ONNX: {"sha256": stored.sha256}}
        with context.sessions.begin() as session:
            if digests:
                models.add_digests(session, claimed.subject_key, digests)
            if "error" in answer_document:
                repository.fail(session, claimed.claim, answer_document["error"])
            else:
                body = (folder / "answer.bin").read_bytes()
                repository.answer(session, claimed.claim, body, answer_document["media_type"])
    finally:
        child.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _wait(child: ForkedProcess, path: Path, deadline: float) -> dict[str, Any] | None:
    """Wait for the child's answer. None when it ended without one or was too slow. A stopping worker waits too."""
    while child.poll() is None and time.monotonic() < deadline:
        child.sleep(TICK_SECONDS)
    if child.exit is None or not path.exists():
        return None
    answer_document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return answer_document


def write_answer(
    claimed: ClaimedInferenceRequest,
    subject: Path,
    folder: Path,
    limits: ReaderLimits,
    request_file: Path | None = None,
) -> None:
    """Write the answer's bytes, then a document that describes them, atomically. Runs in the child.

    `request_file` holds a large request.
    """
    import torch

    torch.set_num_threads(1)
    reader_limits.apply(limits)
    answer_document: dict[str, Any]
    try:
        request = claimed.request if request_file is None else request_file.read_bytes()
        with limited(replace(limits.read, source_bytes=len(request))):
            body, media_type = ANSWERERS[claimed.kind](subject, request, claimed.media_type, claimed.options)
        (folder / "answer.bin").write_bytes(body)
        answer_document = {"media_type": media_type}
    except BadInputError as error:
        answer_document = {"error": error.error}
    except FileNotFoundError:
        if request_file is None or request_file.exists():
            raise
        answer_document = {"error": problem(503, "answer_lost", "the request's file is gone", "Send it again.")}
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "can't allocate memory" not in str(error):
            raise
        message = f"the answer needs more memory than a request may use ({limits.read.memory >> 20:,} MiB)"
        answer_document = {"error": problem(413, "too_large", message, "Send fewer rows or smaller files at once.")}
    temporary = folder / "answer.tmp"
    temporary.write_text(json.dumps(answer_document), encoding="utf-8")
    temporary.replace(folder / "answer.json")


def problem(status: int, code: str, message: str, hint: str) -> dict[str, Any]:
    """Build the problem document that the API returns."""
    return {"status": status, "code": code, "message": message, "pointer": "", "hint": hint}

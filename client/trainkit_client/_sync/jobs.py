# Generated from `_async` by client/make_sync.py: change that file, and run it.
"""Jobs: create, find, wait, follow, stop, change."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from trainkit_client._sync.models import Model
from trainkit_client._sync.resource import Resource, find, listed, parsed, plain_rows
from trainkit_client._sync.rows import Rows
from trainkit_client._sync.runtime import sleep
from trainkit_client._sync.transport import json_of
from trainkit_client.documents import SpecInput, body_of
from trainkit_client.downloads import target_file
from trainkit_client.errors import JobFailed, NotFound, WaitTimeout
from trainkit_client.progress import job_progress
from trainkit_client.queries import segment
from trainkit_client.references import id_of
from trainkit_client.types import (
    Artifact,
    Attempt,
    Checkpoint,
    Decision,
    Diagnosis,
    Evaluation,
    JobEvent,
    JobFields,
    JobRowFields,
    LogLine,
    MetricRow,
    Recommendation,
    Response,
    ValidatedSpec,
)

if TYPE_CHECKING:
    from trainkit_client._sync.client import Client

WAIT_SECONDS = 25
"""For which the service holds a request until there is something new; the longest that it takes."""
EVENT_SECONDS = 2.0
"""Between two looks at the events of a running job, where nothing else says that it has changed."""
LOG_PAGE = 1000
RowT = TypeVar("RowT", bound=Response)


class JobActions(Resource):
    """What can be done with a job that is known by its id."""

    def _path(self, rest: str = "") -> str:
        return f"/v1/jobs/{segment(self.id)}{rest}"

    # --- reading ---

    def wait(
        self,
        timeout: float | None = None,
        *,
        on_progress: Callable[[Job], object] | bool | None = None,
        check: bool = False,
    ) -> Job:
        """Wait until the job has ended, and return it as it ended.

        Args:
            timeout: seconds after which WaitTimeout is raised; the job goes on. None waits without end, also for a
                paused job.
            on_progress: called with the job at once and after each change, at most about once a second. True shows a
                bar, and in a notebook the curves of the losses.
            check: raise JobFailed when the job failed or was cancelled.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        job = self._read_job()
        with ExitStack() as stack:
            report = stack.enter_context(job_progress()) if on_progress is True else on_progress or None
            while True:
                if report is not None:
                    report(job)
                if job.has_ended:
                    break
                left = WAIT_SECONDS if deadline is None else min(WAIT_SECONDS, deadline - time.monotonic())
                if left <= 0:
                    raise WaitTimeout(f"job {job.id} is {job.state} after {timeout:g} s; it goes on.")
                job = self._changed_job(job, left)
        if check and job.state in ("failed", "cancelled"):
            raise JobFailed(job)
        return job

    def _read_job(self) -> Job:
        """Return the job as it is now."""
        response = self._client.transport.request("GET", self._path())
        return self._taken(json_of(response), response.headers.get("etag"))

    def _changed_job(self, job: Job, seconds: float) -> Job:
        """Return the job after its next change, or as it is after some seconds. Sits out a restart of the service."""
        response = self._client.transport.request(
            "GET",
            self._path(),
            params={"wait": round(seconds, 3)},
            headers={"If-None-Match": job._etag} if job._etag else None,
            timeout=seconds + self._client.timeout,
            patience=self._client.reconnect_seconds,
        )
        return job if response.status_code == 304 else job._taken(json_of(response), response.headers.get("etag"))

    def _taken(self, document: Any, etag: str | None = None) -> Job:
        """Return the job of a document."""
        job = Job.bind(self._client, document)
        job._etag = etag
        return job

    def metrics(
        self,
        *,
        follow: bool = False,
        names: str | list[str] | None = None,
        after: int = 0,
        superseded: bool = True,
    ) -> Rows[MetricRow]:
        """Return the metric log: all rows so far, or with `follow` also those that come until the job ends.

        Rows have a rising `seq`. A follower whose connection is cut, or whose service is restarted, goes on after the
        last one: no row is missing and none comes twice.

        Args:
            names: series such as `val_accuracy`; `accuracy` means that of all parts.
            after: begin after this `seq`.
            superseded: False leaves out rows that a later attempt has trained again. A row that was read before that
                happened is not taken back.
        """
        query = {"names": ",".join(names) if isinstance(names, list) else names, "limit": 5000}
        read = partial(self._log, "/metrics", MetricRow, query, after, follow)
        if superseded:
            return Rows(MetricRow, read)
        return Rows(MetricRow, partial(_current, read))

    def logs(
        self,
        *,
        follow: bool = False,
        level: str | None = None,
        contains: str | None = None,
        attempt: int | None = None,
        tail: int | None = None,
        after: int = 0,
    ) -> Rows[LogLine]:
        """Return the lines of all attempts, or with `follow` also those that come until the job ends.

        Args:
            level: the lowest level: debug, info, warning or error.
            contains: only lines with this text, in any case.
            attempt: only lines of this attempt.
            tail: begin with the last so many lines.
        """
        query = {
            "format": "json",
            "level": level,
            "contains": contains,
            "attempt": attempt,
            "tail": tail,
            "limit": None if tail else LOG_PAGE,
        }
        return Rows(LogLine, partial(self._log, "/logs", LogLine, query, after, follow))

    def _log(
        self, rest: str, row_type: type[RowT], query: Mapping[str, Any], after: int, follow: bool
    ) -> Iterator[RowT]:
        """Yield rows after a cursor. Only the first request fails when the service is away: a follower waits for it."""
        params: dict[str, Any] = {**query, "after": after}
        answered = False
        while True:
            if follow and answered:
                params["wait"] = WAIT_SECONDS
            response = self._client.transport.request(
                "GET",
                self._path(rest),
                params=params,
                timeout=WAIT_SECONDS + self._client.timeout,
                patience=self._client.reconnect_seconds if answered else None,
            )
            answered = True
            page = json_of(response)
            for row in page["data"]:
                yield parsed(row_type, row)
            if page["done"] or (not follow and (not page["data"] or params.get("tail"))):
                return
            params["after"] = page["next"]
            params.pop("tail", None)

    def events(self, *, follow: bool = False, after: int = 0) -> Rows[JobEvent]:
        """Return each change of the job, oldest first, or with `follow` also those that come until it ends."""
        return Rows(JobEvent, partial(self._events, after, follow))

    def _events(self, after: int, follow: bool) -> Iterator[JobEvent]:
        patience = None
        job: Job | None = None
        if follow:  # an object of its own: what the caller holds changes only when the caller asks for it
            job = Job.bind(self._client, {"id": self.id, "state": ""}).refresh()
            patience = self._client.reconnect_seconds
        while True:
            ended = job is None or job.has_ended  # what is read now is all there will be
            for row in self._cursor("/events", JobEvent, after, patience):
                after = row.seq
                yield row
            if job is None or ended:
                return
            known = job.state
            job = self._changed_job(job, WAIT_SECONDS)
            if job.state == known:  # progress alone: the events need not be looked at each time
                sleep(EVENT_SECONDS)
                job = self._changed_job(job, 0)

    def decisions(self, *, after: int = 0) -> Rows[Decision]:
        """Return each evaluation of each early-stop rule, with the numbers that it saw."""
        return Rows(Decision, partial(self._cursor, "/decisions", Decision, after))

    def _cursor(self, rest: str, row_type: type[RowT], after: int, patience: float | None = None) -> Iterator[RowT]:
        more = True
        while more:
            query = {"after": after, "limit": 1000}
            response = self._client.transport.request("GET", self._path(rest), params=query, patience=patience)
            page = json_of(response)
            for row in page["data"]:
                yield parsed(row_type, row)
            after, more = page["next"], page["has_more"]

    def attempt_history(self) -> Rows[Attempt]:
        """Return each worker's go at the job."""
        return plain_rows(self._client, Attempt, self._path("/attempts"), {})

    def checkpoints(self) -> Rows[Checkpoint]:
        """Return the checkpoints that are stored."""
        return plain_rows(self._client, Checkpoint, self._path("/checkpoints"), {})

    def artifacts(self, **filters: Any) -> Rows[Artifact]:
        """Return the files that the job has left."""
        return plain_rows(self._client, Artifact, self._path("/artifacts"), filters)

    def download(self, name: str, path: str | Path = ".") -> Path:
        """Download an artifact into a file or a folder, and return the file's path."""
        target = target_file(path, name)
        return self._client.transport.download(self._path(f"/artifacts/{segment(name)}"), target)

    def plot(self, name: str = "curves", format: Literal["png", "svg"] = "png", **options: Any) -> bytes:
        """Return a plot as an image: `curves`, `confusion` and others."""
        response = self._client.transport.request("GET", self._path(f"/plots/{segment(name)}.{format}"), params=options)
        return response.content

    def model(self) -> Model:
        """Return the model that the job has trained. Raises NotFound while it has none."""
        job = self._read_job()
        if job.result is None or job.result.model is None:
            detail = f"job {job.id} is {job.state} and has no model."
            raise NotFound(404, {"status": 404, "code": "not_found", "detail": detail}, {})
        return Model.bind(self._client, self._client.request("GET", f"/v1/models/{segment(job.result.model)}"))

    def evaluation(self) -> Evaluation:
        """Return the metrics of the job's model on its test part, else on its validation part."""
        return parsed(Evaluation, self._client.request("GET", self._path("/evaluation")))

    def diagnosis(self) -> Diagnosis:
        """Return what is wrong with the run, why that is thought, and what to try next."""
        return parsed(Diagnosis, self._client.request("GET", self._path("/diagnosis")))

    def recommendation(self) -> Recommendation:
        """Return the recommendation that this job was made from, and what it came to."""
        return parsed(Recommendation, self._client.request("GET", self._path("/recommendation")))

    # --- acting ---

    def stop(self, keep: Literal["best", "last"] = "best", *, if_seq: int | None = None) -> Job:
        """End training after the current step and keep a usable model. `wait` returns it when it has ended.

        Args:
            keep: the weights that the model has.
            if_seq: stop only if no metric row beyond this one has come; else Conflict is raised.
        """
        return self._act("/stop", {"keep": keep, "if_seq": if_seq})

    def cancel(self) -> Job:
        """End the job now and keep nothing."""
        return self._act("/cancel", None)

    def pause(self) -> Job:
        """Write a checkpoint and free the worker."""
        return self._act("/pause", None)

    def resume(self, extra_epochs: int = 0) -> Job:
        """Go on: the paused job itself, or a new job from where an ended one stopped."""
        return self._act("/resume", {"extra_epochs": extra_epochs})

    def fork(self, patch: Mapping[str, Any] | None = None) -> Job:
        """Return a new job that goes on from the newest checkpoint, with a changed spec (a JSON merge patch)."""
        return self._act("/fork", {"patch": dict(patch or {})})

    def retry(self) -> Job:
        """Return a new job with the same spec, from its beginning."""
        return self._act("/retry", None)

    def investigate(self, *, jobs: int | None = None, seconds: float | None = None) -> Job:
        """Begin short controlled runs that find out why the run went as it did, and return the job that makes them.

        When it has ended, `diagnosis()` of the investigated job has what was measured.

        Args:
            jobs: how many runs at most.
            seconds: how long at most.
        """
        return self._act("/diagnosis:investigate", {"jobs": jobs, "seconds": seconds})

    def apply_recommendation(
        self, index: int = 0, *, name: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Job:
        """Return a new job of a spec that the diagnosis recommends; `recommendation()` of it tells its effect later."""
        body = {"from_diagnosis": {"job": self.id, "index": index}, "name": name, "labels": labels and dict(labels)}
        document = self._client.request("POST", "/v1/jobs", json=_given(body))
        return Job.bind(self._client, document)

    def update(self, **fields: Any) -> Job:
        """Change `name`, `labels` or `notes`; None removes one."""
        return self._taken(self._client.request("PATCH", self._path(), json=fields))

    def delete(self) -> None:
        """Delete the job and what it has left; its model stays."""
        self._client.request("DELETE", self._path())

    def _act(self, rest: str, body: Mapping[str, Any] | None) -> Job:
        sent = None if body is None else _given(body)
        return self._taken(self._client.request("POST", self._path(rest), json=sent))


class Job(JobFields, JobActions):
    """A job as it was last read. `wait`, `refresh` and what acts on the job itself update this object."""

    _etag: str | None = None

    def refresh(self) -> Job:
        """Read the job again, into this object."""
        return self._read_job()

    def _taken(self, document: Any, etag: str | None = None) -> Job:
        if not isinstance(document, dict) or document.get("id") != self.id:
            return super()._taken(document, etag)  # a new job: of a fork, say
        self._etag = etag
        return self._replace_fields(document)


class JobRow(JobRowFields, JobActions):
    """A job in a list: the fields that a table shows. `load` returns the whole job."""

    def load(self) -> Job:
        """Return the whole job."""
        return self._read_job()


class Jobs:
    """The jobs of a project."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(self, spec: SpecInput | None = None, *, idempotency_key: str | None = None, **fields: Any) -> Job:
        """Submit a job.

        Args:
            spec: a mapping, a `JobSpec`, the path of a YAML or JSON file, or YAML text.
            idempotency_key: the same request with the same key creates one job, however often it is sent.
            fields: fields of the spec, which replace those of `spec`: `dataset=dataset, model="mlp", name="first"`.

        Raises Invalid, with all mistakes of the spec in `errors`.
        """
        content, kind = body_of(spec, fields)
        headers = {"Content-Type": kind}
        options: dict[str, Any] = {"content": content, "headers": headers, "idempotency_key": idempotency_key}
        return Job.bind(self._client, self._client.request("POST", "/v1/jobs", **options))

    def validate(self, spec: SpecInput | None = None, **fields: Any) -> ValidatedSpec:
        """Check a spec and estimate its cost; nothing is created. Raises Invalid, with all mistakes in `errors`."""
        content, kind = body_of(spec, fields)
        headers = {"Content-Type": kind}
        return parsed(
            ValidatedSpec, self._client.request("POST", "/v1/specs:validate", content=content, headers=headers)
        )

    def get(self, reference: str) -> Job:
        """Return a job by its id, a unique beginning of it, its name, or `@last` for the newest.

        Raises NotFound, and AmbiguousReference when several jobs are called so.
        """
        document = find(self._client, "/v1/jobs", "job", id_of(reference), by_name=True)
        return Job.bind(self._client, document)

    def list(self, **filters: Any) -> Rows[JobRow]:
        """Return jobs, newest first.

        Args:
            filters: those of `GET /v1/jobs`, such as `state="running"`, `name="digits*"`, `labels={"team": "vision"}`,
                `where="metric.val_accuracy>=0.9"`, `sort="-created_at"`; `limit` bounds the number of rows.
        """
        return listed(self._client, JobRow, "/v1/jobs", filters)

    def wait(
        self,
        jobs: Sequence[Job | str],
        timeout: float | None = None,
        *,
        check: bool = False,
    ) -> Sequence[Job]:
        """Wait until all these jobs have ended, and return them as they ended, in the same order."""
        deadline = None if timeout is None else time.monotonic() + timeout
        ended = []
        for job in jobs:
            found = job if isinstance(job, Job) else self.get(job)
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ended.append(found.wait(left, check=check))
        return ended


def _current(read: Callable[[], Iterator[MetricRow]]) -> Iterator[MetricRow]:
    for row in read():
        if not row.superseded:
            yield row


def _given(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None}

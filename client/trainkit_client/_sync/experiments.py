# Generated from `_async` by client/make_sync.py: change that file, and run it.
"""Experiments: many jobs as one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

from trainkit_client._sync.resource import Resource, find, listed, parsed
from trainkit_client._sync.rows import Rows
from trainkit_client._sync.runtime import sleep
from trainkit_client._sync.transport import json_of
from trainkit_client.documents import SpecInput, body_of
from trainkit_client.errors import ExperimentFailed, WaitTimeout
from trainkit_client.queries import segment
from trainkit_client.references import id_of
from trainkit_client.types import ExperimentComparison, ExperimentFields, ExperimentResults, ExperimentRowFields, Trial

if TYPE_CHECKING:
    from trainkit_client._sync.client import Client

FIRST_LOOK, LONGEST_LOOK = 0.2, 3.0
"""Seconds between two looks at an experiment that runs; they grow."""


class ExperimentActions(Resource):
    """What can be done with an experiment that is known by its id."""

    def _path(self, rest: str = "") -> str:
        return f"/v1/experiments/{segment(self.id)}{rest}"

    def results(self, metric: str | None = None) -> ExperimentResults:
        """Return the table of trials, and what its figures say together; `metric` tells the trials apart."""
        document = self._client.request("GET", self._path("/results"), params={"metric": metric})
        return parsed(ExperimentResults, document)

    def table(self, metric: str | None = None) -> Rows[Trial]:
        """Return a row for each trial, as it is now: parameters, state, metrics. `to_pandas` makes a frame of it."""
        return Rows(Trial, partial(self._trials, metric))

    def _trials(self, metric: str | None) -> Iterator[Trial]:
        yield from (self.results(metric)).data

    def compare(self, other: ExperimentActions | str, metric: str | None = None) -> ExperimentComparison:
        """Return whether another experiment on the same cuts of the data is better than this one."""
        query = {"with": id_of(other), "metric": metric}
        document = self._client.request("GET", self._path("/comparison"), params=query)
        return parsed(ExperimentComparison, document)

    def stop(self, running: Literal["stop", "cancel", "finish"] = "stop") -> Experiment:
        """Create no more jobs. `running` says what becomes of those under way: a model is kept, nothing, or they finish."""
        self._client.request("POST", self._path("/stop"), json={"running": running})
        return self._read()

    def delete(self) -> None:
        """Delete the experiment."""
        self._client.request("DELETE", self._path())

    def wait(
        self,
        timeout: float | None = None,
        *,
        on_progress: Callable[[Experiment], object] | None = None,
        check: bool = False,
    ) -> Experiment:
        """Wait until the experiment has ended, and return it as it ended.

        Args:
            timeout: seconds after which WaitTimeout is raised; the experiment goes on.
            on_progress: called with the experiment after each look.
            check: raise ExperimentFailed when it failed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        experiment, pause = self._read(), FIRST_LOOK
        while True:
            if on_progress is not None:
                on_progress(experiment)
            if experiment.has_ended:
                break
            if deadline is not None and time.monotonic() + pause > deadline:
                raise WaitTimeout(f"experiment {experiment.id} is {experiment.state} after {timeout:g} s; it goes on.")
            sleep(pause)
            pause = min(LONGEST_LOOK, 1.3 * pause)
            experiment = self._read(self._client.reconnect_seconds)
        if check and experiment.state == "failed":
            raise ExperimentFailed(experiment)
        return experiment

    def _read(self, patience: float | None = None) -> Experiment:
        response = self._client.transport.request("GET", self._path(), patience=patience)
        return self._taken(json_of(response))

    def _taken(self, document: Any) -> Experiment:
        return Experiment.bind(self._client, document)


class Experiment(ExperimentFields, ExperimentActions):
    """An experiment as it was last read. `wait`, `refresh` and `stop` update this object."""

    def refresh(self) -> Experiment:
        """Read the experiment again, into this object."""
        return self._read()

    def _taken(self, document: Any) -> Self:
        return self._replace_fields(document)


class ExperimentRow(ExperimentRowFields, ExperimentActions):
    """An experiment in a list: without its plan and figures. `load` returns the whole experiment."""

    def load(self) -> Experiment:
        """Return the whole experiment."""
        return self._read()


class Experiments:
    """The experiments of a project."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(self, plan: SpecInput | None = None, *, idempotency_key: str | None = None, **fields: Any) -> Experiment:
        """Begin an experiment.

        Args:
            plan: a mapping, a model of `trainkit_client.spec`, the path of a YAML or JSON file, or YAML text.
            fields: fields of the plan, which replace those of `plan`.
        """
        content, kind = body_of(plan, fields)
        headers = {"Content-Type": kind}
        options: dict[str, Any] = {"content": content, "headers": headers, "idempotency_key": idempotency_key}
        return Experiment.bind(self._client, self._client.request("POST", "/v1/experiments", **options))

    def get(self, reference: str) -> Experiment:
        """Return an experiment by its id, a unique beginning of it, its name, or `@last` for the newest."""
        document = find(self._client, "/v1/experiments", "exp", id_of(reference), by_name=True)
        return Experiment.bind(self._client, document)

    def list(self, **filters: Any) -> Rows[ExperimentRow]:
        """Return experiments, newest first. Filters are those of `GET /v1/experiments`, such as `state`, `kind`."""
        return listed(self._client, ExperimentRow, "/v1/experiments", filters)

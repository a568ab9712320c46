"""A run with its diagnosis: train, keep what was logged, ask the rules. What the service does with a job, in one process."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from trainkit.data import Dataset
from trainkit.data.report import report as report_of
from trainkit.diagnose.attainable import Attainable
from trainkit.diagnose.diagnosis import Diagnosis, diagnose
from trainkit.diagnose.record import Record, Series
from trainkit.fit.attainable import attainable_event
from trainkit.fit.loop.fit import fit
from trainkit.fit.loop.result import FitResult
from trainkit.spec import resolve
from trainkit.spec.memory import with_next_spec


@dataclass(frozen=True, slots=True)
class DiagnosedRun:
    """A run that has ended. `result` is None where it failed, and `error` says why (`trainkit.spec.failures`)."""

    result: FitResult | None
    record: Record
    diagnosis: Diagnosis
    error: dict[str, Any] | None
    seconds: float
    """Of the training."""


class EventCollector:
    """Keeps the metric rows of a run as series, and the latest event of each type; passes every event on."""

    def __init__(self, on_event: Callable[[dict[str, Any]], object] | None = None) -> None:
        self.latest: dict[str, dict[str, Any]] = {}
        self._points: dict[str, list[tuple[int, int, float]]] = defaultdict(list)
        self._send = on_event

    def __call__(self, event: dict[str, Any]) -> None:
        self.latest[event["type"]] = event
        for split, name, value in event.get("rows", ()) if event["type"] == "metrics" else ():
            self._points[f"{split}_{name}"].append((event["step"], event["epoch"], value))
        if self._send is not None:
            self._send(event)

    def series(self) -> dict[str, Series]:
        """The rows so far by name, such as `val_loss`."""
        columns = {name: list(map(np.array, zip(*rows, strict=True))) for name, rows in self._points.items()}
        return {name: Series(step, epoch, value.astype(float)) for name, (step, epoch, value) in columns.items()}


def fit_and_diagnose(
    document: Mapping[str, Any],
    data: Dataset,
    *,
    report: Mapping[str, Any] | None = None,
    on_event: Callable[[dict[str, Any]], object] | None = None,
    attainable: Attainable | Literal["measure"] | None = None,
) -> DiagnosedRun:
    """Train `document` on `data` and diagnose it. `report`: the dataset's, where it has been made already.

    `attainable`: what references reach on the dataset and split, where it is known; "measure": fit them after the run, as
    the service does once for each dataset and split.

    A run that fails for its spec, its data or the memory is a result too; an error of the machine or of trainkit
    itself is raised. Raises SpecError for a spec that does not fit the data.
    """
    collected = EventCollector(on_event)
    resolved = resolve(document, data.facts)
    result, error, began = None, None, time.perf_counter()
    try:
        result = fit(resolved, data, on_event=collected)
    except Exception:
        error = with_next_spec(collected.latest["failed"]["error"], document)
        if error["layer"] in ("platform", "internal"):
            raise
    trained = time.perf_counter() - began
    if attainable == "measure":
        threads = result.runtime["threads"] if result is not None else 1
        found = attainable_event(resolved, data, trained=trained, threads=threads) if result is not None else None
        attainable = None if found is None else Attainable.from_dict(found)
    record = Record(
        spec=resolved.spec,
        facts=data.facts,
        series=collected.series(),
        report=report_of(data, "", {}) if report is None else report,
        evaluation=collected.latest.get("evaluation"),
        state="failed" if result is None else "succeeded",
        stop_reason=result.stop_reason if result else None,
        document=document,
        attainable=attainable,
    )
    return DiagnosedRun(result, record, diagnose(record), error, trained)

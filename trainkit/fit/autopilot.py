"""`trainkit.autopilot`: train, diagnose, change, train again, in one process, by `trainkit.diagnose.autopilot`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from trainkit.data import Dataset
from trainkit.data.report import report
from trainkit.diagnose.autopilot import AutopilotEnd, Budget, CompletedStep, next_step
from trainkit.diagnose.estimates import kept_metrics
from trainkit.diagnose.narrative import explain
from trainkit.fit.fit_and_diagnose import DiagnosedRun, fit_and_diagnose
from trainkit.spec import JobSpec


@dataclass(frozen=True, slots=True)
class AutopilotResult:
    """All runs in their order, and which of them is the best by its validation figures."""

    runs: list[DiagnosedRun]
    tried: list[CompletedStep]
    done: AutopilotEnd
    explanation: list[dict[str, Any]]
    """`trainkit.diagnose.narrative.explain`."""

    @property
    def best(self) -> DiagnosedRun | None:
        """None where no run has a figure."""
        return None if self.done.best is None else self.runs[self.done.best]


def autopilot(
    spec: JobSpec | Mapping[str, Any],
    data: Dataset,
    *,
    jobs: int | None = 8,
    seconds: float | None = None,
    on_run: Callable[[CompletedStep], object] | None = None,
) -> AutopilotResult:
    """Train `spec` on `data`, and go on from what is seen, for at most so many jobs and seconds of training.

    The first job is `spec` itself. Split, dataset, task and the monitored metric stay as they are; the best is chosen on
    validation alone. `on_run` hears of every run. Raises SpecError for a spec that does not fit the data.
    """
    document = spec.model_dump(mode="json") if isinstance(spec, JobSpec) else spec
    budget, seen = Budget(jobs, seconds), report(data, "", {})
    runs: list[DiagnosedRun] = []
    tried: list[CompletedStep] = []
    while not isinstance(step := next_step(document, tried, data.facts, budget), AutopilotEnd):
        run = fit_and_diagnose(step.document, data, report=seen)
        runs.append(run)
        completed = CompletedStep(
            step, run.record.state, kept_metrics(run.record), run.diagnosis.as_dict(), run.seconds, run.error
        )
        tried.append(completed)
        if on_run is not None:
            on_run(completed)
    return AutopilotResult(runs, tried, step, explain(tried, data.facts))

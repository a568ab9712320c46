"""History of a group or an experiment: what was tried, in which order, why, what it gave, and whether that still helps."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from service import quota
from service.context import Context
from service.database import db_time, new_id
from service.errors import HttpProblem, not_found
from service.experiments import service as experiments
from service.experiments.results import GOOD, validated
from service.experiments.tables import Experiment, Trial
from service.history import repository
from service.history.schemas import (
    HistoryOut,
    HistoryPlateau,
    HistoryReason,
    HistoryResult,
    HistoryRun,
    NoteOut,
    Source,
)
from service.jobs.idempotency import idempotent
from service.jobs.tables import Job
from service.notes import repository as notes
from service.notes.tables import Note
from service.principal import Principal
from service.recommendations.tables import Recommendation
from trainkit.diagnose.estimates import PAIRED_NOISE_FACTOR, Z95
from trainkit.spec.metrics import bounds, direction, split_metric
from trainkit.spec.patch import difference

NOTES_SHOWN = 100
PLATEAU_RUNS = 5
PLATEAU_RULE = (
    f"reached when none of the last {PLATEAU_RUNS} or more ended runs was better than the best before it by more than the "
    f"noise, {PAIRED_NOISE_FACTOR} * sqrt(se1^2 + se2^2) of runs that validate on the same samples"
)
INDEPENDENT = ("kfold", "monte_carlo", "baselines", "ensemble")
"""Kinds of experiments whose runs do not follow one another."""
RELATIONS: dict[str, tuple[Source, str]] = {
    "fork": ("fork", "forked from {job}"),
    "retry": ("retry", "retries {job}"),
    "resume": ("resume", "goes on with {job}"),
    "diagnosis": ("recommendation", "follows a recommendation of the diagnosis of {job}"),
    "investigation": ("investigation", "investigates {job}"),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """What all runs are compared by: read of every run, whichever are shown."""

    job: str | None
    state: str
    value: float | None
    se: float | None
    improved: bool | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """All runs with what each added, the best of them, and how many came after the last improvement."""

    figures: list[Figure]
    best: int | None
    last_improved: int | None
    since: int


def of_experiment(
    session: Session, who: Principal, experiment_id: str, metric: str | None, after: int, limit: int
) -> HistoryOut:
    """Return a page of an experiment's history. Raises 404 and 422 problems."""
    experiment = experiments.find(session, who, experiment_id)
    _check_metric(metric)
    metric = metric or validated(experiments.default_metric(session, experiment) or "val_loss")
    follow = experiment.kind not in INDEPENDENT
    progress = _progress(repository.trial_figures(session, experiment.id, metric), metric, follow=follow)
    trials = repository.trials(session, experiment.id, after, limit)
    shown = list(enumerate(progress.figures))[after : after + limit]
    jobs = repository.jobs(session, [figure.job for _, figure in shown if figure.job])
    runs = [
        _trial(index, figure, trials[index], jobs.get(figure.job or ""), progress.figures, experiment, metric)
        for index, figure in shown
        if index in trials
    ]
    plateau = _plateau(progress) if follow else None
    page = _page(session, who, experiment.id, metric, progress, runs, after + limit)
    fields = ("name", "kind", "state", "reason")
    about = {name: getattr(experiment, name) for name in fields}
    return HistoryOut(experiment=experiment.id, plateau=plateau, **about, **page)


def of_group(session: Session, who: Principal, group: str, metric: str | None, after: int, limit: int) -> HistoryOut:
    """Return a page of a group's history. Raises 404 and 422 problems."""
    check_group(session, who, group)
    _check_metric(metric)
    metric = metric or _metric_of(repository.an_evaluation(session, who.project_id, group))
    kind = repository.experiment_kind(session, who.project_id, group)
    follow = kind not in INDEPENDENT
    figures = repository.job_figures(session, who.project_id, group, *split_metric(metric))
    progress = _progress(figures, metric, follow=follow)
    shown = list(enumerate(progress.figures))[after : after + limit]
    ids = [figure.job for _, figure in shown if figure.job]
    jobs = repository.jobs(session, ids)
    parents = {(job.parent or {}).get("job", "") for job in jobs.values()}
    specs = repository.parent_specs(session, who.project_id, parents)
    followed = repository.recommendations(session, ids)
    runs = [
        _run(index, figure, job, _why(job, specs, followed.get(job.id)), metric)
        for index, figure in shown
        if (job := jobs.get(figure.job or "")) is not None
    ]
    page = _page(session, who, group, metric, progress, runs, after + limit)
    about = dict.fromkeys(("experiment", "kind", "state", "reason"))
    return HistoryOut(name=group, plateau=_plateau(progress) if follow else None, **about, **page)


def find_experiment(session: Session, who: Principal, experiment_id: str) -> Experiment:
    """Return the project's experiment. Raises a 404 problem."""
    return experiments.find(session, who, experiment_id)


def check_group(session: Session, who: Principal, group: str) -> None:
    """Raise a 404 problem where no job of the project is in the group."""
    if not repository.group_exists(session, who.project_id, group):
        raise not_found("group", group)


def add_note(
    session: Session, context: Context, who: Principal, group: str, text: str, idempotency_key: str | None
) -> tuple[Note, bool]:
    """Append a note to a group, or to an experiment by its id; returns it, and whether it is new.

    Raises a 413 problem of the quota.
    """

    def make(session: Session) -> Note:
        quota.check(session, context.settings, who.project_id, len(text))
        now = db_time(session)
        note = Note(
            id=new_id("note"), project_id=who.project_id, group_name=group, actor=who.actor, text=text, created_at=now
        )
        notes.add(session, note)
        return note

    def find(session: Session, note_id: str) -> Note | None:
        return notes.find(session, who.project_id, note_id)

    document = {"group": group, "text": text}
    return idempotent(session, who.project_id, idempotency_key, document, make, find)


def note_out(note: Note) -> NoteOut:
    """A note as clients read it."""
    return NoteOut(id=note.id, at=note.created_at, actor=note.actor, text=note.text)


def _check_metric(metric: str | None) -> None:
    if metric is None:
        return
    try:
        split_metric(metric)
    except ValueError as error:
        raise HttpProblem(422, "unknown_metric", f"{str(error)[:1].upper()}{str(error)[1:]}.") from None


def _metric_of(evaluation: Mapping[str, Any] | None) -> str:
    """What a group's runs are compared by when nobody says: accuracy, R^2, or else the loss."""
    measured = ((evaluation or {}).get("parts") or {}).get("val") or {}
    return next((f"val_{name}" for name in ("accuracy", "r2") if measured.get(name) is not None), "val_loss")


def _progress(rows: Sequence[Any], metric: str, *, follow: bool = True) -> Progress:
    """Walk over all runs in their order. `follow`: a run is tried after what the ones before it gave."""
    sign = 1 if direction(metric) == "max" else -1
    figures: list[Figure] = []
    best: int | None = None
    last_improved, since = None, 0
    for index, row in enumerate(rows):
        value = row.value if row.state in GOOD and row.value is not None and math.isfinite(row.value) else None
        se = row.se if value is not None else None
        improved = False
        if value is not None:
            before = figures[best] if best is not None else None
            gain = None if before is None or before.value is None else sign * (value - before.value)
            noise = PAIRED_NOISE_FACTOR * math.hypot(se or 0.0, (before.se if before else None) or 0.0)
            improved = gain is None or gain > noise
            if gain is None or gain > 0:
                best = index
            last_improved, since = (index, 0) if improved else (last_improved, since + 1)
        figures.append(Figure(row.job, row.state, value, se, improved if follow else None))
    return Progress(figures, best, last_improved, since)


def _plateau(progress: Progress) -> HistoryPlateau:
    last = progress.last_improved
    return HistoryPlateau(
        reached=progress.since >= PLATEAU_RUNS,
        runs=progress.since,
        since=None if last is None else last + 1,
        rule=PLATEAU_RULE,
    )


def _page(
    session: Session,
    who: Principal,
    group: str,
    metric: str,
    progress: Progress,
    runs: list[HistoryRun],
    end: int,
) -> dict[str, Any]:
    total = len(progress.figures)
    return {
        "group": group,
        "metric": metric,
        "direction": direction(metric),
        "total": total,
        "states": dict(Counter(figure.state for figure in progress.figures)),
        "best": None if progress.best is None else progress.best + 1,
        "data": runs,
        "has_more": total > end,
        "next": str(end) if total > end else None,
        "notes": [note_out(one) for one in notes.newest(session, who.project_id, group, NOTES_SHOWN)],
        "notes_total": notes.count(session, who.project_id, group),
    }


def _run(
    index: int, figure: Figure, job: Job, why: HistoryReason, metric: str, params: Mapping[str, Any] | None = None
) -> HistoryRun:
    return HistoryRun(
        index=index + 1,
        job=job.id,
        name=job.name,
        state=figure.state,
        at=job.created_at,
        finished_at=job.finished_at,
        params=dict(params or {}),
        why=why,
        note=job.notes,
        result=_result(figure, metric),
        stop_reason=job.stop_reason,
        error=(job.error or {}).get("code"),
    )


def _trial(
    index: int,
    figure: Figure,
    trial: Trial,
    job: Job | None,
    figures: Sequence[Figure],
    experiment: Experiment,
    metric: str,
) -> HistoryRun:
    why = _why_of_trial(trial, figures, experiment)
    if job is not None:
        return _run(index, figure, job, why, metric, trial.params)
    done = trial.outcome or {}
    return HistoryRun(
        index=index + 1,
        job=trial.job_id,
        name="",
        state=figure.state,
        at=trial.created_at,
        finished_at=None,
        params=trial.params,
        why=why,
        note=None,
        result=_result(figure, metric),
        stop_reason=done.get("stop_reason"),
        error=(done.get("error") or {}).get("code"),
    )


def _result(figure: Figure, metric: str) -> HistoryResult | None:
    if figure.value is None:
        return None
    low = high = None
    if figure.se is not None:
        least, largest = bounds(metric)
        low, high = figure.value - Z95 * figure.se, figure.value + Z95 * figure.se
        low, high = low if least is None else max(least, low), high if largest is None else min(largest, high)
    return HistoryResult(value=figure.value, se=figure.se, low=low, high=high, improved=figure.improved)


def _why_of_trial(trial: Trial, figures: Sequence[Figure], experiment: Experiment) -> HistoryReason:
    found = trial.rationale
    if found is None:
        values = ", ".join(f"{name.lstrip('/')} = {value}" for name, value in trial.params.items())
        return HistoryReason(source="plan", text=values or experiment.kind, code=None, job=None, patch=None)
    number = found.get("source")
    source = figures[number].job if isinstance(number, int) and 0 <= number < len(figures) else None
    text, code = found.get("why") or found.get("observation") or "", found.get("code") or None
    return HistoryReason(source="autopilot", text=text, code=code, job=source, patch=found.get("patch"))


def _why(job: Job, specs: Mapping[str, dict[str, Any]], followed: Recommendation | None) -> HistoryReason:
    """Why a job was submitted, as far as the service knows."""
    if followed is not None:
        text = f"follows the recommendation for {followed.code} of {followed.source_job}"
        named = {"code": followed.code, "job": followed.source_job, "patch": followed.patch}
        return HistoryReason(source="recommendation", text=text, **named)
    parent = job.parent or {}
    if parent.get("relation") not in RELATIONS:
        return HistoryReason(source="submitted", text="", code=None, job=None, patch=None)
    source, text = RELATIONS[parent["relation"]]
    before = specs.get(parent["job"])
    patch = None if before is None else difference(before, job.spec)
    step = f" at step {parent['step']}" if parent.get("step") is not None else ""
    text = text.format(job=parent["job"]) + step
    return HistoryReason(source=source, text=text, code=None, job=parent["job"], patch=patch)

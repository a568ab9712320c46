"""From the documents of the API to the answers of the tools: pure functions, which bound what they return."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from trainkit_client.mcp.answers import (
    BudgetLeft,
    CatalogAnswer,
    ComparisonAnswer,
    DatasetAnswer,
    DiagnosisAnswer,
    EvaluationAnswer,
    HistoryAnswer,
    JobAnswer,
    clip,
    first,
    number,
    show,
)

Document = Mapping[str, Any]
ENDED = frozenset({"succeeded", "stopped", "cancelled", "failed"})
SPEC_SECTIONS = (
    *("model", "activation", "init", "norm", "optimizer", "schedule", "loss", "preprocess", "augment", "balance"),
    *("early_stop", "task", "target_scaling", "experiment"),
)
"""Sections of the catalogue whose kinds are listed without being named; the others are only counted."""
CURVE_POINTS = 8
Z = 1.96
"""Half a 95 % interval in standard errors."""
UNSHOWN = ("name", "labels", "group", "dataset", "resources")
"""Sections of a spec whose differences change nothing about the model."""


def budget_left(me: Document) -> BudgetLeft | None:
    """Return what the caller's key may still train; None without a budget."""
    budget = (me.get("key") or {}).get("budget")
    if not budget:
        return None
    jobs, seconds = budget["max_jobs"], budget["max_compute_seconds"]
    taken = budget["used_compute_seconds"] + budget["reserved_compute_seconds"]
    return BudgetLeft(
        jobs=None if jobs is None else max(0, jobs - budget["used_jobs"]),
        compute_seconds=None if seconds is None else round(max(0.0, seconds - taken), 1),
    )


# the catalogue


def catalog_answer(catalog: Document, section: str | None, kind: str | None) -> CatalogAnswer:
    """Return the sections, the kinds of one, or the fields of one kind. Raises KeyError for an unknown name."""
    if section is None:
        shown = {name: [one["kind"] for one in catalog[name]] for name in SPEC_SECTIONS if name in catalog}
        others = sorted(set(catalog) - set(shown))
        return CatalogAnswer(sections=shown, cut=[f"more sections: {', '.join(others)}; name one to see its kinds"])
    entries = {one["kind"]: one for one in catalog[section]}
    if kind is None:
        return CatalogAnswer(kinds={name: _kind_line(one) for name, one in entries.items()})
    entry = entries[kind]
    fields = {}
    for name, field in (entry.get("schema") or {}).get("properties", {}).items():
        if name != "kind":
            fields[name] = clip(
                f"{_type_of(field)}, default {show(field.get('default'))}. {field.get('description', '')}"
            )
    return CatalogAnswer(description=entry.get("description"), fields=fields)


def _kind_line(entry: Document) -> str:
    default = entry.get("default")
    fields = {name: value for name, value in default.items() if name != "kind"} if isinstance(default, dict) else {}
    shown = ", ".join(f"{name}={show(value)}" for name, value in fields.items())
    return clip(f"{clip(entry.get('description') or '', 160)}{f' [{clip(shown, 140)}]' if shown else ''}", 320)


def _type_of(field: Document) -> str:
    if "enum" in field:
        return "|".join(show(value) for value in field["enum"][:8])
    if "const" in field:
        return show(field["const"])
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_type_of(one) for one in field["anyOf"]))
    if "$ref" in field:
        return str(field["$ref"]).rsplit("/", 1)[-1]
    return str(field.get("type", "any"))


# datasets


def dataset_line(dataset: Document) -> str:
    """Return a dataset in one line of a list."""
    target = f", target {dataset['target']}" if dataset.get("target") else ""
    return (
        f"{dataset['id']} {dataset['name']}:{dataset['version']} {dataset['kind'] or 'kind not known'}, "
        f"{dataset['samples']} samples, {dataset['state']}{target}"
    )


def dataset_answer(dataset: Document, report: Document | None) -> DatasetAnswer:
    """Return a dataset with what its check found, as far as it has ended."""
    cut: list[str] = []
    report = report or {}
    facts = report.get("facts") or {}
    classes = facts.get("classes") or report.get("classes")
    columns = [_column_line(one) for one in report.get("columns") or facts.get("columns") or []]
    counted = dict(first(classes.items(), 20, cut, "classes")) if isinstance(classes, dict) else None
    error = dataset.get("error") or report.get("error")
    return DatasetAnswer(
        dataset=dataset["id"],
        name=f"{dataset['name']}:{dataset['version']}",
        state=dataset["state"],
        kind=dataset["kind"],
        samples=dataset["samples"],
        target=dataset.get("target") or facts.get("target"),
        classes=counted,
        columns=first(columns, 40, cut, "columns") or None,
        shape=show(facts["input_shape"]) if facts.get("input_shape") else None,
        findings=first([_finding_line(one) for one in report.get("findings") or []], 10, cut, "findings"),
        error=None if not error else clip(f"{error.get('code')}: {error.get('message')} {error.get('hint', '')}"),
        cut=cut,
    )


def _column_line(column: Document) -> str:
    missing = f", {column['missing']} missing" if column.get("missing") else ""
    return clip(f"{column['name']}: {column.get('type')}, {column.get('unique')} values{missing}", 100)


def _finding_line(finding: Document) -> str:
    return clip(f"{finding['severity']} {finding['code']}: {finding['message']}", 240)


# jobs


def monitor_of(job: Document) -> str:
    """Return the metric by which the job chose its best weights."""
    monitor = ((job.get("resolved") or {}).get("train") or {}).get("monitor")
    return str(monitor or "val_loss")


def better_of(metric: str) -> str:
    """Return whether a metric is better when it is larger or smaller: `max` or `min`."""
    plain = metric.split("_", 1)[-1]
    return "min" if plain in ("loss", "batch_loss", "mse", "mae") else "max"


def best_value(job: Document, metric: str) -> float | None:
    """Return the job's best value of a metric."""
    value = job["metrics"]["best"].get(metric)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def error_of_value(job: Document, metric: str) -> float | None:
    """Return the standard error that the job measured for a metric; None where it measured none."""
    value = job["metrics"]["last"].get(f"{metric}_se")
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def value_text(job: Document, metric: str) -> str:
    """Return the best value with half of its 95 % interval."""
    value, error = best_value(job, metric), error_of_value(job, metric)
    if value is None:
        return "none"
    return f"{value:.4g}" if error is None else f"{value:.4g} +/- {Z * error:.2g}"


def job_answer(job: Document, diagnosis: Document | None = None, curve: Sequence[float] = ()) -> JobAnswer:
    """Return a job at this moment, in short."""
    progress, error, result = job.get("progress"), job.get("error"), job.get("result") or {}
    best = job["metrics"]["best"]
    names = [name for name in best if name.startswith("val_") and "top5" not in name]
    shown = {name: value_text(job, name) for name in names[:6]}
    shown |= {name: show(best[name]) for name in best if name.startswith("test_") and "top5" not in name}
    cut: list[str] = []
    metrics = dict(first(shown.items(), 12, cut, "metrics"))
    verdicts = (diagnosis or {}).get("verdicts") or []
    return JobAnswer(
        id=job["id"],
        name=job["name"] or None,
        state=job["state"],
        ended=job["state"] in ENDED,
        progress=None if job["state"] in ENDED or not progress else _progress_line(progress),
        stop_reason=job.get("stop_reason"),
        error=None if not error else clip(f"{error['code']}: {error['message']} {error.get('hint') or ''}"),
        metrics=metrics,
        curve=_curve_line(monitor_of(job), curve),
        verdict=_verdict_line(verdicts[0]) if verdicts else None,
        recommendations=len(diagnosis["recommendations"]) if diagnosis else None,
        model=result.get("model"),
        max_seconds=number((job["spec"].get("resources") or {}).get("max_seconds")),
        cut=cut,
    )


def _progress_line(progress: Document) -> str:
    eta = progress.get("eta_seconds")
    left = f", about {eta:.0f} s left" if eta is not None else ""
    return f"epoch {progress.get('epoch')} of {progress.get('epochs')}, {progress.get('percent')} %{left}"


def _curve_line(metric: str, values: Sequence[float]) -> str | None:
    if not values:
        return None
    step = max(1, math.ceil(len(values) / CURVE_POINTS))
    points = [*values[:-1:step], values[-1]]
    return f"{metric} over {len(values)} evaluations: {', '.join(f'{value:.3g}' for value in points)}"


def _verdict_line(verdict: Document) -> str:
    measured = ", measured" if verdict.get("source") == "investigation" else ""
    return clip(f"{verdict['code']} (confidence {verdict['confidence']:.2f}{measured}): {verdict['message']}", 320)


def diagnosis_answer(job_id: str, diagnosis: Document) -> DiagnosisAnswer:
    """Return verdicts, suspects and recommendations, the main ones."""
    cut: list[str] = []
    recommended = list(enumerate(diagnosis["recommendations"]))
    investigation = diagnosis.get("active_investigation") or (diagnosis.get("investigation") or {}).get("job")
    return DiagnosisAnswer(
        job=job_id,
        final=diagnosis["final"],
        verdicts=[_verdict_line(one) for one in first(diagnosis["verdicts"], 4, cut, "verdicts")],
        suspects=[
            clip(f"{one['code']} ({one['suspicion']:.2f}): {one['why']}", 240)
            for one in first(diagnosis["suspects"], 3, cut, "suspects")
        ],
        recommendations=[_recommendation(index, one) for index, one in first(recommended, 4, cut, "recommendations")],
        harmful=[
            clip(f"{show(one['patch'])}: {one['why']}", 200)
            for one in first(diagnosis["harmful"], 3, cut, "harmful changes")
        ],
        investigation=investigation,
        cut=cut,
    )


def _recommendation(index: int, one: Document) -> dict[str, Any]:
    shown: dict[str, Any] = {"index": index, "patch": one["patch"], "why": clip(one["why"], 240), "for": one["code"]}
    if one.get("measured"):
        effect = one["measured"]
        shown["measured"] = {
            name: effect[name] for name in ("metric", "before", "after", "gain", "low", "high") if name in effect
        }
    return shown


def evaluation_answer(model: str | None, evaluation: Document) -> EvaluationAnswer:
    """Return the metrics of an evaluation, with the classes that are recognised worst."""
    cut: list[str] = []
    classes = sorted(evaluation.get("per_class") or [], key=lambda one: one.get("f1") or 0.0)
    return EvaluationAnswer(
        model=model,
        split=evaluation.get("split"),
        samples=evaluation.get("samples"),
        metrics=evaluation["metrics"],
        worst_classes=[
            f"{one['class']}: precision {show(one['precision'])}, recall {show(one['recall'])}, {one['support']} samples"
            for one in first(classes, 5, cut, "classes")
        ],
        confusions=_confusions(evaluation, cut),
        warnings=[clip(show(one), 200) for one in first(evaluation.get("warnings") or [], 5, cut, "warnings")],
        cut=cut,
    )


def _confusions(evaluation: Document, cut: list[str]) -> list[str]:
    names, matrix = evaluation.get("classes") or [], evaluation.get("confusion_matrix") or []
    wrong = [
        (count, names[row], names[column])
        for row, counts in enumerate(matrix)
        for column, count in enumerate(counts)
        if row != column and count
    ]
    wrong.sort(key=lambda one: -one[0])
    return [f"{count} of {true} taken for {taken}" for count, true, taken in first(wrong, 5, cut, "confusions")]


# several jobs


def flat(document: Any, pointer: str = "") -> dict[str, Any]:
    """Return every leaf of a spec by its JSON pointer; lists are leaves."""
    if not isinstance(document, Mapping):
        return {pointer: document}
    return {
        place: value
        for name, item in document.items()
        if pointer or name not in UNSHOWN
        for place, value in flat(item, f"{pointer}/{name}").items()
    }


def spec_of(job: Document) -> Document:
    """Return what a job trains, with everything filled in where that is known."""
    spec: Document = job.get("resolved") or job["spec"]
    return spec


def differences(specs: Sequence[Document]) -> dict[str, list[Any]]:
    """Return pointers whose values differ between specs, with the value of each."""
    leaves = [flat(spec) for spec in specs]
    places = list(dict.fromkeys(place for spec in leaves for place in spec))
    values = {place: [spec.get(place) for spec in leaves] for place in places}
    return {place: found for place, found in values.items() if any(one != found[0] for one in found)}


def comparison_answer(jobs: Sequence[Document], metric: str | None) -> ComparisonAnswer:
    """Return jobs side by side, the best first."""
    metric = metric or monitor_of(jobs[0])
    sign = 1 if better_of(metric) == "min" else -1
    ranked = sorted(jobs, key=lambda job: _rank(best_value(job, metric), sign))
    cut: list[str] = []
    rows = [
        {
            "job": job["id"],
            "name": job["name"],
            "state": job["state"],
            metric: value_text(job, metric),
            **{name: number(value) for name, value in list(_test_metrics(job).items())[:4]},
        }
        for job in ranked
    ]
    changed = first(differences([spec_of(job) for job in ranked]).items(), 15, cut, "differences between the specs")
    return ComparisonAnswer(
        metric=metric, jobs=rows, differences=dict(changed), verdict=_comparison_verdict(ranked, metric), cut=cut
    )


def _rank(value: float | None, sign: int) -> tuple[bool, float]:
    return value is None, 0.0 if value is None else sign * value


def _test_metrics(job: Document) -> dict[str, float]:
    return {name: value for name, value in job["metrics"]["best"].items() if name.startswith("test_")}


def gain(old: Document, new: Document, metric: str) -> tuple[float, float | None] | None:
    """Return (how much better the new job is, half the 95 % interval of that) ; None where a value is missing."""
    before, after = best_value(old, metric), best_value(new, metric)
    if before is None or after is None:
        return None
    errors = error_of_value(old, metric), error_of_value(new, metric)
    known = [error for error in errors if error is not None]
    noise = Z * math.hypot(*known) if len(known) == 2 else None
    return (before - after if better_of(metric) == "min" else after - before), noise


def _comparison_verdict(ranked: Sequence[Document], metric: str) -> str:
    if len(ranked) < 2 or (found := gain(ranked[1], ranked[0], metric)) is None:
        return f"Fewer than two of the jobs have {metric}."
    better, noise = found
    if noise is None:
        return f"{ranked[0]['id']} is best by {better:.3g} {metric}; no interval is known."
    word = "more" if better > noise else "no more"
    return (
        f"{ranked[0]['id']} is best by {better:.3g} {metric}, {word} than the noise ({noise:.2g}, 95 %, both values taken "
        "as independent)."
    )


def history_answer(jobs: Sequence[Document], notes: Mapping[str, str], more: int) -> HistoryAnswer:
    """Return what was tried, oldest first: the change, why, what it gave, and whether it still gets better."""
    if not jobs:
        return HistoryAnswer(metric=None, tried=[], best=None, plateau=None)
    metric = monitor_of(jobs[0])
    by_id = {job["id"]: job for job in jobs}
    lines: list[str] = []
    best: Document | None = None
    since = 0
    for position, job in enumerate(jobs, start=1):
        parent = by_id.get((job.get("parent") or {}).get("job", "")) or (jobs[position - 2] if position > 1 else None)
        lines.append(_history_line(position, job, parent, metric, notes.get(job["id"])))
        if job.get("investigation_of") or best_value(job, metric) is None:
            continue
        found = None if best is None else gain(best, job, metric)
        if best is None or (found is not None and found[0] > (found[1] or 0.0)):
            best, since = job, 0
        else:
            since += 1
            if found is not None and found[0] > 0:
                best = job
    cut = [f"{more} older jobs; ask with a larger limit"] if more else []
    leader = None if best is None else f"{best['id']}: {metric} {value_text(best, metric)}"
    plateau = None if best is None else _plateau(since, metric)
    return HistoryAnswer(metric=metric, tried=lines, best=leader, plateau=plateau, cut=cut)


def group_history_answer(history: Document, left_out: int) -> HistoryAnswer:
    """Return the history of a group or an experiment, as the service tells it."""
    metric, plateau = history["metric"], history["plateau"]
    runs = {run["index"]: run for run in history["data"]}
    best = runs.get(history["best"] or 0)
    cut = [f"{left_out} older runs; ask with a larger limit"] if left_out else []
    leader = None if history["best"] is None else f"run {history['best']}"
    if best is not None:
        leader = f"{best['job']} (run {best['index']}): {metric} {_result_text(best['result'])}"
    word = None if plateau is None else f"{'reached' if plateau['reached'] else 'not reached'}. {plateau['rule']}"
    return HistoryAnswer(
        metric=metric,
        tried=[_run_line(run, metric) for run in history["data"]],
        best=leader,
        plateau=word,
        notes=[clip(f"{note['actor']}: {note['text']}", 240) for note in first(history["notes"][-5:], 5, cut, "notes")],
        cut=cut,
    )


def _run_line(run: Document, metric: str) -> str:
    patch = f" {show(run['why']['patch'])}" if run["why"]["patch"] else ""
    note = f" ({clip(run['note'], 160)})" if run["note"] else ""
    value = f" {metric} {_result_text(run['result'])}" if run["result"] else ""
    better = " (better)" if run["result"] and run["result"]["improved"] else ""
    what = f"{clip(run['why']['text'], 160)}{patch}{note}"
    return clip(f"{run['index']}. {run['job']}: {what} -> {run['state']}{value}{better}", 480)


def _result_text(result: Document) -> str:
    if result["se"] is None:
        return f"{result['value']:.4g}"
    return f"{result['value']:.4g} +/- {Z * result['se']:.2g}"


def _plateau(since: int, metric: str) -> str:
    if since == 0:
        return f"The newest job made {metric} better by more than noise, or is the first."
    return f"The last {since} jobs with a value did not make {metric} better by more than noise."


def _history_line(position: int, job: Document, parent: Document | None, metric: str, why: str | None) -> str:
    changed = differences([spec_of(parent), spec_of(job)]) if parent is not None else {}
    items = list(changed.items())
    shown = "; ".join(f"{place} {show(old)} -> {show(new)}" for place, (old, new) in items[:4])
    more = f" and {len(items) - 4} more" if len(items) > 4 else ""
    relation = (job.get("parent") or {}).get("relation")
    origin = f" ({relation} of {job['parent']['job']})" if relation else ""
    reason = f" ({clip(why, 160)})" if why else ""
    what = f"investigates {job['investigation_of']}" if job.get("investigation_of") else (shown or "first spec")
    value = "" if job.get("investigation_of") else f" {metric} {value_text(job, metric)}"
    name = f" {clip(job['name'], 60)}" if job["name"] else ""
    return clip(f"{position}. {job['id']}{name}{origin}: {what}{more}{reason} -> {job['state']}{value}", 480)

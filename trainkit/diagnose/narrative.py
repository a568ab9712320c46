"""Explanation of an autopilot's history: observation, change, expected and measured effect of each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainkit.diagnose.autopilot import CompletedStep, History, reason_to_skip
from trainkit.diagnose.estimates import MetricChange
from trainkit.spec import DatasetFacts

OUTCOME_TEXT = {
    "improved": "better by more than the noise",
    "worse": "worse by more than the noise",
    "within_noise": "no difference beyond the noise",
}


def explain(tried: Sequence[CompletedStep], facts: DatasetFacts) -> list[dict[str, Any]]:
    """Return one entry for each step, as plain data: `{index, from, kind, code, observation, patch, why, expected, state,
    measured, best, verdicts, skipped_recommendations, text}`.

    `from` is the source run, `measured` the comparison with it, `best` the best run after the step.
    `skipped_recommendations` are those of this run that the autopilot does not apply, with the reason.
    """
    history = History(tried, facts)
    return [_entry(history, index) for index in range(len(tried))]


def _entry(history: History, index: int) -> dict[str, Any]:
    one, measured = history.tried[index], history.gain_of(index)
    step, diagnosis = one.step, one.diagnosis or {}
    entry = {
        "index": index,
        "from": step.source,
        "kind": step.kind,
        "code": step.code,
        "observation": _observation(history, index),
        "patch": step.patch,
        "why": step.why,
        "expected": step.expected or None,
        "state": one.state,
        "measured": measured.as_dict() if measured else None,
        "best": history.best_after_each[index],
        "verdicts": [verdict["code"] for verdict in diagnosis.get("verdicts", ())],
        "skipped_recommendations": [
            {
                "code": recommendation["code"],
                "patch": recommendation["patch"],
                "why": recommendation["why"],
                "reason": reason,
            }
            for recommendation in diagnosis.get("recommendations", ())
            if (reason := reason_to_skip(recommendation["patch"])) is not None
        ],
    }
    return {**entry, "text": _text(entry, one, measured)}


def _observation(history: History, index: int) -> str:
    """Return what was observed in the source run that led to this step."""
    step = history.tried[index].step
    if step.source is None:
        return ""
    source = history.tried[step.source]
    if step.kind == "recommendation":
        verdicts = (source.diagnosis or {}).get("verdicts", ())
        return next((str(verdict["message"]) for verdict in verdicts if verdict["code"] == step.code), "")
    if step.kind == "less_memory":
        return str((source.error or {}).get("message", ""))
    if step.kind == "combination":
        return "Several changes gave a small gain each, none beyond the noise."
    spec = history.resolved[step.source].spec
    monitored = source.metrics.get(spec.train.monitor or "")
    where = f"it was best in epoch {monitored.epoch} of {spec.train.epochs}" if monitored else "it kept no weights"
    return f"The diagnosis of run {step.source} has no recommendation left to try; {where}."


def _text(entry: Mapping[str, Any], one: CompletedStep, measured: MetricChange | None) -> str:
    sentences = [f"Run {entry['index']}" + ("." if entry["from"] is None else f", from run {entry['from']}.")]
    sentences += [text for text in (entry["observation"], entry["why"]) if text]
    if one.error is not None:
        sentences.append(f"It failed: {one.error.get('message') or one.error.get('code')}.")
    if measured is not None and measured.gain is not None:
        values = f"{measured.metric} {measured.before:.4g} -> {measured.after:.4g}, noise {measured.noise:.2g}"
        sentences.append(f"Measured: {values}: {OUTCOME_TEXT[measured.outcome]}.")
    sentences.append(
        "It is the best so far." if entry["best"] == entry["index"] else f"Run {entry['best']} stays the best."
    )
    return " ".join(sentences)

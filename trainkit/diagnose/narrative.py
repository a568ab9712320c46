"""An autopilot's history told: what was seen, done, expected and measured in each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainkit.diagnose.autopilot import History, Tried, reason_not_to
from trainkit.diagnose.estimates import Compared
from trainkit.spec import DatasetFacts

TOLD = {
    "improved": "better by more than the noise",
    "worse": "worse by more than the noise",
    "within_noise": "no difference beyond the noise",
}


def explain(tried: Sequence[Tried], facts: DatasetFacts) -> list[dict[str, Any]]:
    """One entry a step, JSON-able: `{index, from, kind, code, seen, done, why, expected, state, measured, best, verdicts,
    left_to_you, text}`.

    `measured` compares with the run it was made from, `best` is the best run's index as it stood then. `left_to_you`:
    remedies of this run that autopilot does not take, with the reason.
    """
    history = History(tried, facts)
    return [_entry(history, index) for index in range(len(tried))]


def _entry(history: History, index: int) -> dict[str, Any]:
    one, measured = history.tried[index], history.gained(index)
    step, diagnosis = one.step, one.diagnosis or {}
    entry = {
        "index": index,
        "from": step.source,
        "kind": step.kind,
        "code": step.code,
        "seen": _seen(history, index),
        "done": step.patch,
        "why": step.why,
        "expected": step.expected or None,
        "state": one.state,
        "measured": measured.as_dict() if measured else None,
        "best": history.champions[index],
        "verdicts": [verdict["code"] for verdict in diagnosis.get("verdicts", ())],
        "left_to_you": [
            {"code": offer["code"], "patch": offer["patch"], "why": offer["why"], "reason": reason}
            for offer in diagnosis.get("next_specs", ())
            if (reason := reason_not_to(offer["patch"])) is not None
        ],
    }
    return {**entry, "text": _text(entry, one, measured)}


def _seen(history: History, index: int) -> str:
    """What of the source run this step answers."""
    step = history.tried[index].step
    if step.source is None:
        return ""
    source = history.tried[step.source]
    if step.kind == "remedy":
        verdicts = (source.diagnosis or {}).get("verdicts", ())
        return next((str(verdict["message"]) for verdict in verdicts if verdict["code"] == step.code), "")
    if step.kind == "less_memory":
        return str((source.error or {}).get("message", ""))
    if step.kind == "combination":
        return "Several changes were each a little better, none by more than the noise."
    spec = history.resolved[step.source].spec
    figure = source.figures.get(spec.train.monitor or "")
    where = f"it was best in epoch {figure.epoch} of {spec.train.epochs}" if figure else "it kept no weights"
    return f"The diagnosis of run {step.source} has no remedy left to try; {where}."


def _text(entry: Mapping[str, Any], one: Tried, measured: Compared | None) -> str:
    told = [f"Run {entry['index']}" + ("." if entry["from"] is None else f", from run {entry['from']}.")]
    told += [text for text in (entry["seen"], entry["why"]) if text]
    if one.error is not None:
        told.append(f"It failed: {one.error.get('message') or one.error.get('code')}.")
    if measured is not None and measured.gain is not None:
        values = f"{measured.metric} {measured.before:.4g} -> {measured.after:.4g}, noise {measured.noise:.2g}"
        told.append(f"Measured: {values}: {TOLD[measured.outcome]}.")
    told.append("It is the best so far." if entry["best"] == entry["index"] else f"Run {entry['best']} stays the best.")
    return " ".join(told)

"""A run's diagnosis after an investigation: what was measured in front, what the record alone shows behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainkit.diagnose.causes import CAUSES
from trainkit.diagnose.diagnosis import diagnose
from trainkit.diagnose.investigation_history import DATA_CAUSES, OTHER_SPLIT, InvestigationHistory
from trainkit.diagnose.recommendations import RecommendedSpec, recommend
from trainkit.diagnose.record import Record
from trainkit.diagnose.verdicts import Verdict
from trainkit.spec.patch import merge_patch

OF_PARTS: frozenset[str] = frozenset({"leakage", "distribution_mismatch"})
"""Faults in how the parts were cut that stand beside one of training."""
UNSURE = frozenset({"healthy", "inconclusive"})
"""Verdicts of a record that say less than any measured one."""


def combined(record: Record | None, findings: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return `{verdicts, recommendations, suspects}` as plain data.

    Args:
        record: The run; None for an investigation by itself, which has findings alone.
        findings: `InvestigationFindings.as_dict()`; None without one.

    Verdicts have a `source`, investigation or record. One of the record gives way to a measured one of its code, and to
    any measured one where it is healthy or inconclusive; one that the runs contradict is left out. Recommendations have
    their `measured` effect, or None for what nobody has tried: it answers the verdicts, of an inconclusive diagnosis its
    suspects. What was tried is recommended only where it helped. Where training and the parts are both at fault, one change
    for both comes first.
    """
    passive: dict[str, Any] = {"verdicts": [], "recommendations": [], "suspects": []}
    if record is not None:
        passive |= diagnose(record).as_dict()
    if findings is None:
        return {
            "verdicts": [{**one, "source": "record"} for one in passive["verdicts"]],
            "recommendations": [{**one, "measured": None} for one in passive["recommendations"]],
            "suspects": passive["suspects"],
        }
    dropped = {verdict["code"] for verdict in findings["verdicts"]} | {*findings["refuted"]} | UNSURE
    verdicts = [{**one, "source": "investigation"} for one in findings["verdicts"]]
    verdicts += [{**one, "source": "record"} for one in passive["verdicts"] if one["code"] not in dropped]
    recommendations = list(findings["recommendations"])
    if record is not None:
        untried = _untried(record, verdicts, findings)
        both = _both(record, verdicts, recommendations)
        recommendations = [*both, *recommendations, *({**one.as_dict(), "measured": None} for one in untried)]
    return {"verdicts": verdicts, "recommendations": recommendations, "suspects": list(findings["suspects"])}


def _both(
    record: Record, verdicts: Sequence[Mapping[str, Any]], recommendations: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What repaired the training with what repairs the parts, as one change, where both are at fault.

    A model that has learnt and is then used on data of another kind, or judged by copies, is no better for it.
    """
    named = [one["code"] for one in verdicts if one["code"] in OF_PARTS]
    training = next((one for one in recommendations if _repaired(one)), None)
    if training is None or not named:
        return []
    parts = next(iter(recommend(record, [Verdict(named[0], 1.0, None, "", {})])), None)
    if parts is None:
        return []
    patch = merge_patch(training["patch"], parts.patch)
    history = InvestigationHistory(record, ())
    if history.changed(patch) is None or patch in (training["patch"], parts.patch):
        return []
    measured = training["measured"]
    falls = measured["metric"] in ("val_loss", "val_mae")
    return [
        {
            "patch": patch,
            "spec": dict(merge_patch(history.document, patch)),
            "why": f"{training['why'].rstrip('.')}, and: {parts.why}",
            "expected": {
                "metric": measured["metric"],
                "direction": "down" if falls else "up",
                "size": f"{measured['gain']:.3g} by the first of the two alone",
                "source": "measured by the investigation",
            },
            "code": verdicts[0]["code"],
            "measured": None,
        }
    ]


def _repaired(change: Mapping[str, Any]) -> bool:
    measured = change.get("measured")
    return bool(measured and change["code"] not in DATA_CAUSES and measured["low"] is not None and measured["low"] > 0)


def _untried(
    record: Record, verdicts: Sequence[Mapping[str, Any]], findings: Mapping[str, Any]
) -> list[RecommendedSpec]:
    """What answers the verdicts, or the suspects of an inconclusive diagnosis, and has not been tried."""
    if verdicts[0]["code"] == "inconclusive":
        answered = [Verdict(one["code"], one["suspicion"], None, one["why"], {}) for one in findings["suspects"]]
    else:
        answered = [Verdict(one["code"], one["confidence"], None, "", dict(one["evidence"])) for one in verdicts]
    patches = {one.name: one.patch for cause in CAUSES.values() for one in cause.interventions(record)}
    # a change of the parts is tried to see whether they differ, and answers that they do
    tried = [patches.get(one["change"]) for one in findings["tried"] if one["change"] not in OTHER_SPLIT]
    tried += [one["patch"] for name in ("recommendations", "harmful") for one in findings[name]]
    return recommend(record, answered, [patch for patch in tried if patch is not None])

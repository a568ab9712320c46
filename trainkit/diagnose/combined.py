"""A run's diagnosis after an investigation: what was measured in front, what the record alone shows behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainkit.diagnose.diagnosis import diagnose
from trainkit.diagnose.investigation_history import InvestigationHistory
from trainkit.diagnose.recommendations import RecommendedSpec, recommend
from trainkit.diagnose.record import Record
from trainkit.diagnose.verdicts import Verdict

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
    suspects. What was tried is recommended only where it helped.
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
        recommendations += [{**one.as_dict(), "measured": None} for one in untried]
    return {"verdicts": verdicts, "recommendations": recommendations, "suspects": list(findings["suspects"])}


def _untried(
    record: Record, verdicts: Sequence[Mapping[str, Any]], findings: Mapping[str, Any]
) -> list[RecommendedSpec]:
    """What answers the verdicts, or the suspects of an inconclusive diagnosis, and has not been tried."""
    if verdicts[0]["code"] == "inconclusive":
        answered = [Verdict(one["code"], one["suspicion"], None, one["why"], {}) for one in findings["suspects"]]
    else:
        answered = [Verdict(one["code"], one["confidence"], None, "", dict(one["evidence"])) for one in verdicts]
    patches = {change.name: change.patch for change in InvestigationHistory(record, ()).changes}
    tried = [patches.get(one["change"]) for one in findings["tried"]]
    tried += [one["patch"] for name in ("recommendations", "harmful") for one in findings[name]]
    return recommend(record, answered, [patch for patch in tried if patch is not None])

"""Recommended changes of the spec for each verdict: JSON merge patches, the most promising first.

Only changes that give a valid spec for the dataset are recommended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from trainkit.diagnose.causes import CAUSES
from trainkit.diagnose.record import Record
from trainkit.diagnose.spec_changes import Patch
from trainkit.diagnose.verdicts import Code, Verdict
from trainkit.spec import JobSpec, SpecError, resolve
from trainkit.spec.patch import merge_patch

MAX_PER_VERDICT, MAX_RECOMMENDATIONS = 3, 6


@dataclass(frozen=True, slots=True)
class RecommendedSpec:
    """A change of the spec, the whole changed spec, the reason, and the expected effect.

    `expected` is `{metric, direction, size, source}`; `code` is the verdict that the recommendation answers.
    """

    patch: Patch
    spec: dict[str, Any]
    why: str
    expected: dict[str, str]
    code: Code

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"patch": self.patch, "spec": self.spec, "why": self.why, "expected": self.expected, "code": self.code}


def recommend(
    record: Record, verdicts: Sequence[Verdict], tried: Sequence[Mapping[str, Any]] = ()
) -> list[RecommendedSpec]:
    """Return up to 6 recommendations, at most 3 for a verdict, in the order of the verdicts; none of the patches `tried`.

    A verdict that another one explains gets none: its cause must be removed first.
    """
    document = dict(record.document if record.document is not None else record.spec.model_dump(mode="json"))
    chosen: list[RecommendedSpec] = []
    for verdict in verdicts:
        if verdict.evidence.get("explained_by") or verdict.code not in CAUSES:
            continue
        count = 0
        for change in CAUSES[verdict.code].recommendations(record):
            patch = _with_whole_split(document, change.patch, record)
            spec = _valid_spec(document, patch, record)
            known = change.patch in tried or any(one.patch == patch for one in chosen)
            if spec is None or count == MAX_PER_VERDICT or known:
                continue
            expected = dict(zip(("metric", "direction", "size", "source"), change.expected, strict=True))
            chosen.append(RecommendedSpec(patch, spec, change.why, expected, verdict.code))
            count += 1
    return chosen[:MAX_RECOMMENDATIONS]


def _valid_spec(document: Mapping[str, Any], patch: Patch, record: Record) -> dict[str, Any] | None:
    """Return the patched spec; None where it is invalid, does not fit the dataset, or changes nothing."""
    spec = merge_patch(document, patch)
    try:
        changed = JobSpec.model_validate(spec)
        if changed == JobSpec.model_validate(document):
            return None
        resolve(changed, record.facts)
    except (ValidationError, SpecError):
        return None
    return dict(spec)


def _with_whole_split(document: Mapping[str, Any], patch: Patch, record: Record) -> Patch:
    """Write out the whole split where the document has ratios as text ("8:1:1"), which a patch cannot merge into."""
    if "split" not in patch or not isinstance(document.get("split"), str):
        return patch
    return {**patch, "split": {**record.spec.split.model_dump(exclude_none=True), **patch["split"]}}

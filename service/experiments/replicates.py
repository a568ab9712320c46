"""Jobs compared in groups of replicates: means with intervals, and paired tests against a baseline."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.datasets.tables import DatasetVersion
from service.errors import HttpProblem
from service.experiments.results import GOOD, paired
from service.experiments.trial_results import figures_of
from service.jobs.replicates import replicate_key
from service.jobs.tables import Job
from trainkit.diagnose.compare import summary
from trainkit.diagnose.paired import holm
from trainkit.spec import DatasetFacts
from trainkit.spec.metrics import bounds, direction
from trainkit.spec.split import SplitSpec

Draw = tuple[str, str, int]
"""What two runs share that form a pair: the dataset, the split, and the seed of training."""


NUMBERED = re.compile(r"[\W_]*(?:fold|seed|draw|run)?[\W_]*\d*$")


@dataclass(frozen=True, slots=True)
class Replicates:
    """Jobs of one spec but for seeds and folds, and the metric of those that have ended well."""

    key: str
    name: str
    jobs: Sequence[Job]
    values: Mapping[Draw, float]
    """Of jobs with the same draw the newest: the same bits twice are one run."""

    @property
    def datasets(self) -> set[str]:
        """Ids of the datasets that they train on."""
        return {job.dataset_id for job in self.jobs}

    @property
    def resampled(self) -> bool:
        """Whether the runs were trained and validated on different cuts of the data."""
        return len({split for _, split, _ in self.values}) > 1


def compare_replicates(
    jobs: Sequence[Job], datasets: Mapping[str, DatasetVersion], metric: str, baseline: str | None
) -> dict[str, Any]:
    """Return the groups among these jobs, each compared with that of `baseline` (an id; left out: of the first job)."""
    groups = _groups(jobs, metric)
    chosen = baseline or jobs[0].id
    base = next((group for group in groups if any(job.id == chosen for job in group.jobs)), None)
    if base is None:
        raise HttpProblem(422, "bad_jobs", f"The baseline {chosen} is not among the jobs: name it in `jobs` too.")
    rows = []
    for group in groups:
        share = _validation_share(group, datasets) if group.resampled else None
        values = list(group.values.values())
        figures = summary(values, bounds=bounds(metric), test_share=share).as_dict() if values else NO_FIGURES
        comparison, reason = (None, None) if group is base else _compared(base, group, metric, share)
        rows.append(
            {
                "key": group.key,
                "name": group.name,
                "jobs": [job.id for job in group.jobs],
                **figures,
                "comparison": comparison,
                "p_adjusted": None,
                "not_compared": reason,
            }
        )
    tested = [row for row in rows if row["comparison"] is not None and row["comparison"]["p"] is not None]
    for row, adjusted in zip(tested, holm([row["comparison"]["p"] for row in tested]), strict=True):
        row["p_adjusted"] = adjusted
    return {"metric": metric, "better": direction(metric), "baseline": base.key, "groups": rows}


NO_FIGURES: dict[str, Any] = {
    **dict.fromkeys(("mean", "sd", "se", "low", "high", "test_share")),
    "n": 0,
    "confidence": 0.95,
    "not_finite": [],
}


def _groups(jobs: Sequence[Job], metric: str) -> list[Replicates]:
    members: dict[str, list[Job]] = {}
    for job in jobs:
        members.setdefault(replicate_key(job.spec), []).append(job)
    names = {key: _common_name(found) for key, found in members.items()}
    taken = list(names.values())
    groups = []
    for key, found in members.items():
        name = names[key] if taken.count(names[key]) == 1 else f"{names[key]} ({found[0].id})"
        values = {
            _draw(job): value
            for job in sorted(found, key=lambda job: job.id)
            if job.state in GOOD and (value := figures_of(job).get(metric)) is not None
        }
        groups.append(Replicates(key, name, found, values))
    return groups


def _common_name(jobs: Sequence[Job]) -> str:
    """Return what their names begin with, without the number of a fold or seed: `cv` of `cv: fold 1` and `cv: fold 2`."""
    names = [job.name or job.id for job in jobs]
    first, last = min(names), max(names)
    if first == last:
        return first
    common = first[: next((at for at, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), None)]
    return NUMBERED.sub("", common) or names[0]


def _draw(job: Job) -> Draw:
    resolved = job.resolved or job.spec
    split = json.dumps(resolved.get("split"), sort_keys=True)
    return job.dataset_id, split, int((resolved.get("train") or {}).get("seed", 0))


def _compared(
    base: Replicates, group: Replicates, metric: str, share: float | None
) -> tuple[dict[str, Any] | None, str | None]:
    """Return the paired comparison, or why there is none."""
    if group.datasets != base.datasets:
        return None, f"{group.name} and {base.name} were trained on different datasets."
    for one in (base, group):
        if not one.values:
            return None, f"No job of {one.name} has ended with {metric}."
    pairs = [draw for draw in base.values if draw in group.values]
    if not pairs:
        reason = f"No job of {group.name} has the seed and the split of a job of {base.name}"
        return None, f"{reason}: train both with the same ones to have pairs."
    a, b = [base.values[draw] for draw in pairs], [group.values[draw] for draw in pairs]
    # different cuts of one dataset share training samples, the same cut with other seeds does not count as such
    shared = share if len({split for _, split, _ in pairs}) > 1 else None
    return paired(a, b, metric, (base.name, group.name), shared), None


def _validation_share(group: Replicates, datasets: Mapping[str, DatasetVersion]) -> float | None:
    """Return n_validation / n_train of the group's first job; None where the sizes are not known."""
    job = group.jobs[0]
    facts, split = datasets[job.dataset_id].facts, (job.resolved or {}).get("split")
    if facts is None or split is None:
        return None
    known = DatasetFacts.model_validate(facts)
    train, validation, _ = SplitSpec.model_validate(split).sizes(known.samples, known.splits)
    return validation / train if train and validation else None

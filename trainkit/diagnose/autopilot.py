"""Autopilot: train, diagnose, change the spec, train again. This is its pure part: the next step, and why.

The next step depends on the history alone, so an interrupted autopilot continues with the same steps. Runs are compared
on the validation part only. A later run becomes the base of further steps only if it is better beyond the noise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

from trainkit.diagnose.estimates import MetricChange, MetricEstimate, compare, comparison_metric
from trainkit.diagnose.heuristics import RunView, suggest
from trainkit.diagnose.record import Record
from trainkit.spec import DatasetFacts, JobSpec, ResolvedSpec, SpecError, resolve
from trainkit.spec.estimate import estimate
from trainkit.spec.metrics import direction
from trainkit.spec.models import is_sklearn_model
from trainkit.spec.patch import merge_patch

Kind = Literal["start", "recommendation", "less_memory", "combination", "heuristic"]
Reason = Literal["jobs_spent", "seconds_spent", "nothing_left", "no_validation", "nothing_to_train"]
COMPARABLE_SECTIONS = ("dataset", "task", "split")
"""Sections of the spec that must stay the same for the metrics of two runs to be comparable."""
SECTIONS_WITHOUT_EFFECT = {"name", "labels", "group", "resources", "diagnose", "investigation"}
"""Sections of the spec without an effect on the trained weights."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of an autopilot; None is no limit."""

    jobs: int | None = 8
    seconds: float | None = None
    """Training time of all jobs together. A job is started only if it is expected to end within the limit."""


@dataclass(frozen=True, slots=True)
class AutopilotStep:
    """A job to submit: `patch` on the document of the run `source`, the reason, and the expected effect.

    `code` is, by `kind`: the verdict (recommendation), the error code (less_memory), `combination`, or the name of the
    heuristic.
    """

    document: dict[str, Any]
    patch: dict[str, Any] = field(default_factory=dict)
    why: str = "The submitted spec."
    source: int | None = None
    kind: Kind = "start"
    code: str = ""
    expected: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class CompletedStep:
    """A step whose job has ended, in state `succeeded`, `stopped`, `cancelled` or `failed`.

    `metrics`: `estimates.kept_metrics` of its kept weights; `diagnosis`: `Diagnosis.as_dict()`.
    """

    step: AutopilotStep
    state: str
    metrics: Mapping[str, MetricEstimate] = field(default_factory=dict)
    diagnosis: Mapping[str, Any] | None = None
    seconds: float = 0.0
    error: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class AutopilotEnd:
    """The end of an autopilot. `best`: the run with the best metric; `simplest`: the earliest that is as good within noise.

    Both are None where no run has a metric. Further steps start from `simplest`, which does not build on noise; of two
    equal runs the one with the better metric is still more likely to be better.
    """

    reason: Reason
    best: int | None
    simplest: int | None


def next_step(
    base: Mapping[str, Any], tried: Sequence[CompletedStep], facts: DatasetFacts, budget: Budget | None = None
) -> AutopilotStep | AutopilotEnd:
    """Return the next step, or the end. `base` is the submitted spec, `tried` holds all completed steps.

    Raises SpecError where `base` does not fit the dataset.
    """
    budget = budget or Budget()
    history = History(tried, facts)
    start = history.resolved[0] if tried else resolve(base, facts)
    if budget.jobs is not None and len(tried) >= budget.jobs:
        return history.done("jobs_spent")
    if not tried:
        return AutopilotStep(dict(base))
    if start.spec.model.kind == "ensemble" or is_sklearn_model(start.spec.model):
        return history.done("nothing_to_train")
    if start.spec.train.monitor is None:
        return history.done("no_validation")
    spent, unaffordable = sum(one.seconds for one in tried), False
    for step in history.proposals():
        if budget.seconds is None or spent + history.expected_seconds(step) <= budget.seconds:
            return step
        unaffordable = True
    return history.done("seconds_spent" if unaffordable else "nothing_left")


class History:
    """The completed steps of an autopilot, and what follows from them."""

    def __init__(self, tried: Sequence[CompletedStep], facts: DatasetFacts) -> None:
        self.tried, self.facts = tried, facts
        self.resolved = [resolve(one.step.document, facts) for one in tried]
        self._seen = {canonical_spec(one) for one in self.resolved}

    @cached_property
    def best_after_each(self) -> list[int]:
        """Index of the best run after each step: it changes only to a run that is better beyond the noise."""
        found: list[int] = []
        for index in range(len(self.tried)):
            better = not found or self.compared(found[-1], index).outcome == "improved"
            found.append(index if better else found[-1])
        return found

    @property
    def best(self) -> int:
        """Index of the run that further steps start from."""
        return self.best_after_each[-1]

    @property
    def measured(self) -> bool:
        """Whether any run has a metric."""
        return bool(self.tried) and bool(self.tried[self.best].metrics)

    def done(self, reason: Reason) -> AutopilotEnd:
        """Return the end of the autopilot with its best run."""
        if not self.measured:
            return AutopilotEnd(reason, None, None)
        rivals = [index for index, _ in self._equally_good() if self.compared(self.best, index).is_tentative_gain]
        return AutopilotEnd(reason, rivals[0] if rivals else self.best, self.best)

    def compared(self, before: int, after: int) -> MetricChange:
        """Compare two runs."""
        metric = comparison_metric(self.resolved[before].spec, self.resolved[after].spec)
        return compare(metric, self.tried[before].metrics, self.tried[after].metrics)

    def gain_of(self, index: int) -> MetricChange | None:
        """Return the change of a step against its source run; None for the first step."""
        source = self.tried[index].step.source
        return None if source is None else self.compared(source, index)

    def proposals(self) -> Iterator[AutopilotStep]:
        """Yield the steps that are left, the most promising first."""
        yield from self._less_memory()
        yield from self._combination()
        yield from self._recommended(self.best)
        for index, _ in self._equally_good():
            yield from self._recommended(index)
        yield from self._heuristic_steps()

    def _less_memory(self) -> Iterator[AutopilotStep]:
        """Yield the recommendation of an out-of-memory error: once if another run succeeded, else repeatedly."""
        last = len(self.tried) - 1
        failed = self.tried[last]
        offer = ((failed.error or {}).get("evidence") or {}).get("next_spec") or {}
        if not offer.get("patch") or (failed.step.kind == "less_memory" and self.measured):
            return
        expected = {"metric": "memory", "direction": "down", "size": "about half", "source": "estimate by shapes"}
        code = str((failed.error or {}).get("code"))
        yield from self._step(last, offer["patch"], offer["why"], "less_memory", code, expected)

    def _combination(self) -> Iterator[AutopilotStep]:
        """Yield the combination of all changes with a small gain within the noise that touch different settings."""
        patch: dict[str, Any] = {}
        names, touched = [], set[str]()
        for index, one in enumerate(self.tried):
            changed = self._difference(index)
            if self._is_small_gain(index) and not changed & (touched | self._changed_since(one)):
                patch = merge_patch(patch, one.step.patch)
                touched |= changed
                names.append(one.step.code.replace("_", " "))
        if names:
            why = (
                f"Each of these changes gave a gain within the noise; together they may give more: {', '.join(names)}."
            )
            metric = self.resolved[0].spec.train.monitor or "val_loss"
            way = "down" if direction(metric) == "min" else "up"
            expected = {"metric": metric, "direction": way, "size": "the sum of their gains", "source": "this history"}
            yield from self._step(self.best, patch, why, "combination", "combination", expected)

    def _is_small_gain(self, index: int) -> bool:
        """Return whether a step had a small gain that is not in the best run and was not combined before."""
        gain_of = self.gain_of(index)
        if gain_of is None or not gain_of.is_tentative_gain or self.tried[index].step.kind == "combination":
            return False
        combined = [self._difference(at) for at, one in enumerate(self.tried) if one.step.kind == "combination"]
        return index not in self._lineage(self.best) and not any(self._difference(index) <= one for one in combined)

    def _difference(self, index: int) -> set[str]:
        """Return the JSON pointers of the settings that a step changed in the resolved spec."""
        source = self.tried[index].step.source
        return set() if source is None else _differences(self.resolved[source].spec, self.resolved[index].spec)

    def _changed_since(self, one: CompletedStep) -> set[str]:
        """Return the settings in which the best run differs from the source of this step."""
        assert one.step.source is not None
        return _differences(self.resolved[one.step.source].spec, self.resolved[self.best].spec)

    def _equally_good(self) -> list[tuple[int, float]]:
        """Return (run, gain over the best one) of the runs that are as good within the noise, the better first.

        Recommendations for them may help the best run too.
        """
        comparisons = [
            (index, self.compared(self.best, index)) for index in range(len(self.tried)) if index != self.best
        ]
        equal = [(index, one.gain or 0.0) for index, one in comparisons if one.outcome == "within_noise"]
        return sorted(equal, key=lambda pair: (-pair[1], pair[0]))

    def _recommended(self, index: int) -> Iterator[AutopilotStep]:
        """Yield the recommendations of the diagnosis of a run, in order."""
        for offer in (self.tried[index].diagnosis or {}).get("recommendations", ()):
            if offer["expected"].get("metric") == "seconds" or reason_to_skip(offer["patch"]):
                continue
            if not self._was_tried(offer["patch"]):
                yield from self._step(
                    index, offer["patch"], offer["why"], "recommendation", offer["code"], offer["expected"]
                )

    def _heuristic_steps(self) -> Iterator[AutopilotStep]:
        one, resolved = self.tried[self.best], self.resolved[self.best]
        monitored = one.metrics.get(resolved.spec.train.monitor or "")
        best_position = monitored.epoch / resolved.spec.train.epochs if monitored else None
        record = Record(resolved.spec, self.facts, document=one.step.document)
        refuted = {
            completed.step.code
            for index, completed in enumerate(self.tried)
            if completed.step.kind == "heuristic" and index not in self._lineage(self.best)
        }
        for name, change in suggest(RunView(record, best_position)):
            if name not in refuted and not self._was_tried(change.patch):
                expected = dict(zip(("metric", "direction", "size", "source"), change.expected, strict=True))
                yield from self._step(self.best, change.patch, change.why, "heuristic", name, expected)

    def _was_tried(self, patch: Mapping[str, Any]) -> bool:
        """Return whether the same change was tried before, on any run."""
        return any(one.step.patch == patch for one in self.tried)

    def _step(
        self, source: int, patch: dict[str, Any], why: str, kind: Kind, code: str, expected: dict[str, str]
    ) -> Iterator[AutopilotStep]:
        """Yield the step unless its spec is invalid, was tried, is not comparable, or is known not to help."""
        try:
            document, resolved = self._changed(source, patch)
        except SpecError:
            return
        if canonical_spec(resolved) in self._seen or resolved.spec.train.monitor != self.resolved[0].spec.train.monitor:
            return
        if self._reverts(source, resolved.spec) or (
            kind == "recommendation" and self._failed_elsewhere(source, code, resolved.spec)
        ):
            return
        yield AutopilotStep(document, patch, why, source, kind, code, dict(expected))

    def _failed_elsewhere(self, source: int, code: str, spec: JobSpec) -> bool:
        """Return whether the same settings were changed for the same verdict in another run without success."""
        changed = _differences(self.resolved[source].spec, spec)
        return any(
            one.step.kind == "recommendation"
            and (one.step.code, self._difference(index)) == (code, changed)
            and one.step.source != source
            and index not in self._lineage(self.best)
            for index, one in enumerate(self.tried)
        )

    def _changed(self, source: int, patch: Mapping[str, Any]) -> tuple[dict[str, Any], ResolvedSpec]:
        """Return the patched document and its resolved spec, with the monitored metric kept as it was.

        The default of `monitor` depends on the early-stop rules, so a changed rule could change it.
        """
        document = merge_patch(self.tried[source].step.document, patch)
        resolved = resolve(document, self.facts)
        monitor = self.resolved[0].spec.train.monitor
        if resolved.spec.train.monitor != monitor and "monitor" not in (patch.get("train") or {}):
            document = merge_patch(document, {"train": {"monitor": monitor}})
            resolved = resolve(document, self.facts)
        return document, resolved

    def _reverts(self, source: int, spec: JobSpec) -> bool:
        """Return whether the spec sets a setting back to the value that an ancestor of `source` changed."""
        changed = _differences(self.resolved[source].spec, spec)
        new = _flattened(spec)
        for index in self._lineage(source):
            step = self.tried[index].step
            if step.source is not None:
                before = _flattened(self.resolved[step.source].spec)
                if any(new.get(path) == before.get(path) for path in changed & self._difference(index)):
                    return True
        return False

    def _lineage(self, index: int) -> list[int]:
        """Return the run and its ancestors, the latest first."""
        line: list[int] = []
        at: int | None = index
        while at is not None:
            line.append(at)
            at = self.tried[at].step.source
        return line

    def expected_seconds(self, step: AutopilotStep) -> float:
        """Return the training time of the source run, scaled by the ratio of both estimates."""
        assert step.source is not None
        old = float(estimate(self.resolved[step.source], self.facts)["seconds"])
        new = float(estimate(resolve(step.document, self.facts), self.facts)["seconds"])
        return self.tried[step.source].seconds * (new / old if old > 0 else 1.0)


def reason_to_skip(patch: Mapping[str, Any]) -> str | None:
    """Return why the autopilot does not apply a recommendation: runs would not be comparable. None if it may."""
    for section in COMPARABLE_SECTIONS:
        if section in patch:
            return f"It changes the {section}, so the metrics could not be compared with those of the other runs."
    if "monitor" in (patch.get("train") or {}):
        return "It changes the metric by which runs are compared."
    return None


def canonical_spec(resolved: ResolvedSpec) -> str:
    """Return a text that is equal for specs that train the same way, however they are written."""
    return json.dumps(resolved.spec.model_dump(mode="json", exclude=SECTIONS_WITHOUT_EFFECT), sort_keys=True)


def _differences(one: JobSpec, other: JobSpec) -> set[str]:
    first, second = _flattened(one), _flattened(other)
    return {path for path in {*first, *second} if first.get(path) != second.get(path)}


def _flattened(spec: JobSpec) -> dict[str, Any]:
    return _leaves(spec.model_dump(mode="json", exclude=SECTIONS_WITHOUT_EFFECT))


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Return JSON pointer -> value of every leaf; a list is one leaf."""
    if not isinstance(value, Mapping):
        return {path: value}
    return {pointer: leaf for key, one in value.items() for pointer, leaf in _leaves(one, f"{path}/{key}").items()}

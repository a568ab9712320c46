"""Autopilot: train, look at what came of it, change one thing, train again. The pure part: which job is next, and why.

A function of the history alone, so that one that was interrupted goes on with the same steps. Runs are compared on the
validation part, and by it alone; it builds on a later one only where that is better by more than the noise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

from trainkit.diagnose.estimates import Compared, Figure, compare, figure_of
from trainkit.diagnose.heuristics import RunView, moves
from trainkit.diagnose.record import Record
from trainkit.spec import DatasetFacts, JobSpec, Resolved, SpecError, check_spec, resolve
from trainkit.spec.estimate import estimate
from trainkit.spec.metrics import direction
from trainkit.spec.patch import merge_patch
from trainkit.spec.sklearn_checks import is_yardstick

Kind = Literal["start", "remedy", "less_memory", "combination", "move"]
Reason = Literal["jobs_spent", "seconds_spent", "nothing_left", "no_validation", "nothing_to_train"]
NOT_OURS = ("dataset", "task", "split")
"""Sections that say what is measured, and on which samples: with another of these, figures could not be compared."""
ABOUT = {"name", "labels", "experiment", "resources"}
"""Sections without influence on what is learnt."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent. None: no bound of that kind."""

    jobs: int | None = 8
    seconds: float | None = None
    """Of training, all jobs together. A job is begun where it is expected to end in time."""


@dataclass(frozen=True, slots=True)
class Step:
    """A job to submit: `patch` on the document of the run `source`, why, and what should come of it.

    `kind` and `code`: a remedy and its verdict; `less_memory` and the error's code; a combination; a move and its name.
    """

    document: dict[str, Any]
    patch: dict[str, Any] = field(default_factory=dict)
    why: str = "The spec that was given."
    source: int | None = None
    kind: Kind = "start"
    code: str = ""
    expected: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Tried:
    """A step that has been made: how its job ended (`succeeded`, `stopped`, `cancelled`, `failed`), the validation
    figures of the weights it kept (`figures.kept_figures`), its diagnosis (`Diagnosis.as_dict()`) and its error, if any."""

    step: Step
    state: str
    figures: Mapping[str, Figure] = field(default_factory=dict)
    diagnosis: Mapping[str, Any] | None = None
    seconds: float = 0.0
    error: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """No further job. `best`: the run with the best figure; `simplest`: the earliest that is as good within the noise.

    Both are None where no run has a figure. Steps are built on the second, for what is no more than noise should not
    be built upon; but of two that cannot be told apart the one that looks better is more likely to be.
    """

    reason: Reason
    best: int | None
    simplest: int | None


def next_step(
    base: Mapping[str, Any], tried: Sequence[Tried], facts: DatasetFacts, budget: Budget | None = None
) -> Step | Done:
    """The next job, or that there is none. `base` is the spec as submitted, `tried` all steps so far that have ended.

    Raises SpecError where `base` does not fit the dataset.
    """
    budget = budget or Budget()
    start = resolve(check_spec(dict(base), facts), facts)
    history = History(tried, facts)
    if budget.jobs is not None and len(tried) >= budget.jobs:
        return history.done("jobs_spent")
    if not tried:
        return Step(dict(base))
    if start.spec.model.kind == "ensemble" or is_yardstick(start.spec.model):
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
    """What has been tried, with everything that follows from it."""

    def __init__(self, tried: Sequence[Tried], facts: DatasetFacts) -> None:
        self.tried, self.facts = tried, facts
        self.resolved = [resolve(check_spec(one.step.document, facts), facts) for one in tried]
        self._seen = {canonical(one) for one in self.resolved}

    @cached_property
    def champions(self) -> list[int]:
        """The best run after each: the first one, until a later one is better by more than the noise."""
        found: list[int] = []
        for index in range(len(self.tried)):
            better = not found or self.compared(found[-1], index).outcome == "improved"
            found.append(index if better else found[-1])
        return found

    @property
    def best(self) -> int:
        """The run to build on."""
        return self.champions[-1]

    @property
    def measured(self) -> bool:
        """Whether any run has a figure."""
        return bool(self.tried) and bool(self.tried[self.best].figures)

    def done(self, reason: Reason) -> Done:
        """The end, and what to take."""
        if not self.measured:
            return Done(reason, None, None)
        rivals = [index for index, _ in self._rivals() if self.compared(self.best, index).leans]
        return Done(reason, rivals[0] if rivals else self.best, self.best)

    def compared(self, before: int, after: int) -> Compared:
        """What became of the figure from one run to another."""
        metric = figure_of(self.resolved[before].spec, self.resolved[after].spec)
        return compare(metric, self.tried[before].figures, self.tried[after].figures)

    def gained(self, index: int) -> Compared | None:
        """What a step brought beyond the run that it was made from; None for the first."""
        source = self.tried[index].step.source
        return None if source is None else self.compared(source, index)

    def proposals(self) -> Iterator[Step]:
        """Every step that is left, the best first."""
        yield from self._less_memory()
        yield from self._combination()
        yield from self._remedies(self.best)
        for index, _ in self._rivals():
            yield from self._remedies(index)
        yield from self._moves()

    def _less_memory(self) -> Iterator[Step]:
        """What the error of a run without memory offers; once after a run that had enough, else until one has."""
        last = len(self.tried) - 1
        failed = self.tried[last]
        offer = ((failed.error or {}).get("evidence") or {}).get("next_spec") or {}
        if not offer.get("patch") or (failed.step.kind == "less_memory" and self.measured):
            return
        told = {"metric": "memory", "direction": "down", "size": "about half", "source": "estimate by shapes"}
        code = str((failed.error or {}).get("code"))
        yield from self._step(last, offer["patch"], offer["why"], "less_memory", code, told)

    def _combination(self) -> Iterator[Step]:
        """All changes that brought something within the noise, on the best run, where they touch different things."""
        patch: dict[str, Any] = {}
        names, touched = [], set[str]()
        for index, one in enumerate(self.tried):
            made = self._difference(index)
            if self._helped_a_little(index) and not made & (touched | self._since(one)):
                patch = merge_patch(patch, one.step.patch)
                touched |= made
                names.append(one.step.code.replace("_", " "))
        if names:
            why = f"Each of these brought a little, within the noise; together they may be more: {', '.join(names)}."
            metric = self.resolved[0].spec.train.monitor or "val_loss"
            way = "down" if direction(metric) == "min" else "up"
            told = {"metric": metric, "direction": way, "size": "the sum of theirs", "source": "this history"}
            yield from self._step(self.best, patch, why, "combination", "combination", told)

    def _helped_a_little(self, index: int) -> bool:
        """Whether a step brought something that the best run does not have, and no combination has tried yet."""
        gained = self.gained(index)
        if gained is None or not gained.leans or self.tried[index].step.kind == "combination":
            return False
        combined = [self._difference(at) for at, one in enumerate(self.tried) if one.step.kind == "combination"]
        return index not in self._lineage(self.best) and not any(self._difference(index) <= one for one in combined)

    def _difference(self, index: int) -> set[str]:
        """What a step changed in the resolved spec, as JSON pointers."""
        source = self.tried[index].step.source
        return set() if source is None else _differences(self.resolved[source].spec, self.resolved[index].spec)

    def _since(self, one: Tried) -> set[str]:
        """Where the best run differs from the run that this step was made from."""
        assert one.step.source is not None
        return _differences(self.resolved[one.step.source].spec, self.resolved[self.best].spec)

    def _rivals(self) -> list[tuple[int, float]]:
        """(run, gain over the best one) of those that are as good within the noise, the better first: cures of theirs
        may be its own."""
        told = [(index, self.compared(self.best, index)) for index in range(len(self.tried)) if index != self.best]
        equal = [(index, one.gain or 0.0) for index, one in told if one.outcome == "within_noise"]
        return sorted(equal, key=lambda pair: (-pair[1], pair[0]))

    def _remedies(self, index: int) -> Iterator[Step]:
        """What the diagnosis of that run offers, in its order."""
        for offer in (self.tried[index].diagnosis or {}).get("next_specs", ()):
            if offer["expected"].get("metric") == "seconds" or reason_not_to(offer["patch"]):
                continue
            if not self._known(offer["patch"]):
                yield from self._step(index, offer["patch"], offer["why"], "remedy", offer["code"], offer["expected"])

    def _moves(self) -> Iterator[Step]:
        one, resolved = self.tried[self.best], self.resolved[self.best]
        figure = one.figures.get(resolved.spec.train.monitor or "")
        place = figure.epoch / resolved.spec.train.epochs if figure else None
        record = Record(resolved.spec, self.facts, document=one.step.document)
        refuted = {
            made.step.code
            for index, made in enumerate(self.tried)
            if made.step.kind == "move" and index not in self._lineage(self.best)
        }
        for name, offer in moves(RunView(record, place)):
            if name not in refuted and not self._known(offer.patch):
                told = dict(zip(("metric", "direction", "size", "source"), offer.expected, strict=True))
                yield from self._step(self.best, offer.patch, offer.why, "move", name, told)

    def _known(self, patch: Mapping[str, Any]) -> bool:
        """Whether the same change was made before: what did not help once is not tried on every run."""
        return any(one.step.patch == patch for one in self.tried)

    def _step(
        self, source: int, patch: dict[str, Any], why: str, kind: Kind, code: str, expected: dict[str, str]
    ) -> Iterator[Step]:
        """The step, unless it is no valid spec, was tried, measures something else, or is known not to help."""
        try:
            document, resolved = self._changed(source, patch)
        except SpecError:
            return
        if canonical(resolved) in self._seen or resolved.spec.train.monitor != self.resolved[0].spec.train.monitor:
            return
        if self._takes_back(source, resolved.spec) or (kind == "remedy" and self._in_vain(source, code, resolved.spec)):
            return
        yield Step(document, patch, why, source, kind, code, dict(expected))

    def _in_vain(self, source: int, code: str, spec: JobSpec) -> bool:
        """Whether the same settings were changed against the same verdict in another run, and nothing came of it."""
        changed = _differences(self.resolved[source].spec, spec)
        return any(
            one.step.kind == "remedy"
            and (one.step.code, self._difference(index)) == (code, changed)
            and one.step.source != source
            and index not in self._lineage(self.best)
            for index, one in enumerate(self.tried)
        )

    def _changed(self, source: int, patch: Mapping[str, Any]) -> tuple[dict[str, Any], Resolved]:
        """The patched document. Where a rule is taken out or put in that said what to monitor, that is written out."""
        document = merge_patch(self.tried[source].step.document, patch)
        resolved = resolve(check_spec(document, self.facts), self.facts)
        monitor = self.resolved[0].spec.train.monitor
        if resolved.spec.train.monitor != monitor and "monitor" not in (patch.get("train") or {}):
            document = merge_patch(document, {"train": {"monitor": monitor}})
            resolved = resolve(check_spec(document, self.facts), self.facts)
        return document, resolved

    def _takes_back(self, source: int, spec: JobSpec) -> bool:
        """Whether it sets something back to what a run on the way here had come away from."""
        changed = _differences(self.resolved[source].spec, spec)
        new = _flat(spec)
        for index in self._lineage(source):
            made = self.tried[index].step
            if made.source is not None:
                before = _flat(self.resolved[made.source].spec)
                if any(new.get(path) == before.get(path) for path in changed & self._difference(index)):
                    return True
        return False

    def _lineage(self, index: int) -> list[int]:
        """The run and all those that it was made from, the latest first."""
        line: list[int] = []
        at: int | None = index
        while at is not None:
            line.append(at)
            at = self.tried[at].step.source
        return line

    def expected_seconds(self, step: Step) -> float:
        """Those of the run it is made from, by the ratio of both estimates."""
        assert step.source is not None
        old = float(estimate(self.resolved[step.source], self.facts)["seconds"])
        new = float(estimate(resolve(check_spec(step.document, self.facts), self.facts), self.facts)["seconds"])
        return self.tried[step.source].seconds * (new / old if old > 0 else 1.0)


def reason_not_to(patch: Mapping[str, Any]) -> str | None:
    """Why autopilot leaves a remedy to people: figures would no longer be of the same thing. None where it may take it."""
    for section in NOT_OURS:
        if section in patch:
            return f"It changes the {section}: figures could not be compared with the others."
    if "monitor" in (patch.get("train") or {}):
        return "It changes the metric by which runs are chosen."
    return None


def canonical(resolved: Resolved) -> str:
    """Equal for specs that train the same, however they are written."""
    return json.dumps(resolved.spec.model_dump(mode="json", exclude=ABOUT), sort_keys=True)


def _differences(one: JobSpec, other: JobSpec) -> set[str]:
    first, second = _flat(one), _flat(other)
    return {path for path in {*first, *second} if first.get(path) != second.get(path)}


def _flat(spec: JobSpec) -> dict[str, Any]:
    return _walk(spec.model_dump(mode="json", exclude=ABOUT))


def _walk(value: Any, path: str = "") -> dict[str, Any]:
    """JSON pointer -> value of every leaf; a list is one leaf."""
    if not isinstance(value, Mapping):
        return {path: value}
    return {pointer: leaf for key, one in value.items() for pointer, leaf in _walk(one, f"{path}/{key}").items()}

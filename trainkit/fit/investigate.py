"""An investigation in one process: train the variants that `trainkit.diagnose.investigation` asks for, and conclude."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from trainkit.data import Dataset
from trainkit.data.report import report as report_of
from trainkit.diagnose.attainable import Attainable
from trainkit.diagnose.findings import InvestigationFindings, conclude
from trainkit.diagnose.investigation import next_variants, why_not_investigated
from trainkit.diagnose.investigation_history import InvestigationBudget, Variant, VariantResult
from trainkit.diagnose.record import Record, Series
from trainkit.diagnose.sample_scores import SampleScores
from trainkit.fit.batched.grouping import train_with_first
from trainkit.fit.batched.run import as_batched, obstacle, train_together
from trainkit.fit.control import Command, Control
from trainkit.fit.device import choose_device, machine, reuse_runtime
from trainkit.fit.encoding.prepare import Prepared, prepare
from trainkit.fit.evaluation.evaluate import outputs_of
from trainkit.fit.evaluation.metrics import probabilities
from trainkit.fit.events import Events
from trainkit.fit.failure import error_of
from trainkit.fit.fit_and_diagnose import EventCollector
from trainkit.fit.loop.fit import build_result, build_setup, describe_runtime, one_thread, resolve_for, train
from trainkit.fit.loop.result import FitResult, TrainingOutcome
from trainkit.fit.loop.setup import RunSetup, dropout_seed
from trainkit.fit.loop.training_run import TrainingRun
from trainkit.spec import JobSpec, ResolvedSpec, resolve
from trainkit.spec.facts import is_classification
from trainkit.spec.failures import failure
from trainkit.spec.problems import Problem, SpecError

OnEvent = Callable[[dict[str, Any]], object]
Clock = Callable[[], float]
Outcome = Literal["finished", "stopped", "cancelled", "paused", "handed_back"]
ENDS: dict[str, Outcome] = {
    "stop": "stopped",
    "cancel": "cancelled",
    "pause": "paused",
    "hand_back": "handed_back",
}
STATE_VERSION = 1
OVERRUN = 1.1
"""Share of the budget's seconds at which the run in progress is ended; it was begun because it was expected to fit."""
KEPT_SERIES = ("train_loss", "val_loss", "train_accuracy", "val_accuracy", "val_recall", "val_r2", "val_mae")
MOST_POINTS = 200
DATA_SECTIONS = (
    *("dataset", "task", "split", "balance", "preprocess", "preprocess_columns", "augment", "target_scaling"),
    "resources",
)
"""Sections on which the prepared parts depend, beside the model's kind and, of a re-balanced draw, the seed."""


@dataclass(frozen=True, slots=True)
class Investigation:
    """What an investigation came to. `state` resumes it with the same plan; `outcome` says how it ended.

    results: of every variant, in the order of their training. record: the run that was investigated.
    """

    findings: InvestigationFindings
    results: list[VariantResult]
    record: Record
    outcome: Outcome
    state: dict[str, Any]

    @property
    def variants(self) -> list[Variant]:
        """All variants that were trained, the base first."""
        return [result.variant for result in self.results]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: outcome, findings, and of each variant its patch, metrics and series."""
        return {
            "outcome": self.outcome,
            "findings": self.findings.as_dict(),
            "variants": [described(result) for result in self.results],
        }


def investigate(
    document: JobSpec | Mapping[str, Any],
    data: Dataset,
    *,
    record: Record | None = None,
    attainable: Attainable | None = None,
    budget: InvestigationBudget | None = None,
    state: Mapping[str, Any] | None = None,
    on_event: OnEvent | None = None,
    control: Control | None = None,
    workdir: str | Path | None = None,
    source: Any = None,
    target_data: Dataset | None = None,
    runtime: Mapping[str, Any] | None = None,
    lost: Mapping[str, Any] | None = None,
    clock: Clock = time.perf_counter,
) -> Investigation:
    """Find by short controlled runs what is wrong with a run of `document`, and which changes repair it.

    Args:
        document: The spec of the run, as submitted.
        data: Its dataset.
        record: The run's record; left out, the base that is trained first.
        attainable: What good models reach on this dataset and split (`trainkit.diagnose.attainable`).
        budget: Seconds or number of runs; a minute where it is left out.
        state: `Investigation.state` or that of the newest `investigation_state` event, to go on from.
        on_event: Called with JSON-able dicts: `runtime` once; `variant` at a variant's beginning and end; `metrics`,
            `progress` and `log` of it, with its name in `variant`; `investigation_state`; and `findings` at the end.
            Variants that train as one run at the same time.
        control: Asked once a step. Every command ends the investigation; what has been trained is kept in `state`, and
            what is in progress is dropped.
        workdir: Folder for the weights of the variants that are better than the base, `variants/<name>` (`load_model`);
            without it none are kept.
        source: As in `fit`.
        target_data: As in `fit`.
        runtime: `FitResult.runtime` of the run, to compute on the same terms.
        lost: The error that ended the process which trained the next variant before, such as `out_of_memory`: it is that
            variant's result, and the next one follows. Where several trained as one it is nobody's result: from then on
            variants train one by one.
        clock: What the seconds of the budget are. `time.process_time` counts those of the processor, so that other
            processes on the machine do not shorten the investigation.

    Raises:
        SpecError: The document does not fit the data, or such a run cannot be investigated.
        ValueError: The state is of another document or version.
    """
    spec_document = document.model_dump(mode="json", exclude_unset=True) if isinstance(document, JobSpec) else document
    submitted = copy.deepcopy(dict(spec_document))
    resolved = resolve(submitted, data.facts)
    if (reason := why_not_investigated(resolved.spec)) is not None:
        raise SpecError([Problem("/model", "not_investigated", reason, "")])
    budget = budget or InvestigationBudget()
    trainer = _Trainer(data, on_event, _Interrupting(control, clock), workdir, source, target_data, runtime)
    trainer.numbers = resolved.spec.task is None or not is_classification(resolved.spec.task)
    results = trainer.resume(state, submitted)
    if record is None:
        record = (
            _blank(resolved, data, submitted) if not results else trainer.record_of(results[0], resolved, submitted)
        )
    traces_base = record.state == "running" and not record.series
    if attainable is not None:
        record = replace(record, attainable=attainable)
    while trainer.command() is None and (waiting := next_variants(record, results, budget)):
        limit = None if budget.seconds is None else OVERRUN * budget.seconds - sum(one.seconds for one in results)
        chosen = trainer.train_with_first(waiting)
        if lost is None:
            trained = trainer.train(chosen, limit)
        elif len(chosen) == 1:
            trained = [trainer.failed(chosen[0], dict(lost))]
        else:
            trainer.one_by_one, trained = True, []
        lost = None
        if trained is None:
            break
        results += trained
        if traces_base and results:
            record = trainer.record_of(results[0], resolved, submitted)
            if attainable is not None:
                record = replace(record, attainable=attainable)
            traces_base = False
        trainer.keep(results)
    findings = conclude(record, results, budget)
    command = trainer.command()
    trainer.send("findings", findings=findings.as_dict())
    outcome = "finished" if command is None else ENDS[command["action"]]
    return Investigation(findings, results, record, outcome, trainer.state(results))


def described(result: VariantResult) -> dict[str, Any]:
    """A variant for people: without document and sample scores, which `state` has."""
    variant = result.variant
    return {
        "name": variant.name,
        "kind": variant.kind,
        "patch": variant.patch,
        "cause": variant.cause,
        "measure": variant.measure,
        "share": variant.share,
        "changes": list(variant.changes),
        "why": variant.why,
        "state": result.state,
        "metrics": dict(result.metrics),
        "skill": None if result.scores is None else result.scores.skill,
        "seconds": round(result.seconds, 3),
        "series": {name: dict(one) for name, one in result.series.items()},
        "error": None if result.error is None else dict(result.error),
        "artifact": result.artifact,
    }


class _Interrupting:
    """A control that ends the runs in progress for any command, which it keeps, and when their time is up."""

    def __init__(self, control: Control | None, clock: Clock) -> None:
        self._control, self.clock = control, clock
        self.given: Command | dict[str, Any] | None = None
        self.deadline: float | None = None
        """Reading of the clock at which what is in progress ends."""
        self.is_late = False

    def command(self) -> Command | dict[str, Any] | None:
        if self._control is not None:
            self.given = self.given or self._control.command()
        self.is_late = self.is_late or (self.deadline is not None and self.clock() > self.deadline)
        return {"action": "cancel"} if self.given is not None or self.is_late else None


@dataclass
class _VariantRun:
    """A variant in training: the spec and data of its run, then its setup, its result and scores; or its error."""

    variant: Variant
    collected: EventCollector
    spec: JobSpec | None = None
    data: Dataset | None = None
    setup: RunSetup | None = None
    run: TrainingRun | None = None
    result: FitResult | None = None
    scores: SampleScores | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    artifact: str | None = None
    error: dict[str, Any] | None = None

    @property
    def events(self) -> Events:
        """Of its run."""
        return Events(self.collected)

    @property
    def steps(self) -> int:
        """Steps that it has taken, at least one: what its share of the seconds is in proportion to."""
        return 1 if self.run is None else max(1, self.run.state.position.step)

    @property
    def is_unfinished(self) -> bool:
        """Whether a command or the deadline has ended it."""
        return self.result is not None and self.result.outcome != "finished"

    def end(self, ended: TrainingOutcome | Exception) -> None:
        """Build the result of a training that has ended."""
        assert self.run is not None
        if isinstance(ended, Exception):
            self.fail(ended)
            return
        try:
            self.result = build_result(self.run, ended, describe_runtime(self.run.setup))
        except Exception as failed:
            self.fail(failed)

    def fail(self, error: Exception) -> None:
        """Keep an error as what ended the run. One of the machine or of trainkit is raised for the base."""
        self.error = error_of(error, self.variant.document)
        if self.error["layer"] in ("platform", "internal") and self.variant.kind == "base":
            raise error


class _Trainer:
    """Trains variants on the same terms, several as one where `train_with_first` says so."""

    def __init__(
        self,
        data: Dataset,
        on_event: OnEvent | None,
        control: _Interrupting,
        workdir: str | Path | None,
        source: Any,
        target_data: Dataset | None,
        runtime: Mapping[str, Any] | None,
    ) -> None:
        self._data, self._on_event = data, on_event
        self._control = control
        self._workdir = None if workdir is None else Path(workdir)
        self._source, self._target_data = source, target_data
        self._runtime: dict[str, Any] | None = None if runtime is None else dict(runtime)
        self._runtime_sent = False
        self._base_scores: SampleScores | None = None
        self._prepared: dict[str, Prepared] = {}
        self._base_series: dict[str, Series] = {}
        self._base_evaluation: dict[str, Any] | None = None
        self._document: dict[str, Any] = {}
        self.numbers = False
        """Whether the run that is investigated predicts numbers; then variants that predict classes are scored so, too."""
        self.one_by_one = False
        """Whether no variants train as one any more, because a training of several has failed as a whole."""

    def send(self, event: str, /, **fields: Any) -> None:
        """Send an event."""
        if self._on_event is not None:
            self._on_event({"type": event, **fields})

    def command(self) -> Command | dict[str, Any] | None:
        """The command that ends the investigation."""
        self._control.command()
        return self._control.given

    # The state

    def resume(self, state: Mapping[str, Any] | None, document: dict[str, Any]) -> list[VariantResult]:
        """The results of a state, whose first record and runtime are taken over."""
        self._document = document
        if state is None:
            return []
        if state.get("version") != STATE_VERSION:
            raise ValueError(
                f"the state of the investigation has version {state.get('version')!r}, and this trainkit reads "
                f"{STATE_VERSION}; begin a new investigation"
            )
        if state["document"] != document:
            raise ValueError("the state of the investigation is of another spec; pass the spec that it was begun with")
        self._runtime = state["runtime"]
        self._base_series = {
            name: Series(np.array(step, np.int64), np.array(epoch, np.int64), np.array(value, np.float64))
            for name, (step, epoch, value) in state["base_series"].items()
        }
        self._base_evaluation = state["base_evaluation"]
        self.one_by_one = state.get("one_by_one", False)
        results = [VariantResult.from_dict(result) for result in state["results"]]
        self._base_scores = next((r.scores for r in reversed(results) if r.variant.kind == "base"), None)
        return results

    def state(self, results: list[VariantResult]) -> dict[str, Any]:
        """JSON-able: all that a resumed investigation needs."""
        return {
            "version": STATE_VERSION,
            "document": self._document,
            "runtime": self._runtime,
            "base_series": {
                name: [one.step.tolist(), one.epoch.tolist(), one.value.tolist()]
                for name, one in self._base_series.items()
            },
            "base_evaluation": self._base_evaluation,
            "one_by_one": self.one_by_one,
            "results": [result.as_dict() for result in results],
        }

    def keep(self, results: list[VariantResult]) -> None:
        """Send what is known so far."""
        if self._on_event is not None:
            self.send("investigation_state", state=self.state(results))

    def record_of(self, base: VariantResult, resolved: ResolvedSpec, document: dict[str, Any]) -> Record:
        """The record of the base that was trained here."""
        return replace(
            _blank(resolved, self._data, document),
            series=self._base_series,
            evaluation=self._base_evaluation,
            state=base.state,
            stop_reason="completed" if base.state == "succeeded" else "diverged",
        )

    # Variants

    def train_with_first(self, waiting: Sequence[Variant]) -> list[Variant]:
        """Return the first variant, and those that train as one with it. A base trains alone, as the run itself did."""
        if self.one_by_one or self._runtime is None or waiting[0].kind == "base":
            return [waiting[0]]
        specs = [(one, self._resolved(one)) for one in waiting if one.kind != "base"]
        known = [(one, resolved) for one, resolved in specs if resolved is not None]
        if not known or known[0][0] is not waiting[0]:
            return [waiting[0]]
        device = torch.device(self._runtime["device"])
        return [known[at][0] for at in train_with_first([spec for _, spec in known], self._data.facts, device)]

    def _resolved(self, variant: Variant) -> ResolvedSpec | None:
        try:
            return resolve(variant.document, self._data.facts)
        except SpecError:
            return None  # what is wrong will be its result

    def failed(self, variant: Variant, error: dict[str, Any]) -> VariantResult:
        """Return the result of a variant whose process died; no seconds, since these were another process's."""
        return self._ended(VariantResult(variant, "failed", error=error))

    def train(self, variants: Sequence[Variant], limit: float | None = None) -> list[VariantResult] | None:
        """Train variants, as one where they are several. One that fails, or takes longer than `limit`, is a result.

        Their results come at once, so that an interrupted training of several begins again with the same variants and
        gives the same bits. None where a command ended it; empty where they cannot train as one, and will train one by
        one. The base has no limit: without it there is nothing to compare with.
        """
        clock = self._control.clock
        began = clock()
        self._control.is_late = False
        self._control.deadline = None if limit is None or variants[0].kind == "base" else began + limit
        runs = self._build(variants)
        if len(runs) == 1:
            self._train_alone(runs[0])
        elif not self._train_together(runs):
            self.one_by_one = True
            return []
        if any(run.is_unfinished for run in runs) and (not self._control.is_late or self._control.given is not None):
            return None
        for run in runs:
            self._measure(run)
        spent, steps = clock() - began, sum(run.steps for run in runs)
        return [self._ended(self._result(run, spent, run.steps / steps)) for run in runs]

    def _build(self, variants: Sequence[Variant]) -> list[_VariantRun]:
        """Announce variants, and build the setups of their runs, with prepared parts in common where they are the same."""
        runs = []
        for variant in variants:
            self.send("variant", **_shown(variant), state="running")
            run = _VariantRun(variant, EventCollector(partial(self._pass_on, variant.name)))
            runs.append(run)
            try:
                run.spec, run.data = resolve_for(variant.document, self._data, run.events, self._control)
            except Exception as failed:
                run.fail(failed)
        needed = {_data_key(run.spec) for run in runs if run.spec is not None}
        # those of earlier variants beside them may not fit the memory
        self._prepared = {key: prepared for key, prepared in self._prepared.items() if key in needed}
        for run in runs:
            try:
                self._set_up(run)
            except Exception as failed:
                run.fail(failed)
        return runs

    def _set_up(self, run: _VariantRun) -> None:
        if run.spec is None or run.data is None:
            return
        spec, events = run.spec, run.events
        device = choose_device(self._runtime["device"] if self._runtime else spec.resources.device)
        with one_thread():
            key = _data_key(spec)
            if key not in self._prepared:
                self._prepared[key] = prepare(spec, run.data, device, events.phase)
            run.setup = build_setup(
                spec,
                run.data,
                self._prepared[key],
                device,
                events,
                control=self._control,
                workdir=None,
                runtime=None if self._runtime is None else reuse_runtime(self._runtime),
                source=self._source,
                target_data=self._target_data,
            )
        if self._runtime is None:
            self._runtime = run.setup.runtime.as_dict()
        if not self._runtime_sent:
            self.send("runtime", **describe_runtime(run.setup))
            self._runtime_sent = True

    def _train_alone(self, run: _VariantRun) -> None:
        if run.setup is None:
            return
        with machine(run.setup.runtime, dropout_seed(run.setup.spec)):
            try:
                run.run = TrainingRun(run.setup)
                run.end(train(run.run))
            except Exception as failed:
                run.fail(failed)

    def _train_together(self, runs: Sequence[_VariantRun]) -> bool:
        """Train as one what has a setup; False where that is not possible after all, or fails as a whole."""
        ready = [run for run in runs if run.setup is not None]
        setups = [as_batched(run.setup) for run in ready if run.setup is not None]
        if not setups:
            return True
        why_not = obstacle(setups)
        if why_not is None:
            try:
                for run, setup in zip(ready, setups, strict=True):
                    run.setup, run.run = setup, TrainingRun(setup)
                train_together([run.run for run in ready if run.run is not None], lambda at, how: ready[at].end(how))
            except Exception as failed:
                why_not = str(error_of(failed)["message"])
        if why_not is not None:
            self.send("log", level="warning", message=f"variants cannot train as one, and go one by one: {why_not}")
        return why_not is None

    def _measure(self, run: _VariantRun) -> None:
        """Score a trained network, and keep its weights where somebody may want to go on from them."""
        if run.setup is None or run.result is None or run.result.model is None:
            return
        variant = run.variant
        try:
            run.scores = validation_scores(run.setup, numbers=self.numbers)
            run.metrics = {**_metrics(run.result), "train_samples": float(len(run.setup.data.train))}
            if self._is_worth_keeping(variant, run.scores) and self._workdir is not None:
                run.artifact = f"variants/{variant.name}"
                run.result.model.save(self._workdir / run.artifact)
        except Exception as failed:
            run.fail(failed)

    def _result(self, run: _VariantRun, spent: float, share: float) -> VariantResult:
        """Return the result of a run that has its share of the seconds that have been spent."""
        if run.is_unfinished:
            message = f"it was ended after {spent:.3g} s, when the seconds of the investigation were used up"
            return VariantResult(run.variant, "failed", seconds=spent * share, error=failure("out_of_time", message))
        series = run.collected.series()
        if run.variant.kind == "base" and not self._base_series:
            self._base_series = _logged(series)
            self._base_evaluation = run.collected.latest.get("evaluation")
        state: Literal["succeeded", "failed"] = "succeeded" if run.error is None else "failed"
        return VariantResult(
            run.variant, state, run.metrics, run.scores, spent * share, _short(series), run.error, run.artifact
        )

    def _ended(self, result: VariantResult) -> VariantResult:
        self._control.deadline, self._control.is_late = None, False
        self.send("variant", **_shown(result.variant), state=result.state, result=described(result))
        return result

    def _is_worth_keeping(self, variant: Variant, scores: SampleScores | None) -> bool:
        """Whether somebody may want to go on from these weights: those of a change that is better than the base."""
        if variant.kind == "base":
            self._base_scores = scores
            return False
        base = self._base_scores
        if scores is None or variant.kind not in ("change", "combination"):
            return False
        if base is None or scores.skill > base.skill:
            return True
        return scores.predicted is not None and scores.value("val_recall") > base.value("val_recall")

    def _pass_on(self, name: str, event: dict[str, Any]) -> None:
        if event["type"] in ("metrics", "progress", "log"):
            self.send(event["type"], **{k: v for k, v in event.items() if k != "type"}, variant=name)


def validation_scores(setup: RunSetup, *, numbers: bool = False) -> SampleScores | None:
    """How well a trained network predicts each sample of its validation part; None without such a part.

    `numbers`: classes that are numbers are scored as such: the prediction is their mean, weighted by probability, which
    is the value with the least expected squared error.
    """
    part = setup.data.val
    if part is None:
        return None
    network = setup.network.to(setup.device)
    network.eval()
    with machine(setup.runtime, 0):
        outputs = outputs_of(setup.forward, part, setup.data.preprocessing).cpu().numpy()
    if setup.data.classes is None:
        scaler = setup.data.scaler
        values = outputs.astype(np.float64) if scaler is None else scaler.invert(outputs)
        return SampleScores.of_numbers(part.index, part.truth, values)
    kind = setup.spec.loss.kind if setup.spec.loss is not None else "cross_entropy"
    shares = probabilities(outputs, kind)
    if numbers:
        values = np.array(setup.data.classes, np.float64)
        return SampleScores.of_numbers(part.index, values[part.truth], shares @ values)
    return SampleScores.of_classes(part.index, part.truth, shares)


def _shown(variant: Variant) -> dict[str, Any]:
    """What its events show of a variant."""
    return {name: getattr(variant, name) for name in ("name", "patch", "cause", "kind", "share", "why")}


def _data_key(spec: JobSpec) -> str:
    fields = {name: getattr(spec, name) for name in DATA_SECTIONS}
    shown = spec.model_dump(mode="json", include=set(fields))
    seed = spec.train.seed if spec.balance in ("oversample", "undersample") else None
    return json.dumps([shown, spec.model.kind, seed], sort_keys=True)


def _blank(resolved: ResolvedSpec, data: Dataset, document: dict[str, Any]) -> Record:
    """The record of a run that has not begun."""
    return Record(spec=resolved.spec, facts=data.facts, report=report_of(data, "", {}), document=document)


def _metrics(result: FitResult | None) -> dict[str, float]:
    """Metrics of the kept weights on the held-out parts, `val_accuracy` and so on; finite ones."""
    parts = {} if result is None or result.evaluation is None else result.evaluation["parts"]
    found = {f"{part}_{name}": float(value) for part, metrics in parts.items() for name, value in metrics.items()}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _logged(series: Mapping[str, Series]) -> dict[str, Series]:
    """Series without the values that JSON cannot hold."""
    return {name: one.finite for name, one in series.items()}


def _short(series: Mapping[str, Series]) -> dict[str, dict[str, list[float]]]:
    """The main curves, at most MOST_POINTS values each; the last one is always kept."""
    found = {}
    for name in KEPT_SERIES:
        one = series[name].finite if name in series else None
        if one is None or not len(one):
            continue
        step = math.ceil(len(one) / MOST_POINTS)
        rows = np.arange(len(one) - 1, -1, -step)[::-1]
        found[name] = {"epoch": one.epoch[rows].tolist(), "value": one.value[rows].tolist()}
    return found

"""An investigation in one process: train the variants that `trainkit.diagnose.investigation` asks for, and conclude."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from trainkit.data import Dataset
from trainkit.data.report import report as report_of
from trainkit.diagnose.attainable import Attainable
from trainkit.diagnose.findings import InvestigationFindings, conclude
from trainkit.diagnose.investigation import next_variants, why_not_investigated
from trainkit.diagnose.investigation_history import InvestigationBudget, Variant, VariantResult
from trainkit.diagnose.record import Record, Series
from trainkit.diagnose.sample_scores import SampleScores
from trainkit.fit.control import Command, Control
from trainkit.fit.device import choose_device, machine, reuse_runtime
from trainkit.fit.encoding.prepare import Prepared, prepare
from trainkit.fit.evaluation.evaluate import outputs_of
from trainkit.fit.evaluation.metrics import probabilities
from trainkit.fit.events import Events
from trainkit.fit.failure import error_of
from trainkit.fit.fit_and_diagnose import EventCollector
from trainkit.fit.loop.fit import build_result, build_setup, describe_runtime, one_thread, resolve_for, train
from trainkit.fit.loop.result import FitResult
from trainkit.fit.loop.setup import RunSetup, dropout_seed
from trainkit.fit.loop.training_run import TrainingRun
from trainkit.spec import JobSpec, ResolvedSpec, resolve
from trainkit.spec.problems import Problem, SpecError

OnEvent = Callable[[dict[str, Any]], object]
Outcome = Literal["finished", "stopped", "cancelled", "paused", "handed_back"]
ENDS: dict[str, Outcome] = {
    "stop": "stopped",
    "cancel": "cancelled",
    "pause": "paused",
    "hand_back": "handed_back",
}
STATE_VERSION = 1
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
        control: Asked once a step. Every command ends the investigation; what has been trained is kept in `state`, and
            the run in progress is dropped.
        workdir: Folder for the weights of the variants that are better than the base, `variants/<name>` (`load_model`);
            without it none are kept.
        source: As in `fit`.
        target_data: As in `fit`.
        runtime: `FitResult.runtime` of the run, to compute on the same terms.

    Raises:
        SpecError: The document does not fit the data, or such a run cannot be investigated.
        ValueError: The state is of another document or version.
    """
    spec_document = document.model_dump(mode="json", exclude_unset=True) if isinstance(document, JobSpec) else document
    submitted = copy.deepcopy(dict(spec_document))
    resolved = resolve(submitted, data.facts)
    if (reason := why_not_investigated(resolved.spec)) is not None:
        raise SpecError([Problem("/model", "not_investigated", reason, "")])
    trainer = _Trainer(data, on_event, control, workdir, source, target_data, runtime)
    results = trainer.resume(state, submitted)
    budget = budget or InvestigationBudget()
    if record is None:
        record = (
            _blank(resolved, data, submitted) if not results else trainer.record_of(results[0], resolved, submitted)
        )
    traces_base = record.state == "running" and not record.series
    if attainable is not None:
        record = replace(record, attainable=attainable)
    while trainer.command() is None and (waiting := next_variants(record, results, budget)):
        result = trainer.train(waiting[0])
        if result is None:
            break
        results.append(result)
        if traces_base and result.variant.kind == "base":
            record = trainer.record_of(result, resolved, submitted)
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
    """A control that ends the run in progress for any command, and keeps the command for the investigation."""

    def __init__(self, control: Control) -> None:
        self._control, self.given = control, None

    given: Command | dict[str, Any] | None

    def command(self) -> Command | dict[str, Any] | None:
        self.given = self.given or self._control.command()
        return None if self.given is None else {"action": "cancel"}


class _Trainer:
    """Trains variants one after another on the same terms."""

    def __init__(
        self,
        data: Dataset,
        on_event: OnEvent | None,
        control: Control | None,
        workdir: str | Path | None,
        source: Any,
        target_data: Dataset | None,
        runtime: Mapping[str, Any] | None,
    ) -> None:
        self._data, self._on_event = data, on_event
        self._control = None if control is None else _Interrupting(control)
        self._workdir = None if workdir is None else Path(workdir)
        self._source, self._target_data = source, target_data
        self._runtime: dict[str, Any] | None = None if runtime is None else dict(runtime)
        self._runtime_sent = False
        self._base_scores: SampleScores | None = None
        self._prepared: tuple[str, Prepared] | None = None
        self._base_series: dict[str, Series] = {}
        self._base_evaluation: dict[str, Any] | None = None
        self._document: dict[str, Any] = {}

    def send(self, event: str, /, **fields: Any) -> None:
        """Send an event."""
        if self._on_event is not None:
            self._on_event({"type": event, **fields})

    def command(self) -> Command | dict[str, Any] | None:
        """The command that ends the investigation."""
        if self._control is not None:
            self._control.command()
            return self._control.given
        return None

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
            "results": [result.as_dict() for result in results],
        }

    def keep(self, results: list[VariantResult]) -> None:
        """Send what is known after a variant."""
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

    # One variant

    def train(self, variant: Variant) -> VariantResult | None:
        """Train a variant; None where a command ended it. A run that fails is a result."""
        fields = {"name": variant.name, "patch": variant.patch, "cause": variant.cause}
        self.send("variant", **fields, kind=variant.kind, share=variant.share, why=variant.why, state="running")
        collected = EventCollector(lambda event: self._pass_on(variant.name, event))
        began = time.perf_counter()
        result: FitResult | None = None
        scores, error, artifact = None, None, None
        try:
            result, setup = self._fit(variant, Events(collected))
            if result.outcome != "finished":
                return None
            scores = validation_scores(setup)
            if self._is_worth_keeping(variant, scores) and self._workdir is not None and result.model is not None:
                artifact = f"variants/{variant.name}"
                result.model.save(self._workdir / artifact)
        except Exception as failed:
            error = error_of(failed, variant.document)
            if error["layer"] in ("platform", "internal") and variant.kind == "base":
                raise
        trained = VariantResult(
            variant,
            "succeeded" if error is None else "failed",
            _metrics(result),
            scores,
            time.perf_counter() - began,
            _short(collected.series()),
            error,
            artifact,
        )
        if variant.kind == "base" and not self._base_series:
            self._base_series = _logged(collected.series())
            self._base_evaluation = collected.latest.get("evaluation")
        self.send(
            "variant",
            **fields,
            kind=variant.kind,
            share=variant.share,
            why=variant.why,
            state=trained.state,
            result=described(trained),
        )
        return trained

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

    def _fit(self, variant: Variant, events: Events) -> tuple[FitResult, RunSetup]:
        """`fit`, with the parts of an earlier variant where they are the same, and its setup."""
        spec, data = resolve_for(variant.document, self._data, events, self._control)
        device = choose_device(self._runtime["device"] if self._runtime else spec.resources.device)
        with one_thread():
            key = _data_key(spec)
            if self._prepared is None or self._prepared[0] != key:
                self._prepared = None  # two at once may not fit the memory
                self._prepared = (key, prepare(spec, data, device, events.phase))
            setup = build_setup(
                spec,
                data,
                self._prepared[1],
                device,
                events,
                control=self._control,
                workdir=None,
                runtime=None if self._runtime is None else reuse_runtime(self._runtime),
                source=self._source,
                target_data=self._target_data,
            )
        described_runtime = describe_runtime(setup)
        if self._runtime is None:
            self._runtime = setup.runtime.as_dict()
        if not self._runtime_sent:
            self.send("runtime", **described_runtime)
            self._runtime_sent = True
        with machine(setup.runtime, dropout_seed(spec)):
            run = TrainingRun(setup)
            return build_result(run, train(run), described_runtime), setup


def validation_scores(setup: RunSetup) -> SampleScores | None:
    """How well a trained network predicts each sample of its validation part; None without such a part."""
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
    return SampleScores.of_classes(part.index, part.truth, probabilities(outputs, kind))


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

"""`fit`: from a spec and a dataset to a trained model, told as events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainkit import augment, losses
from trainkit.data import Dataset
from trainkit.diagnose.early_stopping import EarlyStopping
from trainkit.fit.batches import count_batches, normalises_batches
from trainkit.fit.best import Best
from trainkit.fit.control import Control
from trainkit.fit.dann import DomainAdapter
from trainkit.fit.device import Decided, choose_device, decide, forward_of, machine, reuse
from trainkit.fit.encode import encode
from trainkit.fit.ensemble import EnsembleModel
from trainkit.fit.evaluate import evaluation, measure, outputs_of
from trainkit.fit.events import Events
from trainkit.fit.failure import error_of
from trainkit.fit.forecast import as_windows
from trainkit.fit.loop import train
from trainkit.fit.nonfinite import LossNotFiniteError, broken_state, is_finite
from trainkit.fit.predict import TrainedModel
from trainkit.fit.prepare import Prepared, prepare
from trainkit.fit.probes import run_probes
from trainkit.fit.run_state import Job, Outcome, TrainingOutcome
from trainkit.fit.seeding import derive
from trainkit.fit.splits import Part, make_part
from trainkit.fit.state import load_for, spec_hash
from trainkit.fit.transfer import pretrained, start_from
from trainkit.nn.build import build_model
from trainkit.nn.heads import head_width
from trainkit.nn.network import Network, count_parameters
from trainkit.plots import learning_curves
from trainkit.spec import JobSpec, check_spec, resolve
from trainkit.spec.early_stop import across_of
from trainkit.spec.metrics import direction
from trainkit.spec.problems import Problem, SpecError
from trainkit.spec.sklearn_checks import is_yardstick


@dataclass
class FitResult:
    """What `fit` gives back."""

    model: TrainedModel | EnsembleModel | None
    """None after `cancel`, `pause` and `handback`, and of what scikit-learn has fitted."""
    history: list[dict[str, Any]]
    """Metric rows `{step, epoch, split, name, value}` of every epoch, those before a resume included."""
    evaluation: dict[str, Any] | None
    stop_reason: str
    best_epoch: int | None
    stopped_epoch: int
    resolved: dict[str, Any]
    """What `auto` chose; give it back as `decided` to resume on the same terms."""
    outcome: Outcome = "finished"
    checkpoint: Path | None = None
    """The checkpoint written on `pause` and `handback`."""
    spec: JobSpec | None = field(default=None, repr=False)
    """The resolved spec."""


def fit(
    spec: JobSpec | Mapping[str, Any],
    data: Dataset,
    *,
    on_event: Callable[[dict[str, Any]], object] | None = None,
    control: Control | None = None,
    workdir: str | Path | None = None,
    resume_from: str | Path | None = None,
    branch: bool = False,
    target_data: Dataset | None = None,
    source: Any = None,
    decided: Mapping[str, Any] | None = None,
) -> FitResult:
    """Train what `spec` says on `data`.

    `on_event` gets every event (docs/explanation/architecture.md); `control` is asked once a step; `workdir` takes
    checkpoints, the model and plots (without it nothing is written); `resume_from` is a checkpoint file (with `branch`
    of another run, whose schedule, rules, optimizer settings, penalties or augmentation were others); `target_data`
    the unlabelled dataset of `adapt`; `source` the model (TrainedModel, artifact folder or weight file) of `start_from`
    or `init: pretrained`, or the list of members of an ensemble; `decided` the choices of an earlier attempt.
    Raises SpecError, DataError, CheckpointError ... after sending them as a `failed` event.
    """
    events = Events(on_event)
    try:
        wanted = spec if isinstance(spec, JobSpec) else check_spec(dict(spec), data.facts)
        folder = None if workdir is None else Path(workdir)
        return _fit(wanted, data, events, control, folder, resume_from, branch, target_data, source, decided)
    except Exception as error:
        events.emit("failed", error=error_of(error, spec))
        raise


def _fit(
    wanted: JobSpec,
    data: Dataset,
    events: Events,
    control: Control | None,
    workdir: Path | None,
    resume_from: str | Path | None,
    branch: bool,
    target_data: Dataset | None,
    source: Any,
    earlier: Mapping[str, Any] | None,
) -> FitResult:
    spec, data = settled(wanted, data, events, control)
    wanted_device = "cpu" if is_yardstick(spec.model) else spec.resources.device
    device = choose_device(earlier["device"] if earlier else wanted_device)
    with one_thread():
        prepared = prepare(spec, data, device, events.phase)
        if spec.model.kind == "ensemble":
            from trainkit.fit.ensemble_fit import fit_ensemble

            return fit_ensemble(spec, prepared, data, events, workdir, source)
        if is_yardstick(spec.model):
            from trainkit.fit.sklearn_baseline import fit_yardstick

            return fit_yardstick(spec, prepared, events, control, workdir)
        decided = None if earlier is None else reuse(earlier)
        job = assembled(
            spec, data, prepared, device, events, control, workdir, decided, source, resume_from, branch=branch
        )
        if spec.adapt is not None:
            job.adapter = _adapter(spec, prepared, job.network, target_data, device)

    with machine(job.decided, dropout_seed(spec)):
        chosen = chosen_of(job)
        events.emit("resolved", **chosen)
        if job.resume is not None:
            why = job.decided.why_inexact or _changed(job.resume["versions"], job.decided.versions)
            events.emit("resumed", step=job.resume["position"]["step"], exact=why is None, reason=why)
        if spec.train.sanity_checks:
            # Threads and generators of their own: what comes after finds these as if there had been no probe.
            with machine(job.decided, derive(spec.train.seed, "sanity_checks")):
                run_probes(job)
        return result_of(job, train(job), chosen)


def settled(wanted: JobSpec, data: Dataset, events: Events, control: object) -> tuple[JobSpec, Dataset]:
    """The resolved spec and its data, windows where it forecasts; tells the warnings. Raises SpecError."""
    resolved = resolve(wanted, data.facts)
    if wanted.task == "forecasting":
        data = as_windows(resolved.spec, data)
        resolved = resolve(resolved.spec, data.facts)
    spec = resolved.spec
    for warning in resolved.warnings:
        events.log(f"{warning.pointer}: {warning.message}. {warning.hint}".strip(), "warning")
    if control is None and spec.group is not None and (across := across_of(spec.early_stop)):
        kinds = " and ".join(sorted({rule.kind for rule in across}))
        events.log(
            f"{kinds}: a run by itself has no other jobs to compare with and is never stopped by that", "warning"
        )
    return spec, data


@contextmanager
def one_thread() -> Iterator[None]:
    """Preprocessing is part of the promise of equal bits: its sums must not depend on the machine's free cores."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)


def dropout_seed(spec: JobSpec) -> int:
    """Seed of the generator that dropout draws from."""
    return derive(spec.train.seed, "dropout")


def chosen_of(job: Job) -> dict[str, Any]:
    """The `resolved` event: what was decided, and the size of the network."""
    parameters, trainable = count_parameters(job.network)
    return {
        **job.decided.as_dict(),
        "parameters": parameters,
        "trainable": trainable,
        "resume_exact": job.decided.resume_exact,
    }


def result_of(job: Job, ended: TrainingOutcome, chosen: dict[str, Any]) -> FitResult:
    """What an ended run gives back: of a finished one the model, measured and saved. Raises LossNotFiniteError."""
    if ended.outcome == "finished":
        return _finish(job, ended, chosen)
    return FitResult(
        model=None,
        history=job.events.history,
        evaluation=None,
        stop_reason=ended.stop_reason,
        best_epoch=job.best.epoch,
        stopped_epoch=ended.epoch,
        resolved=chosen,
        outcome=ended.outcome,
        checkpoint=ended.checkpoint,
        spec=job.spec,
    )


def _changed(before: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """Which versions are other ones than the checkpoint's, in words; None when none is."""
    changed = [
        f"{name} {before.get(name)} -> {version}" for name, version in now.items() if before.get(name) != version
    ]
    return f"changed since the checkpoint: {', '.join(changed)}" if changed else None


def _network(spec: JobSpec, prepared: Prepared, events: Events, source: Any) -> Network:
    network = build_model(spec.model, prepared.sample_shape, prepared.outputs, derive(spec.train.seed, "init"))
    wants_init = getattr(getattr(spec.model, "init", None), "kind", None) == "pretrained"
    if spec.start_from is None and not wants_init:
        return network
    if source is None:
        pointer = "/start_from" if spec.start_from is not None else "/model/init"
        raise SpecError([Problem(pointer, "no_source", "the weights to start from were not given", "Pass `source`.")])
    taken = start_from(network, spec, source, prepared.outputs) if spec.start_from else pretrained(network, source)
    events.log(taken)
    return network


def _trial_step(
    spec: JobSpec, prepared: Prepared, loss: Callable[[Tensor, Tensor], Tensor]
) -> Callable[[nn.Module], None]:
    """One forward and backward pass on a real batch, for the calibration of threads."""
    rows = prepared.draw[: spec.train.batch_size]

    def step(network: nn.Module) -> None:
        with torch.random.fork_rng(devices=[]):
            x, lengths = prepared.train.take(rows)
            x = prepared.preprocessing(x) if prepared.train.pending else x
            loss(network(x, lengths), prepared.train.targets[rows]).mean().backward()
            network.zero_grad(set_to_none=True)

    return step


def assembled(
    spec: JobSpec,
    data: Dataset,
    prepared: Prepared,
    device: torch.device,
    events: Events,
    control: Control | None,
    workdir: Path | None,
    decided: Decided | None = None,
    source: Any = None,
    resume_from: str | Path | None = None,
    *,
    branch: bool = False,
) -> Job:
    """A run, ready to begin: its network and loss, and what `auto` means unless that is `decided` already."""
    network = _network(spec, prepared, events, source).to(device)
    assert spec.loss is not None  # resolve() has filled it in
    loss = losses.build(spec.loss, outputs=prepared.outputs, label_smoothing=spec.regularize.label_smoothing)
    if decided is None:
        passes = count_batches(len(prepared.draw), spec.train.batch_size, joins=normalises_batches(network))
        decided = decide(spec, device, network, _trial_step(spec, prepared, loss), passes * spec.train.epochs)
        if spec.train.compile is True and not decided.compile:
            events.log("/train/compile: torch.compile needs a C++ compiler here, and there is none", "warning")
    if decided.channels_last:
        network.to(memory_format=torch.channels_last)
    resume = None if resume_from is None else load_for(Path(resume_from), spec, data.facts, branch=branch)
    if resume is not None and resume["versions"] != decided.versions:
        events.log(f"{_changed(resume['versions'], decided.versions)}: the last bits may differ", "warning")
    monitor = spec.train.monitor if spec.train.restore_best else None
    return Job(
        spec=spec,
        data=prepared,
        network=network,
        forward=forward_of(network, decided),
        loss=loss,
        augmenter=augment.build(spec.augment) if spec.augment else None,
        adapter=None,
        stopping=EarlyStopping(spec.early_stop),
        best=Best(monitor, direction(monitor) if monitor else "min", _min_delta(spec, monitor)),
        decided=decided,
        device=device,
        events=events,
        control=control,
        workdir=workdir,
        spec_hash=spec_hash(spec, data.facts),
        resume=resume,
        branch=branch,
        probed=list(resume.get("probed", ())) if resume is not None and not branch else [],
    )


def _min_delta(spec: JobSpec, monitor: str | None) -> float:
    """What counts as better is the patience rule's word: the job's best is the best that its decisions speak of."""
    rules = (rule for rule in spec.early_stop if rule.kind == "patience" and rule.monitor == monitor)
    return next((rule.min_delta for rule in rules), 0.0)


def _adapter(
    spec: JobSpec, prepared: Prepared, network: Network, target_data: Dataset | None, device: torch.device
) -> DomainAdapter:
    assert spec.adapt is not None
    if target_data is None:
        raise SpecError(
            [
                Problem(
                    "/adapt/target_dataset", "no_target_data", "the target dataset was not given", "Pass `target_data`."
                )
            ]
        )
    count = target_data.facts.samples
    index = np.arange(count)
    part: Part = make_part(
        "target",
        encode(prepared.encoder, target_data.inputs, index),
        torch.zeros(count, dtype=torch.int64),
        np.zeros(count),
        index,
        prepared.preprocessing,
        augmented=False,
        device=device,
    )
    adapter = DomainAdapter(spec.adapt, head_width(network), part, prepared.preprocessing, spec.train.seed)
    return adapter.to(device)


def _finish(job: Job, ended: TrainingOutcome, chosen: dict[str, Any]) -> FitResult:
    """Restore the best weights, measure what was held out, write the artifact."""
    spec, events, prepared = job.spec, job.events, job.data
    events.phase("evaluating")
    restored = (ended.keep == "best" or not is_finite(job.network)) and job.best.restore(job.network)
    diverged = ended.stop_reason == "diverged" and job.not_finite is not None
    if not restored and (diverged or not is_finite(job.network)):
        raise LossNotFiniteError(job.not_finite or broken_state(job.network) or {})
    report = _evaluate(job, ended)
    test = report["parts"].get("test", {})
    model = TrainedModel(
        network=job.network.to("cpu"),
        encoder=prepared.encoder,
        preprocessing=prepared.preprocessing,
        scaler=prepared.scaler,
        classes=prepared.classes,
        description=_description(job, ended, report, restored),
    )
    events.emit("evaluation", **report)
    artifact = None
    if job.workdir is not None:
        artifact = str(model.save(job.workdir / "model").absolute())
    events.emit(
        "finished",
        stop_reason=ended.stop_reason,
        best_epoch=job.best.epoch,
        stopped_epoch=ended.epoch,
        artifact=artifact,
        test=test,
        files=_plots(job, report),
    )
    return FitResult(
        model=model,
        history=events.history,
        evaluation=report,
        stop_reason=ended.stop_reason,
        best_epoch=job.best.epoch,
        stopped_epoch=ended.epoch,
        resolved=chosen,
        spec=spec,
    )


def _evaluate(job: Job, ended: TrainingOutcome) -> dict[str, Any]:
    """The evaluation of the test part (else validation, else training); all held-out parts' metrics in `parts`."""
    data, network = job.data, job.network
    kind = job.spec.loss.kind if job.spec.loss is not None else "cross_entropy"
    network.eval()
    held_out = [part for part in (data.val, data.test) if part is not None] or [data.train]
    report: dict[str, Any] = {}
    parts: dict[str, dict[str, float]] = {}
    for part in held_out:
        z = outputs_of(job.forward, part, data.preprocessing)
        metrics = measure(z, part, job.loss, class_weights=data.class_weights, scaler=data.scaler, kind=kind)
        parts[part.name] = metrics
        report = evaluation(part.name, metrics, part.truth, z.cpu().numpy(), data.classes)
    if "test" in parts:
        job.events.rows(ended.step, ended.epoch, {"test": parts["test"]})
    return {**report, "parts": parts}


def _description(job: Job, ended: TrainingOutcome, report: dict[str, Any], restored: bool) -> dict[str, Any]:
    spec, start = job.spec, job.spec.start_from
    assert spec.loss is not None
    return {
        "name": spec.name,
        "task": spec.task,
        "model": spec.model.model_dump(mode="json"),
        "head_hidden": list(start.head_hidden) if start is not None and start.head == "new" else [],
        "input_shape": list(job.data.sample_shape),
        "outputs": job.data.outputs,
        "loss": spec.loss.model_dump(mode="json"),
        "metrics": report["parts"],
        "weights": {"of": "best" if restored else "last", "epoch": job.best.epoch if restored else ended.epoch},
        "stop_reason": ended.stop_reason,
        "versions": job.decided.versions,
        "spec": spec.model_dump(mode="json"),
    }


def _plots(job: Job, report: dict[str, Any]) -> dict[str, str]:
    """Curves and confusion matrix as PNG files in the work folder."""
    if job.workdir is None:
        return {}
    folder = job.workdir / "plots"
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {"curves": learning_curves.curves(job.events.history, best_epoch=job.best.epoch)}
    if report["confusion_matrix"]:
        pictures["confusion"] = learning_curves.confusion(report["confusion_matrix"], report["classes"])
    for name, png in pictures.items():
        (folder / f"{name}.png").write_bytes(png)
    return {name: str((folder / f"{name}.png").absolute()) for name in pictures}

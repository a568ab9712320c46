"""`fit`: from a spec and a dataset to a trained model. Everything that happens is sent as an event."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainkit import augment, losses, plots
from trainkit.data import Dataset
from trainkit.fit.checkpoint import load_for, spec_hash
from trainkit.fit.control import Control, LatestCommand
from trainkit.fit.device import Runtime, choose_device, choose_runtime, forward_of, machine, reuse_runtime
from trainkit.fit.encoding.encode import encode
from trainkit.fit.encoding.forecast import as_windows
from trainkit.fit.encoding.prepare import Part, Prepared, make_part, prepare
from trainkit.fit.ensemble import fit_ensemble
from trainkit.fit.evaluation.ablation import ablation
from trainkit.fit.evaluation.evaluate import calibrated_shares, evaluation, measure, outputs_of
from trainkit.fit.events import Events
from trainkit.fit.failure import error_of
from trainkit.fit.loop.batches import count_batches, normalises_batches
from trainkit.fit.loop.dann import DomainAdapter
from trainkit.fit.loop.nonfinite import LossNotFiniteError, broken_state, is_finite
from trainkit.fit.loop.phases import plan_phases, trained_parameters
from trainkit.fit.loop.result import FitResult, TrainingOutcome
from trainkit.fit.loop.setup import RunSetup, dropout_seed
from trainkit.fit.loop.train_step import train_step
from trainkit.fit.loop.training_run import TrainingRun
from trainkit.fit.models.trained_model import TrainedModel, describe_dataset
from trainkit.fit.models.transfer import SourceTargets, pretrained, start_from
from trainkit.fit.sanity_checks import run_sanity_checks
from trainkit.fit.seeding import derive
from trainkit.fit.sklearn_baseline import fit_sklearn_baseline
from trainkit.nn.build import build_model
from trainkit.nn.network import Network, count_parameters, head_width, hidden_widths
from trainkit.spec import JobSpec, ResolvedSpec, resolve
from trainkit.spec.early_stop import peer_rules_of
from trainkit.spec.models import is_sklearn_model
from trainkit.spec.problems import Problem, SpecError


def fit(
    spec: ResolvedSpec | JobSpec | Mapping[str, Any],
    data: Dataset,
    *,
    on_event: Callable[[dict[str, Any]], object] | None = None,
    control: Control | None = None,
    workdir: str | Path | None = None,
    resume_from: str | Path | None = None,
    branch: bool = False,
    target_data: Dataset | None = None,
    source: Any = None,
    runtime: Mapping[str, Any] | None = None,
) -> FitResult:
    """Train the model of `spec` on `data`.

    Args:
        spec: A job spec, as a document, parsed, or resolved already (`load_resolved` of a stored one).
        data: The dataset.
        on_event: Called with every event, a JSON-able dict (docs/explanation/architecture.md).
        control: Asked once a step for a command: stop, cancel, pause or hand back.
        workdir: Folder for checkpoints, the model and plots; without it nothing is written.
        resume_from: Checkpoint file to resume from.
        branch: The checkpoint is another run's, with another schedule, early stopping, optimizer settings, penalties or
            augmentation.
        target_data: Unlabelled dataset of `adapt`.
        source: Model (TrainedModel, artifact folder or weight file) of `start_from` or `init: pretrained`, or the list
            of an ensemble's members.
        runtime: `FitResult.runtime` of an earlier attempt, to compute on the same terms.

    Raises:
        SpecError, DataError, CheckpointError, LossNotFiniteError, ArtifactError ...: after a `failed` event.
    """
    events = Events(on_event)
    try:
        resolved, data = resolve_for(spec, data, events, control)
        return fit_resolved(
            resolved,
            data,
            events,
            control=control,
            workdir=None if workdir is None else Path(workdir),
            resume_from=None if resume_from is None else Path(resume_from),
            branch=branch,
            target_data=target_data,
            source=source,
            runtime=runtime,
        )
    except Exception as error:
        events.emit("failed", error=error_of(error, spec.spec if isinstance(spec, ResolvedSpec) else spec))
        raise


def fit_resolved(
    spec: JobSpec,
    data: Dataset,
    events: Events,
    *,
    control: Control | None = None,
    workdir: Path | None = None,
    resume_from: Path | None = None,
    branch: bool = False,
    target_data: Dataset | None = None,
    source: Any = None,
    runtime: Mapping[str, Any] | None = None,
) -> FitResult:
    """`fit` for a resolved spec, with windows for `data` where it forecasts. Errors are raised without an event."""
    fixed_device = "cpu" if is_sklearn_model(spec.model) else spec.resources.device
    device = choose_device(runtime["device"] if runtime else fixed_device)
    with one_thread():
        prepared = prepare(spec, data, device, events.phase)
        if spec.model.kind == "ensemble":
            return fit_ensemble(spec, prepared, data, events, workdir, source)
        if is_sklearn_model(spec.model):
            return fit_sklearn_baseline(spec, prepared, events, control, workdir)
        setup = build_setup(
            spec,
            data,
            prepared,
            device,
            events,
            control=control,
            workdir=workdir,
            runtime=None if runtime is None else reuse_runtime(runtime),
            source=source,
            target_data=target_data,
        )
        saved = None if resume_from is None else load_for(resume_from, spec, data.facts, branch=branch)
    with machine(setup.runtime, dropout_seed(spec)):
        chosen = describe_runtime(setup)
        if saved is not None:
            changed = _changed_versions(saved["versions"], setup.runtime.versions)
            if changed is not None:
                events.log(f"{changed}: the last bits may differ", "warning")
        events.emit("runtime", **chosen)
        if saved is not None:
            reason = setup.runtime.inexact_because or changed
            events.emit("resumed", step=saved["position"]["step"], exact=reason is None, reason=reason)
        sanity_checks = list(saved["sanity_checks"]) if saved is not None and not branch else []
        if spec.train.sanity_checks:
            # Threads and generators of their own: the training after them computes the same bits as without them.
            with machine(setup.runtime, derive(spec.train.seed, "sanity_checks")):
                run_sanity_checks(setup, sanity_checks)
        run = TrainingRun(setup, saved=saved, branch=branch, sanity_checks=sanity_checks)
        return build_result(run, train(run), chosen)


def train(run: TrainingRun) -> TrainingOutcome:
    """Train until the epochs are done, a rule or a command stops the run, or its time is up; leaves the last weights."""
    while run.outcome is None:
        train_epoch(run)
    return run.outcome


def train_epoch(run: TrainingRun) -> None:
    """One epoch, or what is left of it after a resume: its steps, then its evaluation."""
    run.begin_epoch()
    phase, sums = run.state.phase, run.loss_sums
    while (batch := run.next_step()) is not None:
        result = train_step(run.setup, run.batches, phase, batch, sums, run.check_gradient)
        if result is not None:
            run.complete_step(result)
    if run.outcome is None:
        run.end_epoch()


def resolve_for(
    spec: ResolvedSpec | JobSpec | Mapping[str, Any], data: Dataset, events: Events, control: object
) -> tuple[JobSpec, Dataset]:
    """The resolved spec and its data, cut into windows where it forecasts; logs the warnings. Raises SpecError."""
    resolved = spec if isinstance(spec, ResolvedSpec) else resolve(spec, data.facts)
    if resolved.spec.task == "forecasting":
        data = as_windows(resolved.spec, data)
    for warning in resolved.warnings:
        events.log(f"{warning.pointer}: {warning.message}. {warning.hint}".strip(), "warning")
    peer_rules = peer_rules_of(resolved.spec.early_stop)
    if control is None and resolved.spec.group is not None and peer_rules:
        kinds = " and ".join(sorted({rule.kind for rule in peer_rules}))
        events.log(f"{kinds}: a run by itself has no peers to compare with; the rule never stops it", "warning")
    return resolved.spec, data


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread: the sums of preprocessing must not depend on the machine's free cores."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)


def build_setup(
    spec: JobSpec,
    data: Dataset,
    prepared: Prepared,
    device: torch.device,
    events: Events,
    *,
    control: Control | None,
    workdir: Path | None,
    runtime: Runtime | None = None,
    source: Any = None,
    target_data: Dataset | None = None,
) -> RunSetup:
    """Build network and loss, and choose the runtime where none is given. Raises SpecError for a missing source."""
    network = _build_network(spec, prepared, events, source).to(device)
    assert spec.loss is not None  # resolve() has filled it in
    loss = losses.build(spec.loss, outputs=prepared.outputs, label_smoothing=spec.regularize.label_smoothing)
    if runtime is None:
        steps = spec.train.epochs * (
            spec.train.steps_per_epoch
            or count_batches(len(prepared.draw), spec.train.batch_size, joins=normalises_batches(network))
        )
        runtime = choose_runtime(spec, device, network, _calibration_step(spec, prepared, loss), steps)
        if spec.train.compile is True and not runtime.compile:
            events.log("train.compile: torch.compile needs a C++ compiler, and this machine has none", "warning")
    if runtime.channels_last:
        network.to(memory_format=torch.channels_last)
    if control is not None and spec.train.sanity_checks:
        control = LatestCommand(
            control
        )  # a command that ends a sanity check is meant for the training after it as well
    return RunSetup(
        spec=spec,
        data=prepared,
        network=network,
        forward=forward_of(network, runtime),
        loss=loss,
        augmenter=augment.build(spec.augment, data.image_value_ranges()) if spec.augment else None,
        adapter=None if spec.adapt is None else _build_adapter(spec, prepared, network, target_data, device),
        runtime=runtime,
        device=device,
        events=events,
        control=control,
        workdir=workdir,
        spec_hash=spec_hash(spec, data.facts),
    )


def _build_network(spec: JobSpec, prepared: Prepared, events: Events, source: Any) -> Network:
    seed = derive(spec.train.seed, "init")
    network = build_model(spec.model, prepared.sample_shape, prepared.outputs, seed, columns=prepared.columns)
    starts_pretrained = getattr(getattr(spec.model, "init", None), "kind", None) == "pretrained"
    if spec.start_from is None and not starts_pretrained:
        return network
    if source is None:
        pointer = "/start_from" if spec.start_from is not None else "/model/init"
        raise SpecError([Problem(pointer, "no_source", "the weights to start from were not given", "Pass `source`.")])
    targets = SourceTargets(prepared.classes, prepared.scaler)
    if spec.start_from is not None:
        events.log(start_from(network, spec, source, targets))
    else:
        events.log(pretrained(network, source, targets))
    return network


def _calibration_step(
    spec: JobSpec, prepared: Prepared, loss: Callable[[Tensor, Tensor], Tensor]
) -> Callable[[nn.Module], None]:
    """One forward and backward pass on a real batch, for the calibration of threads."""
    rows = prepared.draw[: spec.train.batch_size]

    def step(network: nn.Module) -> None:
        with torch.random.fork_rng(devices=[]):
            x, side_input = prepared.train.take(rows)
            x = prepared.preprocessing(x) if prepared.train.pending else x
            loss(network(x, side_input), prepared.train.targets[rows]).mean().backward()
            network.zero_grad(set_to_none=True)

    return step


def _build_adapter(
    spec: JobSpec, prepared: Prepared, network: Network, target_data: Dataset | None, device: torch.device
) -> DomainAdapter:
    assert spec.adapt is not None
    if target_data is None:
        message = "the target dataset was not given"
        raise SpecError([Problem("/adapt/target_dataset", "no_target_data", message, "Pass `target_data`.")])
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
    return DomainAdapter(spec.adapt, head_width(network), part, prepared.preprocessing, spec.train.seed).to(device)


def describe_runtime(setup: RunSetup) -> dict[str, Any]:
    """The `runtime` event: what `auto` chose, the size of the network, and how much of it each phase trains."""
    parameters, _ = count_parameters(setup.network)
    trained = trained_parameters(setup.network, plan_phases(setup.spec))
    return {
        **setup.runtime.as_dict(),
        "parameters": parameters,
        **trained,
        "resume_exact": setup.runtime.resume_exact,
    }


def _changed_versions(before: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """Which versions differ from the checkpoint's, in words; None when none does."""
    changed = [f"{name} {before.get(name)} -> {now[name]}" for name in now if before.get(name) != now[name]]
    return f"changed since the checkpoint: {', '.join(changed)}" if changed else None


def build_result(run: TrainingRun, ended: TrainingOutcome, runtime: dict[str, Any]) -> FitResult:
    """The result of a run that has ended, with the model if it finished. Raises LossNotFiniteError."""
    if ended.outcome == "finished":
        return _finish(run, ended, runtime)
    return FitResult(
        model=None,
        history=run.state.history,
        evaluation=None,
        stop_reason=ended.stop_reason,
        best_epoch=run.state.best.epoch,
        stopped_epoch=ended.epoch,
        runtime=runtime,
        outcome=ended.outcome,
        checkpoint=ended.checkpoint,
        spec=run.setup.spec,
    )


def _finish(run: TrainingRun, ended: TrainingOutcome, runtime: dict[str, Any]) -> FitResult:
    """Restore the best weights, evaluate the held-out parts, write the artifact."""
    setup, state, events = run.setup, run.state, run.setup.events
    events.phase("evaluating")
    restored = (ended.keep == "best" or not is_finite(setup.network)) and state.best.restore(setup.network)
    diverged = ended.stop_reason == "diverged" and state.not_finite is not None
    if not restored and (diverged or not is_finite(setup.network)):
        raise LossNotFiniteError(state.not_finite or broken_state(setup.network) or {})
    report = _evaluate_held_out(setup, ended)
    model = TrainedModel(
        network=setup.network.to("cpu"),
        encoder=setup.data.encoder,
        preprocessing=setup.data.preprocessing,
        scaler=setup.data.scaler,
        classes=setup.data.classes,
        description=_description(setup, ended, report, state.best.epoch if restored else None),
    )
    events.emit("evaluation", **report)
    artifact = None if setup.workdir is None else str(model.save(setup.workdir / "model").absolute())
    events.emit(
        "finished",
        stop_reason=ended.stop_reason,
        best_epoch=state.best.epoch,
        stopped_epoch=ended.epoch,
        artifact=artifact,
        test=report["parts"].get("test", {}),
        files=_write_plots(setup, report, state.best.epoch),
    )
    return FitResult(
        model=model,
        history=state.history,
        evaluation=report,
        stop_reason=ended.stop_reason,
        best_epoch=state.best.epoch,
        stopped_epoch=ended.epoch,
        runtime=runtime,
        spec=setup.spec,
    )


def _evaluate_held_out(setup: RunSetup, ended: TrainingOutcome) -> dict[str, Any]:
    """The evaluation of the test part (else validation, else training); all held-out parts' metrics in `parts`.

    With `ablation` where the model reads columns beside images.
    """
    data, network = setup.data, setup.network
    kind = setup.spec.loss.kind if setup.spec.loss is not None else "cross_entropy"

    def measured(z: Tensor, part: Part) -> dict[str, float]:
        return measure(z, part, setup.loss, class_weights=data.class_weights, scaler=data.scaler, kind=kind)

    network.eval()
    held_out = [part for part in (data.val, data.test) if part is not None] or [data.train]
    report: dict[str, Any] = {}
    parts: dict[str, dict[str, float]] = {}
    for part in held_out:
        z = outputs_of(setup.forward, part, data.preprocessing)
        metrics = parts[part.name] = measured(z, part)
        outputs = z.cpu().numpy()
        shares = None if data.classes is None else calibrated_shares(outputs, kind)
        report = evaluation(part.name, metrics, part.truth, outputs, data.classes, index=part.index, shares=shares)
    if "test" in parts:
        setup.events.rows(ended.step, ended.epoch, {"test": parts["test"]})
    if data.preprocessing.columns is not None:
        seed = setup.spec.train.seed
        report["ablation"] = ablation(setup.forward, held_out[-1], data.preprocessing, measured, seed)
    return {**report, "parts": parts}


def _description(
    setup: RunSetup, ended: TrainingOutcome, report: dict[str, Any], restored_epoch: int | None
) -> dict[str, Any]:
    """What model.json says. `restored_epoch`: of the best weights, None where the last ones are kept."""
    spec = setup.spec
    assert spec.loss is not None
    return {
        "name": spec.name,
        "task": spec.task,
        "model": spec.model.model_dump(mode="json"),
        "head_hidden": hidden_widths(setup.network),
        "input_shape": list(setup.data.sample_shape),
        "columns": setup.data.columns,
        "outputs": setup.data.outputs,
        "loss": spec.loss.model_dump(mode="json"),
        "metrics": report["parts"],
        "weights": {
            "of": "last" if restored_epoch is None else "best",
            "epoch": ended.epoch if restored_epoch is None else restored_epoch,
        },
        "stop_reason": ended.stop_reason,
        "versions": setup.runtime.versions,
        "runtime": setup.runtime.as_dict(),
        "dataset": describe_dataset(spec, setup.data.facts),
        "class_weights": None if setup.data.class_weights is None else setup.data.class_weights.tolist(),
        "spec": spec.model_dump(mode="json"),
    }


def _write_plots(setup: RunSetup, report: dict[str, Any], best_epoch: int | None) -> dict[str, str]:
    """Learning curves and confusion matrix as PNG files in the work folder."""
    if setup.workdir is None:
        return {}
    folder = setup.workdir / "plots"
    folder.mkdir(parents=True, exist_ok=True)
    title = setup.spec.name
    pictures = {"curves": plots.curves(setup.events.history, best_epoch=best_epoch, title=title)}
    if report["confusion_matrix"]:
        pictures["confusion"] = plots.confusion(report["confusion_matrix"], report["classes"], title=title)
    for name, png in pictures.items():
        (folder / f"{name}.png").write_bytes(png)
    return {name: str((folder / f"{name}.png").absolute()) for name in pictures}

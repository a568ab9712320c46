"""Parse a document into a JobSpec, and complete it with the dataset's facts. All problems are found at once."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from trainkit.spec import forecasting, losses
from trainkit.spec.checks import all_problems
from trainkit.spec.checks.columns import dataset_problems, unlabelled_warning, unused_columns
from trainkit.spec.checks.context import CheckContext
from trainkit.spec.checks.sklearn_models import sklearn_warnings
from trainkit.spec.checks.splits import class_sizes_in_folds
from trainkit.spec.checks.training import penalty_warnings, why_sanity_check_skipped
from trainkit.spec.early_stop import peer_rules_of
from trainkit.spec.facts import (
    DatasetFacts,
    Sample,
    class_counts,
    infer_task,
    is_classification,
    sample_of,
    target_column,
)
from trainkit.spec.job import JobSpec, Task
from trainkit.spec.metrics import with_mode
from trainkit.spec.models import is_sklearn_model
from trainkit.spec.preprocess import ZScore
from trainkit.spec.problems import (
    Problem,
    SpecError,
    pointer_tokens,
    problems_from_validation,
)

SHAPE_STAYS_KNOWN = ("missing_values", "target_as_feature", "too_many_categories")
"""Problems of the dataset that leave a sample's shape known well enough to look for the others as well."""
STAND_INS: dict[str, dict[str, Any]] = {
    "augment": {"kind": "noise", "std": 0},
    "preprocess": {"kind": "zero_mean"},
    "preprocess_columns": {"kind": "zero_mean"},
    "early_stop": {"kind": "diverged"},
    "model": {"kind": "linear"},
}
"""What takes the place of an unreadable part, so that its neighbours keep their positions in the list."""

STANDARDISED = Problem(
    "/preprocess",
    "standardised",
    "the columns are standardised (z_score, fitted on the training part), as networks need it",
    "Say `preprocess: [z_score]` to fix it, or `preprocess: []` for the numbers as they are.",
)
"""The warning that tells what was chosen for a table whose spec leaves `preprocess` out."""


@dataclass(frozen=True, slots=True)
class ResolvedSpec:
    """A complete spec: nothing is left to decide but what depends on the device. `resolve` makes it, once for each job.

    Its stored form is `spec` as JSON; `load_resolved` reads it back.
    """

    spec: JobSpec
    sample: Sample
    outputs: int
    """Classes, or regression targets."""
    warnings: tuple[Problem, ...] = ()


def parse_spec(document: Any) -> JobSpec:
    """Validate a submitted document. Raises SpecError with every problem, each with its JSON pointer."""
    if not isinstance(document, dict):
        raise SpecError([Problem("", "not_an_object", "a job spec is an object with `dataset` and `model`", "")])
    try:
        return JobSpec.model_validate(document)
    except ValidationError as error:
        raise SpecError(problems_from_validation(error, document, JobSpec)) from None
    except RecursionError:
        raise SpecError([Problem("", "too_deep", "the document is nested too deeply", "")]) from None


def resolve(spec: JobSpec | Mapping[str, Any], facts: DatasetFacts) -> ResolvedSpec:
    """Fill in task, loss, monitors and modes, and check the spec, or its document, against the dataset.

    Raises SpecError. A document's mistakes of form and those that its dataset shows in the rest come together.
    """
    if not isinstance(spec, JobSpec):
        document = dict(spec) if isinstance(spec, Mapping) else spec
        try:
            spec = parse_spec(document)
        except SpecError as error:
            raise SpecError([*error.problems, *further_problems(document, error.problems, facts)]) from None
    spec, standardised = _with_preprocessing(spec, facts)
    task = infer_task(spec, facts)
    early = [*dataset_problems(spec, facts, task)]
    if task is None or any(problem.code not in SHAPE_STAYS_KNOWN for problem in early):
        raise SpecError(early)
    if early and task == "forecasting":
        raise SpecError(early)
    if forecasting.cuts_windows(spec, facts):
        spec, facts = _windows(spec, facts)
    context = _context(spec, facts, task)
    found = [*early, *all_problems(context)]
    if found:
        raise SpecError(found)
    complete = _complete(spec, task, context.has_validation)
    warnings = [*_warnings(spec, context), *standardised]
    return ResolvedSpec(complete, context.sample, context.outputs, tuple(warnings))


def _with_preprocessing(spec: JobSpec, facts: DatasetFacts) -> tuple[JobSpec, list[Problem]]:
    """The spec with its preprocessing written out, and the warning where z_score was chosen.

    Columns of a table have scales of their own, which a network cannot bridge: z_score is their default.
    """
    update: dict[str, Any] = {}
    warnings = []
    if spec.preprocess is None:
        standardises = facts.kind == "table" and not is_sklearn_model(spec.model) and spec.model.kind != "ensemble"
        update["preprocess"] = (ZScore(),) if standardises else ()
        if standardises:
            warnings.append(STANDARDISED)
    if spec.preprocess_columns is None and spec.model.kind == "multimodal":
        update["preprocess_columns"] = (ZScore(),)
        hint = STANDARDISED.hint.replace("preprocess:", "preprocess_columns:")
        warnings.append(replace(STANDARDISED, pointer="/preprocess_columns", hint=hint))
    return spec.model_copy(update=update), warnings


def load_resolved(document: Mapping[str, Any], facts: DatasetFacts) -> ResolvedSpec:
    """Read a stored resolved spec. Nothing is decided or checked again: shapes and warnings follow from the facts.

    Raises ValidationError for a document that is no spec, and SpecError for one that `resolve` has not completed.
    """
    spec = JobSpec.model_validate(document)
    if spec.task is None:
        message = "`task` is missing, so the spec was never resolved"
        raise SpecError(
            [Problem("/task", "not_resolved", message, "Call `resolve` with the spec and its dataset's facts.")]
        )
    if forecasting.cuts_windows(spec, facts):
        facts = forecasting.windowed(spec, facts)
    context = _context(spec, facts, spec.task)
    return ResolvedSpec(spec, context.sample, context.outputs, tuple(_warnings(spec, context)))


def _context(spec: JobSpec, facts: DatasetFacts, task: Task) -> CheckContext:
    """The spec with the shapes that follow from its dataset, windows cut."""
    outputs = len(class_counts(spec, facts) or ()) if is_classification(task) else facts.target_width
    return CheckContext(spec, facts, task, sample_of(spec, facts), outputs)


def _windows(spec: JobSpec, facts: DatasetFacts) -> tuple[JobSpec, DatasetFacts]:
    """The spec with its window written out and parts cut by time, never at random; the facts of the windows."""
    found = list(forecasting.problems(spec, facts))
    if found:
        raise SpecError(found)
    windows = forecasting.windowed(spec, facts)
    assert windows.input_shape is not None
    dataset = spec.dataset.model_copy(update={"window": windows.input_shape[0]})
    split = spec.split.model_copy(update={"use_predefined": True})
    return spec.model_copy(update={"dataset": dataset, "split": split}), windows


def _complete(spec: JobSpec, task: Task, has_validation: bool) -> JobSpec:
    """The same spec with task, loss, epochs, monitors and modes written out."""
    update: dict[str, Any] = {"task": task}
    if spec.loss is None or is_sklearn_model(spec.model):
        update["loss"] = default_loss(spec, task)
    if spec.target_scaling == "auto":
        update["target_scaling"] = "none" if is_classification(task) else "z_score"
    if spec.regularize.l1 and spec.regularize.l1_update == "auto":
        l1_update = "proximal" if spec.optimizer.step_scale == "gradient" else "subgradient"
        update["regularize"] = spec.regularize.model_copy(update={"l1_update": l1_update})
    update["early_stop"] = tuple(with_mode(rule) for rule in spec.early_stop)
    update["schedule"] = with_mode(spec.schedule)
    train: dict[str, Any] = {"monitor": best_monitor(spec, has_validation)}
    if spec.start_from is not None and spec.start_from.phases:
        train["epochs"] = sum(phase.epochs for phase in spec.start_from.phases)
    update["train"] = spec.train.model_copy(update=train)
    return spec.model_copy(update=update)


def default_loss(spec: JobSpec, task: Task) -> losses.LossSpec:
    """Hinge for the SVMs, cross entropy for classes, mse for numbers."""
    if not is_classification(task):
        return losses.Mse()
    return losses.Hinge() if spec.model.kind in ("linear_svm", "rbf_svm") else losses.CrossEntropy()


def best_monitor(spec: JobSpec, has_validation: bool) -> str | None:
    """What "best" means: `train.monitor`, else the first patience rule's, else val_loss; None without validation."""
    if spec.train.monitor is not None:
        return spec.train.monitor
    for rule in spec.early_stop:
        if rule.kind in ("patience", "noise_patience"):
            return str(rule.monitor)
    return "val_loss" if has_validation else None


def _warnings(spec: JobSpec, context: CheckContext) -> Iterator[Problem]:
    yield from unused_columns(spec, context.facts)
    if is_sklearn_model(spec.model):
        yield from sklearn_warnings(spec, default_loss(spec, context.task))
    else:
        yield from _warnings_of_training(spec, context)
    if unlabelled := unlabelled_warning(spec, context.facts):
        yield unlabelled
    folds = spec.split.folds
    smallest = min(class_sizes_in_folds(context), default=0.0)
    if folds is not None and 0 < smallest < folds:
        yield Problem(
            "/split/folds",
            "few_of_a_class",
            f"the smallest class has about {smallest:.0f} samples beside the test part: not every fold can have one",
            "Use fewer folds.",
        )
    target = target_column(spec, context.facts)
    if not context.classification and (context.facts.constant_target or (target is not None and target.unique <= 1)):
        yield Problem(
            "/dataset/target" if target is not None else "/dataset",
            "constant_target",
            "the target has the same value in every sample: a model can only learn to repeat it",
            "Name another target, or look at the dataset's report.",
        )
    if spec.task is None and context.facts.kind == "table":
        yield Problem(
            "/task", "task_inferred", f"taken as {context.task} from the target column", "Say `task` to fix it."
        )


def _warnings_of_training(spec: JobSpec, context: CheckContext) -> Iterator[Problem]:
    yield from penalty_warnings(spec, context.training_samples)
    if spec.regularize.l2 and spec.regularize.weight_decay:
        yield Problem(
            "/regularize",
            "double_decay",
            "l2 and weight_decay both shrink the weights",
            "Keep one: weight_decay with adaptive optimizers, l2 with sgd.",
        )
    across = peer_rules_of(spec.early_stop)
    if across and spec.group is None:
        yield Problem(
            f"/early_stop/{spec.early_stop.index(across[0])}",
            "no_group",
            f"the {across[0].kind} rule compares jobs of one group, and this job has no group: the rule never stops it",
            "Set `group` to the same name in each of the jobs.",
        )
    if not context.has_validation:
        yield Problem(
            "/split/validation",
            "no_validation",
            "without a validation part the last weights are kept, not the best",
            "Give validation a share, as in 8:1:1.",
        )
    if spec.loss is not None and spec.loss.kind == "mse" and is_classification(context.task):
        yield Problem(
            "/loss",
            "mse_on_classes",
            "mse on one-hot targets learns slowly where the unit saturates",
            'Use {"kind": "cross_entropy"}.',
        )
    step_samples = spec.train.batch_size * spec.train.gradient_accumulation_steps
    if step_samples > context.training_samples and spec.train.steps_per_epoch is None:
        yield Problem(
            "/train/batch_size"
            if spec.train.batch_size > context.training_samples
            else "/train/gradient_accumulation_steps",
            "batch_exceeds_data",
            f"the training part has {context.training_samples} samples: every epoch is one step",
            "A smaller batch gives more steps.",
        )
    for index, check in enumerate(spec.train.sanity_checks):
        if (reason := why_sanity_check_skipped(spec, check)) is not None:
            yield Problem(
                f"/train/sanity_checks/{index}", "sanity_check_skipped", f"{check} is skipped: {reason}", "Remove it."
            )
    if spec.start_from is not None and spec.start_from.head == "keep" and spec.start_from.file is not None:
        yield Problem(
            "/start_from/head",
            "unchecked_head",
            "whether the file's last layer has the dataset's classes is seen only by the worker, where the file lies: "
            "the job fails at its start if it has not",
            "Upload the file as a dataset of kind weights and name it in `start_from.dataset` to have it checked here.",
        )
    phases = spec.start_from.phases if spec.start_from else ()
    total = sum(phase.epochs for phase in phases)
    if phases and "epochs" in spec.train.model_fields_set and spec.train.epochs != total:
        yield Problem(
            "/train/epochs", "phases_decide", f"the phases add up to {total} epochs, and they decide", "Leave it out."
        )


def further_problems(document: Any, known: Sequence[Problem], facts: DatasetFacts) -> list[Problem]:
    """Return what the dataset forbids in the parts of a document that parse; `known`: the problems of those that do not."""
    spec = _drop_invalid_fields(document, known)
    if spec is None:
        return []
    try:
        resolve(spec, facts)
    except SpecError as error:
        return [problem for problem in error.problems if not _touches(problem.pointer, known)]
    return []


def _drop_invalid_fields(document: Any, known: Iterable[Problem]) -> JobSpec | None:
    """The spec without the parts that `known` points at; None when the dataset is not named or nothing is left."""
    if not isinstance(document, dict):
        return None
    sound = copy.deepcopy(document)
    places = [pointer_tokens(problem.pointer) for problem in known]
    for place in places:
        _without(sound, place)
    try:
        return JobSpec.model_validate(sound)
    except ValidationError as error:
        # A part may be unusable without the field that was taken out: then all of it goes.
        for part in {str(item["loc"][0]) for item in error.errors() if item["loc"]}:
            sound.pop(part, None)
            if part == "model":
                sound[part] = STAND_INS[part]
    try:
        return JobSpec.model_validate(sound)
    except ValidationError:
        return None


def _without(document: dict[str, Any], place: Sequence[str]) -> None:
    """Take one place out of the document, or put a stand-in there where others count on its position."""
    if not place or place[0] not in document:
        return
    top = place[0]
    part = document[top]
    if top in STAND_INS and isinstance(part, list) and len(place) > 1 and int(place[1]) < len(part):
        part[int(place[1])] = STAND_INS[top]
    elif top == "model" and (len(place) == 1 or place[1] == "kind"):
        document[top] = STAND_INS[top]
    elif isinstance(part, dict) and len(place) > 1:
        part.pop(place[1], None)
    else:
        del document[top]


def _touches(pointer: str, known: Iterable[Problem]) -> bool:
    """Whether a problem lies in, or around, a part that was taken out: then it may be about the stand-in."""
    for problem in known:
        place = "/model" if problem.pointer == "/model/kind" else problem.pointer
        if f"{pointer}/".startswith(f"{place}/") or f"{place}/".startswith(f"{pointer}/"):
            return True
    return False

"""What a spec may not ask of its dataset or its model. Every check yields all problems, each with pointer and hint."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trainkit.spec.facts import (
    MOST_UNLABELLED,
    ColumnFacts,
    DatasetFacts,
    Sample,
    class_counts,
    column_steps,
    feature_columns,
    is_classification,
    labelled_samples,
    target_column,
    unlabelled_samples,
)
from trainkit.spec.job import JobSpec, Task
from trainkit.spec.losses import CLASSIFICATION_LOSSES, REGRESSION_LOSSES
from trainkit.spec.metrics import CLASSIFICATION_METRICS, REGRESSION_METRICS, metric_problem, mode_problem
from trainkit.spec.models import (
    ModelSpec,
    SklearnModel,
    body_block_names,
    image_model,
    is_sklearn_model,
    smaller_model,
)
from trainkit.spec.preprocess import PreprocessStep
from trainkit.spec.problems import Problem, pointer
from trainkit.spec.split import part_sizes
from trainkit.spec.synonyms import nearest
from trainkit.spec.training import BlockRange, Blocks, SanityCheck, TrainSpec, chosen_blocks
from trainkit.spec.value_range import why_not_colour

ANY_SAMPLE_AUGMENT = ("noise", "mixup")
COLOUR_AUGMENT = ("saturation", "hue")
IMAGE_MODELS = ("cnn", "residual_cnn", "torchvision", "multimodal")
WITH_BATCH_NORM = (
    *("resn", "wide_resn", "densenet", "efficientnet", "googlenet", "inception", "maxvit", "mnasnet", "mobilenet"),
    *("regnet", "shufflenet"),
)
"""Beginnings of the names of torchvision's architectures with batch norm; the vgg ones end in _bn."""
RECURRENT_MODELS = ("lstm", "gru")
FLAT_MODELS = ("mlp", "linear", "linear_svm", "gradient_boosting", "rbf_svm")
SOFT_TARGET_LOSSES = ("cross_entropy", "binary_cross_entropy", "mse", "focal")
TRAIN_METRICS = ("loss", "accuracy", "mse", "mae")
WEAK_PENALTY_SAMPLES = 100
"""Samples from which on a penalty below 1 is far weaker than where libraries do not divide it by their number."""
MOST_SVM_SAMPLES = 20_000
"""A kernel machine's time grows with the square of its samples: beyond this it is no cheap model any more."""
OF_TRAINING = ("augment", "optimizer", "schedule", "regularize", "early_stop")
USED_OF_TRAIN = ("seed", "threads", "monitor")


@dataclass(frozen=True, slots=True)
class CheckContext:
    """A spec beside its dataset."""

    spec: JobSpec
    facts: DatasetFacts
    task: Task
    sample: Sample
    outputs: int

    @property
    def classification(self) -> bool:
        return is_classification(self.task)

    @property
    def parts(self) -> tuple[int, int, int]:
        """Samples in (train, validation, test), as the split will cut them, before sub-sampling."""
        return self.spec.split.sizes(labelled_samples(self.spec, self.facts), self.facts.splits)

    @property
    def training_samples(self) -> int:
        share = self.spec.split.subsample or 1.0
        return max(1, part_sizes(self.parts[0], (share, 1.0 - share))[0])

    @property
    def has_validation(self) -> bool:
        return self.parts[1] > 0


def dataset_problems(spec: JobSpec, facts: DatasetFacts, task: Task | None) -> Iterator[Problem]:
    """Columns, targets and the task: what must hold before a sample's shape is known."""
    if facts.kind == "weights":
        hint = "Name it as `start_from.dataset`, and a dataset of samples here."
        yield Problem("/dataset", "no_samples", "the dataset holds weights, not samples", hint)
        return
    if facts.kind == "table":
        yield from _column_problems(spec, facts)
    else:
        yield from _image_column_problems(spec, facts)
    if facts.kind != "table" and task is None:
        hint = "Upload labels with it."
        if facts.kind in ("sequences", "arrays"):
            hint += ' To predict how series go on, use task "forecasting".'
        yield Problem("/task", "no_target", "the dataset has no targets to learn", hint)
    if task is None:
        return
    classes = is_classification(task)
    if facts.kind == "table":
        target = target_column(spec, facts)
        if target is not None and classes and target.categories is None:
            yield Problem(
                "/task",
                "target_not_classes",
                f'column "{target.name}" has {target.unique} different values',
                'Use task "regression", or name a column with classes.',
            )
        if target is not None and not classes and target.type == "categorical":
            yield Problem(
                "/task",
                "target_not_numbers",
                f'column "{target.name}" holds text, which cannot be predicted as a number',
                'Use task "classification".',
            )
    elif classes and facts.target_type != "class":
        hint = _other_task("regression", facts)
        yield Problem("/task", "target_not_classes", "the dataset's targets are not classes", hint)
    elif not classes and facts.target_type == "class":
        hint = _other_task("classification", facts)
        yield Problem("/task", "target_not_numbers", "the dataset's targets are classes", hint)
    if task == "sequence_classification" and facts.kind != "sequences":
        yield Problem("/task", "not_sequences", f"the dataset is of kind {facts.kind}", 'Use task "classification".')


def _other_task(task: str, facts: DatasetFacts) -> str:
    """Return the hint to use the task that the targets were read for, or to have them read for the other one."""
    hint = f'Use task "{task}".'
    if facts.kind in ("arrays", "sequences"):
        other = "regression" if task == "classification" else "classification"
        hint += f" To have y read otherwise, upload it with `task: {other}`."
    return hint


def _column_problems(spec: JobSpec, facts: DatasetFacts) -> Iterator[Problem]:
    names = [column.name for column in facts.columns or ()]
    listing = f"Columns: {', '.join(names[:30])}{' ...' if len(names) > 30 else ''}."
    target = spec.dataset.target or facts.target
    forecasting = spec.task == "forecasting"
    if target is None and forecasting:
        pass  # every column is forecast
    elif target is None:
        yield Problem("/dataset/target", "missing_target", "no target column is named", f"{listing}")
    elif target not in names:
        hint = " ".join(part for part in (nearest(target, names), listing) if part)
        yield Problem("/dataset/target", "unknown_column", f'the dataset has no column "{target}"', hint)
    elif (column := facts.column(target)) is not None and column.missing and _refuses_gaps(spec, facts, column):
        yield _missing_target(spec, facts, column)
    elif column is not None and column.infinite:
        message = f'{column.infinite} values of the target column "{target}" are infinite, or beyond 3.4e38'
        yield Problem("/dataset/target", "infinite_values", message, "Correct or remove those rows and upload again.")
    yield from _unknown_columns(spec, names, target, listing)
    columns = feature_columns(spec, facts)
    if target in names and not columns and not forecasting:
        yield Problem("/dataset/features", "no_features", "no feature column is left", listing)
    yield from _infinite_values(columns)
    if forecasting:
        yield from _gaps_in_series(columns)
    else:
        yield from _feature_problems(spec, columns)


def _image_column_problems(spec: JobSpec, facts: DatasetFacts) -> Iterator[Problem]:
    """What the fields about columns may not ask of images, arrays and sequences, and a multimodal model of its images."""
    named = spec.dataset
    if facts.kind == "image_table" and facts.target is not None and named.target not in (None, facts.target):
        yield Problem(
            "/dataset/target",
            "target_is_fixed",
            f'the images are labelled by the column "{facts.target}", which was chosen at upload',
            f'Leave it out; or read the dataset again: POST /v1/datasets/{{id}}:reread with {{"target": "{named.target}"}}.',
        )
    multimodal = spec.model.kind == "multimodal"
    names = [column.name for column in facts.columns or ()]
    if not names:
        for field in ("features", "ignore"):
            if getattr(named, field):
                message = f"a dataset of kind {facts.kind} has no columns to choose from"
                hint = "Remove it."
                if facts.kind == "image_table":
                    message, hint = (
                        "the images have no columns beside their labels",
                        "Remove it, or read the dataset again.",
                    )
                yield Problem(f"/dataset/{field}", "no_columns", message, hint)
        if multimodal:
            hint = "Use a cnn. Columns come with an image_table: images and one table that names them, in one archive."
            if facts.kind == "image_table":
                hint += " One that was uploaded to an earlier version is read again with POST /v1/datasets/{id}:reread."
            yield Problem(
                "/model/kind", "needs_columns", "multimodal reads images and columns; there are no columns", hint
            )
        elif spec.preprocess_columns is not None:
            yield _unread_steps(spec)
        return
    listing = f"Columns: {', '.join(names[:30])}{' ...' if len(names) > 30 else ''}."
    yield from _unknown_columns(spec, names, facts.target, listing)
    if not multimodal:
        if spec.preprocess_columns is not None:
            yield _unread_steps(spec)
        return
    columns = feature_columns(spec, facts)
    if not columns:
        hint = f"Use a cnn, which reads the image alone. {listing}"
        yield Problem("/dataset/features", "no_features", "no feature column is left for the model", hint)
    yield from _infinite_values(columns)
    yield from _feature_problems(spec, columns)


def unused_columns(spec: JobSpec, facts: DatasetFacts) -> Iterator[Problem]:
    """Warn of the columns beside images that the model does not read, unless the spec ignores them itself."""
    if facts.kind != "image_table" or spec.model.kind in ("multimodal", "ensemble"):
        return
    names = [column.name for column in feature_columns(spec, facts)]
    if names:
        listed = f"{', '.join(names[:10])}{' ...' if len(names) > 10 else ''}"
        yield Problem(
            "/model/kind",
            "unused_columns",
            f"{spec.model.kind} reads the image alone: the table's columns are not used ({listed})",
            'Use {"kind": "multimodal"} to learn from both; or name them in `dataset.ignore` to keep this warning away.',
        )


def _unread_steps(spec: JobSpec) -> Problem:
    message = f"{spec.model.kind} reads no columns beside images"
    return Problem("/preprocess_columns", "needs_multimodal", message, 'Use {"kind": "multimodal"}, or remove it.')


def _unknown_columns(spec: JobSpec, names: Sequence[str], target: str | None, listing: str) -> Iterator[Problem]:
    for field, chosen in (("features", spec.dataset.features or ()), ("ignore", spec.dataset.ignore)):
        for index, name in enumerate(chosen):
            if field == "features" and name == target:
                yield Problem(
                    f"/dataset/features/{index}", "target_as_feature", f'"{name}" is the target', "Take it out."
                )
            elif name not in names:
                hint = " ".join(part for part in (nearest(name, names), listing) if part)
                yield Problem(
                    f"/dataset/{field}/{index}", "unknown_column", f'the dataset has no column "{name}"', hint
                )


def _infinite_values(columns: Sequence[ColumnFacts]) -> Iterator[Problem]:
    infinite = [column.name for column in columns if column.infinite]
    if infinite:
        yield Problem(
            "/dataset/ignore",
            "infinite_values",
            f"values are infinite, or beyond 3.4e38, in {', '.join(infinite[:10])}",
            "Correct the rows and upload again, read them as missing (the column's `missing`), or ignore the columns.",
        )


def _feature_problems(spec: JobSpec, columns: Sequence[ColumnFacts]) -> Iterator[Problem]:
    """What keeps a column from being an input."""
    imputes = any(step.kind == "impute" for step in column_steps(spec))
    for column in columns:
        if column.type == "categorical" and column.categories is None:
            yield Problem(
                "/dataset/ignore",
                "too_many_categories",
                f'text column "{column.name}" has {column.unique} different values, like an id',
                f'Add "{column.name}" to `dataset.ignore`.',
            )
    with_gaps = [column.name for column in columns if column.missing]
    if with_gaps and not imputes:
        field = "preprocess_columns" if spec.model.kind == "multimodal" else "preprocess"
        yield Problem(
            f"/{field}",
            "missing_values",
            f"values are missing in {', '.join(with_gaps[:10])}",
            f"Write `{field}: [impute, z_score]`, or `[impute]` and your own steps, or leave the columns out.",
        )


def _refuses_gaps(spec: JobSpec, facts: DatasetFacts, target: ColumnFacts) -> bool:
    """Whether rows without a target are an error; else they are left out, with a warning."""
    if spec.task == "forecasting" or target.missing == facts.samples:
        return True
    chosen = spec.dataset.missing_target
    return chosen == "refuse" or (chosen == "auto" and target.missing > MOST_UNLABELLED * facts.samples)


def _missing_target(spec: JobSpec, facts: DatasetFacts, target: ColumnFacts) -> Problem:
    message = f'{target.missing} of {facts.samples} rows have no value in the target column "{target.name}"'
    if spec.task == "forecasting":
        hint = "A series may have no gaps: fill them before the upload, or name another target."
        return Problem("/dataset/target", "missing_values", message, hint)
    hint = _read_as_value(target.name)
    if target.missing < facts.samples:
        hint = f"{hint} `dataset.missing_target: leave_out` trains on the other rows."
    return Problem("/dataset/target", "missing_values", message, hint)


def _read_as_value(target: str) -> str:
    name = json.dumps(target, ensure_ascii=False)
    return (
        "The dataset's report lists which words were read as missing; if one of them is a value, read the dataset again "
        f'with columns: {{{name}: {{"missing": []}}}}.'
    )


def unlabelled_warning(spec: JobSpec, facts: DatasetFacts) -> Problem | None:
    """Return what is to be said of rows that are left out because they have no target."""
    column, count = target_column(spec, facts), unlabelled_samples(spec, facts)
    if column is None or not count:
        return None
    message = (
        f'{count} of {facts.samples} rows have no value in the target column "{column.name}": they are left out of '
        "training, validation and test"
    )
    return Problem("/dataset/target", "unlabelled_rows", message, _read_as_value(column.name))


def _gaps_in_series(columns: Iterable[ColumnFacts]) -> Iterator[Problem]:
    with_gaps = [column.name for column in columns if column.type == "numeric" and column.missing]
    if with_gaps:
        message = f"values are missing in {', '.join(with_gaps[:10])}"
        hint = "A series may have no gaps: fill them before the upload, or put the columns into `ignore`."
        yield Problem("/dataset/ignore", "missing_values", message, hint)


def all_problems(context: CheckContext) -> Iterator[Problem]:
    """Everything else, once the sample's form is known."""
    yield from _split_problems(context)
    yield from _preprocess_problems(context)
    yield from _augment_problems(context)
    yield from _model_problems(context)
    yield from _single_sample_problems(context)
    yield from _loss_problems(context)
    yield from _monitor_problems(context)
    yield from _transfer_problems(context)


def _split_problems(context: CheckContext) -> Iterator[Problem]:
    spec, (train, validation, test) = context.spec, context.parts
    if context.classification and context.outputs < 2:
        yield Problem("/dataset", "one_class", "the dataset has fewer than two classes", "Nothing can be told apart.")
    if train < 1:
        yield Problem("/split/train", "empty_part", "the training part would be empty", "Give it a larger share.")
    fractions, folds = spec.split.fractions, spec.split.folds
    if folds is not None:
        yield from _fold_problems(context, folds)
    for name, size, share in (("validation", validation, fractions[1]), ("test", test, fractions[2])):
        if size < 1 and share > 0 and not (context.facts.splits and spec.split.use_predefined):
            hint = f"Give it a larger share, or 0 for none; there are {labelled_samples(spec, context.facts)} samples."
            yield Problem(f"/split/{name}", "empty_part", f"the {name} part would be empty", hint)
    if spec.balance != "none" and not context.classification:
        yield Problem("/balance", "needs_classes", "balancing needs classes", 'Use "none" for regression.')
    elif isinstance(spec.balance, dict):
        yield from _class_weight_problems(spec.balance, list(class_counts(spec, context.facts) or ()))


def _class_weight_problems(weights: Mapping[str, float], classes: Sequence[str]) -> Iterator[Problem]:
    listing = f"Classes: {', '.join(classes[:30])}{' ...' if len(classes) > 30 else ''}."
    for name in weights:
        if name not in classes:
            hint = " ".join(part for part in (nearest(name, classes), listing) if part)
            yield Problem(pointer(["balance", name]), "unknown_class", f'the dataset has no class "{name}"', hint)
    if missing := [name for name in classes if name not in weights]:
        message = f"no weight is given for {', '.join(missing[:10])}{' ...' if len(missing) > 10 else ''}"
        yield Problem("/balance", "missing_class", message, "Give every class a weight; 1 changes nothing.")


def _fold_problems(context: CheckContext, folds: int) -> Iterator[Problem]:
    train, validation, _ = context.parts
    cut, largest = train + validation, max(class_sizes_in_folds(context), default=folds)
    if cut < folds:
        yield Problem("/split/folds", "too_many_folds", f"{cut} samples cannot be {folds} folds", "Use fewer.")
    elif largest < folds:
        hint = f"Use at most {max(2, int(largest))}, or split.stratify: false."
        yield Problem("/split/folds", "too_many_folds", f"no class has {folds} samples beside the test part", hint)


def class_sizes_in_folds(context: CheckContext) -> list[float]:
    """Expected samples of each class that the folds are cut from; nothing where they are not cut by class."""
    counts = class_counts(context.spec, context.facts)
    if not (context.classification and context.spec.split.stratify and counts):
        return []
    train, validation, _ = context.parts
    samples = labelled_samples(context.spec, context.facts)
    return [count * (train + validation) / max(1, samples) for count in counts.values()]


def _preprocess_problems(context: CheckContext) -> Iterator[Problem]:
    spec, sample = context.spec, context.sample
    if sample.columns:
        columns = replace(context, sample=Sample("vector", (sample.columns,)))
        yield from _step_problems(columns, "preprocess_columns", spec.preprocess_columns or (), imputes=True)
    image = replace(context, sample=Sample(sample.form, sample.shape))
    yield from _step_problems(image, "preprocess", spec.preprocess or (), imputes=context.facts.kind == "table")


def _step_problems(
    context: CheckContext, field: str, steps: Sequence[PreprocessStep], *, imputes: bool
) -> Iterator[Problem]:
    """The steps of one input. `imputes`: whether it may have gaps."""
    spec, sample = context.spec, context.sample
    width, flat = sample.size if sample.form != "sequence" else sample.shape[-1], sample.form != "image"
    for index, step in enumerate(steps):
        where = f"/{field}/{index}"
        if step.kind == "impute":
            if not imputes:
                hint = "Put it into `preprocess_columns`." if spec.model.kind == "multimodal" else "Remove it."
                yield Problem(where, "tables_only", "impute is for tables", hint)
            elif index:
                yield Problem(where, "order", "impute must come first: the other steps cannot see gaps", "Move it up.")
            continue
        per = getattr(step, "per", "auto")
        if per in ("channel", "pixel") and sample.form != "image":
            yield Problem(f"{where}/per", "images_only", f'"{per}" is for images', 'Use "auto".')
        if per in ("channel", "pixel") and flat and sample.form == "image":
            yield Problem(f"{where}/per", "already_flat", "an earlier pca has flattened the image", 'Use "auto".')
        if step.kind == "pca":
            limit = min(width, context.training_samples)
            if type(step.components) is int and step.components > limit:
                yield Problem(
                    f"{where}/components",
                    "too_many_components",
                    f"{step.components} components of {width} features and {context.training_samples} training samples",
                    f"At most {limit}, or a fraction such as 0.95.",
                )
            width, flat = step.components if type(step.components) is int else limit, True
        if step.kind == "whiten" and step.method == "pca":
            flat = True
    if flat and sample.form == "image" and spec.model.kind in IMAGE_MODELS:
        yield Problem(
            "/preprocess",
            "needs_image",
            f"pca turns images into vectors, which {spec.model.kind} cannot read",
            'Use an mlp, or {"kind": "whiten", "method": "zca"}, which keeps images.',
        )


def _augment_problems(context: CheckContext) -> Iterator[Problem]:
    sample = context.sample
    for index, step in enumerate(context.spec.augment):
        where = f"/augment/{index}"
        if sample.form != "image" and step.kind not in ANY_SAMPLE_AUGMENT:
            yield Problem(where, "images_only", f"{step.kind} is for images", f"Use one of {ANY_SAMPLE_AUGMENT}.")
        elif step.kind in COLOUR_AUGMENT:
            reason = why_not_colour(sample.shape[0], context.facts.value_ranges)
            if reason is not None:
                hint = "Remove it."
                if sample.shape[0] == 3:
                    hint += " Or upload the images as they were, and put z_score into `preprocess`."
                yield Problem(where, "needs_colour", f"{step.kind} needs colour images: {reason}", hint)
        if step.kind in ("mixup", "cutmix") and context.spec.loss is not None:
            kind = context.spec.loss.kind
            if context.classification and kind not in SOFT_TARGET_LOSSES:
                hint = f"Use one of {', '.join(SOFT_TARGET_LOSSES)}."
                yield Problem(where, "needs_soft_targets", f"{kind} cannot take mixed targets", hint)
        if step.kind == "cutmix" and not context.classification:
            yield Problem(where, "needs_classes", "cutmix mixes classes", "Use mixup for regression.")
        if step.kind in ("mixup", "cutmix") and context.spec.model.kind == "multimodal":
            message = f"{step.kind} mixes images and targets, and the columns would stay as they are"
            yield Problem(where, "not_with_columns", message, "Remove it; the other steps change the image alone.")
        if step.kind in ("mixup", "cutmix") and context.spec.model.kind == "linear_svm":
            yield Problem(where, "needs_soft_targets", "the SVM's hinge loss cannot take mixed targets", "Remove it.")


def _model_problems(context: CheckContext) -> Iterator[Problem]:
    kind, sample = context.spec.model.kind, context.sample
    if kind in IMAGE_MODELS and sample.form != "image":
        yield Problem(
            "/model/kind", "needs_image", f"{kind} reads images, the samples are {sample.form}s", "Use an mlp."
        )
    torchvision = getattr(image_model(context.spec.model), "kind", None) == "torchvision"
    if torchvision and sample.form == "image" and sample.shape[0] not in (1, 3):
        message = f"torchvision's networks read grey or RGB images, these have {sample.shape[0]} channels"
        yield Problem("/model/kind", "needs_colour", message, "Use a cnn or residual_cnn, which read any channels.")
    if kind in RECURRENT_MODELS and sample.form != "sequence":
        yield Problem(
            "/model/kind",
            "needs_sequence",
            f"{kind} reads sequences (T, F), the samples are {sample.form}s",
            "Upload with kind=sequences, or use an mlp.",
        )
    if sample.form == "sequence" and kind in FLAT_MODELS:
        lengths = context.facts.lengths
        if lengths is not None and lengths[0] != lengths[1]:
            yield Problem(
                "/model/kind",
                "needs_equal_lengths",
                f"{kind} needs equal lengths, these run from {lengths[0]} to {lengths[1]}",
                "Use an lstm or gru.",
            )
    if is_sklearn_model(context.spec.model):
        yield from _sklearn_problems(context.spec, context.training_samples)
        return
    if kind == "linear_svm" and not context.classification:
        yield Problem("/model/kind", "needs_classes", "the SVM separates classes", "Use linear for regression.")
    if context.spec.adapt is not None and kind == "multimodal":
        message = "domain adaptation is not there for models of images and columns"
        yield Problem("/adapt", "not_with_columns", message, "Remove it, or use the image alone: a cnn.")
    if context.spec.adapt is not None and (not context.classification or kind == "ensemble"):
        yield Problem("/adapt", "needs_classes", "domain adaptation is for classification models", "Remove it.")
    if context.spec.adapt is not None and context.spec.train.gradient_accumulation_steps > 1:
        hint = "Use 1, and a smaller `train.batch_size`."
        yield Problem(
            "/train/gradient_accumulation_steps", "not_with_adapt", "domain adaptation takes whole batches", hint
        )


def _single_sample_problems(context: CheckContext) -> Iterator[Problem]:
    """Batch norm of one value: its variance is 0, and PyTorch refuses it. A last batch of one joins the one before."""
    spec = context.spec
    frozen = spec.start_from is not None and spec.start_from.freeze == "body" and not spec.start_from.phases
    if frozen or min(spec.train.batch_size, context.training_samples) > 1 or not _norms_one_value(context):
        return
    where = "/train/batch_size" if spec.train.batch_size == 1 else "/split/train"
    yield Problem(
        where,
        "batch_norm_of_one",
        "batch norm needs at least 2 samples in a batch, and the training batches have 1",
        "Use a `train.batch_size` of 2 or more; where the model has a `norm`, layer and group take single samples.",
    )


def _norms_one_value(context: CheckContext) -> bool:
    """Whether a batch norm of the model sees one value a channel in a batch of one sample."""
    model, sample = context.spec.model, context.sample
    side = min(sample.shape[-2:]) if sample.form == "image" else 1
    if model.kind == "multimodal":
        return _norms_one(model.image, side) or _norms_one(model.columns, side)
    return _norms_one(model, side)


def _norms_one(model: ModelSpec, side: int) -> bool:
    match model.kind:
        case "mlp":
            return model.norm == "batch" and bool(model.hidden)
        case "cnn":
            return model.norm == "batch" and (
                side == 1 or (model.pool != "none" and side >> len(model.channels) - 1 <= 1)
            )
        case "residual_cnn":
            return model.norm == "batch" and side <= 1 << len(model.channels) - 1
        case "torchvision":
            return bool(model.name.startswith(WITH_BATCH_NORM) or model.name.endswith("_bn"))
    return False


def _loss_problems(context: CheckContext) -> Iterator[Problem]:
    spec = context.spec
    fitting = CLASSIFICATION_LOSSES if context.classification else REGRESSION_LOSSES
    kind = spec.loss.kind if spec.loss is not None else None
    if kind is not None and kind not in fitting:
        yield Problem(
            "/loss/kind", "wrong_loss", f"{kind} does not fit {context.task}", f"Use one of {', '.join(fitting)}."
        )
    smoothing = spec.regularize.label_smoothing
    takes_smoothing = kind in (None, "cross_entropy", "focal") and spec.model.kind != "linear_svm"
    if smoothing and not (context.classification and takes_smoothing):
        yield Problem(
            "/regularize/label_smoothing",
            "needs_cross_entropy",
            "label smoothing works on class probabilities",
            "Use cross_entropy or focal, or remove it.",
        )
    if context.classification and spec.target_scaling in ("z_score", "min_max"):
        yield Problem("/target_scaling", "needs_numbers", "classes cannot be scaled", "Remove it.")


def _monitor_problems(context: CheckContext) -> Iterator[Problem]:
    spec = context.spec
    watched: list[tuple[str, Any]] = [(f"/early_stop/{i}", rule) for i, rule in enumerate(spec.early_stop)]
    watched.append(("/schedule", spec.schedule))
    for where, rule in watched:
        monitor = getattr(rule, "monitor", None)
        if monitor is not None and (problem := _monitor_problem(context, where, monitor, rule.mode)):
            yield problem
        if rule.kind in ("gap", "no_progress") and not context.has_validation:
            yield _no_validation(where, f"the {rule.kind} rule compares with validation data")
    monitor = spec.train.monitor
    if monitor is not None and (problem := _monitor_problem(context, "/train", monitor, "auto")):
        yield problem


def _monitor_problem(context: CheckContext, where: str, monitor: str, mode: str) -> Problem | None:
    fitting = CLASSIFICATION_METRICS if context.classification else REGRESSION_METRICS
    choices = [f"val_{name}" for name in fitting] + [f"train_{name}" for name in fitting if name in TRAIN_METRICS]
    problem = metric_problem(where, monitor, choices)
    if problem is not None:
        return problem
    if monitor not in choices:
        message, hint = f"{monitor} is not measured in {context.task}", f"Choices: {', '.join(choices)}."
        return Problem(f"{where}/monitor", "metric_not_measured", message, hint)
    if monitor.startswith("val_") and not context.has_validation:
        return _no_validation(f"{where}/monitor", f"{monitor} needs validation data, and the split has none")
    return mode_problem(where, monitor, mode)


def _no_validation(where: str, message: str) -> Problem:
    return Problem(
        where, "no_validation", message, "Give `split.validation` a share, as in 8:1:1, or monitor train_loss."
    )


def kept_head_problem(source: Sequence[str] | None, target: Sequence[str] | None) -> Problem | None:
    """Why `head: keep` cannot give each class of `target` its row of the source's output layer; None where it can.

    Classes are told by name, so that another order or fewer of them are no obstacle. None: the outputs are numbers, or
    the source does not name its classes.
    """
    hint, where = 'Use "head": "new".', "/start_from/head"
    if target is None:
        if source is None:
            return None
        return Problem(where, "head_of_classes", "the source's head tells classes, and this job predicts numbers", hint)
    if source is None:
        message = "the source does not say which class each output of its head stands for"
        return Problem(
            where, "classes_unknown", message, f"{hint[:-1]}, or give the weight file metadata: `classes`, a JSON list."
        )
    unknown = [name for name in target if name not in set(source)]
    if unknown:
        shown = f"{', '.join(unknown[:5])}{' ...' if len(unknown) > 5 else ''}"
        known = f"{', '.join(source[:10])}{' ...' if len(source) > 10 else ''}"
        return Problem(where, "classes_differ", f"the source's head does not know {shown}; it knows {known}", hint)
    return None


def classes_of(spec: JobSpec, facts: DatasetFacts) -> tuple[str, ...] | None:
    """Names of the classes that a resolved spec's job will tell apart, by output; None for numbers."""
    if spec.task is None or not is_classification(spec.task):
        return None
    return tuple(class_counts(spec, facts) or ())


def _transfer_problems(context: CheckContext) -> Iterator[Problem]:
    spec = context.spec
    init = getattr(spec.model, "init", None)
    if spec.start_from is not None and init is not None:
        yield Problem("/model/init", "two_sources", "`start_from` already gives the weights", "Remove `init`.")
    if spec.model.kind == "ensemble" and spec.start_from is not None:
        yield Problem("/start_from", "nothing_to_train", "an ensemble is not trained", "Remove it.")
    start = spec.start_from
    if start is not None:
        chosen: list[tuple[str, Blocks]] = [("/start_from/freeze", "none" if start.freeze == "body" else start.freeze)]
        chosen += [(f"/start_from/phases/{index}/unfreeze", one.unfreeze) for index, one in enumerate(start.phases)]
        for where, blocks in chosen:
            if spec.model.kind == "multimodal" and isinstance(blocks, int | BlockRange) and blocks:
                names = ", ".join(body_block_names(spec.model)[:10])
                message = "two encoders beside each other have no first and last blocks"
                yield Problem(where, "no_block_order", message, f"Name the blocks, such as {names}.")
                continue
            try:
                chosen_blocks(body_block_names(spec.model), blocks)
            except ValueError as error:
                yield Problem(where, "no_such_block", str(error), "Name blocks of the body, or fewer of them.")
    if spec.start_from is not None and spec.start_from.freeze == "none":
        for index, phase in enumerate(spec.start_from.phases):
            if phase.unfreeze == "none":
                yield Problem(
                    f"/start_from/phases/{index}/unfreeze",
                    "needs_freeze",
                    "this phase trains the head alone, but the body is not frozen",
                    'Say "freeze": "body", or "unfreeze": "all" in the phase.',
                )


def why_sanity_check_skipped(spec: JobSpec, check: SanityCheck) -> str | None:
    """Return why the sanity check makes no sense for such a job; None where it does."""
    if spec.model.kind == "ensemble" or isinstance(spec.model, SklearnModel):
        return f"{spec.model.kind} is not trained step by step"
    if check == "first_batch":
        return None
    if spec.start_from is not None or getattr(getattr(spec.model, "init", None), "kind", None) == "pretrained":
        return "a model that begins with trained weights has no smaller one to be compared with"
    if spec.adapt is not None:
        return "domain adaptation gives up training loss on purpose"
    if smaller_model(spec.model) is None:
        return f"there is no smaller model than this {spec.model.kind}"
    return None


def _sklearn_problems(spec: JobSpec, training_samples: int) -> Iterator[Problem]:
    """What a model that scikit-learn fits cannot do."""
    kind = spec.model.kind
    if kind == "rbf_svm" and training_samples > MOST_SVM_SAMPLES:
        yield Problem(
            "/split/subsample",
            "too_many_samples",
            f"rbf_svm takes at most {MOST_SVM_SAMPLES} training samples, for its time grows with their square; "
            f"these are {training_samples}",
            f"Use {svm_share(spec, training_samples):g} or less, or gradient_boosting.",
        )
    hint = f"Remove it, or use an mlp: scikit-learn fits {kind} from the beginning."
    if spec.start_from is not None:
        yield Problem("/start_from", "no_weights", f"{kind} has no weights to take over", hint)
    if spec.adapt is not None:
        yield Problem("/adapt", "no_network", f"{kind} has no features to adapt", hint)


def penalty_warnings(spec: JobSpec, training_samples: int) -> Iterator[Problem]:
    """Warnings of penalties that do less than their number says elsewhere.

    A spec that names its `scale` is not warned about it, nor is an l1 or l2 of 1 or more: no library uses such a number
    undivided.
    """
    regularize, n = spec.regularize, training_samples
    if regularize.scale == "mean" and "scale" not in regularize.model_fields_set and n >= WEAK_PENALTY_SAMPLES:
        if 0 < regularize.l2 < 1:
            yield Problem(
                "/regularize/l2",
                "weak_penalty",
                f"l2 is divided by the {n} training samples: the decay is {regularize.l2 / n:.3g}, {n} times weaker than "
                f"weight_decay={regularize.l2:g} in PyTorch and {2 * n} times weaker than L2({regularize.l2:g}) in Keras",
                f'Say "scale": "sum" for PyTorch\'s meaning (Keras\'s is l2: {2 * regularize.l2:g} then), or "scale": '
                '"mean" to keep it and this warning away.',
            )
        if 0 < regularize.l1 < 1:
            yield Problem(
                "/regularize/l1",
                "weak_penalty",
                f"l1 is divided by the {n} training samples: it is {n} times weaker than L1({regularize.l1:g}) in Keras",
                'Say "scale": "sum" for Keras\'s meaning, or "scale": "mean" to keep it and this warning away.',
            )
    if not regularize.l1:
        return
    adaptive, update = spec.optimizer.step_scale != "gradient", regularize.l1_update
    if update == "subgradient" or (update == "auto" and adaptive):
        yield Problem(
            "/regularize/l1",
            "l1_without_zeros",
            f"with {spec.optimizer.kind} l1 is part of the gradient: weights come near 0, and none becomes exactly 0",
            f'For exact zeros {"use sgd, or " if adaptive else ""}say "l1_update": "proximal".',
        )
    if update == "proximal" and adaptive:
        yield Problem(
            "/regularize/l1_update",
            "l1_decoupled",
            f"{spec.optimizer.kind} gives each weight a rate of its own and the soft threshold does not: the zeros are "
            "exact, and which weights they are differs from the minimum of the loss with l1",
            "Use sgd where the support matters, as in a lasso.",
        )


def svm_share(spec: JobSpec, training_samples: int) -> float:
    """The largest `split.subsample`, to 6 digits, that leaves an rbf_svm few enough samples."""
    return math.floor(1e6 * (spec.split.subsample or 1.0) * MOST_SVM_SAMPLES / training_samples) / 1e6


def sklearn_warnings(spec: JobSpec, loss: object) -> Iterator[Problem]:
    """Warnings of what is set, and nothing comes of it. `loss`: what it is measured by in any case."""
    defaults = JobSpec.model_fields
    pointers = [f"/{name}" for name in OF_TRAINING if getattr(spec, name) != defaults[name].default]
    usual = TrainSpec()
    pointers += [
        f"/train/{name}"
        for name in TrainSpec.model_fields
        if name not in USED_OF_TRAIN and getattr(spec.train, name) != getattr(usual, name)
    ]
    if spec.loss is not None and spec.loss != loss:
        pointers.append("/loss")
    for place in pointers:
        message = f"{spec.model.kind} makes no use of it: scikit-learn fits the model at once, by its own objective"
        yield Problem(place, "not_used", message, "Leave it out; the model's own fields are under `model`.")

"""What a spec may not ask of its dataset's columns and targets, and what it makes no use of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from trainkit.spec.facts import (
    MOST_CATEGORIES,
    MOST_UNLABELLED,
    ColumnFacts,
    DatasetFacts,
    column_steps,
    feature_columns,
    is_classification,
    target_column,
    unlabelled_samples,
)
from trainkit.spec.job import JobSpec, Task
from trainkit.spec.problems import Problem
from trainkit.spec.synonyms import nearest


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
                f'column "{target.name}" has {_many(target)}',
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


def _many(column: ColumnFacts) -> str:
    """What keeps the categories of a column from being listed: their number, or their length."""
    if column.type == "categorical" and column.unique <= MOST_CATEGORIES:
        return f"{column.unique} different values of more than 1 MiB of text together"
    return f"{column.unique} different values" + (", like an id" if column.type == "categorical" else "")


def _feature_problems(spec: JobSpec, columns: Sequence[ColumnFacts]) -> Iterator[Problem]:
    """What keeps a column from being an input."""
    imputes = any(step.kind == "impute" for step in column_steps(spec))
    for column in columns:
        if column.type == "categorical" and column.categories is None:
            yield Problem(
                "/dataset/ignore",
                "too_many_categories",
                f'text column "{column.name}" has {_many(column)}',
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

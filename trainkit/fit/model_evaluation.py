"""Evaluate a trained model on labelled data: the metrics of a job's own evaluation, of other samples.

Targets are matched by class name. What differs from the training data is refused, or said in `warnings`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit import losses
from trainkit.data import ArrayInputs, Dataset, ImageInputs, SequenceInputs, TableInputs
from trainkit.data.dataset import Column
from trainkit.data.errors import DataError, InputError, InputProblem
from trainkit.data.image_rows import ImageRows
from trainkit.data.splits import Parts
from trainkit.data.table.column_format import EPOCH, CellError, ColumnFormat, category_of, shown
from trainkit.data.table.json_rows import ABSENT
from trainkit.data.table.request_rows import TableRows
from trainkit.fit.device import Runtime, available_cores, forward_of, machine, reuse_runtime
from trainkit.fit.encoding.encode import (
    ArrayEncoder,
    Encoded,
    Encoder,
    ImageEncoder,
    ImageTableEncoder,
    SequenceEncoder,
    encode,
    parse,
    with_channels,
)
from trainkit.fit.encoding.forecast import as_windows, cut_windows
from trainkit.fit.encoding.prepare import Part, cut_parts, make_part, refuse_non_finite
from trainkit.fit.encoding.table_encoder import RowWarnings, TableEncoder
from trainkit.fit.ensemble import ensemble_metrics
from trainkit.fit.evaluation.ablation import ablation
from trainkit.fit.evaluation.evaluate import calibrated_shares, evaluation, measure, outputs_of
from trainkit.fit.models.trained_model import EnsembleModel, TrainedModel
from trainkit.spec import JobSpec
from trainkit.spec.facts import MOST_UNLABELLED
from trainkit.spec.forecasting import cuts_windows
from trainkit.spec.problems import SpecError

PartName = Literal["all", "train", "validation", "test"]
MOST_PROBLEMS = 20
UPLOAD_SERIES = 'Upload the table as a dataset, and evaluate {"dataset": "ds_..."}: its report says how it was read.'
UNLABELLED = -1
"""The class index of a row without a label."""
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LabelledSamples:
    """Samples whose answers are known: rows of a table, images with such rows, or the inputs of another dataset."""

    truth: NDArray[Any]
    """(n,) indices of the model's classes, or (n, k) float64 numbers."""
    rows: TableRows | ImageRows | None = None
    data: Dataset | None = None
    index: Index | None = None
    """Which of the dataset's samples; None for rows of a request."""
    unlabelled: tuple[int, int] | None = None
    """How many of the rows have no label and are left out, and the number of the first."""


def evaluate_model(
    model: TrainedModel | EnsembleModel,
    data: Dataset | TableRows | ImageRows,
    *,
    target: str | None = None,
    part: PartName = "all",
    is_training_dataset: bool = False,
    ignore_extra: bool = False,
) -> dict[str, Any]:
    """Return `{split, samples, metrics, per_class, confusion_matrix, classes, warnings}` of a model on labelled data.

    A multimodal model's also has `ablation` (`trainkit.fit.evaluation.ablation`).

    With the training dataset and `part="test"` it is the evaluation of the job itself, to the last bit where that was
    computed on the CPU.

    Args:
        model: What `load_model` or a fit gave.
        data: A dataset, or rows of a table in the format of the training file (`request_rows.read_request`), with images
            for a multimodal model (`image_rows.read_image_archive`).
        target: Tables: the column with the answers; left out, the one that the model was trained to predict.
        part: `all`, or a part: of the model's own split if `is_training_dataset`, else one that the dataset ships.
        is_training_dataset: Whether `data` is the dataset that the model was trained with, unchanged.
        ignore_extra: Allow columns that the training file did not have.

    Raises:
        InputError: A label is missing or none of the model's classes, inputs do not have the form of the training
            data, a column is missing, or there is no such part.
    """
    spec = JobSpec.model_validate(model.description["spec"])
    if spec.task == "forecasting":
        data = _windows_of(model, spec, data, target, part, is_training_dataset)
    samples = _labelled(model, spec, data, target, part, is_training_dataset)
    if not len(samples.truth):
        raise _refusal("empty_part", f"the part {part} holds no samples", hint="Choose another part.")
    warnings = [
        *_part_warnings(part, is_training_dataset),
        *_dtype_warnings(model, samples),
        *_unlabelled_warnings(samples),
    ]
    outputs: NDArray[Any]
    ablated: dict[str, Any] = {}
    shares: NDArray[np.float64] | None
    if isinstance(model, EnsembleModel):
        outputs, of_rows = _answers(model, samples, ignore_extra)
        metrics, shares = ensemble_metrics(samples.truth, outputs, model.classes), outputs
    else:
        outputs, metrics, of_rows, ablated = _measure(model, spec, samples, ignore_extra)
        shares = None if model.classes is None else calibrated_shares(outputs, model.description["loss"]["kind"])
    result = evaluation(part, metrics, samples.truth, outputs, model.classes, index=samples.index, shares=shares)
    absent = [row["class"] for row in result["per_class"] if row["support"] == 0]
    if absent:
        message = f"no sample is of {_listed(absent)}: precision, recall and f1 are means over the classes that occur"
        warnings.append({"code": "absent_class", "message": message})
    return {**result, **ablated, "warnings": [*warnings, *_row_warnings(of_rows, samples)]}


def _windows_of(
    model: TrainedModel | EnsembleModel,
    spec: JobSpec,
    data: Dataset | TableRows | ImageRows,
    target: str | None,
    part: PartName,
    is_training_dataset: bool,
) -> Dataset:
    """The windows of a series, in the columns that the model was trained on; their parts are cut by time.

    Sequences that come with a number each are windows already.
    """
    if not isinstance(data, Dataset):
        raise _refusal("wrong_kind", "a forecasting model reads a series", hint=UPLOAD_SERIES)
    if not cuts_windows(spec, data.facts):
        return data
    if part != "all" and not is_training_dataset:
        raise _no_part(part)
    try:
        if isinstance(data.inputs, TableInputs):
            series, forecast = _named_series(model, data, data.inputs, target)
            return cut_windows([series], forecast, spec)
        return as_windows(spec, data)
    except SpecError as error:
        first = error.problems[0]
        raise _refusal(first.code, first.message, hint=first.hint) from None


def _named_series(
    model: TrainedModel | EnsembleModel, data: Dataset, inputs: TableInputs, target: str | None
) -> tuple[NDArray[np.float32], list[int]]:
    """(T, F) of the columns that the model was trained on, in their order, and which of them it forecasts."""
    names = model.description.get("dataset", {}).get("series")
    if names is None:
        message = "the model does not say which columns it was trained on"
        raise _refusal("unknown_columns", message, hint="Train it again; models keep the names now.")
    first = model
    while isinstance(first, EnsembleModel):
        first = first.members[0]
    outputs = first.description["outputs"]
    forecast = list(range(len(names))) if outputs == len(names) else [len(names) - 1]
    if target is not None and (len(forecast) > 1 or target != names[-1]):
        message = f"the model forecasts {_listed([names[place] for place in forecast])}, and not {shown(target)}"
        raise _refusal("wrong_target", message, hint="Leave `target` out.")
    problems = []
    for name in names:
        facts = data.facts.column(name)
        if facts is None:
            hint = f"The model reads the columns {_listed(names)}."
            problems.append(InputProblem("missing_column", f"the series has no column {shown(name)}", None, name, hint))
        elif facts.type != "numeric" or facts.missing or facts.infinite:
            message = f"the column {shown(name)} is no series of numbers without gaps"
            hint = "Fill gaps before the upload; the dataset's report says how the column was read."
            problems.append(InputProblem("not_a_series", message, None, name, hint))
    if problems:
        raise InputError(problems[:MOST_PROBLEMS])
    columns = [np.asarray(inputs.columns[name].values, np.float32) for name in names]
    return np.stack(columns, axis=1), forecast


def _measure(
    model: TrainedModel, spec: JobSpec, samples: LabelledSamples, ignore_extra: bool
) -> tuple[NDArray[np.float32], dict[str, float], Sequence[RowWarnings], dict[str, Any]]:
    """(raw outputs, metrics, warnings of rows, ablation if any): the computation of the job's own evaluation."""
    encoded = _encode(model.encoder, samples, ignore_extra)
    cpu = torch.device("cpu")
    targets = torch.from_numpy(samples.truth if model.scaler is None else model.scaler.apply(samples.truth))
    index = np.arange(len(samples.truth))
    held_out = make_part(
        "test", encoded, targets, samples.truth, index, model.preprocessing, augmented=False, device=cpu
    )
    assert spec.loss is not None  # the spec is a resolved one
    loss = losses.build(
        spec.loss, outputs=model.description["outputs"], label_smoothing=spec.regularize.label_smoothing
    )
    kind, given = spec.loss.kind, model.description.get("class_weights")
    weights = None if given is None else torch.tensor(given, dtype=torch.float32)

    def measured(z: Tensor, part: Part) -> dict[str, float]:
        return measure(z, part, loss, class_weights=weights, scaler=model.scaler, kind=kind)

    runtime = _runtime(model.description)
    network = model.network.to(memory_format=torch.channels_last) if runtime.channels_last else model.network
    with machine(runtime, 0):
        forward = forward_of(network, runtime, compiled=False)
        z = outputs_of(forward, held_out, model.preprocessing)
        metrics, ablated = measured(z, held_out), {}
        if model.preprocessing.columns is not None:
            ablated["ablation"] = ablation(forward, held_out, model.preprocessing, measured, spec.train.seed)
    return z.numpy(), metrics, encoded.warnings or (), ablated


def _runtime(description: Mapping[str, Any]) -> Runtime:
    """The job's threads, precision and memory format where it computed on a CPU: they decide the last bits."""
    runtime = reuse_runtime({"compile": False, **description.get("runtime", _PLAIN)})
    if runtime.device != "cpu":
        return replace(reuse_runtime(_PLAIN), threads=1)
    return replace(runtime, compile=False, threads=min(runtime.threads, available_cores()))


_PLAIN = {
    "device": "cpu",
    "threads": 1,
    "precision": "float32",
    "compile": False,
    "channels_last": False,
    "deterministic": True,
}


def _answers(
    model: EnsembleModel, samples: LabelledSamples, ignore_extra: bool
) -> tuple[NDArray[np.float64], Sequence[RowWarnings]]:
    if samples.rows is not None:
        return model.answer_table(samples.rows, ignore_extra=ignore_extra)
    assert samples.data is not None
    assert samples.index is not None
    return model.answer_rows(samples.data.inputs, samples.index), ()


def _encoders(model: TrainedModel | EnsembleModel) -> list[Encoder]:
    if isinstance(model, EnsembleModel):
        return [encoder for member in model.members for encoder in _encoders(member)]
    return [model.encoder]


def _encode(encoder: Encoder, samples: LabelledSamples, ignore_extra: bool) -> Encoded:
    if samples.rows is not None:
        return parse(encoder, samples.rows, ignore_extra=ignore_extra)
    assert samples.data is not None
    assert samples.index is not None
    encoded = encode(encoder, samples.data.inputs, samples.index)
    try:
        refuse_non_finite(encoded, encoder, samples.index)
    except DataError as error:
        first = error.problems[0]
        raise _refusal(first.code, f"{first.where}: {first.message}", hint=first.hint) from None
    return encoded


def _fitting_inputs(encoder: Encoder, inputs: Any) -> Any:
    """The inputs, if they have the form that the encoder was fitted to; grey and colour images become each other."""
    if isinstance(encoder, ImageEncoder) and isinstance(inputs, ImageInputs):
        return _fitting_images(encoder, inputs)
    if isinstance(encoder, ImageTableEncoder) and isinstance(inputs, ImageInputs):
        if inputs.columns is None:
            hint = f"Give each image the columns {_listed(encoder.columns.names)}, in one table."
            raise _refusal(
                "needs_columns", "the model reads images and columns; these images have no columns", hint=hint
            )
        return _fitting_images(encoder.image, inputs)
    if isinstance(encoder, ImageEncoder | ArrayEncoder) and isinstance(inputs, ArrayInputs):
        found = tuple(inputs.values.shape[1:])
        if found not in (encoder.shape, encoder.shape[1:] if encoder.shape[:1] == (1,) else encoder.shape):
            raise _refusal(
                "wrong_shape", f"the model reads samples of shape {list(encoder.shape)}, these are {list(found)}"
            )
        if isinstance(encoder, ImageEncoder) and inputs.values.dtype != np.uint8:
            message = f"the model was trained on uint8 pixels, these are {inputs.values.dtype}"
            raise _refusal("wrong_type", message, hint="Send whole numbers 0..255 as uint8.")
        return inputs
    if isinstance(encoder, SequenceEncoder) and isinstance(inputs, SequenceInputs):
        features, lengths = inputs.values.shape[1], np.diff(inputs.offsets)
        if features != encoder.features:
            raise _refusal("wrong_shape", f"the model reads {encoder.features} values a step, these have {features}")
        if encoder.table is not None and inputs.table is not None and encoder.table.features != inputs.table.features:
            message = f"the model reads the columns {_listed(encoder.table.features)}, in this order"
            raise _refusal("wrong_columns", f"{message}; these are {_listed(inputs.table.features)}")
        if encoder.fixed is not None and (wrong := np.flatnonzero(lengths != encoder.fixed)).size:
            row = int(wrong[0])
            message = f"row {row}: the model reads sequences of {encoder.fixed} steps, this one has {lengths[row]}"
            raise _refusal("wrong_shape", message, row=row)
        return inputs
    raise _wrong_kind(encoder, inputs)


def _wrong_kind(encoder: Encoder, inputs: Any) -> InputError:
    kinds = {
        ImageEncoder: "images",
        ArrayEncoder: "arrays",
        SequenceEncoder: "sequences",
        TableEncoder: "a table",
        ImageTableEncoder: "images with the columns of a table",
    }
    held = {ImageInputs: "images", ArrayInputs: "arrays", SequenceInputs: "sequences", TableInputs: "a table"}
    return _refusal("wrong_kind", f"the model reads {kinds[type(encoder)]}, and the data are {held[type(inputs)]}")


def _fitting_images(encoder: ImageEncoder, inputs: ImageInputs) -> ImageInputs:
    channels, height, width = encoder.shape
    _, found_height, found_width, found = inputs.pixels.shape
    if (found_height, found_width) != (height, width):
        message = f"the model reads images of {width} x {height} pixels, these were brought to {found_width} x "
        hint = f"Read the dataset again with image_size={width}x{height}, or send its file."
        raise _refusal("wrong_size", f"{message}{found_height}", hint=hint)
    return inputs if found == channels else ImageInputs(with_channels(inputs.pixels, channels), inputs.columns)


def _labelled(
    model: TrainedModel | EnsembleModel,
    spec: JobSpec,
    data: Dataset | TableRows | ImageRows,
    target: str | None,
    part: PartName,
    is_training_dataset: bool,
) -> LabelledSamples:
    """The samples of the part with their answers."""
    tables, images = model.table_encoders, model.image_encoders
    if not isinstance(data, Dataset):
        if not tables or bool(images) != isinstance(data, ImageRows):
            what = "rows of a table" if isinstance(data, TableRows) else "images with rows of a table"
            raise _refusal("wrong_kind", f"the model does not read {what}")
        if part != "all":
            raise _no_part(part)
        rows = data if isinstance(data, TableRows) else data.rows
        return _with_labels(LabelledSamples(_table_truth(model, rows, target), rows=data))
    of_training = is_training_dataset and part != "all"
    index = np.arange(data.facts.samples) if of_training else _shipped(data, part)
    known = [*(column for encoder in tables for column in encoder.format.columns)]
    if tables and not images:
        if not isinstance(data.inputs, TableInputs):
            raise _wrong_kind(tables[0], data.inputs)
        rows = rows_of(data.inputs, known, index)
        samples = LabelledSamples(_table_truth(model, rows, target), rows=rows, index=index)
        if not of_training:
            return _with_labels(samples, refuses=not is_training_dataset)
    else:
        inputs = data.inputs
        for encoder in _encoders(model):
            inputs = _fitting_inputs(encoder, inputs)
        truth = _targets(model, data, index)
        if tables:
            assert isinstance(inputs, ImageInputs)
            assert inputs.columns is not None  # _fitting_inputs() has refused images without columns
            of_images = ImageRows(_chosen_rows(inputs.pixels, index), rows_of(inputs.columns, known, index))
            samples = LabelledSamples(truth, rows=of_images, index=index)
        else:
            samples = LabelledSamples(truth, data=replace(data, inputs=inputs), index=index)
    if not of_training:
        return samples
    gaps = _gaps(samples.truth)
    labels = samples.truth if model.classes is not None else None
    parts = cut_parts(spec, data, labels, np.flatnonzero(~gaps) if gaps.any() else None)
    return _chosen(samples, _of(parts, part))


def _gaps(truth: NDArray[Any]) -> NDArray[np.bool_]:
    """(n,) whether a sample has no label."""
    missing: NDArray[np.bool_] = truth < 0 if truth.dtype.kind == "i" else np.isnan(truth).any(1)
    return missing


def _with_labels(samples: LabelledSamples, *, refuses: bool = True) -> LabelledSamples:
    """The rows that have a label. Raises InputError where more than half of the rows have none."""
    gaps = _gaps(samples.truth)
    if not gaps.any():
        return samples
    rows, missing = samples.rows, np.flatnonzero(gaps)
    assert rows is not None
    if gaps.all() or (refuses and len(missing) > MOST_UNLABELLED * len(gaps)):
        message = f"{len(missing)} of {len(gaps)} rows have no label"
        hint = "Send the labels, or only the rows that have one."
        raise _refusal("missing_label", f"{message}; the first is {rows.place(int(missing[0]))}", hint=hint)
    known = np.flatnonzero(~gaps)
    first = rows.number(int(missing[0]))
    return replace(_chosen(samples, known), unlabelled=(len(missing), first))


def _chosen(samples: LabelledSamples, index: Index) -> LabelledSamples:
    """Some of the samples, by their positions."""
    rows = None if samples.rows is None else samples.rows.take(index.tolist())
    positions = None if samples.index is None else samples.index[index]
    return replace(samples, truth=samples.truth[index], rows=rows, index=positions)


def _chosen_rows(pixels: NDArray[np.uint8], index: Index) -> NDArray[np.uint8]:
    """The rows; all of them stay where they lie, on the disk."""
    return pixels if len(index) == len(pixels) else pixels[index]


def _of(parts: Parts, part: str) -> Index:
    found: Index = getattr(parts, part)
    return found


def _shipped(data: Dataset, part: str) -> Index:
    """Rows of a part that the dataset ships."""
    if part == "all":
        return np.arange(data.facts.samples)
    if data.split is None:
        raise _no_part(part)
    return np.flatnonzero(np.asarray(data.split) == ("train", "validation", "test").index(part))


def _no_part(part: str) -> InputError:
    hint = "Leave `part` out to evaluate all samples; only the training dataset and datasets with a split have parts."
    return _refusal("no_such_part", f"these data have no part {part}", hint=hint)


def rows_of(inputs: TableInputs, formats: Sequence[ColumnFormat], index: Index) -> TableRows:
    """A dataset's rows as cells that another table's `formats` read: numbers as numbers, text as its file wrote it."""
    types = {column.name: column.type for column in formats}
    columns = {name: _cells(column, index, types.get(name, "category")) for name, column in inputs.columns.items()}
    return TableRows(columns, len(index), (), index.tolist())


def _cells(column: Column, index: Index, column_type: str) -> list[Any]:
    values = np.asarray(column.values)[index].tolist()
    if column.categories is not None:
        return [None if code < 0 else column.categories[code] for code in values]
    if column.is_date:
        return [None if value != value else EPOCH + timedelta(microseconds=round(value * 1e6)) for value in values]
    if column_type == "number" or column.texts is None:
        return [None if value != value else value for value in values]
    numbers = np.unique(np.asarray(column.values))  # NaN comes last, and has no text
    return [None if v != v else column.texts[int(np.searchsorted(numbers, v))] for v in values]


def _table_truth(model: TrainedModel | EnsembleModel, rows: TableRows, target: str | None) -> NDArray[Any]:
    """The answers in the target column, read as that column of the training file was; -1 or NaN for a gap."""
    trained = model.description.get("dataset", {}).get("target")
    name = target or trained
    if name is None:
        hint = "Name it as `target`."
        raise _refusal("missing_target", "the model does not say which column it was trained to predict", hint=hint)
    column = next(
        (found for encoder in model.table_encoders if (found := encoder.format.column(trained or name)) is not None),
        None,
    )
    if column is None:
        raise _refusal("missing_target", f'the training file had no column "{trained or name}"', column=name)
    if name not in rows.columns:
        hint = f"Columns: {', '.join(list(rows.columns)[:30])}. Another name of it is given as `target`."
        raise _refusal("missing_column", f'the target column "{name}" is missing', column=name, hint=hint)
    read: list[Any] = []
    problems = []
    for row, cell in enumerate(rows.columns[name]):
        try:
            value = column.read(None if cell is ABSENT else cell)
            if isinstance(value, float) and not np.isfinite(value):
                raise CellError(f"is {value}")
            read.append(value)
        except CellError as error:
            read.append(None)
            message = f'{rows.place(row)}: the target "{name}" {error}'
            problems.append(InputProblem("invalid_label", message, rows.number(row), name))
    if problems:
        raise InputError(problems[:MOST_PROBLEMS])
    if model.classes is None:
        return np.array(read, np.float64).reshape(-1, 1)
    places: dict[Any, int] = {column.read(label): position for position, label in enumerate(model.classes)}
    places[None] = UNLABELLED
    labels = [value if isinstance(value, str) else category_of(value) for value in read]
    return _class_indices([places.get(value) for value in read], labels, model.classes, rows, name)


def _targets(model: TrainedModel | EnsembleModel, data: Dataset, index: Index) -> NDArray[Any]:
    """The dataset's targets as indices of the model's classes, by name, or as numbers."""
    if data.targets is None:
        raise _refusal("no_labels", "the data have no labels to compare with", hint="Send labelled data.")
    values = np.asarray(data.targets)[index]
    names = list(data.facts.classes) if data.facts.classes is not None else None
    if model.classes is None:
        return _numbers(values, names, model.description["outputs"] if isinstance(model, TrainedModel) else None)
    if names is None:
        if values.ndim > 1 and values.shape[1] != 1:
            raise _refusal("wrong_shape", f"each sample has {values.shape[1]} numbers, and no class")
        labels = [category_of(value) for value in values.reshape(-1).tolist()]
    else:
        labels = [names[code] for code in values.tolist()]
    places = {name: position for position, name in enumerate(model.classes)}
    found = [places.get(label) for label in labels]
    return _class_indices(found, labels, model.classes, TableRows({}, len(index), (), index.tolist()), None)


def _numbers(values: NDArray[Any], names: Sequence[str] | None, width: int | None) -> NDArray[np.float64]:
    if names is not None:
        try:
            values = np.array([float(name) for name in names])[values]
        except ValueError:
            message = f"the model predicts numbers, and the labels are classes: {_listed(names)}"
            raise _refusal("labels_not_numbers", message) from None
    numbers = values.astype(np.float64).reshape(len(values), -1)
    if width is not None and numbers.shape[1] != width:
        raise _refusal("wrong_shape", f"the model predicts {width} numbers, each sample has {numbers.shape[1]}")
    return numbers


def _class_indices(
    found: Sequence[int | None], labels: Sequence[str], classes: Sequence[str], rows: TableRows, column: str | None
) -> NDArray[np.int64]:
    """(n,) indices. Raises InputError that names the rows whose label the model does not know."""
    unknown = [row for row, position in enumerate(found) if position is None]
    if unknown:
        counts = Counter(labels[row] for row in unknown)
        listed = ", ".join(f"{shown(label)} ({count})" for label, count in counts.most_common(10))
        hint = f"Unknown labels, with their rows counted: {listed}. Classes of the model: {_listed(classes)}."
        raise InputError(
            [
                InputProblem(
                    "unknown_label",
                    f"{rows.place(row)}: the label {shown(labels[row])} is none of the model's classes",
                    rows.number(row),
                    column,
                    hint,
                )
                for row in unknown[:MOST_PROBLEMS]
            ]
        )
    return np.array(found, np.int64)


def _part_warnings(part: str, is_training_dataset: bool) -> list[dict[str, Any]]:
    if not is_training_dataset or part not in ("all", "train"):
        return []
    message = "the model was trained on some of these samples: the metrics say nothing of new ones"
    return [{"code": "trained_on", "message": f'{message}. Use "part": "test".'}]


def _unlabelled_warnings(samples: LabelledSamples) -> list[dict[str, Any]]:
    if samples.unlabelled is None:
        return []
    count, first = samples.unlabelled
    message = f"{count} row{'s have' if count > 1 else ' has'} no label and {'are' if count > 1 else 'is'} left out"
    return [{"code": "unlabelled_rows", "message": message, "rows": count, "first_row": first}]


def _dtype_warnings(model: TrainedModel | EnsembleModel, samples: LabelledSamples) -> list[dict[str, Any]]:
    trained = model.description.get("dataset", {}).get("input_dtype")
    if samples.data is None or not isinstance(samples.data.inputs, ArrayInputs) or trained is None:
        return []
    found = samples.data.inputs.values.dtype
    if (np.dtype(trained).kind == "f") == (found.kind == "f"):
        return []
    message = f"the model was trained on {trained} values, these are {found}: check that they have the same scale"
    return [{"code": "other_type", "message": message}]


def _row_warnings(of_rows: Sequence[RowWarnings], samples: LabelledSamples) -> list[dict[str, Any]]:
    """One entry for each column and code: how many rows, and the first of them."""
    grouped: dict[tuple[str, str], dict[str, Any]] = {}
    for row, warnings in enumerate(of_rows):
        first = row if samples.rows is None else samples.rows.number(row)
        for warning in warnings:
            key = (warning["column"], warning["code"])
            grouped.setdefault(key, {**warning, "rows": 0, "first_row": first})["rows"] += 1
    return list(grouped.values())


def _listed(names: Sequence[str]) -> str:
    return ", ".join(shown(name) for name in list(names)[:20]) + (" ..." if len(names) > 20 else "")


def _refusal(
    code: str, message: str, *, row: int | None = None, column: str | None = None, hint: str = ""
) -> InputError:
    return InputError([InputProblem(code, message, row, column, hint)])
